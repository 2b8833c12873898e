/* SPDX-License-Identifier: Apache-2.0 */
#include "loader/read_ahead.h"

#include "common/err.h"
#include "common/log.h"
#include "common/memory.h"
#include "datasets/ahead.h"

static uint64_t stores_bytes(const struct known *known)
{
    uint64_t bytes = 0;
    for (int i = 0; i < known->store_count; i++)
        bytes += store_file_bytes(known->stores[i].store);
    return bytes;
}

/* Of that many bytes of stores, what is left to the page cache: all, or half of what memory there
 * is. The rest of memory is others', a trainer's on the same host for example. */
static uint64_t cache_bytes(const struct server_config *config, uint64_t bytes)
{
    if (config->page_cache_mib >= 0)
        return (uint64_t)config->page_cache_mib << 20;
    uint64_t available = memory_available("");
    return bytes <= available / 4 * 3 ? bytes : available / 2;
}

/* Each store keeps the same share of itself in the page cache: its first part, for whatever is read
 * of it at random would be gone before it is wanted again. */
static bool limit_caches(const struct known *known, uint64_t cached, uint64_t bytes)
{
    bool any = false;
    for (int i = 0; i < known->store_count; i++) {
        const struct known_store *store = &known->stores[i];
        uint64_t own = store_file_bytes(store->store);
        uint64_t kept = (uint64_t)((double)own / (double)bytes * (double)cached);
        if (!store->announces)
            continue;
        if (store_limit_cache(store->store, kept)) {
            log_warn("%s: larger than memory, it will go through the page cache, at a lower rate",
                     err_message());
            continue;
        }
        any = true;
        log_info("store %s: %llu of its %llu MiB are left to the page cache, the rest is read past "
                 "it (--page-cache-mib)",
                 store->facts.name, (unsigned long long)(kept >> 20),
                 (unsigned long long)(own >> 20));
    }
    return any;
}

int read_ahead_open(struct server *server)
{
    const struct server_config *config = &server->config;
    uint64_t bytes = stores_bytes(&server->known), cached = cache_bytes(config, bytes);
    if (!config->read_ahead || cached >= bytes)
        return ERR_OK;
    /* One for each job in the pool, and as many again for those that will come next. */
    int code = aheads_open(&server->aheads, 2 * (unsigned)config->workers + POOL_AHEAD);
    if (code == ERR_IO) {
        log_warn("%s: stores larger than memory will go through the page cache, at a lower rate",
                 err_message());
        return ERR_OK;
    }
    if (!code && !limit_caches(&server->known, cached, bytes)) {
        aheads_close(server->aheads);
        server->aheads = NULL;
    }
    return code;
}

void read_ahead_close(struct server *server)
{
    aheads_close(server->aheads);
}

size_t read_ahead_bytes(const struct server *server)
{
    return server->aheads ? (2 * (size_t)server->config.workers + POOL_AHEAD) * AHEAD_WINDOW_BYTES
                          : 0;
}

static void begin(struct server *server, struct job *job)
{
    uint32_t ids[SPEC_MAX_CHUNK_SIZE];
    const struct known_store *store = job->spec->store;
    size_t count = builder_ids(ids, &job->spec->spec, job->request.epoch, job->request.chunk,
                               store->facts.sample_count);
    struct ahead *ahead = server->aheads ? ahead_take(server->aheads) : NULL;
    if (ahead)
        ahead_begin(ahead, store->store, ids, count);
    else
        store_announce(store->store, ids, count);
    job->work.build.ahead = ahead;
}

static bool wanted(const struct server *server, const struct job *job)
{
    return server->config.read_ahead && job->spec->store->announces && !job->request.isolate;
}

void read_ahead_request(struct server *server, struct job *job)
{
    unsigned for_pool = (unsigned)server->config.workers + POOL_AHEAD - server->in_pool;
    if (wanted(server, job) && (!server->aheads || aheads_free(server->aheads) > for_pool))
        begin(server, job);
}

void read_ahead_dispatch(struct server *server, struct job *job)
{
    if (wanted(server, job) && server->aheads && !job->work.build.ahead)
        begin(server, job);
}

void read_ahead_end(struct job *job)
{
    ahead_give(job->work.build.ahead);
    job->work.build.ahead = NULL;
}

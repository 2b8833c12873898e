/* SPDX-License-Identifier: Apache-2.0 */
/* The service: its parts and its loop; who is cut off. */
#include "loader/server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/file.h"
#include "common/log.h"
#include "common/stop.h"
#include "loader/decode.h"
#include "loader/read_ahead.h"
#include "loader/sample.h"
#include "loader/selftest.h"
#include "loader/server_state.h"
#include "proto/endpoint.h"
#include "proto/recipe.h"

enum {
    TICK_MS = 100,
    RETRY_MS = 5, /* while an answer waits for room in ZeroMQ's queue */
    PING_SECONDS = 2,
    CHECK_SECONDS = 1,
    MESSAGE_LIMIT = 256 << 10, /* of what a trainer sends before a message of it is complete */
    STOP_SECONDS = 2,
    LINGER_MS = 1000,
    CUT_MS = 500,     /* in which a banned trainer may read why */
    BAN_SECONDS = 60, /* in which its key is kept out */
};

static int64_t seconds_ns(int seconds)
{
    return seconds * INT64_C(1000000000);
}

/* ---- trainers ---- */

/* Should it still read there, it will see that these are no longer the pixels of its chunk. */
static void take_back_lent(struct client *client)
{
    struct buffer *buffer;
    while ((buffer = client_take_back_any(client)))
        buffer_give(buffer);
}

void server_forget(struct server *server, struct client *client, const char *why)
{
    if (client->gone)
        return;
    if (client->greeted)
        log_info("%s: %s", client->name, why);
    client->gone = true;
    jobs_drop_queued(client);
    take_back_lent(client);
}

void server_ban(struct server *server, struct client *client, enum frame_reason reason,
                const char *what)
{
    if (client->banned)
        return;
    client->banned = true;
    client->cut_ns = clock_ns() + CUT_MS * INT64_C(1000000);
    talk_refuse(server, client, reason, 0, what);
    jobs_drop_queued(client);
    take_back_lent(client);
}

/* Trainers whose connection is closed need not wait for the next ping. */
static void forget_closed(struct server *server)
{
    for (int i = 0; i < server->clients.count; i++) {
        struct client *client = server->clients.list[i];
        if (client->connection && !sock_is_open(server->sock, client->connection))
            server_forget(server, client, "disconnected");
    }
}

/* Closes the connections of trainers that were banned a moment ago, and keeps their keys out for a
 * while. */
static void cut_banned(struct server *server)
{
    int64_t now = clock_ns();
    for (int i = 0; i < server->clients.count; i++) {
        struct client *client = server->clients.list[i];
        if (!client->banned || client->gone || client->cut_ns == 0 || now < client->cut_ns)
            continue;
        client->cut_ns = 0;
        char name[KEY_NAME_BYTES]; /* a key that was taken away needs no ban */
        if (client->key[0] && zap_allows(server->access.zap, client->key, name))
            zap_ban(server->access.zap, client->key, BAN_SECONDS);
        sock_cut(server->sock, client->connection);
    }
}

/* The allow-list was read again: who is no longer on it is cut off. */
static void cut_revoked(struct server *server)
{
    char name[KEY_NAME_BYTES];
    for (int i = 0; i < server->clients.count; i++) {
        struct client *client = server->clients.list[i];
        if (!client->gone && !zap_allows(server->access.zap, client->key, name))
            server_ban(server, client, FRAME_REASON_KEY,
                       "this trainer's key was taken off the allow-list");
    }
}

/* ---- the loop ---- */

/* A trainer that has chunks in ZeroMQ's hands and takes none of them. */
static void drop_stuck(struct server *server, struct client *client, int64_t now)
{
    int holds = atomic_load(&client->holds);
    unsigned released = client->taken - (unsigned)holds;
    if (holds <= (int)(client->building + client->waiting) || released != client->released) {
        client->released = released;
        client->progress_ns = now;
    } else if (now - client->progress_ns > seconds_ns(SERVER_STUCK_SECONDS)) {
        server_ban(server, client, FRAME_REASON_LIMIT, "it takes none of its chunks");
    }
}

/* A ROUTER learns that a peer is gone only when it sends to it. */
static void ping_trainers(struct server *server)
{
    int64_t now = clock_ns();
    if (now - server->ping_ns < seconds_ns(PING_SECONDS))
        return;
    server->ping_ns = now;
    const struct frame ping = {.kind = FRAME_PING};
    for (int i = 0; i < server->clients.count; i++) {
        if (!server->clients.list[i]->gone)
            talk_send(server, server->clients.list[i], &ping);
        if (!server->clients.list[i]->gone)
            drop_stuck(server, server->clients.list[i], now);
    }
}

/* Stores must be what they were when they were opened. */
static int check_stores(struct server *server)
{
    int64_t now = clock_ns();
    if (*server->broken)
        return err_set(ERR_IO, "%s", server->broken);
    if (now - server->check_ns < seconds_ns(CHECK_SECONDS))
        return ERR_OK;
    server->check_ns = now;
    return known_check(&server->known);
}

static void begin_stop(struct server *server)
{
    log_info("stopping: %u requests to finish", clients_busy(&server->clients));
    server->stopping = true;
    server->stop_ns = clock_ns() + seconds_ns(STOP_SECONDS);
    const struct frame goodbye = {.kind = FRAME_GOODBYE, .goodbye = {"the loader is stopping"}};
    for (int i = 0; i < server->clients.count; i++)
        if (server->clients.list[i]->greeted && !server->clients.list[i]->gone)
            talk_send(server, server->clients.list[i], &goodbye);
}

static bool finished(struct server *server)
{
    return server->stopping &&
           (clients_busy(&server->clients) == 0 || clock_ns() >= server->stop_ns);
}

static void count_now(struct server *server)
{
    struct metrics_counts *counts = &server->metrics.counts;
    counts->trainers = 0;
    for (int i = 0; i < server->clients.count; i++)
        counts->trainers += server->clients.list[i]->greeted && !server->clients.list[i]->gone;
    counts->queued = clients_queued(&server->clients);
    counts->building = server->in_pool;
    counts->buffer_bytes = buffers_taken_bytes(server->buffers);
}

int server_run(struct server *server)
{
    while (!finished(server)) {
        struct sock_poll_item items[] = {
            {.sock = server->sock}, {.fd = server->wake_fd}, {.fd = stop_fd()}};
        int code = sock_poll(items, server->stopping ? 2 : 3,
                             server->waiting || server->stopping ? RETRY_MS : TICK_MS);
        if (code)
            return code;
        uint64_t woken;
        if (items[1].readable && read(server->wake_fd, &woken, sizeof(woken)) < 0 &&
            errno != EAGAIN)
            return err_set(ERR_IO, "eventfd: %s", strerror(errno));
        jobs_take_done(server);
        if ((code = check_stores(server)))
            return code;
        if (server->waiting)
            jobs_retry_waiting(server);
        if (access_reloaded(&server->access))
            cut_revoked(server);
        if ((code = talk_receive(server)))
            return code;
        sock_watch(server->sock, MESSAGE_LIMIT);
        forget_closed(server);
        cut_banned(server);
        if (stop_requested() && !server->stopping)
            begin_stop(server);
        jobs_dispatch(server);
        ping_trainers(server);
        clients_sweep(&server->clients, false);
        count_now(server);
        metrics_tick(&server->metrics, false);
    }
    return ERR_OK;
}

/* ---- opening and closing ---- */

static int check_endpoint(const struct server_config *config)
{
    int code = endpoint_check(config->bind, true);
    if (code)
        return err_wrap(code, "--bind");
    if (!config->insecure && !config->secret_key && !endpoint_is_local(config->bind))
        return err_set(ERR_ARG,
                       "--bind %s: anybody who reaches this port could read the data; give keys "
                       "(--secret-key FILE --allow DIR), bind to 127.0.0.1 or ipc://, or say "
                       "--insecure",
                       config->bind);
    return ERR_OK;
}

/* Images that are decoded whole. */
static bool has_unindexed(const struct known *known)
{
    for (int i = 0; i < known->store_count; i++) {
        const struct store_meta *meta = store_meta(known->stores[i].store);
        if (meta->encoding == STORE_JPEG && meta->indexed < meta->sample_count)
            return true;
    }
    return false;
}

/* The memory (RssAnon and RssShmem) this loader will take, for the paper's baseline (224 px, chunks
 * of 8). */
static void print_memory(const struct server *server)
{
    struct recipe recipe;
    struct opt_section section = recipe_section(&recipe);
    struct spec spec;
    if (opt_defaults(&section) || recipe_train_spec(&spec, &recipe, 3))
        return;
    enum { PROGRAM_BYTES = 800 << 10 }; /* all else, measured */
    const double mib = 1 << 20;
    const struct server_config *config = &server->config;
    double scratch = (double)builder_bytes(&spec) / mib;
    size_t chunk = buffer_bytes(spec.chunk_size * frame_label_bytes(&spec), spec.chunk_size,
                                spec.chunk_size * spec_sample_bytes(&spec));
    double chunks = (double)chunk / mib * config->credits,
           most = (double)config->buffer_bytes / mib;
    log_info(
        "memory: about %.1f MiB with one trainer at 224 px: %d workers x %.1f MiB and %d chunks "
        "x %.1f MiB; each more trainer as many chunks, in all at most %.0f MiB of them",
        (PROGRAM_BYTES + read_ahead_bytes(server)) / mib + config->workers * scratch +
            (chunks < most ? chunks : most),
        config->workers, scratch, config->credits, (double)chunk / mib, most);
    if (has_unindexed(&server->known))
        log_info("memory: images without side index are decoded whole: up to %d MiB a worker more",
                 DECODE_KEEP_BYTES >> 20);
}

/* Only trainers of this host can read this process's memory, and only as the same user; whether one
 * can it tells itself. */
static int open_memory(struct server *server)
{
    const struct server_config *config = &server->config;
    bool wanted = config->shared_memory && strncmp(config->bind, "ipc://", 6) == 0;
    if (wanted &&
        (share_token_make(&server->token) || share_create(&server->probe, &server->token, 0, 0)))
        log_warn("%s (chunks go through the socket)", err_message());
    return buffers_open(&server->buffers, config->buffer_bytes, server->wake_fd,
                        server->probe.map ? &server->token : NULL);
}

static int check_outputs(const struct server *server)
{
    const char *const outputs[] = {server->config.metrics_file, server->config.ready_file};
    int code = 0;
    for (size_t i = 0; i < ARRAY_COUNT(outputs) && !code; i++) {
        code = file_check_output(outputs[i], server->config.secret_key, "the secret key");
        if (!code)
            code = known_check_output(&server->known, outputs[i]);
    }
    return code;
}

static int open_parts(struct server *server)
{
    const struct server_config *config = &server->config;
    int code = check_endpoint(config);
    for (size_t i = 0; i < config->data_count && !code; i++)
        code = known_open_store(&server->known, config->data[i]);
    if (!code)
        code = check_outputs(server);
    if (!code)
        code = read_ahead_open(server);
    if (!code)
        code = selftest_run(&server->self_test);
    if (code)
        return code;
    server->message = sock_message_open();
    server->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!server->message || server->wake_fd < 0)
        return err_set(ERR_NOMEM, "loader: %s", strerror(errno));
    if ((code = sock_context_open(&server->context, config->io_threads)) ||
        (code = access_open(&server->access, server->context, config->secret_key, config->allow)) ||
        (code = sock_bind(&server->sock, server->context, config->bind, config->credits,
                          access_keys(&server->access))) ||
        (code = open_memory(server)))
        return code;
    return pool_open(&server->pool, config->workers, config->decoder, config->strict,
                     server->wake_fd);
}

int server_open(struct server **out, const struct server_config *config)
{
    struct server *server = calloc(1, sizeof(*server));
    if (!server)
        return err_set(ERR_NOMEM, "loader: out of memory");
    server->wake_fd = -1;
    server->access.reload_fd = -1;
    server->config = *config;
    if (config->workers == 0)
        server->config.workers = get_nprocs();
    if (config->credits == 0) {
        /* Two per worker keep it busy, eight more bridge the way to the trainer and back. */
        int credits = 2 * server->config.workers + 8;
        server->config.credits = credits < FRAME_MAX_CREDITS ? credits : FRAME_MAX_CREDITS;
    }
    metrics_open(&server->metrics, config->metrics_file);
    int code = open_parts(server);
    if (code)
        goto fail;
    print_memory(server);
    if (config->ready_file) {
        code = file_write_atomic(config->ready_file, sock_endpoint(server->sock),
                                 strlen(sock_endpoint(server->sock)));
        if (code)
            goto fail;
    }
    log_info("listening on %s", sock_endpoint(server->sock));
    *out = server;
    return ERR_OK;
fail:
    server_close(server);
    return code;
}

void server_close(struct server *server)
{
    if (!server)
        return;
    if (server->pool) {
        pool_stop(server->pool);
        struct pool_job *work;
        while ((work = pool_take(server->pool)))
            job_free((struct job *)work);
    }
    while (server->waiting) {
        struct job *next = server->waiting->next;
        job_free(server->waiting);
        server->waiting = next;
    }
    for (int i = 0; i < server->clients.count; i++)
        jobs_drop_queued(server->clients.list[i]);
    if (server->pool) {
        count_now(server);
        metrics_tick(&server->metrics, true);
    }
    sock_message_close(server->message);
    sock_close(server->sock, LINGER_MS);
    access_close(&server->access);
    sock_context_close(server->context); /* waits for what is being sent: buffers come back */
    pool_close(server->pool);
    for (int i = 0; i < server->clients.count; i++)
        take_back_lent(server->clients.list[i]);
    clients_sweep(&server->clients, true);
    buffers_close(server->buffers);
    read_ahead_close(server);
    share_destroy(&server->probe);
    if (server->wake_fd >= 0)
        close(server->wake_fd);
    known_close(&server->known);
    free(server);
}

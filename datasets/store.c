/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a store: opening with every check, records by id, announcements to the kernel.
 *
 * LMDB allows a read transaction on one thread at a time. A store therefore holds a fixed set of
 * them, all of the same (only) snapshot; a reader takes a free one with an atomic exchange,
 * starting at a place of its own thread, and gives it back microseconds later. */
#include "datasets/store.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <lmdb.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/err.h"
#include "datasets/fault.h"
#include "datasets/meta.h"
#include "datasets/record.h"
#include "datasets/store_head.h"
#include "datasets/store_partial.h"
#include "datasets/store_parts.h"

enum {
    SLOTS = 64,
    CACHE_LINE = 64,
    DIRECT_BYTES_MIN = 16384,  /* smaller records are not worth a read of their own */
    MAP_SLACK_BYTES = 1 << 20, /* address space behind the file's end: see open_environment */
};

struct slot {
    _Alignas(CACHE_LINE) atomic_bool taken;
    MDB_txn *txn;
};

struct store {
    struct store *next; /* registry_lock */
    unsigned users;     /* registry_lock */
    dev_t device;
    ino_t inode;
    char *path;
    MDB_env *env;
    MDB_dbi dbi;
    const uint8_t *map; /* [file_bytes] */
    size_t file_bytes;
    int fd;                    /* LMDB's */
    struct timespec file_time; /* of its last change, at opening */
    int direct_fd;             /* O_DIRECT; -1: everything goes through the page cache */
    uint64_t cached_bytes;     /* of the file, which do in any case */
    struct slot *slots;        /* [SLOTS] */
    struct meta meta;
};

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static struct store *registry; /* registry_lock: all open stores */

/* LMDB's assertions fire on damaged tree pages. */
static void on_assertion(MDB_env *env, const char *text)
{
    (void)env;
    (void)text;
    sigjmp_buf *landing = fault_landing;
    fault_landing = NULL;
    if (landing)
        siglongjmp(*landing, 1);
}

/* mdb_get whose assertions and wild reads come back as MDB_CORRUPTED. It holds nothing that a jump
 * out of it would leak: its cursor is on the stack. */
static int get_guarded(MDB_txn *txn, MDB_dbi dbi, uint32_t key_value, MDB_val *value)
{
    MDB_val key = {sizeof key_value, &key_value};
    sigjmp_buf landing;
    if (sigsetjmp(landing, 0))
        return MDB_CORRUPTED;
    fault_landing = &landing;
    int code = mdb_get(txn, dbi, &key, value);
    fault_landing = NULL;
    return code;
}

static unsigned slot_take(const struct store *store)
{
    static atomic_uint threads;
    static _Thread_local unsigned home = UINT32_MAX;
    if (home == UINT32_MAX)
        home = atomic_fetch_add(&threads, 1) % SLOTS;
    for (;;) {
        for (unsigned i = 0; i < SLOTS; i++) {
            unsigned at = (home + i) % SLOTS;
            if (!atomic_exchange_explicit(&store->slots[at].taken, true, memory_order_acquire))
                return at;
        }
        sched_yield();
    }
}

static void slot_give(const struct store *store, unsigned at)
{
    atomic_store_explicit(&store->slots[at].taken, false, memory_order_release);
}

/* Finds a key's value without touching it: only tree pages are read. The tree is data from disk:
 * a value that leaves the file is refused here. */
static int find(const struct store *store, uint32_t key, const uint8_t **data, size_t *bytes)
{
    MDB_val value = {0};
    unsigned at = slot_take(store);
    MDB_txn *txn = store->slots[at].txn;
    int code = get_guarded(txn, store->dbi, key, &value);
    if (code && code != MDB_NOTFOUND) {
        /* LMDB marks a transaction that met a damaged page as failed for good. */
        mdb_txn_reset(txn);
        mdb_txn_renew(txn);
    }
    slot_give(store, at);
    if (code == MDB_NOTFOUND)
        return err_set(ERR_DATA, "no such record");
    if (code)
        return err_set(ERR_DATA, "damaged database page (%s)", mdb_strerror(code));
    uintptr_t begin = (uintptr_t)store->map, from = (uintptr_t)value.mv_data;
    if (from < begin || from - begin > store->file_bytes ||
        value.mv_size > store->file_bytes - (from - begin))
        return err_set(ERR_DATA, "damaged database page (record outside of the file)");
    *data = value.mv_data;
    *bytes = value.mv_size;
    return 0;
}

/* LMDB follows page numbers only up to the last page of its meta page: with those all inside the
 * file, its reads are too, but for offsets in damaged tree pages, which reach up to 128 KiB further
 * unchecked; the slack makes such a read a fault, which get_guarded catches, whatever else is
 * mapped behind the file. */
static int open_environment(struct store *store)
{
    MDB_envinfo info;
    MDB_stat stat;
    struct stat status;
    int code = mdb_env_create(&store->env);
    if (code)
        return err_set(ERR_NOMEM, "%s: %s", store->path, mdb_strerror(code));
    mdb_env_set_assert(store->env, on_assertion);
    mdb_env_set_mapsize(store->env, store->file_bytes + MAP_SLACK_BYTES);
    code = mdb_env_open(store->env, store->path,
                        MDB_NOSUBDIR | MDB_RDONLY | MDB_NOLOCK | MDB_NOTLS | MDB_NORDAHEAD, 0);
    if (code)
        return err_set(code > 0 ? ERR_IO : ERR_DATA, "%s: cannot be opened as a store: %s",
                       store->path, mdb_strerror(code));
    mdb_env_get_fd(store->env, &store->fd);
    if (fstat(store->fd, &status) != 0 || status.st_ino != store->inode ||
        status.st_dev != store->device || (size_t)status.st_size != store->file_bytes)
        return err_set(ERR_IO, "%s: the file changes while it is opened", store->path);
    store->file_time = status.st_mtim;
    mdb_env_info(store->env, &info);
    mdb_env_stat(store->env, &stat);
    if (info.me_last_pgno >= store->file_bytes / stat.ms_psize)
        return err_set(
            ERR_DATA, "%s: truncated: %zu bytes where %" PRIu64 " belong; copy or pack it again",
            store->path, store->file_bytes, ((uint64_t)info.me_last_pgno + 1) * stat.ms_psize);
    return 0;
}

static int open_transactions(struct store *store)
{
    unsigned flags = 0;
    store->slots = aligned_alloc(CACHE_LINE, SLOTS * sizeof *store->slots);
    if (!store->slots)
        return err_set(ERR_NOMEM, "%s: out of memory", store->path);
    memset(store->slots, 0, SLOTS * sizeof *store->slots);
    for (int i = 0; i < SLOTS; i++) {
        MDB_txn **txn = &store->slots[i].txn;
        int code = mdb_txn_begin(store->env, NULL, MDB_RDONLY, txn);
        if (!code && i == 0)
            code = mdb_dbi_open(*txn, NULL, 0, &store->dbi);
        if (!code && i == 0)
            code = mdb_dbi_flags(*txn, store->dbi, &flags);
        if (code)
            return err_set(ERR_DATA, "%s: %s", store->path, mdb_strerror(code));
    }
    if (!(flags & MDB_INTEGERKEY))
        return err_set(ERR_DATA, "%s: a database of another program, not a Satchel store",
                       store->path);
    return 0;
}

/* LMDB does not tell where it mapped the file; the kernel does. inside: an address in the map. */
static int find_map(struct store *store, const void *inside)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    if (!maps)
        return err_set(ERR_IO, "/proc/self/maps: %s", strerror(errno));
    char line[512];
    while (!store->map && fgets(line, sizeof line, maps)) {
        uintptr_t begin, end;
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR, &begin, &end) == 2 &&
            (uintptr_t)inside >= begin && (uintptr_t)inside < end &&
            end - begin >= store->file_bytes)
            store->map = (const uint8_t *)begin;
    }
    fclose(maps);
    return store->map ? 0 : err_set(ERR_INTERNAL, "%s: map not found", store->path);
}

/* Whatever stands under the meta record's key. */
static int open_map(struct store *store, const uint8_t **data, size_t *bytes)
{
    MDB_val value;
    int code = get_guarded(store->slots[0].txn, store->dbi, UINT32_MAX, &value);
    if (code == MDB_NOTFOUND)
        return err_set(ERR_DATA, "%s: incomplete store: packing did not finish; pack it again",
                       store->path);
    if (code)
        return err_set(ERR_DATA, "%s: damaged: %s", store->path, mdb_strerror(code));
    code = find_map(store, value.mv_data);
    if (code)
        return code;
    fault_register(store->map, store->file_bytes, store->path);
    code = find(store, UINT32_MAX, data, bytes);
    return code ? err_wrap(code, "%s", store->path) : 0;
}

static int refuse_unfinished(const char *path)
{
    return err_set(ERR_DATA,
                   "%s: incomplete store: packing did not finish; satchel-pack --resume goes on "
                   "with it",
                   path);
}

static int open_meta(struct store *store)
{
    const uint8_t *data;
    size_t bytes;
    int code = open_map(store, &data, &bytes);
    if (code)
        return code;
    if (partial_is(data, bytes))
        return refuse_unfinished(store->path);
    code = meta_decode(&store->meta, data, bytes);
    if (code)
        return err_wrap(code, "%s", store->path);
    MDB_stat stat;
    code = mdb_stat(store->slots[0].txn, store->dbi, &stat);
    if (code || stat.ms_entries != (size_t)store->meta.values.sample_count + 1)
        return err_set(ERR_DATA, "%s: damaged: %" PRIu32 " samples, but %zu records", store->path,
                       store->meta.values.sample_count, code ? 0 : stat.ms_entries);
    return 0;
}

/* A complete store's count says how far its writer came: to the end. */
static int open_progress(struct store *store, struct partial *partial)
{
    const uint8_t *data;
    size_t bytes;
    int code = open_map(store, &data, &bytes);
    if (code)
        return code;
    if (partial_is(data, bytes)) {
        code = partial_decode(partial, data, bytes);
        store->meta.values.sample_count = partial->count;
    } else {
        code = meta_decode(&store->meta, data, bytes);
        *partial = (struct partial){
            .tag = store->meta.tag, .next = UINT64_MAX, .count = store->meta.values.sample_count};
    }
    return code ? err_wrap(code, "%s", store->path) : 0;
}

/* Accepts half-built stores. */
static void dispose(struct store *store)
{
    if (store->map)
        fault_unregister(store->map);
    for (int i = 0; store->slots && i < SLOTS; i++)
        mdb_txn_abort(store->slots[i].txn);
    if (store->env)
        mdb_env_close(store->env);
    if (store->direct_fd >= 0)
        close(store->direct_fd);
    meta_release(&store->meta);
    free(store->slots);
    free(store->path);
    free(store);
}

/* partial NULL: the store must be complete. */
static int build(struct store **out, const char *path, const struct stat *status,
                 struct partial *partial)
{
    struct store *store = calloc(1, sizeof *store);
    if (!store)
        return err_set(ERR_NOMEM, "%s: out of memory", path);
    store->device = status->st_dev;
    store->inode = status->st_ino;
    store->file_bytes = (size_t)status->st_size;
    store->users = 1;
    store->direct_fd = -1;
    store->path = strdup(path);
    int code = store->path ? open_environment(store) : err_set(ERR_NOMEM, "out of memory");
    if (!code)
        code = open_transactions(store);
    if (!code)
        code = partial ? open_progress(store, partial) : open_meta(store);
    if (code) {
        dispose(store);
        return code;
    }
    *out = store;
    return 0;
}

static int open_registered(struct store **out, const char *path, const struct stat *status)
{
    int code = 0;
    pthread_mutex_lock(&registry_lock);
    struct store *store = registry;
    while (store && (store->device != status->st_dev || store->inode != status->st_ino))
        store = store->next;
    if (store && store->file_bytes != (size_t)status->st_size) {
        code = err_set(ERR_DATA, "%s: the file changed while it is in use", path);
    } else if (store) {
        store->users++;
    } else {
        code = build(&store, path, status, NULL);
        if (!code) {
            store->next = registry;
            registry = store;
        }
    }
    pthread_mutex_unlock(&registry_lock);
    *out = code ? NULL : store;
    return code;
}

int store_open(struct store **out, const char *path)
{
    *out = NULL;
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return err_set(ERR_IO, "%s: %s", path, strerror(errno));
    int code = store_check_head(&status, fd, path);
    /* Whatever is in it: the writer may have been killed between its last commit, which nothing has
     * synced yet, and the rename. */
    if (!code && partial_is_name(path))
        code = refuse_unfinished(path);
    if (!code)
        code = open_registered(out, path, &status);
    close(fd);
    return code;
}

void store_close(struct store *store)
{
    if (!store)
        return;
    pthread_mutex_lock(&registry_lock);
    if (--store->users == 0) {
        struct store **link = &registry;
        while (*link != store)
            link = &(*link)->next;
        *link = store->next;
        dispose(store);
    }
    pthread_mutex_unlock(&registry_lock);
}

int store_open_partial(struct store **out, struct partial *partial, const char *path, int fd)
{
    struct stat status;
    *out = NULL;
    *partial = (struct partial){0};
    int code = store_check_head(&status, fd, path);
    if (!code)
        code = build(out, path, &status, partial);
    return code;
}

void store_close_partial(struct store *store)
{
    if (store)
        dispose(store);
}

int store_record_of_partial(struct store_record *record, const struct store *store, uint32_t id,
                            uint64_t tag)
{
    const uint8_t *data;
    size_t bytes;
    int code = find(store, id, &data, &bytes);
    if (code)
        return err_wrap(code, "%s: record %" PRIu32, store->path, id);
    const char *reason = record_decode(record, data, bytes, id, tag);
    return reason ? err_set(ERR_DATA, "%s: record %" PRIu32 ": %s", store->path, id, reason) : 0;
}

uint64_t store_tag(const struct store *store)
{
    return store->meta.tag;
}

const struct store_meta *store_meta(const struct store *store)
{
    return &store->meta.values;
}

const char *store_path(const struct store *store)
{
    return store->path;
}

/* The class that record id must be of: ids follow labels. */
static uint32_t label_of(const struct store_meta *meta, uint32_t id)
{
    uint32_t label = 0;
    for (uint64_t end = meta->class_samples[0]; id >= end; end += meta->class_samples[label])
        label++;
    return label;
}

const char *store_class_name(const struct store_meta *meta, uint32_t label)
{
    if (label >= meta->class_count)
        return NULL;
    return *meta->class_names[label] ? meta->class_names[label] : meta->class_ids[label];
}

const char *store_class_of(const struct store *store, uint32_t id)
{
    const struct store_meta *meta = &store->meta.values;
    return meta->class_ids[label_of(meta, id)];
}

static int damaged(const struct store *store, uint32_t id, const char *reason)
{
    return err_set(ERR_DATA, "%s: record %" PRIu32 " (class %s): %s", store->path, id,
                   store_class_of(store, id), reason);
}

static int locate(const struct store *store, uint32_t id, const uint8_t **data, size_t *bytes)
{
    if (id >= store->meta.values.sample_count)
        return err_set(ERR_ARG, "%s: no record %" PRIu32 ", the last one is %" PRIu32, store->path,
                       id, store->meta.values.sample_count - 1);
    int code = find(store, id, data, bytes);
    return code ? damaged(store, id, err_message()) : 0;
}

int store_decode(struct store_record *record, const struct store *store, uint32_t id,
                 const uint8_t *data, size_t bytes)
{
    const struct store_meta *meta = &store->meta.values;
    const char *reason = record_decode(record, data, bytes, id, store->meta.tag);
    if (!reason && record->label >= meta->class_count)
        reason = "label of no class";
    if (!reason && (record->encoding != meta->encoding || record->channels != meta->channels))
        reason = "encoding or channels differ from the store's";
    return reason ? damaged(store, id, reason) : 0;
}

int store_read(struct store_record *record, const struct store *store, uint32_t id)
{
    const uint8_t *data;
    size_t bytes;
    int code = locate(store, id, &data, &bytes);
    return code ? code : store_decode(record, store, id, data, bytes);
}

int store_locate(struct store_place *place, const struct store *store, uint32_t id)
{
    const uint8_t *data;
    int code = locate(store, id, &data, &place->bytes);
    if (code)
        return code;
    place->offset = (uint64_t)(data - store->map);
    place->direct = store->direct_fd >= 0 && place->bytes >= DIRECT_BYTES_MIN &&
                    place->offset >= store->cached_bytes;
    return 0;
}

int store_direct_fd(const struct store *store)
{
    return store->direct_fd;
}

/* The same file once more, whatever has its name by now. */
int store_limit_cache(struct store *store, uint64_t bytes)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", store->fd);
    if (store->direct_fd < 0)
        store->direct_fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    if (store->direct_fd < 0)
        return err_set(ERR_IO, "%s: reading past the page cache: %s", store->path, strerror(errno));
    store->cached_bytes = bytes;
    return 0;
}

uint64_t store_file_bytes(const struct store *store)
{
    return store->file_bytes;
}

static int changed(const struct store *store, const char *how)
{
    return err_set(ERR_IO,
                   "%s: the store was %s while in use; stores must not be touched: make a new one "
                   "under another name, and start again",
                   store->path, how);
}

int store_check_unchanged(const struct store *store, bool name)
{
    struct stat now;
    if (fstat(store->fd, &now) != 0)
        return err_set(ERR_IO, "%s: %s", store->path, strerror(errno));
    if ((size_t)now.st_size != store->file_bytes)
        return changed(store, "cut or extended");
    if (now.st_mtim.tv_sec != store->file_time.tv_sec ||
        now.st_mtim.tv_nsec != store->file_time.tv_nsec)
        return changed(store, "written to");
    if (name && stat(store->path, &now) == 0 &&
        (now.st_ino != store->inode || now.st_dev != store->device))
        return changed(store, "replaced");
    return 0;
}

void store_announce(const struct store *store, const uint32_t *ids, size_t count)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    for (size_t i = 0; i < count; i++) {
        const uint8_t *data;
        size_t bytes;
        if (ids[i] >= store->meta.values.sample_count || find(store, ids[i], &data, &bytes) != 0)
            continue; /* store_read will say what is wrong with it */
        uintptr_t begin = (uintptr_t)data & ~(page - 1);
        madvise((void *)begin, (uintptr_t)data + bytes - begin, MADV_WILLNEED);
    }
}

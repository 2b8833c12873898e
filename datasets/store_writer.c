/* SPDX-License-Identifier: Apache-2.0 */
/* Writing a store: FILE.partial, appended in batches, published by a rename.
 *
 * Nothing but publishing needs to survive a crash, so LMDB syncs nothing until then. Batches bound
 * the memory: LMDB keeps the dirty pages of a transaction in memory until its commit. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/bytes.h"
#include "common/err.h"
#include "common/file.h"
#include "common/hash.h"
#include "datasets/meta.h"
#include "datasets/record.h"
#include "datasets/store_writer_parts.h"

enum {
    BATCH_BYTES = 32 << 20,
    BATCH_RECORDS = 16384, /* LMDB holds at most 131,071 dirty pages in a transaction */
    CACHED_BYTES = 256 << 20,
    DIGEST_BYTES = 21, /* what one sample adds to the fingerprint */
};

/* LMDB calls any write that the file system cut short an I/O error. One more write at the end of
 * the file, which is lost anyway, gets the real reason. */
static int reason_of_short_write(const struct store_writer *writer)
{
    static const uint8_t zeros[64 << 10];
    for (int i = 0; i < 2; i++) {
        off_t end = lseek(writer->fd, 0, SEEK_END);
        if (end < 0 || pwrite(writer->fd, zeros, sizeof zeros, end) < 0)
            return errno;
    }
    return EIO;
}

int writer_lmdb_error(const struct store_writer *writer, int code)
{
    if (code == EIO)
        code = reason_of_short_write(writer);
    const char *reason = code > 0 ? strerror(code) : mdb_strerror(code);
    return err_set(code > 0 ? ERR_IO : ERR_INTERNAL, "%s: cannot write: %s", writer->partial,
                   reason);
}

void writer_dispose(struct store_writer *writer)
{
    if (!writer)
        return;
    mdb_txn_abort(writer->txn);
    if (writer->env)
        mdb_env_close(writer->env);
    if (writer->fd >= 0)
        close(writer->fd);
    partial_release(&writer->partial_state);
    free(writer->class_samples);
    free(writer->digests);
    free(writer->partial);
    free(writer->path);
    free(writer);
}

/* The lock keeps two programs from writing one partial file. */
static int open_partial(struct store_writer *writer, bool resume)
{
    struct stat status;
    if (lstat(writer->path, &status) == 0)
        return err_set(ERR_ARG, "%s: exists already; remove it or choose another name",
                       writer->path);
    writer->fd = open(writer->partial,
                      O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | (resume ? 0 : O_EXCL), 0666);
    if (writer->fd < 0 && errno == EEXIST)
        return err_set(ERR_ARG,
                       "%s: is there from a run that did not finish, or is being written; --resume "
                       "goes on with it, or remove it",
                       writer->partial);
    if (writer->fd < 0)
        return err_set(ERR_IO, "cannot make %s: %s", writer->partial, strerror(errno));
    if (flock(writer->fd, LOCK_EX | LOCK_NB) != 0) {
        int code = errno == EWOULDBLOCK
                       ? err_set(ERR_IO, "%s: another program is writing it", writer->partial)
                       : err_set(ERR_IO, "%s: lock: %s", writer->partial, strerror(errno));
        close(writer->fd);
        writer->fd = -1; /* not ours: must not be removed */
        return code;
    }
    return 0;
}

int writer_open_environment(struct store_writer *writer)
{
    int code = mdb_env_create(&writer->env);
    if (code)
        return writer_lmdb_error(writer, code);
    code = mdb_env_open(writer->env, writer->partial, MDB_NOSUBDIR | MDB_NOLOCK | MDB_NOSYNC, 0666);
    return code ? writer_lmdb_error(writer, code) : 0;
}

int writer_create(struct store_writer **out, const char *path, uint64_t tag, bool resume)
{
    *out = NULL;
    if (partial_is_name(path))
        return err_set(ERR_ARG, "%s: unfinished stores are called so: choose another name", path);
    struct store_writer *writer = calloc(1, sizeof *writer);
    if (!writer)
        return err_set(ERR_NOMEM, "%s: out of memory", path);
    writer->fd = -1;
    writer->partial_state.tag = tag;
    writer->path = strdup(path);
    int code = 0;
    if (!writer->path || asprintf(&writer->partial, "%s.partial", path) < 0) {
        writer->partial = NULL;
        code = err_set(ERR_NOMEM, "%s: out of memory", path);
    }
    if (!code)
        code = open_partial(writer, resume);
    if (code)
        writer_dispose(writer);
    else
        *out = writer;
    return code;
}

int store_writer_open(struct store_writer **out, const char *path, uint64_t tag)
{
    int code = writer_create(out, path, tag, false);
    if (!code)
        code = writer_open_environment(*out);
    if (code) {
        store_writer_discard(*out);
        *out = NULL;
    }
    return code;
}

/* Begins a transaction whose batch and one more record of `bytes` fit the map. */
static int begin_batch(struct store_writer *writer, size_t bytes)
{
    MDB_envinfo info;
    MDB_stat stat;
    mdb_env_info(writer->env, &info);
    mdb_env_stat(writer->env, &stat);
    /* Twice the batch covers the rest of the last page of each record and the tree. */
    size_t needed = (info.me_last_pgno + 1) * stat.ms_psize + 2 * (BATCH_BYTES + bytes) +
                    2 * (size_t)BATCH_RECORDS * stat.ms_psize;
    if (needed > writer->map_bytes) {
        size_t wanted = 2 * needed;
        int code = mdb_env_set_mapsize(writer->env, wanted);
        if (code)
            return writer_lmdb_error(writer, code);
        writer->map_bytes = wanted;
    }
    int code = mdb_txn_begin(writer->env, NULL, 0, &writer->txn);
    if (!code)
        code = mdb_dbi_open(writer->txn, NULL, MDB_INTEGERKEY | MDB_CREATE, &writer->dbi);
    /* It comes last, and keys are appended in order: it goes, and comes back at the batch's end. */
    uint32_t last = UINT32_MAX;
    MDB_val key = {sizeof last, &last};
    if (!code && writer->last_key)
        code = mdb_del(writer->txn, writer->dbi, &key, NULL);
    if (code)
        return writer_lmdb_error(writer, code);
    writer->batch_bytes = writer->batch_records = 0;
    return 0;
}

static int put_last(struct store_writer *writer, const void *data, size_t bytes)
{
    uint32_t last = UINT32_MAX;
    MDB_val key = {sizeof last, &last}, value = {bytes, (void *)data};
    int code = mdb_put(writer->txn, writer->dbi, &key, &value, MDB_APPEND);
    return code ? writer_lmdb_error(writer, code) : 0;
}

static int put_progress(struct store_writer *writer)
{
    writer->partial_state.count = writer->count;
    size_t bytes = partial_bytes(&writer->partial_state);
    uint8_t *record = malloc(bytes);
    if (!record)
        return err_set(ERR_NOMEM, "%s: out of memory", writer->path);
    partial_encode(record, &writer->partial_state);
    int code = put_last(writer, record, bytes);
    free(record);
    return code;
}

/* Lets the disk write what the last batch added, and takes what the one before added out of the
 * page cache when it is written, but for a first part that small stores have enough of. Otherwise a
 * large store pushes everything else out of memory, and all that has not been written yet is waited
 * for when it is published. */
static int pass_on(struct store_writer *writer)
{
    struct stat status;
    off_t begin = writer->passed, middle = writer->written;
    if (fstat(writer->fd, &status) != 0)
        return writer_lmdb_error(writer, errno);
    writer->passed = middle;
    writer->written = status.st_size;
    int failed = sync_file_range(writer->fd, middle, 0, SYNC_FILE_RANGE_WRITE);
    if (!failed && middle > begin)
        failed = sync_file_range(writer->fd, begin, middle - begin,
                                 SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
                                     SYNC_FILE_RANGE_WAIT_AFTER);
    /* File systems that know nothing of it leave all to publishing; an error that is told here is
     * not told again there. */
    if (failed && (errno == EIO || errno == ENOSPC || errno == EDQUOT))
        return writer_lmdb_error(writer, errno);
    begin = begin < CACHED_BYTES ? CACHED_BYTES : begin;
    if (!failed && middle > begin)
        posix_fadvise(writer->fd, begin, middle - begin, POSIX_FADV_DONTNEED);
    return 0;
}

/* complete: the meta record is in. */
static int end_batch(struct store_writer *writer, bool complete)
{
    int code = 0;
    if (!writer->txn)
        return 0;
    if (writer->noted && !complete)
        code = put_progress(writer);
    if (code) {
        mdb_txn_abort(writer->txn);
        writer->txn = NULL;
        return code;
    }
    code = mdb_txn_commit(writer->txn);
    writer->txn = NULL;
    if (code)
        return writer_lmdb_error(writer, code);
    writer->last_key = writer->noted || complete;
    writer->kept = writer->count;
    return pass_on(writer);
}

/* Room for `bytes` under key in the current batch or a new one. */
static int reserve(struct store_writer *writer, uint32_t key_value, size_t bytes, uint8_t **data)
{
    int code = 0;
    if (writer->txn &&
        (writer->batch_bytes + bytes > BATCH_BYTES || writer->batch_records == BATCH_RECORDS))
        code = end_batch(writer, false);
    if (!code && !writer->txn)
        code = begin_batch(writer, bytes);
    if (code)
        return code;
    MDB_val key = {sizeof key_value, &key_value}, value = {bytes, NULL};
    code = mdb_put(writer->txn, writer->dbi, &key, &value, MDB_APPEND | MDB_RESERVE);
    if (code)
        return writer_lmdb_error(writer, code);
    writer->batch_bytes += bytes;
    writer->batch_records++;
    *data = value.mv_data;
    return 0;
}

/* The fingerprint begins with the count, which is known at the end only: each sample's part waits.
 */
static int remember_digest(struct store_writer *writer, const struct store_sample *sample)
{
    if (writer->count == writer->digest_room) {
        size_t room = writer->digest_room ? 2 * writer->digest_room : 1024;
        uint8_t *grown = realloc(writer->digests, room * DIGEST_BYTES);
        if (!grown)
            return err_set(ERR_NOMEM, "%s: out of memory", writer->path);
        writer->digests = grown;
        writer->digest_room = room;
    }
    uint8_t *digest = writer->digests + (size_t)writer->count * DIGEST_BYTES;
    bytes_put(digest, sample->label, 4);
    digest[4] = (uint8_t)sample->encoding;
    hash128_to_bytes(digest + 5, hash128_of(sample->image, sample->image_bytes));
    return 0;
}

/* Makes class_samples reach to class `count` - 1. */
static int reach_classes(struct store_writer *writer, size_t count)
{
    if (count <= writer->class_room)
        return 0;
    size_t room = 2 * count;
    uint32_t *grown = reallocarray(writer->class_samples, room, sizeof *grown);
    if (!grown)
        return err_set(ERR_NOMEM, "%s: out of memory", writer->path);
    memset(grown + writer->class_room, 0, (room - writer->class_room) * sizeof *grown);
    writer->class_samples = grown;
    writer->class_room = room;
    return 0;
}

static const char *refuse(const struct store_writer *writer, const struct store_sample *sample)
{
    const char *reason = record_refuse(sample);
    if (reason)
        return reason;
    if (writer->count == UINT32_MAX - 1)
        return "a store holds no more samples";
    if (writer->count > 0 &&
        (sample->encoding != writer->encoding || sample->channels != writer->channels))
        return "encoding or channels differ from the samples before";
    if (sample->label >= STORE_CLASSES_MAX)
        return "label is higher than a store can hold";
    if (writer->count > 0 && sample->label < writer->last_label)
        return "label is lower than the one before: ids follow the class index";
    return NULL;
}

static void count_sample(struct store_writer *writer, const struct store_sample *sample)
{
    writer->encoding = sample->encoding;
    writer->channels = sample->channels;
    writer->last_label = sample->label;
    writer->indexed += sample->index_bytes > 0;
    writer->class_samples[sample->label]++;
    writer->count++;
}

int store_writer_add(struct store_writer *writer, const struct store_sample *sample)
{
    const char *reason = refuse(writer, sample);
    if (reason)
        return err_set(ERR_ARG, "%s: sample %" PRIu32 ": %s", writer->path, writer->count, reason);
    uint8_t *record = NULL;
    int code = reach_classes(writer, (size_t)sample->label + 1);
    if (!code)
        code = reserve(writer, writer->count, record_bytes(sample), &record);
    if (!code)
        code = remember_digest(writer, sample);
    if (code)
        return code;
    record_encode(record, sample, writer->count, writer->partial_state.tag);
    count_sample(writer, sample);
    return 0;
}

int writer_recall(struct store_writer *writer, const struct store_sample *sample)
{
    const char *reason = refuse(writer, sample);
    if (reason)
        return err_set(ERR_DATA, "%s: record %" PRIu32 ": %s", writer->partial, writer->count,
                       reason);
    int code = reach_classes(writer, (size_t)sample->label + 1);
    if (!code)
        code = remember_digest(writer, sample);
    if (!code)
        count_sample(writer, sample);
    return code;
}

int store_writer_note(struct store_writer *writer, uint32_t i, bool skipped)
{
    struct partial *state = &writer->partial_state;
    if (skipped && state->skipped_count == writer->skipped_room) {
        uint32_t room = 2 * writer->skipped_room + 16;
        uint32_t *grown = reallocarray(state->skipped, room, sizeof *grown);
        if (!grown)
            return err_set(ERR_NOMEM, "%s: out of memory", writer->path);
        state->skipped = grown;
        writer->skipped_room = room;
    }
    if (skipped)
        state->skipped[state->skipped_count++] = i;
    state->next = (uint64_t)i + 1;
    writer->noted = true;
    return 0;
}

static int fingerprint_of(struct hash128 *fingerprint, const struct store_writer *writer,
                          const struct store_meta *meta)
{
    struct hash_stream *stream = hash_stream_open();
    uint8_t number[4];
    if (!stream)
        return err_set(ERR_NOMEM, "%s: out of memory", writer->path);
    bytes_put(number, writer->count, 4);
    hash_stream_add(stream, number, 4);
    bytes_put(number, meta->class_count, 4);
    hash_stream_add(stream, number, 4);
    for (uint32_t i = 0; i < meta->class_count; i++) {
        size_t length = strlen(meta->class_ids[i]);
        bytes_put(number, (uint32_t)length, 4);
        hash_stream_add(stream, number, 4);
        hash_stream_add(stream, meta->class_ids[i], length);
    }
    hash_stream_add(stream, writer->digests, (size_t)writer->count * DIGEST_BYTES);
    *fingerprint = hash_stream_end(stream);
    hash_stream_close(stream);
    return 0;
}

static int write_meta(struct store_writer *writer, const struct store_meta *given,
                      struct hash128 *fingerprint)
{
    struct store_meta meta = *given;
    meta.sample_count = writer->count;
    meta.indexed = writer->indexed;
    meta.split = given->split ? given->split : "";
    meta.packed_by = given->packed_by ? given->packed_by : "";
    if (writer->count > 0 &&
        (writer->last_label >= meta.class_count || meta.encoding != writer->encoding ||
         meta.channels != writer->channels))
        return err_set(ERR_ARG, "%s: classes, encoding or channels differ from the samples'",
                       writer->path);
    int code = reach_classes(writer, meta.class_count);
    meta.class_samples = writer->class_samples;
    if (!code)
        code = fingerprint_of(&meta.fingerprint, writer, &meta);
    uint8_t *encoded = NULL;
    size_t bytes = 0;
    if (!code)
        code = meta_encode(&encoded, &bytes, &meta, writer->partial_state.tag);
    if (!code && !writer->txn)
        code = begin_batch(writer, bytes);
    if (!code)
        code = put_last(writer, encoded, bytes);
    if (!code)
        code = end_batch(writer, true);
    free(encoded);
    *fingerprint = meta.fingerprint;
    return code;
}

int writer_reach_last_page(const struct store_writer *writer)
{
    MDB_envinfo info;
    MDB_stat stat;
    struct stat status;
    mdb_env_info(writer->env, &info);
    mdb_env_stat(writer->env, &stat);
    off_t bytes = (off_t)((info.me_last_pgno + 1) * stat.ms_psize);
    if (fstat(writer->fd, &status) != 0 ||
        (status.st_size < bytes && ftruncate(writer->fd, bytes) != 0))
        return writer_lmdb_error(writer, errno);
    return 0;
}

static int complete_file(struct store_writer *writer)
{
    int code = mdb_env_sync(writer->env, 1);
    if (code)
        return writer_lmdb_error(writer, code);
    code = writer_reach_last_page(writer);
    return code || fsync(writer->fd) == 0 ? code : writer_lmdb_error(writer, errno);
}

static int rename_partial(const struct store_writer *writer)
{
    if (renameat2(AT_FDCWD, writer->partial, AT_FDCWD, writer->path, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno == EEXIST)
        return err_set(ERR_ARG, "%s: was made by someone else meanwhile", writer->path);
    if (errno != EINVAL && errno != ENOSYS) /* file systems without RENAME_NOREPLACE */
        return err_set(ERR_IO, "%s: %s", writer->path, strerror(errno));
    if (rename(writer->partial, writer->path) != 0)
        return err_set(ERR_IO, "%s: %s", writer->path, strerror(errno));
    return 0;
}

/* Gives the file its name for good, or leaves it as it was. */
static int put_in_place(const struct store_writer *writer)
{
    int code = rename_partial(writer);
    if (code)
        return code;
    code = file_sync_directory_of(writer->path);
    if (code && rename(writer->path, writer->partial) != 0)
        return err_wrap(code, "%s stays, perhaps not for good", writer->path);
    return code;
}

int store_writer_publish(struct store_writer *writer, const struct store_meta *meta,
                         struct hash128 *fingerprint)
{
    struct hash128 hash = {0};
    int code = write_meta(writer, meta, &hash);
    if (!code)
        code = complete_file(writer);
    if (!code)
        code = put_in_place(writer);
    if (code)
        return code;
    if (fingerprint)
        *fingerprint = hash;
    writer_dispose(writer);
    return 0;
}

void store_writer_discard(struct store_writer *writer)
{
    if (!writer)
        return;
    if (writer->fd >= 0)
        unlink(writer->partial);
    writer_dispose(writer);
}

uint32_t store_writer_keep(struct store_writer *writer)
{
    if (!writer)
        return 0;
    uint32_t kept = end_batch(writer, false) == 0 || writer->kept ? writer->kept : 0;
    if (kept == 0 || !writer->last_key) {
        store_writer_discard(writer);
        return 0;
    }
    mdb_env_sync(writer->env, 1);
    writer_dispose(writer);
    return kept;
}

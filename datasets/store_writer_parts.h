/* SPDX-License-Identifier: Apache-2.0 */
/* What writing a store and going on with one share. Only for datasets/store_writer.c and
 * store_resume.c. */
#ifndef DATASETS_STORE_WRITER_PARTS_H
#define DATASETS_STORE_WRITER_PARTS_H

#include <lmdb.h>

#include "datasets/partial.h"
#include "datasets/store.h"

struct store_writer {
    char *path, *partial;
    int fd; /* of the partial file: the lock on it, and fsync */
    MDB_env *env;
    MDB_txn *txn; /* NULL between batches */
    MDB_dbi dbi;
    size_t map_bytes;
    size_t batch_bytes, batch_records;
    uint32_t count, indexed, last_label;
    uint32_t *class_samples; /* [class_room], zero from last_label + 1 on */
    size_t class_room;
    unsigned encoding, channels;
    uint8_t *digests; /* [count x DIGEST_BYTES], room for digest_room samples */
    size_t digest_room;
    struct partial partial_state; /* what the next batch's end says; tag is the store's */
    uint32_t skipped_room, kept;  /* kept: samples up to the last batch's end */
    bool noted;                   /* there are notes: batches end with partial_state */
    off_t written, passed;        /* in the file: the last batch's end and begin, see pass_on() */
    bool last_key;                /* something stands under the meta record's key */
};

/* The writer with its partial file, locked, but without the environment. */
int writer_create(struct store_writer **out, const char *path, uint64_t tag, bool resume);
void writer_dispose(struct store_writer *writer); /* leaves the file; accepts NULL */
int writer_open_environment(struct store_writer *writer);
int writer_lmdb_error(const struct store_writer *writer, int code);

/* Makes the file reach to the last page of the tree: LMDB does not write pages that were freed
 * before they were ever written. */
int writer_reach_last_page(const struct store_writer *writer);

/* Counts a sample whose record is already there, as adding does. */
int writer_recall(struct store_writer *writer, const struct store_sample *sample);

#endif

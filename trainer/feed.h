/* SPDX-License-Identifier: Apache-2.0 */
/* The trainer's side of the wire: asks loaders for chunks, validates what arrives, hands out whole
 * micro-batches in order. Owns the ledger of chunks; loaders hold no state that matters.
 *
 * A feed has an I/O thread of its own; the functions below are called from one other thread. */
#ifndef TRAINER_FEED_H
#define TRAINER_FEED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/hash.h"
#include "proto/chunk.h"
#include "proto/spec.h"

struct feed_config {
    const char
        *loaders; /* ENDPOINT,ENDPOINT...  |  @FILE (one endpoint a line, watched)  |  synthetic */
    double stall_limit_seconds;           /* 0: wait for ever, saying so */
    size_t prefetch_bytes;                /* memory for chunks asked or waiting; 0: a default */
    const char *secret_key, *server_keys; /* CURVE, NULL: plain */
    void *(*alloc)(void *user,
                   size_t bytes); /* memory of batches (pinned); NULL: 64-byte aligned malloc */
    void (*free)(void *user, void *memory);
    void *user;
};

struct feed_store { /* what the loaders say of a store */
    char name[SPEC_STORE_NAME_BYTES];
    struct hash128 fingerprint;
    uint32_t sample_count, class_count, channels;
    struct hash128 classes; /* XXH3-128 over the class ids: train and val must agree */
};

struct feed;

/* Connects and waits until one loader answered Hello (or the stall limit, or stop_requested():
 * ERR_STOPPED). synthetic: no loader at all; pixels and labels are made here; "train" and "val" of
 * K 1000, N 1,281,167, 3 channels. */
int feed_open(struct feed **out, const struct feed_config *config);
void feed_close(struct feed *feed); /* accepts NULL; says goodbye */

/* NULL when no loader has a store of this name. */
const struct feed_store *feed_store(const struct feed *feed, const char *name);

/* A run of micro-batches to fetch: for step in first_step..step_count-1, chunks
 * first = step * chunks_per_step + rank_offset ... of rank_chunks. Evaluation: one chunk of a
 * micro-batch at a time works the same with chunks_per_step = ranks. Chunks past the end of the
 * store are left out. */
struct feed_range {
    struct spec spec;
    uint32_t epoch;
    uint64_t first_step, step_count;
    uint32_t chunks_per_step;          /* over all ranks */
    uint32_t rank_offset, rank_chunks; /* this rank's contiguous share of a step */
    uint32_t micro_batch; /* samples; a multiple of chunk_size; rank_chunks * chunk_size is a
                             multiple of it (training) */
};

/* Queues a range behind those already queued; several may be queued so that the next epoch or the
 * evaluation is fetched ahead. ERR_ARG when the stores do not fit it. */
int feed_push(struct feed *feed, const struct feed_range *range);

struct feed_batch {
    const void *pixels; /* [micro_batch][S][S][C], chunk i of the micro-batch in its own place */
    const struct chunk_label *labels; /* [micro_batch] */
    uint32_t samples; /* valid ones from the start; missing ones at the end of an evaluation are
                         absent */
    uint32_t epoch;
    uint64_t step;          /* of the range */
    struct hash128 receipt; /* sum over the chunks of this micro-batch */
    double wait_seconds;    /* how long feed_pop waited */
    void *slot;             /* for feed_release */
};

/* The next micro-batch of the oldest range, in order; waits. ERR_STOPPED: stop_requested() or the
 * stall limit was reached (err_message() tells which). ERR_ARG when nothing is queued. Every batch
 * is given back with feed_release once the backend no longer reads it; at most feed_depth() may be
 * held at a time. */
int feed_pop(struct feed_batch *batch, struct feed *feed);
void feed_release(struct feed *feed, struct feed_batch *batch);
int feed_depth(const struct feed *feed);

/* True when feed_pop failed because of the stall limit. */
bool feed_stalled(const struct feed *feed);

/* Drops everything queued and held (before pushing another plan). */
void feed_flush(struct feed *feed);

struct feed_counts {
    uint64_t chunks, samples, duplicates, reasked, rejected, bytes, substituted, masked;
    unsigned loaders; /* connected now */
};
void feed_counts(struct feed_counts *counts, const struct feed *feed);

#endif

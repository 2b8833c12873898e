/* SPDX-License-Identifier: Apache-2.0 */
/* The trainer's side of the wire: asks loaders for chunks, validates what arrives, hands out whole
 * micro-batches in order. Owns the ledger of chunks; loaders hold no state that matters.
 *
 * A feed has an I/O thread of its own; the functions below are called from one other thread, where
 * memory is allocated as well. Prefetched micro-batches take at most prefetch_bytes (or two
 * micro-batches, when those are larger), those held by the caller come on top. With glibc, malloc
 * is told for the whole process to keep as much freed memory. */
#ifndef TRAINER_FEED_H
#define TRAINER_FEED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/hash.h"
#include "proto/chunk.h"
#include "proto/spec.h"

struct feed_config {
    /* ENDPOINT,ENDPOINT... | @FILE (one endpoint a line, # comments; watched) | synthetic */
    const char *loaders;
    const char *run;            /* name shown in the loaders' logs; NULL: "" */
    double stall_limit_seconds; /* 0: wait for ever, saying so */
    size_t prefetch_bytes;      /* 0: FEED_PREFETCH_BYTES */
    double audit_share;         /* of the chunks that are fetched from two loaders */
    bool inline_pixels;         /* never from a loader's shared memory */
    /* A file of records that end the process which decodes them: those in it are isolated from the
     * start, new ones are added, by several feeds at once. NULL: none. */
    const char *poisonous;
    /* CURVE: this trainer's secret key (a file) and the loaders' public keys (a directory); both or
     * neither. NULL: plain text. */
    const char *secret_key, *server_keys;
    /* Memory of batches (pinned); NULL: 64-byte aligned malloc. */
    void *(*alloc)(void *user, size_t bytes);
    void (*free)(void *user, void *memory);
    void *user;
};

enum {
    FEED_PREFETCH_BYTES = 256 << 20,
    FEED_HELD_MAX = 4, /* micro-batches between feed_pop and feed_release */
};

struct feed_store { /* what the loaders say of a store */
    char name[SPEC_STORE_NAME_BYTES];
    struct hash128 fingerprint;
    uint32_t sample_count, class_count, channels;
    struct hash128 classes; /* XXH3-128 over the class ids: train and val must agree */
};

struct feed;

/* Connects and waits until one loader was admitted; a moment longer for others that are connected
 * but have not yet answered. ERR_STOPPED: stop_requested(); ERR_PEER: the stall limit, or every
 * loader was refused; ERR_ARG: no endpoints, or malformed ones.
 * synthetic: no loader at all; pixels and labels are made here (deterministic, of no meaning);
 * "train" and "val" of K 1000, N 1,281,167, 3 channels. */
int feed_open(struct feed **out, const struct feed_config *config);
void feed_close(struct feed *feed); /* accepts NULL; says goodbye */

/* NULL when no loader has a store of this name. */
const struct feed_store *feed_store(const struct feed *feed, const char *name);

/* A run of micro-batches to fetch: for step in first_step..step_count-1 the chunks
 * step * chunks_per_step + rank_offset + (0..rank_chunks-1), cut into micro-batches of
 * micro_batch / chunk_size chunks. Chunks past the end of the store are left out, and so are
 * micro-batches without any chunk: an evaluation over all samples is step_count =
 * ceil(chunk_total / chunks_per_step), with ranks * (micro_batch / chunk_size) chunks a step. */
struct feed_range {
    struct spec spec;
    uint32_t epoch;
    uint64_t first_step, step_count;   /* steps first_step..step_count-1 */
    uint32_t chunks_per_step;          /* over all ranks */
    uint32_t rank_offset, rank_chunks; /* this rank's contiguous share of a step */
    uint32_t micro_batch;              /* samples; a multiple of chunk_size */
};

/* How many micro-batches feed_pop will hand out for this range; 0 when the store is unknown. */
uint64_t feed_range_batches(const struct feed *feed, const struct feed_range *range);

/* Queues a range behind those already queued; several may be queued so that the next epoch or the
 * evaluation is fetched ahead. ERR_ARG when the stores do not fit it. */
int feed_push(struct feed *feed, const struct feed_range *range);

struct feed_batch {
    /* [micro_batch][S][S][C] half floats (fp16 wire) or uint8; chunk i of the micro-batch in its
     * own place whatever the order of arrival. */
    const void *pixels;
    const struct chunk_label *labels; /* [micro_batch] */
    const float (*offsets)[3];        /* [micro_batch] PCA offsets of the uint8 wire; else NULL */
    uint32_t samples; /* valid ones from the start; short only at the end of an evaluation */
    uint32_t masked;  /* of them: damaged, label a is CHUNK_LABEL_MASKED, pixels are zero */
    uint32_t epoch;
    uint64_t step;          /* of the range */
    struct hash128 receipt; /* sum over the chunks of this micro-batch */
    double wait_seconds;    /* how long feed_pop waited */
    void *slot;             /* for feed_release */
};

/* The next micro-batch of the oldest range, in order; waits, and wakes at once on a stop.
 * ERR_STOPPED: stop_requested(), or the stall limit was reached (feed_stalled() tells which).
 * ERR_PEER: no loader is left that may be used, or a chunk cannot be made. ERR_DATA: an audit
 * found two loaders that do not agree. ERR_ARG: nothing is queued, or feed_depth() batches are held
 * already. Every batch is given back with feed_release once the backend no longer reads it. */
int feed_pop(struct feed_batch *batch, struct feed *feed);
void feed_release(struct feed *feed, struct feed_batch *batch);
int feed_depth(const struct feed *feed);

/* The hash of the challenge, chunk 0 of epoch 0 of this spec, that every loader has to answer
 * before it may serve it: receipt_of_chunk(). False: the spec is not pushed, or no loader answered
 * yet. */
bool feed_challenge(struct hash128 *hash, const struct feed *feed, const struct spec *spec);

/* What the challenge has to be, from a checkpoint: loaders that answer otherwise are refused.
 * Before feed_push; without it the first loader's answer is the truth. ERR_ARG as feed_push. */
int feed_expect(struct feed *feed, const struct spec *spec, struct hash128 challenge);

/* True when feed_pop failed because of the stall limit. */
bool feed_stalled(const struct feed *feed);

/* Drops everything queued; batches held stay valid until released. */
void feed_flush(struct feed *feed);

struct feed_counts {
    uint64_t chunks, samples, duplicates, reasked, rejected, bytes, substituted, masked;
    uint64_t audited;   /* chunks that two loaders were found to agree on */
    uint64_t admitted;  /* loaders found to make the same bytes of a spec, before they serve it */
    uint64_t lost;      /* connections to loaders in use that ended otherwise than by a goodbye */
    uint64_t poisonous; /* records known to end the process that decodes them */
    unsigned loaders;   /* connected now */
};
void feed_counts(struct feed_counts *counts, const struct feed *feed);

#endif

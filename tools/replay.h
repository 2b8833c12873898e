/* SPDX-License-Identifier: Apache-2.0 */
/* Recomputes what was trained on, from the store alone: a chunk's hash, or an epoch's receipt. */
#ifndef TOOLS_REPLAY_H
#define TOOLS_REPLAY_H

#include <stdbool.h>
#include <stdint.h>

#include "common/hash.h"
#include "datasets/store.h"
#include "proto/recipe.h"

struct replay {
    const char *what; /* "EPOCH" or "EPOCH:CHUNK" */
    bool val;         /* the stream of the evaluation, else of the training */
    bool isolate;     /* each sample is decoded in a process of its own (loader/isolate.h) */
    int jobs;         /* threads; 0: one per core */
    /* Out: */
    struct spec spec;
    uint32_t epoch;
    uint64_t first, count; /* chunks */
    struct hash128 receipt;
    uint64_t substituted, masked; /* damaged samples */
};

/* Shows progress. ERR_ARG: no such epoch or chunk, or the recipe does not fit the store;
 * ERR_STOPPED; errors of builder_chunk. */
int replay_run(struct replay *replay, const struct store *store, const struct recipe *recipe);

#endif

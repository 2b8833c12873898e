/* SPDX-License-Identifier: Apache-2.0 */
/* The stores that a loader serves and the specs that trainers have offered, by their hash. A spec
 * not in use may be forgotten for a new one: its trainer is then asked for it again. */
#ifndef LOADER_KNOWN_H
#define LOADER_KNOWN_H

#include <stdbool.h>
#include <stdint.h>

#include "common/log_limit.h"
#include "datasets/store.h"
#include "proto/frame.h"
#include "proto/spec.h"

enum { KNOWN_SPECS = 64 };

struct known_store {
    struct store *store;
    struct frame_store facts; /* as told in hello-reply */
    uint64_t record_bytes;    /* on average */
    bool announces; /* its records are large enough to be worth reading ahead one by one */
};

struct known_spec {
    struct spec spec;
    struct hash128 hash;
    const struct known_store *store;
    unsigned uses;      /* jobs that refer to it */
    uint64_t last_used; /* a count, for forgetting the oldest */
};

struct known {
    struct known_store stores[FRAME_MAX_STORES];
    int store_count;
    struct known_spec specs[KNOWN_SPECS];
    int spec_count;
    uint64_t clock;
    struct log_limit specs_said;
};

/* Opens the store of "NAME=FILE.lmdb". ERR_ARG, ERR_IO, ERR_DATA. */
int known_open_store(struct known *known, const char *name_and_file);
/* ERR_IO: the file of one of the stores is no longer what it was when it was opened. */
int known_check(const struct known *known);
/* ERR_ARG: path, which is to be written (NULL: nothing is), is one of the stores. */
int known_check_output(const struct known *known, const char *path);
void known_close(struct known *known);

const struct known_store *known_store(const struct known *known, const char *name);

/* NULL when unknown. Counts as used. */
struct known_spec *known_spec(struct known *known, struct hash128 hash);

/* Learns a checked spec. ERR_PEER: it does not fit a store here, or a chunk of it takes more memory
 * (limit_bytes) or decoding than one request may cause; the message says which. Specs that are
 * known already are fine, *is_new is false then. */
int known_learn(struct known *known, bool *is_new, const struct spec *spec, size_t limit_bytes);

#endif

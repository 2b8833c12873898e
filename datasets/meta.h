/* SPDX-License-Identifier: Apache-2.0 */
/* The meta record of a store to bytes and back: magic, checksum, protobuf (store.proto). */
#ifndef DATASETS_META_H
#define DATASETS_META_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "datasets/store.h"

enum {
    META_FORMAT_VERSION = 1,
    META_BYTES_MAX = 16 << 20, /* bounds what a hostile record can make the decoder allocate */
};

/* Bytes of a meta record, malloc'ed. ERR_ARG: something that a reader would refuse. */
int meta_encode(uint8_t **data, size_t *bytes, const struct store_meta *meta, uint64_t tag);

/* UTF-8 without control characters: what ids and names must be. */
bool meta_text_is_clean(const char *text);

/* A decoded meta record. */
struct meta {
    struct store_meta values;
    uint64_t tag;
    void *message; /* owns the strings */
};

/* ERR_DATA: damaged, of another version, or with values that cannot be. The messages do not name
 * the store. */
int meta_decode(struct meta *meta, const uint8_t *data, size_t bytes);
void meta_release(struct meta *meta);

#endif

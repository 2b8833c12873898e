/* SPDX-License-Identifier: Apache-2.0 */
/* Where a store's records lie and how their bytes are verified, for reading them otherwise than
 * through the map. */
#ifndef DATASETS_STORE_PARTS_H
#define DATASETS_STORE_PARTS_H

#include "datasets/store.h"

struct store_place {
    uint64_t offset; /* in the file */
    size_t bytes;
    bool direct; /* it goes past the page cache */
};

/* Where record id lies, inside the file as it was at opening. ERR_ARG, ERR_DATA. */
int store_locate(struct store_place *place, const struct store *store, uint32_t id);

/* The descriptor of such reads (O_DIRECT), -1 when there are none. */
int store_direct_fd(const struct store *store);

/* Verifies the bytes as store_read() does; the record points into them. */
int store_decode(struct store_record *record, const struct store *store, uint32_t id,
                 const uint8_t *data, size_t bytes);

#endif

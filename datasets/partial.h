/* SPDX-License-Identifier: Apache-2.0 */
/* The record that stands in the meta record's place while a store is being written: how far the
 * writer came. partial.c has its bytes; docs/format.md says only how to know it. */
#ifndef DATASETS_PARTIAL_H
#define DATASETS_PARTIAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct partial {
    uint64_t tag;      /* of the store, as in every record */
    uint64_t next;     /* place in the source of what comes next */
    uint32_t count;    /* samples written: ids 0 .. count-1 */
    uint32_t *skipped; /* [skipped_count]: places before next that were left out, ascending */
    uint32_t skipped_count;
};

size_t partial_bytes(const struct partial *partial);
void partial_encode(uint8_t *dst, const struct partial *partial); /* partial_bytes() bytes */

/* Is it what a store on its way is called, NAME.partial? None that is complete may be. */
bool partial_is_name(const char *path);

/* Is it a record of this kind, whole or not? */
bool partial_is(const uint8_t *data, size_t bytes);

/* Allocates skipped. ERR_DATA: damaged; ERR_NOMEM. */
int partial_decode(struct partial *partial, const uint8_t *data, size_t bytes);
void partial_release(struct partial *partial);

#endif

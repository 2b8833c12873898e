/* SPDX-License-Identifier: Apache-2.0 */
/* The side index of a JPEG: where its MCU rows, and every few MCUs within a row, begin in the
 * file's entropy-coded data, so that a crop is decoded without parsing what lies above and left of
 * it.
 *
 * Its bytes, all integers little-endian:
 *   u8  version, 1
 *   u8  0
 *   u16 MCUs per entry; 0: one entry for each MCU row
 *   u32 scan offset: the first byte of entropy-coded data, from the start of the file
 *   u32 scan bytes: of entropy-coded data up to the end-of-image marker
 *   u32 entries = MCU rows x ceil(MCUs across / MCUs per entry)
 *   u64 per entry: bits 0-27 the position in bits from the scan offset in the file's own bytes,
 *       stuffed zeros included (at a restart, behind the marker); bits 28-39, 40-51, 52-63 the DC
 *       predictors of the components in two's complement.
 *
 * An index is made by decoding the whole image strictly: an image that has one is whole and free of
 * irregularities, and its coefficients are such that every correct 16-bit inverse DCT agrees. */
#ifndef LOADER_JPEG_INDEX_H
#define LOADER_JPEG_INDEX_H

#include <stddef.h>
#include <stdint.h>

#include "loader/cpu.h"
#include "loader/jpeg/jpeg_header.h"

enum {
    JPEG_INDEX_VERSION = 1,
    JPEG_INDEX_HEADER_BYTES = 16,
    JPEG_INDEX_ENTRY_BYTES = 8,
    JPEG_INDEX_MAX_MCUS = 65535,
    JPEG_INDEX_DEFAULT_MCUS = 8,
};

/* The place where an MCU begins. */
struct jpeg_index_entry {
    uint32_t bit; /* from the scan's first byte, in the file's own bytes */
    int32_t dc[JPEG_MAX_COMPONENTS];
};

/* An index that was held against its image; points into the index's bytes. */
struct jpeg_index {
    const uint8_t *entries;
    uint32_t entry_count;
    uint32_t mcus_per_entry; /* never 0 */
    uint32_t entries_per_row;
    uint32_t scan_bytes;
};

/* Checks sizes and ranges, not what entries say. ERR_DATA when the index is not one for this image.
 * A few dozen instructions: done for every use. */
int jpeg_index_open(struct jpeg_index *index, const uint8_t *bytes, size_t count,
                    const struct jpeg_header *header, size_t jpeg_bytes);

/* Entry number < entry_count: row * entries_per_row + MCU within the row / mcus_per_entry. Its
 * position can be anything in 28 bits. */
struct jpeg_index_entry jpeg_index_entry(const struct jpeg_index *index, uint32_t number);

/* Makes indexes; owns the memory that it needs for that. One thread at a time. */
struct jpeg_indexer;

int jpeg_indexer_open(struct jpeg_indexer **out);
void jpeg_indexer_close(struct jpeg_indexer *indexer); /* accepts NULL */

/* For tests: how it works from now on, which changes nothing but its speed: at a level that this
 * machine has; plain: symbol by symbol, as it does where anything is irregular. */
void jpeg_indexer_use(struct jpeg_indexer *indexer, enum cpu_level level, bool plain);

/* Makes the index of an image with an entry every mcus MCUs (0: one a row; at most
 * JPEG_INDEX_MAX_MCUS). Deterministic. With *refusal JPEG_TAKEN, *index and *index_bytes are the
 * index, valid until the next call; any other refusal is no error: the image then goes without
 * index and is decoded by the reference decoder. Errors: ERR_NOMEM. */
int jpeg_index_build(struct jpeg_indexer *indexer, const uint8_t **index, size_t *index_bytes,
                     enum jpeg_refusal *refusal, const uint8_t *jpeg, size_t jpeg_bytes,
                     uint32_t mcus);

#endif

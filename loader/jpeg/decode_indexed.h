/* SPDX-License-Identifier: Apache-2.0 */
/* The indexed decoder: a region of a sequential Huffman JPEG to planes, parsing only the MCUs of
 * the region (and, within a row, those behind the nearest entry of the side index). Gives the same
 * samples as the reference decoder, at every instruction set level. */
#ifndef LOADER_DECODE_INDEXED_H
#define LOADER_DECODE_INDEXED_H

#include <stddef.h>
#include <stdint.h>

#include "loader/cpu.h"
#include "loader/planes.h"

/* A part of an image, px: [x0, x1) x [y0, y1), not empty, within the image. */
struct decode_region {
    uint32_t x0, x1, y0, y1;
};

/* One thread's decoder: Huffman tables of the last image, buffers as large as the largest seen. */
struct decode_indexed;

/* level: cpu_level() for the best. ERR_UNSUPPORTED when the machine lacks it, ERR_NOMEM. */
int decode_indexed_open(struct decode_indexed **out, enum cpu_level level);
void decode_indexed_close(struct decode_indexed *decoder); /* accepts NULL */

/* Decodes at least the region's samples of each plane (its edges scaled by the sampling factors,
 * rounded outwards); planes are valid until the decoder's next call. The index must have come from
 * jpeg_index_build() on these very bytes; the record's checksum guarantees that. Nothing outside
 * jpeg[0, jpeg_bytes) and index[0, index_bytes) is read, whatever they hold.
 *
 * ERR_UNSUPPORTED: an image of a kind that is never indexed; ERR_DATA: index and image do not
 * belong together, as far as the region shows it. In both cases the reference decoder decides.
 * ERR_ARG: no such region; ERR_NOMEM. */
int decode_indexed_region(struct decode_indexed *decoder, struct planes *planes,
                          const uint8_t *jpeg, size_t jpeg_bytes, const uint8_t *index,
                          size_t index_bytes, const struct decode_region *region);

/* The same in bands (planes.h's rows_kept), so that samples stay in the cache and memory does not
 * grow with the image: begin decodes nothing yet; each call of next_band, until rows_ready is the
 * height, the next rows of all planes. The JPEG and the index must stay until then. Errors as
 * above. ERR_INTERNAL behind the last band. */
int decode_indexed_begin(struct decode_indexed *decoder, struct planes *planes, const uint8_t *jpeg,
                         size_t jpeg_bytes, const uint8_t *index, size_t index_bytes,
                         const struct decode_region *region);
int decode_indexed_next_band(struct decode_indexed *decoder, struct planes *planes);

#endif

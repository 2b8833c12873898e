/* SPDX-License-Identifier: Apache-2.0 */
/* The sets behind jpeg_ops_of(), and the pieces that they are put together from. Each level's file
 * is compiled with that level's instructions and must be entered only on a machine that has them.
 */
#ifndef LOADER_JPEG_LEVELS_H
#define LOADER_JPEG_LEVELS_H

#include "loader/jpeg/jpeg_entropy.h"

/* The set of one level, in a file that includes the loops and is compiled for it. */
#define JPEG_OPS(LEVEL)                                                                            \
    {                                                                                              \
        .destuff = destuff_##LEVEL, .decode_two = decode_two, .decode_one = decode_one,            \
        .skip_two = skip_two, .skip_one = skip_one, .survey_one = survey_one,                      \
        .survey_two = survey_two, .idct = idct_##LEVEL                                             \
    }

extern const struct jpeg_ops jpeg_ops_scalar;
#if defined(__x86_64__)
extern const struct jpeg_ops jpeg_ops_avx2, jpeg_ops_avx512;
#endif

void idct_scalar(int16_t *tiles, uint32_t count, size_t tile_step, const uint16_t *quant,
                 uint8_t *a, uint8_t *b, size_t step, size_t stride);
void idct_avx2(int16_t *tiles, uint32_t count, size_t tile_step, const uint16_t *quant, uint8_t *a,
               uint8_t *b, size_t step, size_t stride);
void idct_avx512(int16_t *tiles, uint32_t count, size_t tile_step, const uint16_t *quant,
                 uint8_t *a, uint8_t *b, size_t step, size_t stride);

size_t destuff_scalar(uint8_t *dst, const uint8_t *src, size_t count, size_t *used);
size_t destuff_avx2(uint8_t *dst, const uint8_t *src, size_t count, size_t *used);
size_t destuff_avx512(uint8_t *dst, const uint8_t *src, size_t count, size_t *used);

#endif

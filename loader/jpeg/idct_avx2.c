/* SPDX-License-Identifier: Apache-2.0 */
/* The inverse DCT with AVX2: both blocks of a tile at once. */
#include <immintrin.h>

#include "loader/jpeg/jpeg_levels.h"

#define VECTOR __m256i
#define V(name) _mm256_##name
#define V_ZERO() _mm256_setzero_si256()
#include "loader/jpeg/idct_vector.h"

INLINE void idct_tile(int16_t *tile, const __m256i quant[8], uint8_t *a, uint8_t *b, size_t stride)
{
    __m256i x[8], rows[4];
    for (int i = 0; i < 8; i++) {
        __m256i *row = (__m256i *)(tile + i * ENTROPY_TILE_ROW);
        x[i] = _mm256_mullo_epi16(_mm256_load_si256(row), quant[i]);
        _mm256_store_si256(row, _mm256_setzero_si256());
    }
    idct_blocks(rows, x);
    for (int i = 0; i < 4; i++)
        store_rows(a + 2 * (size_t)i * stride, stride, _mm256_castsi256_si128(rows[i]));
    if (!b)
        return;
    for (int i = 0; i < 4; i++)
        store_rows(b + 2 * (size_t)i * stride, stride, _mm256_extracti128_si256(rows[i], 1));
}

void idct_avx2(int16_t *tiles, uint32_t count, size_t tile_step, const uint16_t *quant, uint8_t *a,
               uint8_t *b, size_t step, size_t stride)
{
    __m256i q[8];
    for (int i = 0; i < 8; i++)
        q[i] = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(quant + i * 8)));
    for (uint32_t i = 0; i < count; i++)
        idct_tile(tiles + i * tile_step, q, a + i * step, b ? b + i * step : NULL, stride);
}

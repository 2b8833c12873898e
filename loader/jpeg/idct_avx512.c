/* SPDX-License-Identifier: Apache-2.0 */
/* The inverse DCT with AVX-512: four blocks of two tiles at once. */
#include <immintrin.h>

#include "loader/jpeg/jpeg_levels.h"

#define VECTOR __m512i
#define V(name) _mm512_##name
#define V_ZERO() _mm512_setzero_si512()
#include "loader/jpeg/idct_vector.h"

/* Part of a vector that holds a block: first tile's a and b, then the second's. */
#define PART(rows, part) _mm512_extracti32x4_epi32(rows, part)

INLINE void idct_tiles(int16_t *first, int16_t *second, const __m512i quant[8], uint8_t *a,
                       uint8_t *b, size_t step, size_t stride)
{
    __m512i x[8], rows[4];
    for (int i = 0; i < 8; i++) {
        __m256i *low = (__m256i *)(first + i * ENTROPY_TILE_ROW);
        __m256i *high = (__m256i *)(second + i * ENTROPY_TILE_ROW);
        __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_load_si256(low)), *high, 1);
        x[i] = _mm512_mullo_epi16(both, quant[i]);
        _mm256_store_si256(low, _mm256_setzero_si256());
        _mm256_store_si256(high, _mm256_setzero_si256());
    }
    idct_blocks(rows, x);
    for (size_t i = 0; i < 4; i++) {
        store_rows(a + 2 * i * stride, stride, PART(rows[i], 0));
        store_rows(a + 2 * i * stride + step, stride, PART(rows[i], 2));
    }
    if (!b)
        return;
    for (size_t i = 0; i < 4; i++) {
        store_rows(b + 2 * i * stride, stride, PART(rows[i], 1));
        store_rows(b + 2 * i * stride + step, stride, PART(rows[i], 3));
    }
}

void idct_avx512(int16_t *tiles, uint32_t count, size_t tile_step, const uint16_t *quant,
                 uint8_t *a, uint8_t *b, size_t step, size_t stride)
{
    __m512i q[8];
    for (int i = 0; i < 8; i++)
        q[i] = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(quant + i * 8)));
    uint32_t done = 0;
    for (; done + 2 <= count; done += 2) {
        int16_t *first = tiles + done * tile_step;
        idct_tiles(first, first + tile_step, q, a + done * step, b ? b + done * step : NULL, step,
                   stride);
    }
    if (done < count) /* the last one alone */
        idct_avx2(tiles + done * tile_step, 1, tile_step, quant, a + done * step,
                  b ? b + done * step : NULL, step, stride);
}

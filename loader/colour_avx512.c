/* SPDX-License-Identifier: Apache-2.0 */
/* The colour stages with AVX-512 (BW, DQ): 32 pixels at a time. */
#include <immintrin.h>
#include <string.h>

#define INTS __m512i
#define FLOATS __m512
#define V(name) _mm512_##name
#define V_ZERO() _mm512_setzero_si512()
#define V_FLOATS(ints) _mm512_castsi512_ps(ints)
enum { LANES = 32 };

#include "loader/colour_vector.h"

INLINE __m512i load_ints(const int16_t *src)
{
    return _mm512_loadu_si512(src);
}

INLINE void store_ints(int16_t *dst, __m512i values)
{
    _mm512_storeu_si512(dst, values);
}

INLINE void sextants(__m512i highest, __m512i r, __m512i g, __m512i b, __m512i *numerator,
                     __m512i *base)
{
    const __m512i two = _mm512_set1_epi16(0x4000), minus_two = _mm512_set1_epi16((short)0xc000);
    __mmask32 not_red = _mm512_cmpneq_epi16_mask(highest, r);
    __mmask32 green = _mm512_cmpeq_epi16_mask(highest, g);
    __m512i other = _mm512_mask_sub_epi16(_mm512_sub_epi16(r, g), green, b, r);
    *numerator = _mm512_mask_mov_epi16(_mm512_sub_epi16(g, b), not_red, other);
    *base = _mm512_maskz_mov_epi16(not_red, _mm512_mask_mov_epi16(minus_two, green, two));
}

INLINE __m512 negative(__m512 value, __m512 yes, __m512 no)
{
    return _mm512_mask_mov_ps(no, _mm512_movepi32_mask(_mm512_castps_si512(value)), yes);
}

/* 32 pixels' channel as halves: 16 of `first`, then 16 of `second`. */
INLINE __m512i halves_of(__m512 first, __m512 second)
{
    __m256i low = _mm512_cvtps_ph(first, _MM_FROUND_TO_NEAREST_INT);
    __m256i high = _mm512_cvtps_ph(second, _MM_FROUND_TO_NEAREST_INT);
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

/* Pixel i is element HOLDS(i) of halves_of(): within each 8 pixels the first four come from the
 * first half, the last four from the second. */
#define HOLDS(i) ((i) / 8 * 4 + (i) % 4 + (i) / 4 % 2 * 16)

/* Indexes that interleave: element e of 96 is channel e % 3 of pixel e / 3. rg: R and G from two
 * vectors, whatever for B; b: B from the second, the rest from the first. */
struct interleave {
    uint16_t rg[3][32], b[3][32];
};

#define RG1(e) (uint16_t)((e) % 3 == 1 ? 32 + HOLDS((e) / 3) : HOLDS((e) / 3))
#define B1(e) (uint16_t)((e) % 3 == 2 ? 32 + HOLDS((e) / 3) : (e) % 32)
#define TIMES4(F, e) F(e), F(e + 1), F(e + 2), F(e + 3)
#define TIMES16(F, e) TIMES4(F, e), TIMES4(F, e + 4), TIMES4(F, e + 8), TIMES4(F, e + 12)
#define TIMES32(F, e)                                                                              \
    {                                                                                              \
        TIMES16(F, e), TIMES16(F, e + 16)                                                          \
    }

static const struct interleave interleave = {
    {TIMES32(RG1, 0), TIMES32(RG1, 32), TIMES32(RG1, 64)},
    {TIMES32(B1, 0), TIMES32(B1, 32), TIMES32(B1, 64)},
};

INLINE void store_halves(uint16_t *dst, struct values values)
{
    __m512i channel[3];
    for (int c = 0; c < 3; c++)
        channel[c] = halves_of(values.half[0][c], values.half[1][c]);
    for (int part = 0; part < 3; part++) {
        __m512i rg = _mm512_permutex2var_epi16(channel[0], _mm512_loadu_si512(interleave.rg[part]),
                                               channel[1]);
        __m512i all =
            _mm512_permutex2var_epi16(rg, _mm512_loadu_si512(interleave.b[part]), channel[2]);
        _mm512_storeu_si512(dst + 32 * part, all);
    }
}

const struct colour_ops colour_ops_avx512 = {
    .ycc_to_rgb = ycc_to_rgb, .halves = halves, .halves_mixed = halves_mixed, .bytes = bytes};

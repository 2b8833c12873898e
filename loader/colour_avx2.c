/* SPDX-License-Identifier: Apache-2.0 */
/* The colour stages with AVX2 and F16C: 16 pixels at a time. */
#include <immintrin.h>
#include <string.h>

#define INTS __m256i
#define FLOATS __m256
#define V(name) _mm256_##name
#define V_ZERO() _mm256_setzero_si256()
#define V_FLOATS(ints) _mm256_castsi256_ps(ints)
enum { LANES = 16 };

#include "loader/colour_vector.h"

INLINE __m256i load_ints(const int16_t *src)
{
    return _mm256_loadu_si256((const void *)src);
}

INLINE void store_ints(int16_t *dst, __m256i values)
{
    _mm256_storeu_si256((void *)dst, values);
}

INLINE void sextants(__m256i highest, __m256i r, __m256i g, __m256i b, __m256i *numerator,
                     __m256i *base)
{
    const __m256i two = _mm256_set1_epi16(0x4000), minus_two = _mm256_set1_epi16((short)0xc000);
    __m256i red = _mm256_cmpeq_epi16(highest, r), green = _mm256_cmpeq_epi16(highest, g);
    __m256i other = _mm256_blendv_epi8(_mm256_sub_epi16(r, g), _mm256_sub_epi16(b, r), green);
    *numerator = _mm256_blendv_epi8(other, _mm256_sub_epi16(g, b), red);
    *base = _mm256_andnot_si256(red, _mm256_blendv_epi8(minus_two, two, green));
}

INLINE __m256 negative(__m256 value, __m256 yes, __m256 no)
{
    return _mm256_blendv_ps(no, yes, value);
}

/* 8 pixels' channel as halves in each 128 bits, in the pixels' order. */
INLINE __m256i halves_of(__m256 first, __m256 second)
{
    __m128i low = _mm256_cvtps_ph(first, _MM_FROUND_TO_NEAREST_INT);
    __m128i high = _mm256_cvtps_ph(second, _MM_FROUND_TO_NEAREST_INT);
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_unpacklo_epi64(low, high)),
                                   _mm_unpackhi_epi64(low, high), 1);
}

/* Shuffles that put 16-bit elements of one channel where they go in 16 bytes of R G B R ...: part
 * (0..2) of 48 bytes, channel (0..2). */
#define AT(element) (char)(2 * (element)), (char)(2 * (element) + 1)
#define NO (char)0x80, (char)0x80
#define TWICE(...) _mm256_setr_epi8(__VA_ARGS__, __VA_ARGS__)

INLINE __m256i part_of(__m256i r, __m256i g, __m256i b, int part)
{
    const __m256i for_r = part == 0   ? TWICE(AT(0), NO, NO, AT(1), NO, NO, AT(2), NO)
                          : part == 1 ? TWICE(NO, AT(3), NO, NO, AT(4), NO, NO, AT(5))
                                      : TWICE(NO, NO, AT(6), NO, NO, AT(7), NO, NO);
    const __m256i for_g = part == 0   ? TWICE(NO, AT(0), NO, NO, AT(1), NO, NO, AT(2))
                          : part == 1 ? TWICE(NO, NO, AT(3), NO, NO, AT(4), NO, NO)
                                      : TWICE(AT(5), NO, NO, AT(6), NO, NO, AT(7), NO);
    const __m256i for_b = part == 0   ? TWICE(NO, NO, AT(0), NO, NO, AT(1), NO, NO)
                          : part == 1 ? TWICE(AT(2), NO, NO, AT(3), NO, NO, AT(4), NO)
                                      : TWICE(NO, AT(5), NO, NO, AT(6), NO, NO, AT(7));
    return _mm256_or_si256(
        _mm256_or_si256(_mm256_shuffle_epi8(r, for_r), _mm256_shuffle_epi8(g, for_g)),
        _mm256_shuffle_epi8(b, for_b));
}

INLINE void store_halves(uint16_t *dst, struct values values)
{
    __m256i channel[3], part[3];
    for (int c = 0; c < 3; c++)
        channel[c] = halves_of(values.half[0][c], values.half[1][c]);
    for (int i = 0; i < 3; i++)
        part[i] = part_of(channel[0], channel[1], channel[2], i);
    /* The low 128 bits of the parts are pixels 0..7, the high ones 8..15. */
    _mm256_storeu_si256((void *)dst, _mm256_permute2x128_si256(part[0], part[1], 0x20));
    _mm256_storeu_si256((void *)(dst + 16), _mm256_permute2x128_si256(part[2], part[0], 0x30));
    _mm256_storeu_si256((void *)(dst + 32), _mm256_permute2x128_si256(part[1], part[2], 0x31));
}

const struct colour_ops colour_ops_avx2 = {
    .ycc_to_rgb = ycc_to_rgb, .halves = halves, .halves_mixed = halves_mixed, .bytes = bytes};

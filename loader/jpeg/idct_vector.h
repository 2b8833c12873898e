/* SPDX-License-Identifier: Apache-2.0 */
/* The inverse DCT on vectors of 2 or 4 blocks: every 128 bits hold a row (later a column) of one
 * block, and no step but load and store crosses them. The including file says what a vector is:
 *   VECTOR    the type
 *   V(name)   the intrinsic: _mm256_##name or _mm512_##name
 *   V_ZERO()  all zeros */
#include "loader/jpeg/idct_constants.h"

#define INLINE static inline __attribute__((always_inline))

/* For multiply-add with interleaved pairs (p, q). */
INLINE VECTOR factors(int for_p, int for_q)
{
    return V(set1_epi32)((int)((uint32_t)(for_q) << 16 | (uint16_t)(for_p)));
}

INLINE VECTOR multiply_pair(VECTOR pq, int for_p, int for_q)
{
    return V(madd_epi16)(pq, factors(for_p, for_q));
}

/* The lower or upper four 16-bit values of each 128 bits of p and q, interleaved. */
INLINE VECTOR interleave(VECTOR p, VECTOR q, int upper)
{
    return upper ? V(unpackhi_epi16)(p, q) : V(unpacklo_epi16)(p, q);
}

/* value * 2^13 in 32 bits: sign-extended from the upper half of a 32-bit lane. */
INLINE VECTOR widen(VECTOR value, int upper)
{
    return V(srai_epi32)(interleave(V_ZERO(), value, upper), 16 - IDCT_FRACTION_BITS);
}

/* One dimension of the transform across x[0..7], in place. */
INLINE void idct_pass(VECTOR x[8], int shift)
{
    const VECTOR round = V(set1_epi32)(1 << (shift - 1));
    VECTOR sum04 = V(add_epi16)(x[0], x[4]), difference04 = V(sub_epi16)(x[0], x[4]);
    VECTOR s73 = V(add_epi16)(x[7], x[3]), s51 = V(add_epi16)(x[5], x[1]);
    VECTOR out[2][8];
#pragma GCC unroll 2
    for (int upper = 0; upper < 2; upper++) {
        VECTOR even0 = V(add_epi32)(widen(sum04, upper), round);
        VECTOR even1 = V(add_epi32)(widen(difference04, upper), round);
        VECTOR pair26 = interleave(x[2], x[6], upper);
        VECTOR even2 = multiply_pair(pair26, E2_FOR_2, E2_FOR_6);
        VECTOR even3 = multiply_pair(pair26, E3_FOR_2, E3_FOR_6);
        VECTOR t10 = V(add_epi32)(even0, even3), t13 = V(sub_epi32)(even0, even3);
        VECTOR t11 = V(add_epi32)(even1, even2), t12 = V(sub_epi32)(even1, even2);

        VECTOR sums = interleave(s73, s51, upper);
        VECTOR z3 = multiply_pair(sums, Z3_FOR_73, Z3_FOR_51);
        VECTOR z4 = multiply_pair(sums, Z4_FOR_73, Z4_FOR_51);
        VECTOR pair71 = interleave(x[7], x[1], upper), pair53 = interleave(x[5], x[3], upper);
        VECTOR odd0 = V(add_epi32)(multiply_pair(pair71, O0_FOR_7, O0_FOR_1), z3);
        VECTOR odd3 = V(add_epi32)(multiply_pair(pair71, O3_FOR_7, O3_FOR_1), z4);
        VECTOR odd1 = V(add_epi32)(multiply_pair(pair53, O1_FOR_5, O1_FOR_3), z4);
        VECTOR odd2 = V(add_epi32)(multiply_pair(pair53, O2_FOR_5, O2_FOR_3), z3);

        out[upper][0] = V(srai_epi32)(V(add_epi32)(t10, odd3), shift);
        out[upper][7] = V(srai_epi32)(V(sub_epi32)(t10, odd3), shift);
        out[upper][1] = V(srai_epi32)(V(add_epi32)(t11, odd2), shift);
        out[upper][6] = V(srai_epi32)(V(sub_epi32)(t11, odd2), shift);
        out[upper][2] = V(srai_epi32)(V(add_epi32)(t12, odd1), shift);
        out[upper][5] = V(srai_epi32)(V(sub_epi32)(t12, odd1), shift);
        out[upper][3] = V(srai_epi32)(V(add_epi32)(t13, odd0), shift);
        out[upper][4] = V(srai_epi32)(V(sub_epi32)(t13, odd0), shift);
    }
    for (int i = 0; i < 8; i++)
        x[i] = V(packs_epi32)(out[0][i], out[1][i]);
}

/* Rows to columns, 8 x 8 values of 16 bits in each 128-bit part. */
INLINE void transpose(VECTOR x[8])
{
    VECTOR a[8], b[8];
    for (int i = 0; i < 4; i++) {
        a[2 * i] = V(unpacklo_epi16)(x[2 * i], x[2 * i + 1]);
        a[2 * i + 1] = V(unpackhi_epi16)(x[2 * i], x[2 * i + 1]);
    }
    for (int half = 0; half < 2; half++)
        for (int i = 0; i < 2; i++) {
            b[4 * half + 2 * i] = V(unpacklo_epi32)(a[4 * half + i], a[4 * half + 2 + i]);
            b[4 * half + 2 * i + 1] = V(unpackhi_epi32)(a[4 * half + i], a[4 * half + 2 + i]);
        }
    for (int i = 0; i < 4; i++) {
        x[2 * i] = V(unpacklo_epi64)(b[i], b[4 + i]);
        x[2 * i + 1] = V(unpackhi_epi64)(b[i], b[4 + i]);
    }
}

/* Eight columns of 16-bit samples around 0 -> rows of bytes: each 128-bit part of out[i] holds rows
 * 2 i and 2 i + 1 of its block. */
INLINE void to_rows(VECTOR out[4], const VECTOR column[8])
{
    const VECTOR centre = V(set1_epi8)((char)0x80);
    VECTOR packed[4]; /* [i]: columns i and i + 4 */
    for (int i = 0; i < 4; i++)
        packed[i] = V(add_epi8)(V(packs_epi16)(column[i], column[i + 4]), centre);
    VECTOR columns01 = V(unpacklo_epi8)(packed[0], packed[1]);
    VECTOR columns45 = V(unpackhi_epi8)(packed[0], packed[1]);
    VECTOR columns23 = V(unpacklo_epi8)(packed[2], packed[3]);
    VECTOR columns67 = V(unpackhi_epi8)(packed[2], packed[3]);
    VECTOR left03 = V(unpacklo_epi16)(columns01, columns23);
    VECTOR left47 = V(unpackhi_epi16)(columns01, columns23);
    VECTOR right03 = V(unpacklo_epi16)(columns45, columns67);
    VECTOR right47 = V(unpackhi_epi16)(columns45, columns67);
    out[0] = V(unpacklo_epi32)(left03, right03);
    out[1] = V(unpackhi_epi32)(left03, right03);
    out[2] = V(unpacklo_epi32)(left47, right47);
    out[3] = V(unpackhi_epi32)(left47, right47);
}

/* Dequantised coefficients, row by row -> samples. */
INLINE void idct_blocks(VECTOR out[4], VECTOR x[8])
{
    idct_pass(x, IDCT_SHIFT1);
    transpose(x);
    idct_pass(x, IDCT_SHIFT2);
    to_rows(out, x);
}

/* Two rows of one block, 128 bits. */
INLINE void store_rows(uint8_t *dst, size_t stride, __m128i rows)
{
    _mm_storel_epi64((__m128i *)dst, rows);
    _mm_storeh_pi((__m64 *)(dst + stride), _mm_castsi128_ps(rows));
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The AVX-512 intrinsics that the loader's sources use, out of AVX2's on two halves and of plain
 * loops: compiled with this in front, the widest sources run, and are tested, on a machine that has
 * no AVX-512. Included by force before anything else. */
#ifndef TESTS_UNIT_LOADER_AVX512_BY_HALVES_H
#define TESTS_UNIT_LOADER_AVX512_BY_HALVES_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define HALVES static inline __attribute__((always_inline, unused))

union ints512 {
    __m256i half[2];
    __m128i quarter[4];
    uint8_t u8[64];
    int16_t i16[32];
    uint16_t u16[32];
};

union floats512 {
    __m256 half[2];
    float f32[16];
};

#define INTS_OF_TWO(name)                                                                          \
    HALVES union ints512 halves_##name(union ints512 a, union ints512 b)                           \
    {                                                                                              \
        return (union ints512){                                                                    \
            {_mm256_##name(a.half[0], b.half[0]), _mm256_##name(a.half[1], b.half[1])}};           \
    }

#define FLOATS_OF_TWO(name)                                                                        \
    HALVES union floats512 halves_##name(union floats512 a, union floats512 b)                     \
    {                                                                                              \
        return (union floats512){                                                                  \
            {_mm256_##name(a.half[0], b.half[0]), _mm256_##name(a.half[1], b.half[1])}};           \
    }

#define INTS_OF_VALUE(name, type)                                                                  \
    HALVES union ints512 halves_##name(type value)                                                 \
    {                                                                                              \
        return (union ints512){{_mm256_##name(value), _mm256_##name(value)}};                      \
    }

INTS_OF_TWO(add_epi8)
INTS_OF_TWO(add_epi16)
INTS_OF_TWO(add_epi32)
INTS_OF_TWO(adds_epi16)
INTS_OF_TWO(sub_epi16)
INTS_OF_TWO(sub_epi32)
INTS_OF_TWO(subs_epi16)
INTS_OF_TWO(madd_epi16)
INTS_OF_TWO(max_epi16)
INTS_OF_TWO(min_epi16)
INTS_OF_TWO(mulhi_epu16)
INTS_OF_TWO(mulhrs_epi16)
INTS_OF_TWO(mullo_epi16)
INTS_OF_TWO(packs_epi16)
INTS_OF_TWO(packs_epi32)
INTS_OF_TWO(unpacklo_epi8)
INTS_OF_TWO(unpackhi_epi8)
INTS_OF_TWO(unpacklo_epi16)
INTS_OF_TWO(unpackhi_epi16)
INTS_OF_TWO(unpacklo_epi32)
INTS_OF_TWO(unpackhi_epi32)
INTS_OF_TWO(unpacklo_epi64)
INTS_OF_TWO(unpackhi_epi64)
FLOATS_OF_TWO(add_ps)
FLOATS_OF_TWO(sub_ps)
FLOATS_OF_TWO(mul_ps)
FLOATS_OF_TWO(div_ps)
FLOATS_OF_TWO(min_ps)
FLOATS_OF_TWO(max_ps)
FLOATS_OF_TWO(andnot_ps)
INTS_OF_VALUE(set1_epi8, char)
INTS_OF_VALUE(set1_epi16, short)
INTS_OF_VALUE(set1_epi32, int)
INTS_OF_VALUE(broadcastsi128_si256, __m128i)

HALVES union floats512 halves_set1_ps(float value)
{
    return (union floats512){{_mm256_set1_ps(value), _mm256_set1_ps(value)}};
}

HALVES union ints512 halves_srai_epi32(union ints512 a, int count)
{
    return (union ints512){
        {_mm256_srai_epi32(a.half[0], count), _mm256_srai_epi32(a.half[1], count)}};
}

HALVES union floats512 halves_cvtepi32_ps(union ints512 a)
{
    return (union floats512){{_mm256_cvtepi32_ps(a.half[0]), _mm256_cvtepi32_ps(a.half[1])}};
}

HALVES union ints512 halves_cvttps_epi32(union floats512 a)
{
    return (union ints512){{_mm256_cvttps_epi32(a.half[0]), _mm256_cvttps_epi32(a.half[1])}};
}

HALVES __m256i halves_cvtps_ph(union floats512 a)
{
    return _mm256_set_m128i(_mm256_cvtps_ph(a.half[1], _MM_FROUND_TO_NEAREST_INT),
                            _mm256_cvtps_ph(a.half[0], _MM_FROUND_TO_NEAREST_INT));
}

HALVES union floats512 halves_castsi512_ps(union ints512 a)
{
    return (union floats512){{_mm256_castsi256_ps(a.half[0]), _mm256_castsi256_ps(a.half[1])}};
}

HALVES union ints512 halves_with(union ints512 a, __m256i half, int which)
{
    a.half[which] = half;
    return a;
}

HALVES union ints512 halves_load(const void *from)
{
    union ints512 a;
    memcpy(&a, from, sizeof a);
    return a;
}

HALVES void halves_store(void *to, union ints512 a)
{
    memcpy(to, &a, sizeof a);
}

HALVES union ints512 halves_load_masked(uint64_t mask, const uint8_t *from)
{
    union ints512 a = halves_set1_epi8(0);
    for (int i = 0; i < 64; i++)
        if (mask >> i & 1)
            a.u8[i] = from[i];
    return a;
}

HALVES uint64_t halves_equal8(union ints512 a, union ints512 b)
{
    uint64_t mask = 0;
    for (int i = 0; i < 64; i++)
        mask |= (uint64_t)(a.u8[i] == b.u8[i]) << i;
    return mask;
}

HALVES uint32_t halves_equal16(union ints512 a, union ints512 b)
{
    uint32_t mask = 0;
    for (int i = 0; i < 32; i++)
        mask |= (uint32_t)(a.i16[i] == b.i16[i]) << i;
    return mask;
}

HALVES union ints512 halves_choose16(union ints512 otherwise, uint32_t mask, union ints512 a)
{
    for (int i = 0; i < 32; i++)
        if (mask >> i & 1)
            otherwise.u16[i] = a.u16[i];
    return otherwise;
}

HALVES union floats512 halves_choose_ps(union floats512 otherwise, uint32_t mask, union floats512 a)
{
    for (int i = 0; i < 16; i++)
        if (mask >> i & 1)
            otherwise.f32[i] = a.f32[i];
    return otherwise;
}

HALVES union ints512 halves_compress8(uint64_t mask, union ints512 a)
{
    union ints512 packed = halves_set1_epi8(0);
    int to = 0;
    for (int i = 0; i < 64; i++)
        if (mask >> i & 1)
            packed.u8[to++] = a.u8[i];
    return packed;
}

HALVES union ints512 halves_permute8(uint64_t mask, union ints512 a, union ints512 index,
                                     union ints512 b)
{
    union ints512 out = halves_set1_epi8(0);
    for (int i = 0; i < 64; i++)
        if (mask >> i & 1)
            out.u8[i] = (index.u8[i] & 64 ? b : a).u8[index.u8[i] & 63];
    return out;
}

HALVES union ints512 halves_permute16(union ints512 a, union ints512 index, union ints512 b)
{
    union ints512 out;
    for (int i = 0; i < 32; i++)
        out.u16[i] = (index.u16[i] & 32 ? b : a).u16[index.u16[i] & 31];
    return out;
}

/* What clang has as macros. */
#undef _mm512_cvtps_ph
#undef _mm512_inserti64x4
#undef _mm512_extracti32x4_epi32
#undef _mm512_cmpeq_epi8_mask
#undef _mm512_cmpeq_epi16_mask
#undef _mm512_cmpneq_epi16_mask
#define __m512i union ints512
#define __m512 union floats512
#define _mm512_add_epi8 halves_add_epi8
#define _mm512_add_epi16 halves_add_epi16
#define _mm512_add_epi32 halves_add_epi32
#define _mm512_adds_epi16 halves_adds_epi16
#define _mm512_sub_epi16 halves_sub_epi16
#define _mm512_sub_epi32 halves_sub_epi32
#define _mm512_subs_epi16 halves_subs_epi16
#define _mm512_madd_epi16 halves_madd_epi16
#define _mm512_max_epi16 halves_max_epi16
#define _mm512_min_epi16 halves_min_epi16
#define _mm512_mulhi_epu16 halves_mulhi_epu16
#define _mm512_mulhrs_epi16 halves_mulhrs_epi16
#define _mm512_mullo_epi16 halves_mullo_epi16
#define _mm512_packs_epi16 halves_packs_epi16
#define _mm512_packs_epi32 halves_packs_epi32
#define _mm512_unpacklo_epi8 halves_unpacklo_epi8
#define _mm512_unpackhi_epi8 halves_unpackhi_epi8
#define _mm512_unpacklo_epi16 halves_unpacklo_epi16
#define _mm512_unpackhi_epi16 halves_unpackhi_epi16
#define _mm512_unpacklo_epi32 halves_unpacklo_epi32
#define _mm512_unpackhi_epi32 halves_unpackhi_epi32
#define _mm512_unpacklo_epi64 halves_unpacklo_epi64
#define _mm512_unpackhi_epi64 halves_unpackhi_epi64
#define _mm512_add_ps halves_add_ps
#define _mm512_sub_ps halves_sub_ps
#define _mm512_mul_ps halves_mul_ps
#define _mm512_div_ps halves_div_ps
#define _mm512_min_ps halves_min_ps
#define _mm512_max_ps halves_max_ps
#define _mm512_andnot_ps halves_andnot_ps
#define _mm512_set1_epi8 halves_set1_epi8
#define _mm512_set1_epi16 halves_set1_epi16
#define _mm512_set1_epi32 halves_set1_epi32
#define _mm512_set1_ps halves_set1_ps
#define _mm512_setzero_si512() halves_set1_epi32(0)
#define _mm512_setzero_ps() halves_set1_ps(0)
#define _mm512_srai_epi32 halves_srai_epi32
#define _mm512_cvtepi32_ps halves_cvtepi32_ps
#define _mm512_cvttps_epi32 halves_cvttps_epi32
#define _mm512_cvtps_ph(a, rounding) halves_cvtps_ph(a)
#define _mm512_castsi512_ps halves_castsi512_ps
#define _mm512_castsi256_si512(a) halves_with(halves_set1_epi32(0), a, 0)
#define _mm512_inserti64x4 halves_with
#define _mm512_extracti32x4_epi32(a, part) ((a).quarter[part])
#define _mm512_broadcast_i32x4 halves_broadcastsi128_si256
#define _mm512_loadu_si512 halves_load
#define _mm512_storeu_si512 halves_store
#define _mm512_maskz_loadu_epi8 halves_load_masked
#define _mm512_cmpeq_epi8_mask halves_equal8
#define _mm512_cmpeq_epi16_mask halves_equal16
#define _mm512_cmpneq_epi16_mask(a, b) (~halves_equal16(a, b))
#define _mm512_castps_si512(a) (a)
#define _mm512_movepi32_mask(a) /* of floats */                                                    \
    (uint16_t)(_mm256_movemask_ps((a).half[0]) | _mm256_movemask_ps((a).half[1]) << 8)
#define _mm512_mask_mov_ps halves_choose_ps
#define _mm512_mask_mov_epi16 halves_choose16
#define _mm512_maskz_mov_epi16(mask, a) halves_choose16(halves_set1_epi16(0), mask, a)
#define _mm512_mask_sub_epi16(otherwise, mask, a, b)                                               \
    halves_choose16(otherwise, mask, halves_sub_epi16(a, b))
#define _mm512_maskz_compress_epi8 halves_compress8
#define _mm512_maskz_permutexvar_epi8(mask, index, a)                                              \
    halves_permute8(mask, a, halves_low6(index), a)
#define _mm512_maskz_permutex2var_epi8 halves_permute8
#define _mm512_permutex2var_epi16 halves_permute16

HALVES union ints512 halves_low6(union ints512 index)
{
    for (int i = 0; i < 64; i++)
        index.u8[i] &= 63;
    return index;
}

#endif

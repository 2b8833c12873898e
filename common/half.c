/* SPDX-License-Identifier: Apache-2.0 */
/* Half floats: portable integer code, and F16C where the processor has it, bit for bit the same. */
#include "common/half.h"

#include <string.h>

#include "common/half_arrays.h"

enum {
    FLOAT_INFINITY = 0x7f800000,
    HALF_INFINITY = 0x7c00,
    HALF_QUIET = 0x0200,
    HALF_LEAST_EXPONENT = 0x0400,
    HALF_SIGN = 0x8000,
    /* Floats of at least 65,520 round to infinity, under 2^-14 they are subnormal halves. */
    FLOAT_OVERFLOW = 0x477ff000,
    FLOAT_SUBNORMAL = 0x38800000,
};

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

uint16_t half_from_float(float value)
{
    uint32_t bits = bits_of(value);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude > FLOAT_INFINITY) /* NaN keeps the upper bits of its payload, as F16C does */
        return (uint16_t)(sign | HALF_INFINITY | HALF_QUIET | (magnitude >> 13 & 0x3ff));
    if (magnitude >= FLOAT_OVERFLOW)
        return (uint16_t)(sign | HALF_INFINITY);
    if (magnitude < FLOAT_SUBNORMAL) {
        uint32_t exponent = magnitude >> 23;
        if (exponent < 102) /* under 2^-25, half of the least subnormal: nothing is left */
            return sign;
        uint32_t mantissa = (magnitude & 0x7fffff) | 0x800000;
        uint32_t shift = 126 - exponent;
        uint32_t half = mantissa >> shift;
        uint32_t rest = mantissa & ((1u << shift) - 1), tie = 1u << (shift - 1);
        half += rest > tie || (rest == tie && (half & 1));
        return (uint16_t)(sign | half);
    }
    /* A carry out of the mantissa moves on into the exponent, which is the right result. */
    uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
    return (uint16_t)(sign | ((rounded - (112u << 23)) >> 13));
}

float half_to_float(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    uint32_t exponent = half >> 10 & 31, mantissa = half & 0x3ff;
    if (exponent == 31) /* NaN is made quiet, as F16C does */
        return float_of(sign | FLOAT_INFINITY | (mantissa ? 0x400000 | mantissa << 13 : 0));
    if (exponent == 0) {
        float value = (float)mantissa * 0x1p-24f;
        return float_of(sign | bits_of(value));
    }
    return float_of(sign | (exponent + 112) << 23 | mantissa << 13);
}

bool half_all_finite(const uint16_t *src, size_t count)
{
    uint16_t carry = 0; /* out of an exponent of ones, into the sign's place */
    for (size_t i = 0; i < count; i++)
        carry |= (uint16_t)((src[i] & HALF_INFINITY) + HALF_LEAST_EXPONENT);
    return (carry & HALF_SIGN) == 0;
}

void half_from_floats_scalar(uint16_t *dst, const float *src, size_t count)
{
    for (size_t i = 0; i < count; i++)
        dst[i] = half_from_float(src[i]);
}

void half_to_floats_scalar(float *dst, const uint16_t *src, size_t count)
{
    for (size_t i = 0; i < count; i++)
        dst[i] = half_to_float(src[i]);
}

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#include <pthread.h>
#include <stdbool.h>

static bool have_f16c;
static pthread_once_t looked = PTHREAD_ONCE_INIT;

/* Once: CPUID leaves a virtual machine for microseconds, more than a small array takes. */
static void look(void)
{
    unsigned a, b, c, d; /* clang 14 does not know "f16c" in __builtin_cpu_supports */
    have_f16c = __builtin_cpu_supports("avx") && __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

int half_have_f16c(void)
{
    pthread_once(&looked, look);
    return have_f16c;
}

__attribute__((target("avx,f16c"))) void half_from_floats_f16c(uint16_t *dst, const float *src,
                                                               size_t count)
{
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        __m256 values = _mm256_loadu_ps(src + i);
        __m128i halves = _mm256_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT);
        _mm_storeu_si128((__m128i *)(dst + i), halves);
    }
    half_from_floats_scalar(dst + i, src + i, count - i);
}

__attribute__((target("avx,f16c"))) void half_to_floats_f16c(float *dst, const uint16_t *src,
                                                             size_t count)
{
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        __m128i halves = _mm_loadu_si128((const __m128i *)(src + i));
        _mm256_storeu_ps(dst + i, _mm256_cvtph_ps(halves));
    }
    half_to_floats_scalar(dst + i, src + i, count - i);
}
#else
int half_have_f16c(void)
{
    return 0;
}

void half_from_floats_f16c(uint16_t *dst, const float *src, size_t count)
{
    half_from_floats_scalar(dst, src, count);
}

void half_to_floats_f16c(float *dst, const uint16_t *src, size_t count)
{
    half_to_floats_scalar(dst, src, count);
}
#endif

uint16_t bf16_from_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

float bf16_to_float(uint16_t bits)
{
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

void half_from_floats(uint16_t *dst, const float *src, size_t count)
{
    if (half_have_f16c())
        half_from_floats_f16c(dst, src, count);
    else
        half_from_floats_scalar(dst, src, count);
}

void half_to_floats(float *dst, const uint16_t *src, size_t count)
{
    if (half_have_f16c())
        half_to_floats_f16c(dst, src, count);
    else
        half_to_floats_scalar(dst, src, count);
}

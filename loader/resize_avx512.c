/* SPDX-License-Identifier: Apache-2.0 */
/* The resize with AVX-512 (BW, VBMI): 32 outputs at a time. */
#include <immintrin.h>

#include "loader/resize_ops.h"

enum {
    LANES = 32,
    ONE_WINDOW = 1,  /* kind: each group's samples lie within 64 bytes */
    TWO_WINDOWS = 2, /* ... within 128; base[2 g + 1] is where the second 64 begin */
    WINDOW = 64,
};

/* Of one group: its lowest first, and how far its highest is from that. */
static uint32_t group_base(const uint32_t *first, uint32_t *span)
{
    uint32_t low = first[0] < first[LANES - 1] ? first[0] : first[LANES - 1];
    uint32_t high = first[0] < first[LANES - 1] ? first[LANES - 1] : first[0];
    *span = high - low;
    return low;
}

static void plan_x(struct resize_windows *windows, const struct resize_axis *x)
{
    windows->kind = ONE_WINDOW;
    for (uint32_t group = 0; group < x->stride / LANES; group++) {
        const uint32_t *first = x->first + (size_t)group * LANES;
        uint32_t span, base = group_base(first, &span);
        if (span >= 2 * WINDOW) {
            windows->kind = 0;
            return;
        }
        if (span >= WINDOW)
            windows->kind = TWO_WINDOWS;
        /* The second window is read only where a sample is in it: rows end soon behind the last. */
        windows->base[2 * group] = base - x->low;
        windows->base[2 * group + 1] = base - x->low + (span >= WINDOW ? WINDOW : 0);
        uint8_t *index = windows->index + (size_t)group * 2 * LANES;
        for (int lane = 0; lane < LANES; lane++) {
            index[2 * lane] = 0;
            index[2 * lane + 1] = (uint8_t)(first[lane] - base);
        }
    }
}

/* A sample in the upper byte of each output's 16 bits: sample << 8. */
#define UPPER_BYTES 0xaaaaaaaaaaaaaaaaull

static inline __m512i samples_of_one(const uint8_t *window, __m512i index)
{
    return _mm512_maskz_permutexvar_epi8(UPPER_BYTES, index, _mm512_loadu_si512(window));
}

static inline __m512i samples_of_two(const uint8_t *window, const uint8_t *second, __m512i index)
{
    return _mm512_maskz_permutex2var_epi8(UPPER_BYTES, _mm512_loadu_si512(window), index,
                                          _mm512_loadu_si512(second));
}

static inline __attribute__((always_inline)) void
group_x(int16_t *dst, const uint8_t *const source[RESIZE_BLOCK], const struct resize_axis *x,
        const struct resize_windows *windows, uint32_t group, uint32_t taps, bool two)
{
    const __m512i index = _mm512_loadu_si512(windows->index + (size_t)group * 2 * LANES);
    const uint32_t base = windows->base[2 * group], second = windows->base[2 * group + 1];
    const uint16_t *weight = x->weights + (size_t)group * LANES;
    __m512i sum[RESIZE_BLOCK];
    for (int row = 0; row < RESIZE_BLOCK; row++)
        sum[row] = _mm512_set1_epi16((short)(taps / 2));
    for (uint32_t tap = 0; tap < taps; tap++, weight += x->stride) {
        const __m512i weights = _mm512_loadu_si512(weight);
        for (int row = 0; row < RESIZE_BLOCK; row++) {
            const uint8_t *at = source[row] + tap;
            __m512i samples = two ? samples_of_two(at + base, at + second, index)
                                  : samples_of_one(at + base, index);
            sum[row] = _mm512_add_epi16(sum[row], _mm512_mulhi_epu16(samples, weights));
        }
    }
    for (int row = 0; row < RESIZE_BLOCK; row++)
        _mm512_storeu_si512(dst + (size_t)row * x->stride + (size_t)group * LANES, sum[row]);
}

static inline __attribute__((always_inline)) void
groups_x(int16_t *dst, const uint8_t *const source[RESIZE_BLOCK], const struct resize_axis *x,
         const struct resize_windows *windows, uint32_t taps)
{
    for (uint32_t group = 0; group < x->stride / LANES; group++) {
        if (windows->kind == ONE_WINDOW)
            group_x(dst, source, x, windows, group, taps, false);
        else
            group_x(dst, source, x, windows, group, taps, true);
    }
}

/* The usual numbers of taps as constants: their loops are unrolled. */
static void rows_x(int16_t *dst, const uint8_t *const source[RESIZE_BLOCK],
                   const struct resize_axis *x, const struct resize_windows *windows)
{
    switch (x->taps) {
    case 2:
        groups_x(dst, source, x, windows, 2);
        break;
    case 3:
        groups_x(dst, source, x, windows, 3);
        break;
    case 4:
        groups_x(dst, source, x, windows, 4);
        break;
    default:
        groups_x(dst, source, x, windows, x->taps);
    }
}

static inline __attribute__((always_inline)) void
columns_y(int16_t *dst, const int16_t *const *rows, const struct resize_axis *y, uint32_t output,
          uint32_t stride, uint32_t taps)
{
    for (uint32_t column = 0; column < stride; column += LANES) {
        const uint16_t *weight = y->weights + output;
        __m512i sum = _mm512_setzero_si512();
        for (uint32_t tap = 0; tap < taps; tap++, weight += y->stride) {
            short factor = *weight < INT16_MAX ? (short)*weight : INT16_MAX;
            sum = _mm512_add_epi16(sum, _mm512_mulhrs_epi16(_mm512_loadu_si512(rows[tap] + column),
                                                            _mm512_set1_epi16(factor)));
        }
        _mm512_storeu_si512(dst + column, sum);
    }
}

static void row_y(int16_t *dst, const int16_t *const *rows, const struct resize_axis *y,
                  uint32_t output, uint32_t stride)
{
    switch (y->taps) {
    case 2:
        columns_y(dst, rows, y, output, stride, 2);
        break;
    case 3:
        columns_y(dst, rows, y, output, stride, 3);
        break;
    case 4:
        columns_y(dst, rows, y, output, stride, 4);
        break;
    default:
        columns_y(dst, rows, y, output, stride, y->taps);
    }
}

const struct resize_ops resize_ops_avx512 = {.plan_x = plan_x, .rows_x = rows_x, .row_y = row_y};

/* SPDX-License-Identifier: Apache-2.0 */
/* The resize with AVX2: 16 outputs at a time, in two halves of 8, each half's samples picked from
 * one window of 16 bytes, or its quarters' from two. */
#include <immintrin.h>

#include "loader/resize_ops.h"

enum {
    LANES = 16,
    HALVES = 1,   /* kind: base and index are of 8 outputs each */
    QUARTERS = 2, /* ... of 4 each; the index of a half has 16 bytes for each quarter */
    WINDOW = 16,
    NONE = 0x80, /* a shuffle's index that gives 0 */
};

/* Of `count` outputs: base, or false when they do not fit into a window. */
static bool window_of(uint32_t *base, const uint32_t *first, uint32_t count)
{
    uint32_t low = first[0] < first[count - 1] ? first[0] : first[count - 1];
    uint32_t high = first[0] < first[count - 1] ? first[count - 1] : first[0];
    *base = low;
    return high - low < WINDOW;
}

/* index: WINDOW bytes for a window of `count` outputs that are the 8's from `from` on. */
static void fill_index(uint8_t *index, const uint32_t *first, uint32_t base, uint32_t from,
                       uint32_t count)
{
    for (uint32_t lane = 0; lane < 8; lane++) {
        bool own = lane >= from && lane < from + count;
        index[2 * lane] = NONE;
        index[2 * lane + 1] = own ? (uint8_t)(first[lane - from] - base) : NONE;
    }
}

static bool plan(struct resize_windows *windows, const struct resize_axis *x, uint32_t count)
{
    for (uint32_t window = 0; window < x->stride / count; window++) {
        const uint32_t *first = x->first + (size_t)window * count;
        uint32_t base;
        if (!window_of(&base, first, count))
            return false;
        windows->base[window] = base - x->low;
        fill_index(windows->index + (size_t)window * WINDOW, first, base, window * count % 8,
                   count);
    }
    return true;
}

static void plan_x(struct resize_windows *windows, const struct resize_axis *x)
{
    windows->kind = plan(windows, x, 8) ? HALVES : plan(windows, x, 4) ? QUARTERS : 0;
}

static inline __m256i two_windows(const uint8_t *low, const uint8_t *high)
{
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const void *)low)),
                                   _mm_loadu_si128((const void *)high), 1);
}

static inline __m256i two_indexes(const uint8_t *index, uint32_t apart)
{
    return two_windows(index, index + apart);
}

/* Sample << 8 of each output. */
static inline __attribute__((always_inline)) __m256i
samples_of(const uint8_t *source, const uint32_t *base, const __m256i index[2], bool quarters)
{
    if (!quarters)
        return _mm256_shuffle_epi8(two_windows(source + base[0], source + base[1]), index[0]);
    return _mm256_or_si256(
        _mm256_shuffle_epi8(two_windows(source + base[0], source + base[2]), index[0]),
        _mm256_shuffle_epi8(two_windows(source + base[1], source + base[3]), index[1]));
}

static inline __attribute__((always_inline)) void
group_x(int16_t *dst, const uint8_t *const source[RESIZE_BLOCK], const struct resize_axis *x,
        const struct resize_windows *windows, uint32_t group, uint32_t taps, bool quarters)
{
    const uint32_t count = quarters ? 4 : 2;
    const uint32_t *base = windows->base + (size_t)group * count;
    const uint8_t *place = windows->index + (size_t)group * count * WINDOW;
    const __m256i index[2] = {two_indexes(place, count / 2 * WINDOW),
                              two_indexes(place + (quarters ? WINDOW : 0), count / 2 * WINDOW)};
    const uint16_t *weight = x->weights + (size_t)group * LANES;
    __m256i sum[RESIZE_BLOCK];
    for (int row = 0; row < RESIZE_BLOCK; row++)
        sum[row] = _mm256_set1_epi16((short)(taps / 2));
    for (uint32_t tap = 0; tap < taps; tap++, weight += x->stride) {
        const __m256i weights = _mm256_loadu_si256((const void *)weight);
        for (int row = 0; row < RESIZE_BLOCK; row++) {
            __m256i samples = samples_of(source[row] + tap, base, index, quarters);
            sum[row] = _mm256_add_epi16(sum[row], _mm256_mulhi_epu16(samples, weights));
        }
    }
    for (int row = 0; row < RESIZE_BLOCK; row++)
        _mm256_storeu_si256((void *)(dst + (size_t)row * x->stride + (size_t)group * LANES),
                            sum[row]);
}

static inline __attribute__((always_inline)) void
groups_x(int16_t *dst, const uint8_t *const source[RESIZE_BLOCK], const struct resize_axis *x,
         const struct resize_windows *windows, uint32_t taps)
{
    for (uint32_t group = 0; group < x->stride / LANES; group++) {
        if (windows->kind == HALVES)
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
        __m256i sum = _mm256_setzero_si256();
        for (uint32_t tap = 0; tap < taps; tap++, weight += y->stride) {
            short factor = *weight < INT16_MAX ? (short)*weight : INT16_MAX;
            __m256i row = _mm256_loadu_si256((const void *)(rows[tap] + column));
            sum = _mm256_add_epi16(sum, _mm256_mulhrs_epi16(row, _mm256_set1_epi16(factor)));
        }
        _mm256_storeu_si256((void *)(dst + column), sum);
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

const struct resize_ops resize_ops_avx2 = {.plan_x = plan_x, .rows_x = rows_x, .row_y = row_y};

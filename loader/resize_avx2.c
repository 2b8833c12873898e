/* SPDX-License-Identifier: Apache-2.0 */
/* The resize with AVX2: 16 outputs at a time, in two halves of 8, each half's samples picked from
 * one window of 16 bytes, or its quarters' from two. */
#include <immintrin.h>
#include <stdint.h>

#define INTS __m256i
#define V(name) _mm256_##name
#define V_LOAD(from) _mm256_loadu_si256((const void *)(from))
#define V_STORE(to, value) _mm256_storeu_si256((void *)(to), value)
enum { LANES = 16 };
#define SHARED_WINDOWS WHOLE_HALVES
#define SHARED_INDEX(picker) (picker)->index[0]
#define FEW_WINDOWS HALVES
#define MANY_WINDOWS QUARTERS

enum {
    HALVES = 1,       /* kind: base and index are of 8 outputs each */
    QUARTERS = 2,     /* ... of 4 each; the index of a half has 16 bytes for each quarter */
    WHOLE_HALVES = 3, /* as HALVES, and the windows hold the samples of all taps */
    WINDOW = 16,
    NONE = 0x80, /* a shuffle's index that gives 0 */
};

/* Of quarters: first those at the front of their halves, then those at the back. */
struct picker {
    __m256i index[2];
    uint32_t base[4];
};

#include "loader/resize_vector.h"

/* Of `count` outputs: base, or false when they do not fit into a window, with `more` samples behind
 * each. */
static bool window_of(uint32_t *base, const uint32_t *first, uint32_t count, uint32_t more)
{
    uint32_t low = first[0] < first[count - 1] ? first[0] : first[count - 1];
    uint32_t high = first[0] < first[count - 1] ? first[count - 1] : first[0];
    *base = low;
    return high - low + more < WINDOW;
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

static bool plan(struct resize_windows *windows, const struct resize_axis *x, uint32_t count,
                 uint32_t more)
{
    for (uint32_t window = 0; window < x->stride / count; window++) {
        const uint32_t *first = x->first + (size_t)window * count;
        uint32_t base;
        if (!window_of(&base, first, count, more))
            return false;
        windows->base[window] = base - x->low;
        fill_index(windows->index + (size_t)window * WINDOW, first, base, window * count % 8,
                   count);
    }
    return true;
}

static void plan_x(struct resize_windows *windows, const struct resize_axis *x)
{
    windows->kind = plan(windows, x, 8, x->taps - 1) ? WHOLE_HALVES
                    : plan(windows, x, 8, 0)         ? HALVES
                    : plan(windows, x, 4, 0)         ? QUARTERS
                                                     : 0;
}

INLINE __m256i two_windows(const uint8_t *low, const uint8_t *high)
{
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const void *)low)),
                                   _mm_loadu_si128((const void *)high), 1);
}

INLINE struct picker picker_of(const struct resize_windows *windows, uint32_t group, uint32_t kind)
{
    const uint32_t count = kind == QUARTERS ? 4 : 2; /* windows of a group */
    const uint8_t *index = windows->index + (size_t)group * count * WINDOW;
    const uint32_t *base = windows->base + (size_t)group * count;
    if (kind != QUARTERS)
        return (struct picker){{two_windows(index, index + WINDOW)}, {base[0], base[1]}};
    return (struct picker){
        {two_windows(index, index + 2 * WINDOW), two_windows(index + WINDOW, index + 3 * WINDOW)},
        {base[0], base[2], base[1], base[3]}};
}

INLINE __m256i pick(const uint8_t *source, const struct picker *picker, uint32_t kind)
{
    const uint32_t *base = picker->base;
    __m256i samples =
        _mm256_shuffle_epi8(two_windows(source + base[0], source + base[1]), picker->index[0]);
    if (kind == HALVES)
        return samples;
    return _mm256_or_si256(
        samples,
        _mm256_shuffle_epi8(two_windows(source + base[2], source + base[3]), picker->index[1]));
}

INLINE __m256i load_shared(const uint8_t *source, const struct picker *picker)
{
    return two_windows(source + picker->base[0], source + picker->base[1]);
}

INLINE __m256i pick_shared(__m256i window, __m256i index)
{
    return _mm256_shuffle_epi8(window, index);
}

const struct resize_ops resize_ops_avx2 = {
    .narrow_weights = narrow_weights, .plan_x = plan_x, .rows_x = rows_x, .row_y = row_y};

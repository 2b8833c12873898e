/* SPDX-License-Identifier: Apache-2.0 */
/* The resize with AVX-512 (BW, VBMI): 32 outputs at a time. */
#include <immintrin.h>
#include <stdint.h>

#define INTS __m512i
#define V(name) _mm512_##name
#define V_LOAD(from) _mm512_loadu_si512(from)
#define V_STORE(to, value) _mm512_storeu_si512(to, value)
enum { LANES = 32 };
#define SHARED_WINDOWS WHOLE_WINDOW
#define SHARED_INDEX(picker) (picker)->index
#define FEW_WINDOWS ONE_WINDOW
#define MANY_WINDOWS TWO_WINDOWS

enum {
    ONE_WINDOW = 1,   /* kind: each group's samples lie within 64 bytes */
    TWO_WINDOWS = 2,  /* ... within 128; base[2 g + 1] is where the second 64 begin */
    WHOLE_WINDOW = 3, /* as ONE_WINDOW, and the windows hold the samples of all taps */
    SMALLER = 4,      /* added to AVX2's kind, whose groups are smaller */
    WINDOW = 64,
};

struct picker {
    __m512i index;
    uint32_t base[2];
};

#include "loader/resize_vector.h"

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
    windows->kind = WHOLE_WINDOW;
    for (uint32_t group = 0; group < x->stride / LANES; group++) {
        const uint32_t *first = x->first + (size_t)group * LANES;
        uint32_t span, base = group_base(first, &span);
        if (span >= 2 * WINDOW) {
            resize_ops_avx2.plan_x(windows, x);
            windows->kind += windows->kind ? SMALLER : 0;
            return;
        }
        if (span >= WINDOW)
            windows->kind = TWO_WINDOWS;
        else if (span + x->taps > WINDOW && windows->kind == WHOLE_WINDOW)
            windows->kind = ONE_WINDOW;
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

INLINE struct picker picker_of(const struct resize_windows *windows, uint32_t group, uint32_t kind)
{
    return (struct picker){
        .index = _mm512_loadu_si512(windows->index + (size_t)group * 2 * LANES),
        .base = {windows->base[2 * group], windows->base[2 * group + 1]},
    };
}

INLINE __m512i pick(const uint8_t *source, const struct picker *picker, uint32_t kind)
{
    const __m512i window = _mm512_loadu_si512(source + picker->base[0]);
    if (kind == ONE_WINDOW)
        return _mm512_maskz_permutexvar_epi8(UPPER_BYTES, picker->index, window);
    return _mm512_maskz_permutex2var_epi8(UPPER_BYTES, window, picker->index,
                                          _mm512_loadu_si512(source + picker->base[1]));
}

INLINE __m512i load_shared(const uint8_t *source, const struct picker *picker)
{
    return _mm512_loadu_si512(source + picker->base[0]);
}

INLINE __m512i pick_shared(__m512i window, __m512i index)
{
    return _mm512_maskz_permutexvar_epi8(UPPER_BYTES, index, window);
}

static void rows_x_any(int16_t *dst, const uint8_t *const source[RESIZE_BLOCK],
                       const struct resize_axis *x, const struct resize_windows *windows)
{
    struct resize_windows smaller = *windows;
    if (windows->kind < SMALLER) {
        rows_x(dst, source, x, windows);
        return;
    }
    smaller.kind -= SMALLER;
    resize_ops_avx2.rows_x(dst, source, x, &smaller);
}

const struct resize_ops resize_ops_avx512 = {
    .narrow_weights = narrow_weights, .plan_x = plan_x, .rows_x = rows_x_any, .row_y = row_y};

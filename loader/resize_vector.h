/* SPDX-License-Identifier: Apache-2.0 */
/* The two passes of the narrow resize on vectors of LANES 16-bit outputs. The including file says
 * what a vector is (INTS, V(name), V_LOAD, V_STORE, LANES), which kinds of windows its plan_x()
 * makes (SHARED_WINDOWS, which hold the samples of all taps, FEW_WINDOWS, MANY_WINDOWS), and how a
 * group's samples are picked from them (struct picker). */
#include "loader/resize_narrow.h"

#define INLINE static inline __attribute__((always_inline))

/* What the including file defines behind this one. */
INLINE struct picker picker_of(const struct resize_windows *windows, uint32_t group, uint32_t kind);
/* One sample of each output, shifted left by 8. */
INLINE INTS pick(const uint8_t *source, const struct picker *picker, uint32_t kind);

/* Windows that hold the samples of all taps, and the same as pick() of the tap that index is of. */
INLINE INTS load_shared(const uint8_t *source, const struct picker *picker);
INLINE INTS pick_shared(INTS window, INTS index);

/* The rows of a block share each load of weights, and the taps of a row its windows. */
INLINE void group_x_shared(int16_t *dst, const uint8_t *const source[RESIZE_BLOCK],
                           const struct resize_axis *x, const struct picker *picker,
                           const uint16_t *weight, uint32_t taps)
{
    INTS sum[RESIZE_BLOCK], window[RESIZE_BLOCK], index = SHARED_INDEX(picker);
    for (int row = 0; row < RESIZE_BLOCK; row++) {
        sum[row] = V(set1_epi16)((short)(taps / 2));
        window[row] = load_shared(source[row], picker);
    }
    for (uint32_t tap = 0; tap < taps; tap++, weight += x->stride) {
        const INTS weights = V_LOAD(weight);
        for (int row = 0; row < RESIZE_BLOCK; row++) {
            INTS samples = pick_shared(window[row], index);
            sum[row] = V(add_epi16)(sum[row], V(mulhi_epu16)(samples, weights));
        }
        index = V(add_epi16)(index, V(set1_epi16)(0x100));
    }
    for (int row = 0; row < RESIZE_BLOCK; row++)
        V_STORE(dst + (size_t)row * x->stride, sum[row]);
}

/* The rows of a block share each load of weights. */
INLINE void group_x(int16_t *dst, const uint8_t *const source[RESIZE_BLOCK],
                    const struct resize_axis *x, const struct picker *picker,
                    const uint16_t *weight, uint32_t taps, uint32_t kind)
{
    INTS sum[RESIZE_BLOCK];
    for (int row = 0; row < RESIZE_BLOCK; row++)
        sum[row] = V(set1_epi16)((short)(taps / 2));
    for (uint32_t tap = 0; tap < taps; tap++, weight += x->stride) {
        const INTS weights = V_LOAD(weight);
        for (int row = 0; row < RESIZE_BLOCK; row++) {
            INTS samples = pick(source[row] + tap, picker, kind);
            sum[row] = V(add_epi16)(sum[row], V(mulhi_epu16)(samples, weights));
        }
    }
    for (int row = 0; row < RESIZE_BLOCK; row++)
        V_STORE(dst + (size_t)row * x->stride, sum[row]);
}

INLINE void groups_x(int16_t *dst, const uint8_t *const source[RESIZE_BLOCK],
                     const struct resize_axis *x, const struct resize_windows *windows,
                     uint32_t taps, uint32_t kind)
{
    for (uint32_t group = 0; group < x->stride / LANES; group++) {
        const struct picker picker = picker_of(windows, group, kind);
        size_t output = (size_t)group * LANES;
        if (kind == SHARED_WINDOWS)
            group_x_shared(dst + output, source, x, &picker, x->weights + output, taps);
        else
            group_x(dst + output, source, x, &picker, x->weights + output, taps, kind);
    }
}

/* The usual numbers of taps as constants: their loops are unrolled. */
#define BY_TAPS(taps, CALL)                                                                        \
    switch (taps) {                                                                                \
    case 2:                                                                                        \
        CALL(2);                                                                                   \
        break;                                                                                     \
    case 3:                                                                                        \
        CALL(3);                                                                                   \
        break;                                                                                     \
    case 4:                                                                                        \
        CALL(4);                                                                                   \
        break;                                                                                     \
    default:                                                                                       \
        CALL(taps);                                                                                \
    }

static void rows_x(int16_t *dst, const uint8_t *const source[RESIZE_BLOCK],
                   const struct resize_axis *x, const struct resize_windows *windows)
{
#define SHARED(taps) groups_x(dst, source, x, windows, taps, SHARED_WINDOWS)
#define FEW(taps) groups_x(dst, source, x, windows, taps, FEW_WINDOWS)
#define MANY(taps) groups_x(dst, source, x, windows, taps, MANY_WINDOWS)
    if (windows->kind == SHARED_WINDOWS)
        BY_TAPS(x->taps, SHARED)
    else if (windows->kind == FEW_WINDOWS)
        BY_TAPS(x->taps, FEW)
    else
        BY_TAPS(x->taps, MANY)
#undef SHARED
#undef FEW
#undef MANY
}

/* Vectors of a row that share each tap's factor: 7 of AVX-512 are a row of 224. */
enum { VECTORS = 7 };

INLINE void vectors_y(int16_t *dst, const int16_t *const *rows, const uint16_t *weight,
                      size_t weight_stride, uint32_t column, uint32_t taps, int vectors)
{
    INTS sum[VECTORS];
    for (int i = 0; i < vectors; i++)
        sum[i] = V(set1_epi16)(0);
    for (uint32_t tap = 0; tap < taps; tap++, weight += weight_stride) {
        const INTS factor = V(set1_epi16)(*weight < INT16_MAX ? (short)*weight : INT16_MAX);
        const int16_t *row = rows[tap] + column;
        for (int i = 0; i < vectors; i++)
            sum[i] = V(add_epi16)(sum[i], V(mulhrs_epi16)(V_LOAD(row + i * LANES), factor));
    }
    for (int i = 0; i < vectors; i++)
        V_STORE(dst + column + i * LANES, sum[i]);
}

INLINE void columns_y(int16_t *dst, const int16_t *const *rows, const struct resize_axis *y,
                      uint32_t output, uint32_t stride, uint32_t taps)
{
    const uint16_t *weight = y->weights + output;
    uint32_t column = 0;
    for (; column + VECTORS * LANES <= stride; column += VECTORS * LANES)
        vectors_y(dst, rows, weight, y->stride, column, taps, VECTORS);
    for (; column < stride; column += LANES)
        vectors_y(dst, rows, weight, y->stride, column, taps, 1);
}

static void row_y(int16_t *dst, const int16_t *const *rows, const struct resize_axis *y,
                  uint32_t output, uint32_t stride)
{
#define COLUMNS(taps) columns_y(dst, rows, y, output, stride, taps)
    BY_TAPS(y->taps, COLUMNS)
#undef COLUMNS
}

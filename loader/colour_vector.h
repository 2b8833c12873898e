/* SPDX-License-Identifier: Apache-2.0 */
/* The colour stages on vectors of 16-bit values (LANES of them) and, in two halves, of float32. The
 * including file says what a vector is:
 *   INTS, FLOATS   the types;  LANES: 16 or 32
 *   V(name)        the intrinsic: _mm256_##name or _mm512_##name
 *   V_ZERO()       all zeros;  V_FLOATS(ints): the same bits as floats
 * and has some operations that the levels do in different ways:
 *   load_ints, store_ints
 *   sextants(highest, r, g, b, &numerator, &base): 16-bit selection, see below
 *   hue_wrap(hue): into (-3, 3]
 *   store_halves(dst, values), store_bytes(dst, values): LANES pixels, interleaved
 *
 * A pixel's values go to the upper 16 bits of 32-bit lanes and become floats there: everything
 * before the normalisation is 2^23 times as large as in loader/colour.c. Powers of two commute with
 * rounding, so the bits of the results are the same. The two halves of a vector are what unpacklo
 * and unpackhi make: within each 128 bits the first and the last four pixels. */
#include "loader/colour_ops.h"
#include "loader/resize.h"

#define INLINE static inline __attribute__((always_inline))

#define UNITS 8388608.0f /* 2^23: Q7, and 16 bits */

/* LANES pixels' channels in float32. */
struct values {
    FLOATS half[2][3];
};

/* What the including file defines behind this one. */
INLINE INTS load_ints(const int16_t *src);
INLINE void store_ints(int16_t *dst, INTS values);
INLINE void sextants(INTS highest, INTS r, INTS g, INTS b, INTS *numerator, INTS *base);
INLINE FLOATS hue_wrap(FLOATS hue);
INLINE void store_halves(uint16_t *dst, struct values values);
INLINE void store_bytes(uint8_t *dst, INTS r, INTS g, INTS b);

/* colour_params in vectors. */
struct factors {
    bool jitter;
    FLOATS hue, saturation, value;
    FLOATS shift[3], scale[3];
};

INLINE struct factors factors_of(const struct colour_params *params)
{
    struct factors factors = {
        .jitter = params->jitter,
        .hue = V(set1_ps)(params->hue),
        .saturation = V(set1_ps)(params->saturation),
        .value = V(set1_ps)(params->value),
    };
    for (int c = 0; c < 3; c++) {
        factors.shift[c] = V(set1_ps)(params->shift[c] * UNITS);
        factors.scale[c] = V(set1_ps)(params->scale[c] * (1 / UNITS));
    }
    return factors;
}

/* Four of every eight 16-bit values, in the upper half of 32 bits. */
INLINE INTS upper_half(INTS values, int half)
{
    return half ? V(unpackhi_epi16)(V_ZERO(), values) : V(unpacklo_epi16)(V_ZERO(), values);
}

INLINE FLOATS to_floats(INTS values, int half)
{
    return V(cvtepi32_ps)(upper_half(values, half));
}

INLINE FLOATS unit_clamp(FLOATS value)
{
    return V(min_ps)(V(max_ps)(value, V(setzero_ps)()), V(set1_ps)(1));
}

INLINE FLOATS magnitude(FLOATS value)
{
    return V(andnot_ps)(V(set1_ps)(-0.0f), value);
}

/* hue - other: the shorter way round of |hue - centre| and the distance past the wrap. */
INLINE FLOATS under(FLOATS straight, FLOATS around)
{
    return unit_clamp(V(sub_ps)(V(min_ps)(straight, around), V(set1_ps)(1)));
}

/* jitter_hsv() of colour.c from the integers of which R, G, B consist. base: the upper halves of
 * the float constants 0, 2, -2 (the lower are 0). product: a zero one has a zero numerator and
 * chroma, and any divisor will do. */
INLINE void jitter_half(FLOATS out[3], INTS highest, INTS chroma, INTS numerator, INTS base,
                        int half, const struct factors *by)
{
    FLOATS high = to_floats(highest, half), span = to_floats(chroma, half);
    FLOATS product = V(mul_ps)(span, high);
    FLOATS inverse = V(div_ps)(V(set1_ps)(1), V(max_ps)(product, V(set1_ps)(0x1p32f)));
    FLOATS turn = V(mul_ps)(to_floats(numerator, half), V(mul_ps)(inverse, high));
    FLOATS hue = V(add_ps)(V_FLOATS(upper_half(base, half)), turn);
    hue = hue_wrap(V(mul_ps)(hue, by->hue));
    FLOATS saturation = V(mul_ps)(V(mul_ps)(span, V(mul_ps)(span, inverse)), by->saturation);
    saturation = V(min_ps)(saturation, V(set1_ps)(1));
    FLOATS value = V(min_ps)(V(mul_ps)(high, by->value), V(set1_ps)(255 * UNITS));
    FLOATS scaled = V(mul_ps)(value, saturation);
    const FLOATS two = V(set1_ps)(2), four = V(set1_ps)(4);
    FLOATS under_r = unit_clamp(V(sub_ps)(magnitude(hue), V(set1_ps)(1)));
    FLOATS under_g = under(magnitude(V(sub_ps)(hue, two)), V(add_ps)(hue, four));
    FLOATS under_b = under(magnitude(V(add_ps)(hue, two)), V(sub_ps)(four, hue));
    out[0] = V(sub_ps)(value, V(mul_ps)(scaled, under_r));
    out[1] = V(sub_ps)(value, V(mul_ps)(scaled, under_g));
    out[2] = V(sub_ps)(value, V(mul_ps)(scaled, under_b));
}

/* Up to the jitter: in units of 2^-23. */
INLINE struct values coloured(INTS r, INTS g, INTS b, const struct factors *by)
{
    struct values values;
    if (by->jitter) {
        INTS highest = V(max_epi16)(r, V(max_epi16)(g, b));
        INTS chroma = V(sub_epi16)(highest, V(min_epi16)(r, V(min_epi16)(g, b)));
        INTS numerator, base;
        sextants(highest, r, g, b, &numerator, &base);
        for (int half = 0; half < 2; half++)
            jitter_half(values.half[half], highest, chroma, numerator, base, half, by);
    } else {
        for (int half = 0; half < 2; half++) {
            values.half[half][0] = to_floats(r, half);
            values.half[half][1] = to_floats(g, half);
            values.half[half][2] = to_floats(b, half);
        }
    }
    return values;
}

/* source's pixels from `at` on. */
INLINE struct values normalised(const int16_t *const plane[3], size_t at, const struct factors *by)
{
    struct values values =
        coloured(load_ints(plane[0] + at), load_ints(plane[1] + at), load_ints(plane[2] + at), by);
    for (int half = 0; half < 2; half++)
        for (int c = 0; c < 3; c++)
            values.half[half][c] =
                V(mul_ps)(V(add_ps)(values.half[half][c], by->shift[c]), by->scale[c]);
    return values;
}

/* The last pixels of a run, padded to a whole vector. */
struct tail {
    int16_t plane[3][LANES];
};

static void tail_load(struct tail *tail, const struct colour_source *source, size_t at,
                      size_t count)
{
    *tail = (struct tail){0};
    for (int c = 0; c < 3; c++)
        memcpy(tail->plane[c], source->plane[c] + at, count * sizeof *tail->plane[c]);
}

#define TAIL_PLANES(tail)                                                                          \
    (const int16_t *const[3])                                                                      \
    {                                                                                              \
        (tail).plane[0], (tail).plane[1], (tail).plane[2]                                          \
    }

static void halves(uint16_t *dst, const struct colour_source *source, size_t count)
{
    if (source->params->channels == 1) {
        colour_ops_scalar.halves(dst, source, count);
        return;
    }
    const struct factors by = factors_of(source->params);
    size_t at = 0;
    for (; at + LANES <= count; at += LANES)
        store_halves(dst + 3 * at, normalised(source->plane, at, &by));
    if (at == count)
        return;
    struct tail tail;
    uint16_t spill[LANES * 3];
    tail_load(&tail, source, at, count - at);
    store_halves(spill, normalised(TAIL_PLANES(tail), 0, &by));
    memcpy(dst + 3 * at, spill, (count - at) * 3 * sizeof *dst);
}

/* colour_mix() */
INLINE void mix(struct values *a, struct values *b, FLOATS lam, FLOATS rest)
{
    for (int half = 0; half < 2; half++)
        for (int c = 0; c < 3; c++) {
            FLOATS x = a->half[half][c], y = b->half[half][c];
            a->half[half][c] = V(add_ps)(V(mul_ps)(lam, x), V(mul_ps)(rest, y));
            b->half[half][c] = V(add_ps)(V(mul_ps)(lam, y), V(mul_ps)(rest, x));
        }
}

INLINE void mix_vector(uint16_t *dst_a, uint16_t *dst_b, const int16_t *const plane_a[3],
                       const int16_t *const plane_b[3], size_t at, const struct factors *by_a,
                       const struct factors *by_b, float lam)
{
    struct values a = normalised(plane_a, at, by_a), b = normalised(plane_b, at, by_b);
    mix(&a, &b, V(set1_ps)(lam), V(set1_ps)(1 - lam));
    store_halves(dst_a, a);
    store_halves(dst_b, b);
}

static void halves_mixed(uint16_t *dst_a, uint16_t *dst_b, const struct colour_source *a,
                         const struct colour_source *b, float lam, size_t count)
{
    if (a->params->channels == 1) {
        colour_ops_scalar.halves_mixed(dst_a, dst_b, a, b, lam, count);
        return;
    }
    const struct factors by_a = factors_of(a->params), by_b = factors_of(b->params);
    size_t at = 0;
    for (; at + LANES <= count; at += LANES)
        mix_vector(dst_a + 3 * at, dst_b + 3 * at, a->plane, b->plane, at, &by_a, &by_b, lam);
    if (at == count)
        return;
    struct tail of_a, of_b;
    uint16_t spill_a[LANES * 3], spill_b[LANES * 3];
    tail_load(&of_a, a, at, count - at);
    tail_load(&of_b, b, at, count - at);
    mix_vector(spill_a, spill_b, TAIL_PLANES(of_a), TAIL_PLANES(of_b), 0, &by_a, &by_b, lam);
    memcpy(dst_a + 3 * at, spill_a, (count - at) * 3 * sizeof *dst_a);
    memcpy(dst_b + 3 * at, spill_b, (count - at) * 3 * sizeof *dst_b);
}

/* One channel's levels, rounded: 16-bit values in the pixels' order. */
INLINE INTS levels(FLOATS first, FLOATS second)
{
    const FLOATS unit = V(set1_ps)(1 / UNITS), half = V(set1_ps)(0.5f);
    INTS low = V(cvttps_epi32)(V(add_ps)(V(mul_ps)(first, unit), half));
    INTS high = V(cvttps_epi32)(V(add_ps)(V(mul_ps)(second, unit), half));
    return V(packs_epi32)(low, high);
}

INLINE void byte_vector(uint8_t *dst, const int16_t *const plane[3], size_t at,
                        const struct factors *by)
{
    struct values values =
        coloured(load_ints(plane[0] + at), load_ints(plane[1] + at), load_ints(plane[2] + at), by);
    store_bytes(dst, levels(values.half[0][0], values.half[1][0]),
                levels(values.half[0][1], values.half[1][1]),
                levels(values.half[0][2], values.half[1][2]));
}

static void bytes(uint8_t *dst, const struct colour_source *source, size_t count)
{
    if (source->params->channels == 1) {
        colour_ops_scalar.bytes(dst, source, count);
        return;
    }
    const struct factors by = factors_of(source->params);
    size_t at = 0;
    for (; at + LANES <= count; at += LANES)
        byte_vector(dst + 3 * at, source->plane, at, &by);
    if (at == count)
        return;
    struct tail tail;
    uint8_t spill[LANES * 3];
    tail_load(&tail, source, at, count - at);
    byte_vector(spill, TAIL_PLANES(tail), 0, &by);
    memcpy(dst + 3 * at, spill, (count - at) * 3);
}

INLINE INTS clamp_q7(INTS value)
{
    return V(min_epi16)(V(max_epi16)(value, V_ZERO()), V(set1_epi16)(RESIZE_ONE));
}

INLINE INTS multiply_q15(INTS value, int factor)
{
    return V(mulhrs_epi16)(value, V(set1_epi16)((short)factor));
}

/* Sums of two differences from CENTRE may pass 16 bits only where Y, Cb or Cr were far outside of
 * 0..RESIZE_ONE, which the resize does not give; colour_ycc_to_rgb() does the rest. */
INLINE void rgb_of(INTS *y, INTS *cb, INTS *cr)
{
    const INTS centre = V(set1_epi16)(COLOUR_CENTRE);
    INTS u = V(sub_epi16)(*cb, centre), v = V(sub_epi16)(*cr, centre), luma = *y;
    INTS for_r = V(add_epi16)(v, multiply_q15(v, COLOUR_RED_V));
    INTS for_g = V(add_epi16)(multiply_q15(v, COLOUR_GREEN_V), multiply_q15(u, COLOUR_GREEN_U));
    INTS for_b = V(add_epi16)(u, multiply_q15(u, COLOUR_BLUE_U));
    *y = clamp_q7(V(adds_epi16)(luma, for_r));
    *cb = clamp_q7(V(subs_epi16)(luma, for_g));
    *cr = clamp_q7(V(adds_epi16)(luma, for_b));
}

static void ycc_to_rgb(int16_t *y, int16_t *cb, int16_t *cr, size_t count)
{
    size_t at = 0;
    for (; at + LANES <= count; at += LANES) {
        INTS r = load_ints(y + at), g = load_ints(cb + at), b = load_ints(cr + at);
        rgb_of(&r, &g, &b);
        store_ints(y + at, r);
        store_ints(cb + at, g);
        store_ints(cr + at, b);
    }
    colour_ycc_to_rgb(y + at, cb + at, cr + at, count - at);
}

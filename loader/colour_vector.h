/* SPDX-License-Identifier: Apache-2.0 */
/* The colour stages on vectors of 16-bit values (LANES of them) and, in two halves, of float32. The
 * including file says what a vector is:
 *   INTS, FLOATS   the types;  LANES: 16 or 32
 *   V(name)        the intrinsic: _mm256_##name or _mm512_##name
 *   V_ZERO()       all zeros;  V_FLOATS(ints): the same bits as floats
 * and has some operations that the levels do in different ways:
 *   load_ints, store_ints
 *   sextants(highest, r, g, b, &numerator, &base): 16-bit selection, see below
 *   negative(value, yes, no): yes where the sign of value is set
 *   store_halves(dst, values): LANES pixels, interleaved
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
INLINE FLOATS negative(FLOATS value, FLOATS yes, FLOATS no);
INLINE void store_halves(uint16_t *dst, struct values values);

/* Bytes are few and off the usual path: no shuffles of their own. */
INLINE void store_bytes(uint8_t *dst, INTS r, INTS g, INTS b)
{
    int16_t channel[3][LANES];
    store_ints(channel[0], r);
    store_ints(channel[1], g);
    store_ints(channel[2], b);
    for (int i = 0; i < LANES; i++)
        for (int c = 0; c < 3; c++)
            dst[3 * i + c] = (uint8_t)channel[c][i];
}

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

/* Some pixels on their way, in stages: each is a short loop, so that a processor works on several
 * turns of it at once, and what one hands to the next stays in the first cache. */
enum { RUN = 8 }; /* vectors */

struct run {
    FLOATS row[3][2 * RUN]; /* R, G, B, or hue, value and the distance to the lowest; two halves for
                               each vector */
};

/* The first half of jitter_hsv() of colour.c, from the integers of which R, G, B consist. base: the
 * upper halves of the float constants 0, 2, -2 (the lower are 0). product: a zero one has a zero
 * numerator and chroma, and any divisor will do. */
INLINE void hsv_of(struct run *run, int at, INTS highest, INTS chroma, INTS numerator, INTS base,
                   int half, const struct factors *by)
{
    FLOATS high = to_floats(highest, half), span = to_floats(chroma, half);
    FLOATS product = V(mul_ps)(span, high);
    FLOATS inverse = V(div_ps)(V(set1_ps)(1), V(max_ps)(product, V(set1_ps)(0x1p32f)));
    FLOATS turn = V(mul_ps)(to_floats(numerator, half), V(mul_ps)(inverse, high));
    FLOATS hue = V(add_ps)(V_FLOATS(upper_half(base, half)), turn);
    FLOATS saturation = V(mul_ps)(V(mul_ps)(span, V(mul_ps)(span, inverse)), by->saturation);
    FLOATS value = V(min_ps)(V(mul_ps)(high, by->value), V(set1_ps)(255 * UNITS));
    run->row[0][at] = V(mul_ps)(hue, by->hue);
    run->row[1][at] = value;
    run->row[2][at] = V(mul_ps)(value, V(min_ps)(saturation, V(set1_ps)(1)));
}

INLINE void run_hsv(struct run *run, const int16_t *const plane[3], size_t at, int vectors,
                    const struct factors *by)
{
    for (int i = 0; i < vectors; i++, at += LANES) {
        INTS r = load_ints(plane[0] + at), g = load_ints(plane[1] + at);
        INTS b = load_ints(plane[2] + at), numerator, base;
        INTS highest = V(max_epi16)(r, V(max_epi16)(g, b));
        INTS chroma = V(sub_epi16)(highest, V(min_epi16)(r, V(min_epi16)(g, b)));
        sextants(highest, r, g, b, &numerator, &base);
        for (int half = 0; half < 2; half++)
            hsv_of(run, 2 * i + half, highest, chroma, numerator, base, half, by);
    }
}

INLINE FLOATS normalised(FLOATS value, int channel, const struct factors *by)
{
    return V(mul_ps)(V(add_ps)(value, by->shift[channel]), by->scale[channel]);
}

/* How far a channel stays under the value: distance from its own hue, in sixths of a turn. */
INLINE FLOATS under(FLOATS distance)
{
    return unit_clamp(V(sub_ps)(distance, V(set1_ps)(1)));
}

/* The second half of jitter_hsv(), and the normalisation. The hue is within (-6, 6], or past that
 * by what rounding adds. It is not wrapped to (-3, 3]: distances are taken the shorter way round
 * where they can be under 2, beyond which all end alike. Wrapping would subtract without rounding,
 * so the results are rounded as the definition's. Green and blue are each other's mirror image. */
INLINE void run_rgb(struct run *run, int vectors, const struct factors *by)
{
    for (int at = 0; at < 2 * vectors; at++) {
        FLOATS hue = run->row[0][at], value = run->row[1][at], scaled = run->row[2][at];
        FLOATS turned = magnitude(hue);
        FLOATS from_two = V(min_ps)(magnitude(V(sub_ps)(turned, V(set1_ps)(2))),
                                    V(sub_ps)(V(set1_ps)(8), turned));
        FLOATS from_four = magnitude(V(sub_ps)(turned, V(set1_ps)(4)));
        FLOATS from_red = V(min_ps)(turned, V(sub_ps)(V(set1_ps)(6), turned));
        FLOATS r = V(sub_ps)(value, V(mul_ps)(scaled, under(from_red)));
        FLOATS near = V(sub_ps)(value, V(mul_ps)(scaled, under(from_two)));
        FLOATS far = V(sub_ps)(value, V(mul_ps)(scaled, under(from_four)));
        run->row[0][at] = normalised(r, 0, by);
        run->row[1][at] = normalised(negative(hue, far, near), 1, by);
        run->row[2][at] = normalised(negative(hue, near, far), 2, by);
    }
}

INLINE void run_plain(struct run *run, const int16_t *const plane[3], size_t at, int vectors,
                      const struct factors *by)
{
    for (int i = 0; i < vectors; i++, at += LANES)
        for (int c = 0; c < 3; c++) {
            INTS values = load_ints(plane[c] + at);
            run->row[c][2 * i] = normalised(to_floats(values, 0), c, by);
            run->row[c][2 * i + 1] = normalised(to_floats(values, 1), c, by);
        }
}

/* The next pixels of a source, at most RUN vectors. Returns how many. */
INLINE size_t run_fill(struct run *run, const struct colour_source *source, size_t at, size_t count,
                       const struct factors *by)
{
    const int16_t *planes[3] = {source->plane[0], source->plane[1], source->plane[2]};
    int16_t tail[3][LANES];
    size_t left = count - at, vectors = left / LANES < RUN ? left / LANES : RUN;
    size_t pixels = vectors * LANES;
    if (!vectors) { /* the last pixels, padded to a whole vector */
        memset(tail, 0, sizeof tail);
        for (int c = 0; c < 3; c++) {
            memcpy(tail[c], source->plane[c] + at, left * sizeof *tail[c]);
            planes[c] = tail[c];
        }
        at = 0;
        vectors = 1;
        pixels = left;
    }
    if (by->jitter) {
        run_hsv(run, planes, at, (int)vectors, by);
        run_rgb(run, (int)vectors, by);
    } else {
        run_plain(run, planes, at, (int)vectors, by);
    }
    return pixels;
}

INLINE struct values run_values(const struct run *run, int vector)
{
    struct values values;
    for (int half = 0; half < 2; half++)
        for (int c = 0; c < 3; c++)
            values.half[half][c] = run->row[c][2 * vector + half];
    return values;
}

/* Whole vectors go where they belong, a part of one by way of spill. */
#define STORE(store, dst, pixels, spill, ...)                                                      \
    do {                                                                                           \
        if ((pixels) >= LANES) {                                                                   \
            store(dst, __VA_ARGS__);                                                               \
        } else {                                                                                   \
            store(spill, __VA_ARGS__);                                                             \
            memcpy(dst, spill, (pixels)*3 * sizeof *(dst));                                        \
        }                                                                                          \
    } while (0)

static void halves(uint16_t *dst, const struct colour_source *source, size_t count)
{
    if (source->params->channels == 1) {
        colour_ops_scalar.halves(dst, source, count);
        return;
    }
    const struct factors by = factors_of(source->params);
    struct run run;
    uint16_t spill[LANES * 3];
    for (size_t at = 0, pixels; at < count; at += pixels) {
        pixels = run_fill(&run, source, at, count, &by);
        for (size_t i = 0; i < pixels; i += LANES)
            STORE(store_halves, dst + 3 * (at + i), pixels - i, spill,
                  run_values(&run, (int)(i / LANES)));
    }
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

static void halves_mixed(uint16_t *dst_a, uint16_t *dst_b, const struct colour_source *a,
                         const struct colour_source *b, float lam, size_t count)
{
    if (a->params->channels == 1) {
        colour_ops_scalar.halves_mixed(dst_a, dst_b, a, b, lam, count);
        return;
    }
    const struct factors by_a = factors_of(a->params), by_b = factors_of(b->params);
    const FLOATS of_own = V(set1_ps)(lam), of_other = V(set1_ps)(1 - lam);
    struct run run_a, run_b;
    uint16_t spill[LANES * 3];
    for (size_t at = 0, pixels; at < count; at += pixels) {
        pixels = run_fill(&run_a, a, at, count, &by_a);
        run_fill(&run_b, b, at, count, &by_b);
        for (size_t i = 0; i < pixels; i += LANES) {
            struct values of_a = run_values(&run_a, (int)(i / LANES));
            struct values of_b = run_values(&run_b, (int)(i / LANES));
            mix(&of_a, &of_b, of_own, of_other);
            STORE(store_halves, dst_a + 3 * (at + i), pixels - i, spill, of_a);
            STORE(store_halves, dst_b + 3 * (at + i), pixels - i, spill, of_b);
        }
    }
}

/* One channel's levels, rounded: 16-bit values in the pixels' order. */
INLINE INTS levels(FLOATS first, FLOATS second)
{
    const FLOATS half = V(set1_ps)(0.5f);
    return V(packs_epi32)(V(cvttps_epi32)(V(add_ps)(first, half)),
                          V(cvttps_epi32)(V(add_ps)(second, half)));
}

static void bytes(uint8_t *dst, const struct colour_source *source, size_t count)
{
    if (source->params->channels == 1) {
        colour_ops_scalar.bytes(dst, source, count);
        return;
    }
    struct factors by = factors_of(source->params);
    for (int c = 0; c < 3; c++) { /* back to levels of 0..255 */
        by.shift[c] = V(setzero_ps)();
        by.scale[c] = V(set1_ps)(1 / UNITS);
    }
    struct run run;
    uint8_t spill[LANES * 3];
    for (size_t at = 0, pixels; at < count; at += pixels) {
        pixels = run_fill(&run, source, at, count, &by);
        for (size_t i = 0; i < pixels; i += LANES) {
            struct values values = run_values(&run, (int)(i / LANES));
            STORE(store_bytes, dst + 3 * (at + i), pixels - i, spill,
                  levels(values.half[0][0], values.half[1][0]),
                  levels(values.half[0][1], values.half[1][1]),
                  levels(values.half[0][2], values.half[1][2]));
        }
    }
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

/* SPDX-License-Identifier: Apache-2.0 */
/* Tap tables of the resize. */
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "loader/resize_taps.h"

enum {
    WIDE_SUM = 1 << 16,
    CUBIC_SUM = 1 << 14,
};

static const __int128 Q32_ONE = (__int128)1 << 32; /* multiplied: a negative must not be shifted */

/* Centre and reach of the taps on an axis, in plane samples. */
struct scale {
    int64_t start, step; /* Q32: centre of output 0, and from one to the next */
    int64_t support;     /* Q16 */
};

static int64_t floor_quotient(__int128 dividend, __int128 divisor)
{
    __int128 quotient = dividend / divisor;
    return (int64_t)(quotient - (dividend % divisor < 0));
}

static struct scale scale_of(const struct crop_axis *crop, uint32_t outputs, uint32_t factor,
                             uint32_t factor_max)
{
    __int128 divisor = (__int128)2 * outputs * crop->denominator * factor_max;
    __int128 first = (__int128)2 * outputs * crop->begin + crop->extent;
    struct scale scale = {
        .start = floor_quotient(first * factor * Q32_ONE, divisor),
        .step = floor_quotient((__int128)2 * crop->extent * factor * Q32_ONE, divisor),
    };
    scale.support = scale.step >> 16 > RESIZE_Q16_ONE ? scale.step >> 16 : RESIZE_Q16_ONE;
    return scale;
}

/* The samples whose height is above 0; never none, since the centre is held within [low, high). */
static struct resize_reach reach_of(const struct scale *scale, const struct resize_axis *axis,
                                    uint32_t output)
{
    int64_t centre = (scale->start + (int64_t)output * scale->step + RESIZE_Q16_HALF) >> 16;
    centre = resize_clamp(centre, (int64_t)axis->low << 16, ((int64_t)axis->high << 16) - 1);
    int64_t first = ((centre - scale->support - RESIZE_Q16_HALF) >> 16) + 1;
    int64_t end = (centre + scale->support - RESIZE_Q16_HALF + RESIZE_Q16_ONE - 1) >> 16;
    return (struct resize_reach){.centre = centre,
                                 .first = (uint32_t)resize_clamp(first, axis->low, axis->high - 1),
                                 .end = (uint32_t)resize_clamp(end, axis->low + 1, axis->high)};
}

/* Q16, above 0. */
static int64_t height_of(const struct scale *scale, int64_t centre, uint32_t sample)
{
    int64_t distance = ((int64_t)sample << 16) + RESIZE_Q16_HALF - centre;
    return scale->support - (distance < 0 ? -distance : distance);
}

static void wide_output(struct resize_axis *axis, const struct scale *scale, uint32_t place,
                        const struct resize_reach *reach)
{
    axis->first[place] = resize_first_of(axis, reach);
    uint16_t *weight = axis->weights + (size_t)(reach->first - axis->first[place]) * axis->stride;
    weight += place;
    /* At most 65,500 squared in Q16, so that times 2^16 still fits. */
    uint64_t sum = 0, running = 0, before = 0;
    for (uint32_t sample = reach->first; sample < reach->end; sample++)
        sum += (uint64_t)height_of(scale, reach->centre, sample);
    for (uint32_t sample = reach->first; sample < reach->end; sample++, weight += axis->stride) {
        running += (uint64_t)height_of(scale, reach->centre, sample);
        uint64_t now = (running * WIDE_SUM + sum / 2) / sum;
        *weight = (uint16_t)(now - before);
        before = now;
    }
}

static void wide_weights(struct resize_axis *axis, const struct scale *scale, bool mirrored)
{
    memset(axis->weights, 0, (size_t)axis->taps * axis->stride * sizeof *axis->weights);
    for (uint32_t output = 0; output < axis->outputs; output++) {
        wide_output(axis, scale, resize_place_of(axis, output, mirrored), &axis->reach[output]);
    }
    for (uint32_t padding = axis->outputs; padding < axis->stride; padding++)
        axis->first[padding] = axis->first[axis->outputs - 1];
}

static int reserve(void **memory, size_t *room, size_t bytes)
{
    if (bytes <= *room)
        return 0;
    free(*memory);
    *room = 0;
    *memory = malloc(bytes);
    if (!*memory)
        return err_set(ERR_NOMEM, "out of memory for resize tables of %zu bytes", bytes);
    *room = bytes;
    return 0;
}

static int reserve_tables(struct resize_axis *axis)
{
    size_t weight_bytes = (size_t)axis->taps * axis->stride * sizeof *axis->weights;
    int code = reserve((void **)&axis->weights, &axis->weight_room, weight_bytes);
    if (!code)
        code =
            reserve((void **)&axis->first, &axis->first_room, axis->stride * sizeof *axis->first);
    return code;
}

static void plane_bounds(struct resize_axis *axis, const struct crop_axis *crop, uint32_t factor,
                         uint32_t factor_max, uint32_t samples)
{
    uint64_t low = (uint64_t)crop->low * factor / factor_max;
    uint64_t high = ((uint64_t)crop->high * factor + factor_max - 1) / factor_max;
    axis->high = high < samples ? (uint32_t)high : samples;
    axis->low = low < axis->high ? (uint32_t)low : axis->high - 1;
}

/* Keys 1981 with a = -1/2; t in units of the filter's scale. */
static double cubic_height(double t)
{
    t = t < 0 ? -t : t;
    if (t < 1)
        return (1.5 * t - 2.5) * t * t + 1;
    return t < 2 ? ((2.5 - 0.5 * t) * t - 4) * t + 2 : 0;
}

static void cubic_output(struct resize_axis *axis, const struct scale *scale, uint32_t place,
                         const struct resize_reach *reach)
{
    axis->first[place] = resize_first_of(axis, reach);
    uint16_t *weights = axis->weights + place;
    double sum = 0, unit = 2.0 / (double)scale->support;
    int64_t left = CUBIC_SUM,
            middle = resize_clamp(reach->centre >> 16, reach->first, (int64_t)reach->end - 1);
    for (int pass = 0; pass < 2; pass++) {
        for (uint32_t sample = reach->first; sample < reach->end; sample++) {
            int64_t distance = ((int64_t)sample << 16) + RESIZE_Q16_HALF - reach->centre;
            double height = cubic_height((double)distance * unit);
            if (pass == 0) {
                sum += height;
                continue;
            }
            double exact = height / sum * CUBIC_SUM;
            int32_t weight = (int32_t)(exact < 0 ? exact - 0.5 : exact + 0.5);
            weights[(size_t)(sample - axis->first[place]) * axis->stride] =
                (uint16_t)(int16_t)weight;
            left -= weight;
        }
    }
    uint16_t *under_centre =
        &weights[(size_t)((uint32_t)middle - axis->first[place]) * axis->stride];
    *under_centre = (uint16_t)(*under_centre + (uint16_t)(int16_t)left);
}

/* Bounds, reaches, and room for the taps of the widest output. */
static int lay_out(struct resize_axis *axis, const struct scale *scale,
                   const struct crop_axis *crop, uint32_t outputs, uint32_t factor,
                   uint32_t factor_max, uint32_t samples)
{
    plane_bounds(axis, crop, factor, factor_max, samples);
    axis->outputs = outputs;
    axis->taps = 1;
    int code = reserve((void **)&axis->reach, &axis->reach_room, outputs * sizeof *axis->reach);
    if (code)
        return code;
    for (uint32_t output = 0; output < outputs; output++) {
        struct resize_reach reach = axis->reach[output] = reach_of(scale, axis, output);
        if (reach.end - reach.first > axis->taps)
            axis->taps = reach.end - reach.first;
    }
    axis->stride = (outputs + RESIZE_LANES - 1) / RESIZE_LANES * RESIZE_LANES;
    return reserve_tables(axis);
}

int resize_axis_build_cubic(struct resize_axis *axis, const struct crop_axis *crop,
                            uint32_t outputs, uint32_t factor, uint32_t factor_max,
                            uint32_t samples, bool mirrored)
{
    struct scale scale = scale_of(crop, outputs, factor, factor_max);
    scale.support *= 2;
    int code = lay_out(axis, &scale, crop, outputs, factor, factor_max, samples);
    if (code)
        return code;
    axis->wide = false;
    axis->cubic = true;
    memset(axis->weights, 0, (size_t)axis->taps * axis->stride * sizeof *axis->weights);
    for (uint32_t output = 0; output < outputs; output++) {
        cubic_output(axis, &scale, resize_place_of(axis, output, mirrored), &axis->reach[output]);
    }
    for (uint32_t padding = outputs; padding < axis->stride; padding++)
        axis->first[padding] = axis->first[outputs - 1];
    return 0;
}

int resize_axis_build(struct resize_axis *axis, const struct resize_ops *ops,
                      const struct crop_axis *crop, uint32_t outputs, uint32_t factor,
                      uint32_t factor_max, uint32_t samples, bool mirrored)
{
    struct scale scale = scale_of(crop, outputs, factor, factor_max);
    int code = lay_out(axis, &scale, crop, outputs, factor, factor_max, samples);
    if (code)
        return code;
    axis->wide = axis->taps > RESIZE_NARROW_TAPS;
    axis->cubic = false;
    if (axis->wide)
        wide_weights(axis, &scale, mirrored);
    else
        ops->narrow_weights(axis, (int32_t)scale.support, mirrored);
    return 0;
}

void resize_axis_free(struct resize_axis *axis)
{
    free(axis->first);
    free(axis->weights);
    free(axis->reach);
    *axis = (struct resize_axis){0};
}

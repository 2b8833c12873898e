/* SPDX-License-Identifier: Apache-2.0 */
/* Tap tables of the resize. */
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "loader/resize.h"

enum {
    Q16_ONE = 1 << 16,
    Q16_HALF = 1 << 15,
    NARROW_SUM = 1 << 15,
    WIDE_SUM = 1 << 16,
};

static const __int128 Q32_ONE = (__int128)1 << 32; /* multiplied: a negative must not be shifted */

/* Centre and reach of the taps on an axis, in plane samples. */
struct scale {
    int64_t start, step; /* Q32: centre of output 0, and from one to the next */
    int64_t support;     /* Q16 */
};

/* Taps first .. end - 1 of one output. */
struct reach {
    int64_t centre; /* Q16 */
    uint32_t first, end;
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
    scale.support = scale.step >> 16 > Q16_ONE ? scale.step >> 16 : Q16_ONE;
    return scale;
}

static int64_t clamp(int64_t value, int64_t least, int64_t most)
{
    return value < least ? least : value > most ? most : value;
}

/* The samples whose height is above 0; never none, since the centre is held within [low, high). */
static struct reach reach_of(const struct scale *scale, const struct resize_axis *axis,
                             uint32_t output)
{
    int64_t centre = (scale->start + (int64_t)output * scale->step + Q16_HALF) >> 16;
    centre = clamp(centre, (int64_t)axis->low << 16, ((int64_t)axis->high << 16) - 1);
    int64_t first = ((centre - scale->support - Q16_HALF) >> 16) + 1;
    int64_t end = (centre + scale->support - Q16_HALF + Q16_ONE - 1) >> 16;
    return (struct reach){.centre = centre,
                          .first = (uint32_t)clamp(first, axis->low, axis->high - 1),
                          .end = (uint32_t)clamp(end, axis->low + 1, axis->high)};
}

/* Q16, above 0. */
static int64_t height_of(const struct scale *scale, int64_t centre, uint32_t sample)
{
    int64_t distance = ((int64_t)sample << 16) + Q16_HALF - centre;
    return scale->support - (distance < 0 ? -distance : distance);
}

static int64_t height_sum(const struct scale *scale, const struct reach *reach)
{
    int64_t sum = 0;
    for (uint32_t sample = reach->first; sample < reach->end; sample++)
        sum += height_of(scale, reach->centre, sample);
    return sum;
}

static void narrow_weights(uint16_t *weights, const struct scale *scale, const struct reach *reach)
{
    float unit = (float)NARROW_SUM / (float)height_sum(scale, reach);
    int left = NARROW_SUM;
    for (uint32_t sample = reach->first; sample < reach->end; sample++) {
        float height = (float)height_of(scale, reach->centre, sample);
        int weight = (int)(height * unit + 0.5f);
        weights[sample - reach->first] = (uint16_t)weight;
        left -= weight;
    }
    int64_t middle = clamp(reach->centre >> 16, reach->first, (int64_t)reach->end - 1);
    uint16_t *under_centre = &weights[middle - reach->first];
    *under_centre = (uint16_t)(*under_centre + left);
}

static void wide_weights(uint16_t *weights, const struct scale *scale, const struct reach *reach)
{
    /* At most 65,500 squared in Q16, so that times 2^16 still fits. */
    uint64_t sum = (uint64_t)height_sum(scale, reach), running = 0, before = 0;
    for (uint32_t sample = reach->first; sample < reach->end; sample++) {
        running += (uint64_t)height_of(scale, reach->centre, sample);
        uint64_t now = (running * WIDE_SUM + sum / 2) / sum;
        weights[sample - reach->first] = (uint16_t)(now - before);
        before = now;
    }
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
    size_t weight_bytes = (size_t)axis->outputs * axis->taps * sizeof *axis->weights;
    int code = reserve((void **)&axis->weights, &axis->weight_room, weight_bytes);
    if (!code)
        code =
            reserve((void **)&axis->first, &axis->first_room, axis->outputs * sizeof *axis->first);
    if (!code)
        memset(axis->weights, 0, weight_bytes);
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

int resize_axis_build(struct resize_axis *axis, const struct crop_axis *crop, uint32_t outputs,
                      uint32_t factor, uint32_t factor_max, uint32_t samples, bool mirrored)
{
    struct scale scale = scale_of(crop, outputs, factor, factor_max);
    plane_bounds(axis, crop, factor, factor_max, samples);
    axis->outputs = outputs;
    axis->taps = 1;
    for (uint32_t output = 0; output < outputs; output++) {
        struct reach reach = reach_of(&scale, axis, output);
        if (reach.end - reach.first > axis->taps)
            axis->taps = reach.end - reach.first;
    }
    axis->wide = axis->taps > RESIZE_NARROW_TAPS;
    int code = reserve_tables(axis);
    if (code)
        return code;
    for (uint32_t output = 0; output < outputs; output++) {
        struct reach reach = reach_of(&scale, axis, output);
        uint32_t place = mirrored ? outputs - 1 - output : output;
        /* Taps that this output lacks come in front where they would lie past the last sample. */
        uint32_t last = axis->high - axis->taps;
        uint32_t first = reach.first < last ? reach.first : last;
        uint16_t *weights = axis->weights + (size_t)place * axis->taps + (reach.first - first);
        axis->first[place] = first;
        (axis->wide ? wide_weights : narrow_weights)(weights, &scale, &reach);
    }
    return 0;
}

void resize_axis_free(struct resize_axis *axis)
{
    free(axis->first);
    free(axis->weights);
    *axis = (struct resize_axis){0};
}

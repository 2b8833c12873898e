/* SPDX-License-Identifier: Apache-2.0 */
/* The weights of a narrow axis (loader/resize.h), in loops over outputs that compilers turn into
 * vectors: included by one file per instruction set level, which is compiled for that level. */
#include "loader/resize_taps.h"

enum { RESIZE_NARROW_SUM = 1 << 15 };

/* Some outputs of a narrow axis side by side: everything but the last step in loops that become
 * vectors. All relative to first. */
struct lanes {
    int32_t centre[RESIZE_LANES]; /* Q16, half a sample off: distance of tap t = (t << 16) - it */
    int32_t begin[RESIZE_LANES], count[RESIZE_LANES]; /* taps that are in reach */
    int32_t middle[RESIZE_LANES];                     /* tap under the centre */
    int32_t left[RESIZE_LANES];                       /* of the sum of weights */
    float unit[RESIZE_LANES];
};

static inline int32_t lane_height(const struct lanes *lanes, int lane, int32_t tap, int32_t support)
{
    int32_t distance = tap * RESIZE_Q16_ONE - lanes->centre[lane];
    int32_t height = support - (distance < 0 ? -distance : distance);
    bool in_reach = (uint32_t)(tap - lanes->begin[lane]) < (uint32_t)lanes->count[lane];
    return height & -(int32_t)in_reach;
}

static void lane_set(struct lanes *lanes, uint32_t lane, const struct resize_reach *reach,
                     uint32_t first)
{
    int64_t middle = resize_clamp(reach->centre >> 16, reach->first, (int64_t)reach->end - 1);
    lanes->centre[lane] = (int32_t)(reach->centre - RESIZE_Q16_HALF - ((int64_t)first << 16));
    lanes->begin[lane] = (int32_t)(reach->first - first);
    lanes->count[lane] = (int32_t)(reach->end - reach->first);
    lanes->middle[lane] = (int32_t)(middle - first);
}

static void lanes_units(struct lanes *lanes, int32_t taps, int32_t support)
{
    int32_t sum[RESIZE_LANES] = {0};
    for (int32_t tap = 0; tap < taps; tap++)
        for (int lane = 0; lane < RESIZE_LANES; lane++)
            sum[lane] += lane_height(lanes, lane, tap, support);
    for (int lane = 0; lane < RESIZE_LANES; lane++) {
        lanes->unit[lane] = (float)RESIZE_NARROW_SUM / (float)sum[lane];
        lanes->left[lane] = RESIZE_NARROW_SUM;
    }
}

/* weights: of the first of the lanes. What is missing from the sum goes to the tap under the
 * centre.
 */
static void lanes_weights(uint16_t *weights, size_t stride, struct lanes *lanes, int32_t taps,
                          int32_t support)
{
    for (int32_t tap = 0; tap < taps; tap++) {
        uint16_t *of_tap = weights + (size_t)tap * stride;
        for (int lane = 0; lane < RESIZE_LANES; lane++) {
            float height = (float)lane_height(lanes, lane, tap, support);
            int32_t weight = (int32_t)(height * lanes->unit[lane] + 0.5f);
            of_tap[lane] = (uint16_t)weight;
            lanes->left[lane] -= weight;
        }
    }
    for (int32_t tap = 0; tap < taps; tap++) {
        uint16_t *of_tap = weights + (size_t)tap * stride;
        for (int lane = 0; lane < RESIZE_LANES; lane++) {
            int32_t left = lanes->left[lane] & -(int32_t)(tap == lanes->middle[lane]);
            of_tap[lane] = (uint16_t)(of_tap[lane] + left);
        }
    }
}

static void narrow_weights(struct resize_axis *axis, int32_t support, bool mirrored)
{
    int32_t taps = (int32_t)axis->taps;
    for (uint32_t begin = 0; begin < axis->outputs; begin += RESIZE_LANES) {
        uint32_t left = axis->outputs - begin, count = left < RESIZE_LANES ? left : RESIZE_LANES;
        struct lanes lanes;
        for (uint32_t lane = 0; lane < RESIZE_LANES; lane++) {
            uint32_t place = begin + (lane < count ? lane : count - 1);
            const struct resize_reach *reach = &axis->reach[resize_place_of(axis, place, mirrored)];
            axis->first[begin + lane] = resize_first_of(axis, reach);
            lane_set(&lanes, lane, reach, axis->first[begin + lane]);
        }
        lanes_units(&lanes, taps, support);
        for (uint32_t padding = count; padding < RESIZE_LANES; padding++) {
            lanes.unit[padding] = 0;
            lanes.left[padding] = 0;
        }
        lanes_weights(axis->weights + begin, axis->stride, &lanes, taps, support);
    }
}

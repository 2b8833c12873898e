/* SPDX-License-Identifier: Apache-2.0 */
/* Where the taps of an axis are, for those who fill its table. */
#ifndef LOADER_RESIZE_TAPS_H
#define LOADER_RESIZE_TAPS_H

#include "loader/resize_ops.h"

enum {
    RESIZE_Q16_ONE = 1 << 16,
    RESIZE_Q16_HALF = 1 << 15,
};

static inline int64_t resize_clamp(int64_t value, int64_t least, int64_t most)
{
    return value < least ? least : value > most ? most : value;
}

/* Where an output's taps begin: taps that it lacks come in front where they would lie past the last
 * sample. */
static inline uint32_t resize_first_of(const struct resize_axis *axis,
                                       const struct resize_reach *reach)
{
    uint32_t last = axis->high - axis->taps;
    return reach->first < last ? reach->first : last;
}

static inline uint32_t resize_place_of(const struct resize_axis *axis, uint32_t output,
                                       bool mirrored)
{
    return mirrored ? axis->outputs - 1 - output : output;
}

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* The antialiased resize: each plane of a crop straight to S x S samples, in integers. This is the
 * definition; every faster version gives the same bits.
 *
 * Filter: the triangle max(0, support - |position - centre|), support = max(1, scale) samples,
 * clipped at the axis' [low, high) and renormalised; x first, then y. Samples become Q7 int16 (255
 * -> 32640).
 *
 * An axis whose widest output has T <= RESIZE_NARROW_TAPS taps is narrow: weights are Q15 and sum
 * to 32768, and with 16-bit lanes
 *   x pass: T / 2 + sum of (sample << 8) * weight >> 16   (each product truncated: pmulhuw; the T/2
 *           puts the mean loss back),
 *   y pass: sum of (value * weight + 0x4000) >> 15        (each product rounded: pmulhrsw; a weight
 *           of 32768 counts as 32767).
 * The bicubic filter (resize_use_cubic) is Keys' with a = -1/2, stretched by max(1, scale) as
 * Pillow's and torchvision's antialiased one, clipped at the axis' ends and renormalised. Its axes
 * have signed Q14 weights that sum to 16384, worked out in double, and sums of 32 bits held within
 * int16: x pass: (sum of sample * weight + 0x40) >> 7,   y pass: (sum of value * weight + 0x2000)
 * >> 14. A wide axis has Q16 weights that sum to 65536, and sums of 32 bits with one rounding at
 * the end: x pass: (sum of sample * weight + 0x100) >> 9,   y pass: (sum of value * weight +
 * 0x8000)
 * >> 16.
 */
#ifndef LOADER_RESIZE_H
#define LOADER_RESIZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "loader/cpu.h"
#include "loader/crop.h"
#include "loader/planes.h"

enum {
    RESIZE_ONE = 32640,      /* 255 in Q7 */
    RESIZE_NARROW_TAPS = 32, /* at most, for 16-bit sums */
    RESIZE_LANES = 32,       /* tables and rows are padded to a multiple of this many outputs */
};

/* Samples first .. end - 1 of one output, and its centre. */
struct resize_reach {
    int64_t centre; /* Q16 */
    uint32_t first, end;
};

/* The taps of one axis of one plane: output o reads samples first[o] + t for t in 0 .. taps - 1,
 * all within [low, high), with weights[t * stride + o]. first never falls, unless mirrored: then
 * it never rises. Outputs from `outputs` on to stride are padding: the last one's first, weights of
 * 0. */
struct resize_axis {
    uint32_t outputs, taps;
    uint32_t stride;    /* outputs, rounded up to RESIZE_LANES */
    uint32_t low, high; /* samples of the plane that may be read */
    bool wide;
    bool cubic;                 /* weights are int16_t */
    uint32_t *first;            /* [stride] */
    uint16_t *weights;          /* [taps][stride] */
    struct resize_reach *reach; /* [outputs], not mirrored: what the table is made from */
    size_t first_room, weight_room, reach_room;
};

struct resize_ops; /* loader/resize_ops.h */

/* Builds the table of a plane's axis. The image position of an output's centre (crop.h) times
 * factor / factor_max is its position in the plane; low and high become the floor and the ceiling
 * of theirs. samples: of the whole plane along this axis. mirrored: output o gets what output
 * outputs - 1 - o would get. ops: of any level that this machine has. ERR_NOMEM. Zero *axis before
 * the first use.
 *
 * Positions are Q16: centre(o) = (start + o * step + 2^15) >> 16 with start and step the floors of
 * the exact quotients in Q32, held within [low, high). Heights are Q16 integers, summed exactly.
 * Narrow weights: trunc(height * (32768.0f / sum) + 0.5f) in float32, what is missing from 32768
 * (or too much) goes to the tap under the centre. Wide weights: differences of the running sums,
 * rounded to Q16. Taps that only some outputs need weigh 0. */
int resize_axis_build(struct resize_axis *axis, const struct resize_ops *ops,
                      const struct crop_axis *crop, uint32_t outputs, uint32_t factor,
                      uint32_t factor_max, uint32_t samples, bool mirrored);
/* The same with the bicubic filter. */
int resize_axis_build_cubic(struct resize_axis *axis, const struct crop_axis *crop,
                            uint32_t outputs, uint32_t factor, uint32_t factor_max,
                            uint32_t samples, bool mirrored);
void resize_axis_free(struct resize_axis *axis);

/* Tables and rows of one thread. */
struct resize;

/* With the kernels of a level that this machine has (loader/cpu.h); each gives the same bits. */
int resize_open(struct resize **out, enum cpu_level level);
void resize_close(struct resize *resize); /* accepts NULL */

/* Which filter from the next resize_begin on; the triangle unless told. */
void resize_use_cubic(struct resize *resize, bool cubic);

/* Makes ready for the planes of a crop, which must cover its box and stay until the last row.
 * Planes may come in bands (planes.h's rows_kept). ERR_NOMEM. */
int resize_begin(struct resize *resize, const struct planes *planes, const struct crop *crop,
                 uint32_t width, uint32_t height);

/* How many rows can be made next: all that are left, or with planes in bands those that the bands
 * so far are enough for. 0: ask for the next band. A band may only be overwritten after that
 * answer. */
uint32_t resize_ready(struct resize *resize);

/* The next count rows of width values each, to dst[plane] [count][width] Q7, about 0..RESIZE_ONE
 * (rounding may leave it by a little). No more than are ready; over all calls height rows. */
void resize_rows(struct resize *resize, int16_t *const dst[3], uint32_t count);

/* Both: all rows of all planes of a crop, to dst[plane] [size][size]. */
int resize_planes(struct resize *resize, int16_t *const dst[3], const struct planes *planes,
                  const struct crop *crop, uint32_t size);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels of the resize, one set for each instruction set level. The scalar ones are the
 * definition of loader/resize.h in code; the others give the same bits. Each level's file is
 * compiled with that level's instructions and must be entered only on a machine that has them. */
#ifndef LOADER_RESIZE_OPS_H
#define LOADER_RESIZE_OPS_H

#include "loader/resize.h"

enum {
    RESIZE_BLOCK = 4, /* rows that the x pass takes at a time */
};

/* How a level's x pass finds its samples: outputs go in groups, and a group's samples lie within
 * a window or a few, from which a byte shuffle picks each output's. */
struct resize_windows {
    uint32_t *base; /* of each window: first sample, relative to the axis' low */
    uint8_t *index; /* the shuffles: for the upper byte of each output its place in the window */
    uint32_t room;  /* outputs that base (a quarter as many) and index (4 each) have room for */
    uint32_t kind; /* the level's own: which loop fits these windows; 0: none, use the scalar one */
};

struct resize_ops {
    /* Fills first and weights of a narrow axis, whose reaches are there. support: of its filter,
     * Q16. */
    void (*narrow_weights)(struct resize_axis *axis, int32_t support, bool mirrored);

    /* Fills windows, which have room for x->stride outputs. NULL: windows are not used. */
    void (*plan_x)(struct resize_windows *windows, const struct resize_axis *x);

    /* RESIZE_BLOCK rows of the x pass, dst [RESIZE_BLOCK][x->stride]; source[r] is sample x->low of
     * row r. Reads at most PLANES_PADDING_BYTES behind the last sample. */
    void (*rows_x)(int16_t *dst, const uint8_t *const source[RESIZE_BLOCK],
                   const struct resize_axis *x, const struct resize_windows *windows);

    /* Row `output` of the y pass: dst [stride] from y->taps rows, each [stride], a multiple of
     * RESIZE_LANES. */
    void (*row_y)(int16_t *dst, const int16_t *const *rows, const struct resize_axis *y,
                  uint32_t output, uint32_t stride);
};

const struct resize_ops *resize_ops_of(enum cpu_level level);

extern const struct resize_ops resize_ops_scalar;
#if defined(__x86_64__)
extern const struct resize_ops resize_ops_avx2, resize_ops_avx512;
#endif

#endif

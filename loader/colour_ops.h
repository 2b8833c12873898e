/* SPDX-License-Identifier: Apache-2.0 */
/* The colour stages as the loader runs them, one set for each instruction set level. The scalar
 * ones put the definition of loader/colour.h together; the others give the same bits. Each level's
 * file is compiled with that level's instructions and must be entered only on a machine that has
 * them. Nothing is written behind the count'th pixel. */
#ifndef LOADER_COLOUR_OPS_H
#define LOADER_COLOUR_OPS_H

#include "loader/colour.h"
#include "loader/cpu.h"

/* A sample's planes and how it is coloured. One channel: only plane[0] is read. */
struct colour_source {
    const int16_t *plane[3]; /* R, G, B or grey, Q7 within 0..RESIZE_ONE */
    const struct colour_params *params;
};

struct colour_ops {
    /* As colour_ycc_to_rgb(). */
    void (*ycc_to_rgb)(int16_t *y, int16_t *cb, int16_t *cr, size_t count);

    /* dst [count][channels] half floats: colour_normalise() rounded. */
    void (*halves)(uint16_t *dst, const struct colour_source *source, size_t count);

    /* Two samples with the same number of channels: colour_normalise() of each, colour_mix(),
     * rounded. */
    void (*halves_mixed)(uint16_t *dst_a, uint16_t *dst_b, const struct colour_source *a,
                         const struct colour_source *b, float lam, size_t count);

    /* dst [count][channels]: colour_bytes(). */
    void (*bytes)(uint8_t *dst, const struct colour_source *source, size_t count);
};

const struct colour_ops *colour_ops_of(enum cpu_level level);

extern const struct colour_ops colour_ops_scalar;
#if defined(__x86_64__)
extern const struct colour_ops colour_ops_avx2, colour_ops_avx512;
#endif

#endif

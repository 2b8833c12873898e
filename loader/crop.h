/* SPDX-License-Identifier: Apache-2.0 */
/* Where a sample is cut out: the box in the image that becomes S x S pixels. Draws the training
 * crop. */
#ifndef LOADER_CROP_H
#define LOADER_CROP_H

#include <stdint.h>

#include "proto/spec.h"

/* One axis: output pixel o (0..S-1) is centred at (begin + (o + 1/2) * extent / S) / denominator
 * image px; the filter sees image px [low, high). Outputs of crop pad that lie outside the
 * resized image are zero: zero_before, zero_after. All integers, so that every implementation
 * agrees on the geometry. */
struct crop_axis {
    int64_t begin, extent; /* in 1/denominator image px */
    int64_t denominator;   /* 1 for crop rrc */
    uint32_t low, high;    /* image px that the filter may read */
    int32_t zero_before;   /* crop pad: this many outputs from the start are zero padding */
    int32_t zero_after;    /* ... and from the end; either may be size or more */
};

struct crop {
    struct crop_axis x, y; /* as if there were no flip */
    int flip;              /* mirror outputs left-right */
};

/* The crop of sample id in this epoch (paper, baseline): for SPEC_CROP_RRC up to 10 tries of area
 * U(area_min, area_max) x image area and aspect, w = round(sqrt(area * aspect)), h =
 * round(sqrt(area / aspect)), placed uniformly; then the centre, as torchvision falls back.
 * SPEC_CROP_NONE: short side to R, long side int(R * long / short), each axis by its own ratio,
 * offset round((n - S) / 2) with halves to even. SPEC_CROP_PAD: the same S x S pixels, then zeros
 * of pad_px on each side and a random S x S window (words x, y of block 0). Flip: draw_unit of
 * DRAW_FLIP's word 0 under 1/2. width, height >= 1. */
void crop_draw(struct crop *crop, const struct spec *spec, uint32_t epoch, uint32_t id,
               uint32_t width, uint32_t height);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* From resized planes to the numbers that are trained on: YCbCr -> RGB in Q7 integers, then float32
 * on a scale of 0..255: jitter, PCA offset, normalisation, mixup. This is the definition; every
 * faster version gives the same bits.
 *
 * The float part uses + - * / min max abs and compare-and-select alone, in the order written in
 * colour.c: no fused multiply-add, no approximate reciprocals, one division a pixel. */
#ifndef LOADER_COLOUR_H
#define LOADER_COLOUR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/spec.h"

/* JFIF's matrix as Q15 (colour_ycc_to_rgb), and where Cb and Cr of grey are. */
enum {
    COLOUR_CENTRE = 16384,  /* 128 in Q7 */
    COLOUR_RED_V = 13173,   /* 1.402 - 1 */
    COLOUR_GREEN_V = 23401, /* 0.714136 */
    COLOUR_GREEN_U = 11277, /* 0.344136 */
    COLOUR_BLUE_U = 25297,  /* 1.772 - 1 */
};

/* One sample's factors and constants. */
struct colour_params {
    unsigned channels; /* 1 or 3 */
    bool jitter;
    float hue, saturation, value; /* factors of hsv jitter */
    float offset[3];              /* PCA noise, 0 without */
    float shift[3];               /* offset - mean */
    float scale[3];               /* 1 / std */
};

/* Draws the factors (U(1 - x, 1 + x) of each strength) and the PCA offsets of sample id: offset_c =
 * sum over j of eigenvector[c][j] * eigenvalue[j] * alpha_j, alpha_j ~ N(0, sigma) (AlexNet's; its
 * eigenvalues on a scale of 0..255), in double. */
void colour_draw(struct colour_params *params, const struct spec *spec, uint32_t epoch,
                 uint32_t id);

/* Values held within 0..RESIZE_ONE. */
void colour_clamp(int16_t *values, size_t count);

/* JFIF's full-range BT.601, in place: Y, Cb, Cr -> R, G, B, Q7. With u = Cb - 16384, v = Cr -
 * 16384 and m(a, k) = (a * k + 0x4000) >> 15, sums saturating at int16:
 * R = Y + (v + m(v, 13173)), G = Y - (m(v, 23401) + m(u, 11277)), B = Y + (u + m(u, 25297)),
 * clamped to 0..RESIZE_ONE. */
void colour_ycc_to_rgb(int16_t *y, int16_t *cb, int16_t *cr, size_t count);

/* Jitter bcs (GluonCV's brightness, contrast, saturation) of sample id, in place on a whole picture
 * R, G, B of count pixels: with factors b, c, s (U(1 - x, 1 + x) of each strength), x' = b c x +
 * (1 - c) b m, m the mean luma (0.299 R + 0.587 G + 0.114 B; an exact integer sum), then s x' + (1
 * - s) luma(x'), held within 0..255 once at the end, so that the three's order does not matter, and
 * rounded to Q7. The colour_params of such a spec have no jitter. */
void colour_bcs(int16_t *r, int16_t *g, int16_t *b, size_t count, const struct spec *spec,
                uint32_t epoch, uint32_t id);

/* Brightness of a colour picture, for a spec of one channel: m(R, 9798) + m(G, 19235) + m(B, 3735)
 * into r, clamped. */
void colour_luma(int16_t *r, const int16_t *g, const int16_t *b, size_t count);

/* count pixels, dst [count][channels] in normalised units: (jitter(q / 128) + shift) * scale.
 * Jitter hsv: hue h in (-1/2, 1/2] turns from red, saturation s, value v; h * hue wrapped back,
 * min(1, s * saturation), min(255, v * value). One channel: only r is read. */
void colour_normalise(float *dst, const int16_t *r, const int16_t *g, const int16_t *b,
                      size_t count, const struct colour_params *params);

/* The same up to the jitter, rounded to bytes: trunc(x + 0.5f). For the uint8 wire. */
void colour_bytes(uint8_t *dst, const int16_t *r, const int16_t *g, const int16_t *b, size_t count,
                  const struct colour_params *params);

/* Mixup of two samples in place: a' = lam a + (1 - lam) b, b' = lam b + (1 - lam) a. */
void colour_mix(float *a, float *b, float lam, size_t count);

#endif

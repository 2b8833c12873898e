/* SPDX-License-Identifier: Apache-2.0 */
/* Everything of a step that is not a convolution or a matrix product, on blocked maps:
 * [batch][blocks][pixels][block], channels rounded up to whole blocks, the lanes past the channels
 * zero. One source (kernels_body.inc) compiled once per instruction set, and once more for maps of
 * bf16: they are computed with in float and rounded to the nearest where they are stored.
 *
 * Batch normalisation reads and writes a map as few times as can be: a pass for the statistics and
 * one that normalises, adds the residual and applies ReLU; backward the same. Sums are taken per
 * image and added in the order of the images, so no result depends on the number of threads. */
#ifndef TRAINER_DNNL_KERNELS_H
#define TRAINER_DNNL_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct map { /* shape of a blocked map */
    int batch, blocks, height, width;
};

struct bn { /* per channel, rounded up to whole blocks; zeros past the channels */
    const float *gamma, *beta;
    float *scale, *shift; /* y = scale x + shift */
    float *centre;        /* the mean, rounded to float */
    double *mean, *var;   /* of the batch, biased */
    double *dgamma, *dbeta;
    double *partial; /* [blocks][batch][2][block] to work in */
};

struct kernels {
    const char *name;
    int block;
    size_t element; /* bytes of a value of a map: 4, or 2 for bf16 */

    /* Statistics of x into bn, then as bn_apply. */
    void (*bn_forward)(void *y, const void *x, const void *residual, bool relu, struct bn *bn,
                       const struct map *map, int threads);
    /* y = scale x + shift (+ residual), then ReLU; y may be x. residual NULL: none. */
    void (*bn_apply)(void *y, const void *x, const void *residual, bool relu, const struct bn *bn,
                     const struct map *map, int threads);
    /* The gradient of y is a + b (b NULL: a alone), with ReLU taken where y is not <= 0. Turns x
     * into the gradient of x, a (when keep) into that of the residual; y NULL: worked out again
     * from x (no residual). frozen: mean and variance are constants. */
    void (*bn_backward)(void *x, void *a, const void *b, const void *y, bool relu, bool keep,
                        bool frozen, struct bn *bn, const struct map *map, int threads);

    /* out = max(0, out + residual), or without the ReLU. */
    void (*add)(void *out, const void *residual, bool relu, const struct map *map, int threads);

    /* chosen: which pixel of the window, [batch][blocks][pixels][block]; NULL: not wanted. in, out:
     * the maps before and after the pool. Backward overwrites dx. */
    void (*max_forward)(void *y, uint8_t *chosen, const void *x, int kernel, int stride, int pad,
                        const struct map *in, const struct map *out, int threads);
    void (*max_backward)(void *dx, const void *a, const void *b, const uint8_t *chosen, int kernel,
                         int stride, int pad, const struct map *in, const struct map *out,
                         int threads);
    void (*avg_forward)(void *y, const void *x, int kernel, int stride, int pad,
                        const struct map *in, const struct map *out, int threads);
    void (*avg_backward)(void *dx, const void *a, const void *b, int kernel, int stride, int pad,
                         const struct map *in, const struct map *out, int threads);

    /* features: [batch][channels], not blocked. */
    void (*global_forward)(float *features, const void *x, int channels, const struct map *in,
                           int threads);
    void (*global_backward)(void *dx, const float *features, int channels, const struct map *in,
                            int threads);

    /* weights [out_channels][in_channels][kernel][kernel]: the gradient of a convolution's weights
     * from its input x and its output's gradient. */
    void (*conv_weights)(float *weights, const void *x, const void *gradient, int in_channels,
                         int out_channels, int kernel, int stride, int pad, const struct map *in,
                         const struct map *out, int threads);

    /* values [count][channels] from pixel begin on, to [blocks][pixels][block] or, where block is
     * 1, [channels][pixels]. */
    void (*scatter)(void *image, const float *values, int channels, int block, size_t pixels,
                    size_t begin, size_t count);
};

extern const struct kernels kernels_avx512_bf16, kernels_avx512, kernels_avx2, kernels_base;

#endif

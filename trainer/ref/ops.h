/* SPDX-License-Identifier: Apache-2.0 */
/* The definition of every operation, in plain C on arrays.
 *
 * Maps are [batch][height][width][pitch], pitch = channels rounded up to LANES so that inner loops
 * have a fixed length; what is in the lanes past the channels is never used. Weights are in their
 * canonical layouts. Loops run over `threads` threads, each of which owns what it writes, so
 * results do not depend on their number. Sums over a whole batch are taken in double. */
#ifndef TRAINER_REF_OPS_H
#define TRAINER_REF_OPS_H

#include <stdbool.h>
#include <stddef.h>

#include "trainer/model/net.h"
#include "trainer/ref/real.h"

enum { LANES = 8 };

static inline int pitch_of(int channels)
{
    return (channels + LANES - 1) / LANES * LANES;
}

struct op { /* what every operation on a node needs to know */
    const struct node *node;
    int batch, threads;
    real *packed;      /* conv_ref_packed(node) reals to work in */
    const real *zeros; /* a pixel of zeros: as many as the widest map's pitch */
    double *partial;   /* [batch + 1][2][out pitch] to work in */
};

/* conv.c: cross-correlation with zero padding; NODE_CONV and NODE_FC (kernel 1 on a map of 1 x 1).
 * weight [out][in][kernel][kernel]. */
size_t conv_ref_packed(const struct node *node);
void conv_ref_forward(real *y, const real *x, const real *weight, const struct op *op);
void conv_ref_backward_data(real *dx, const real *dy, const real *weight,
                            const struct op *op); /* adds to dx */
void conv_ref_backward_weight(real *dweight, const real *x, const real *dy, const struct op *op);

/* bn.c: batch normalisation over batch, height and width. mean, var, scale, shift: [channels]. */
void bn_ref_statistics(double *mean, double *var, const real *y,
                       const struct op *op); /* var: biased */
/* out = scale y + shift (+ residual), then ReLU where the node has it; out may be y. */
void bn_ref_apply(real *out, const real *y, const real *residual, const double *scale,
                  const double *shift, const struct op *op);
/* As a convolution does that normalises what it reads in fp16: out = relu(scale y + shift), rounded
 * once (cuDNN 9.19 on an H100). */
void bn_ref_apply_halves(real *out, const real *y, const double *scale, const double *shift,
                         const struct op *op);
/* mean and var from the sums of y and y^2 as they are stored, in fp32. */
void bn_ref_sums(double *mean, double *var, const real *y, const struct op *op);
struct bn_ref { /* of one node */
    const real *y, *gamma, *beta;
    const double *mean, *var;
};
/* Clears dz where BN of y, plus that of another or a residual (both NULL: none), is not greater
 * than 0. */
void bn_ref_mask(real *dz, const struct bn_ref *bn, const struct bn_ref *other,
                 const real *residual, const struct op *op);
/* bn_ref_backward by way of coefficients that are stored in fp32: dy = a dz + b y + c. */
void bn_ref_backward_sums(real *dz, real *dgamma, real *dbeta, const struct bn_ref *bn,
                          const struct op *op);
/* Turns dz, the gradient of BN's output, into that of its input y, in place. dgamma, dbeta
 * [channels]; NULL: not wanted. */
void bn_ref_backward(real *dz, real *dgamma, real *dbeta, const real *y, const double *mean,
                     const double *var, const real *gamma, const struct op *op);
/* The same where mean and variance are constants; scale as given to bn_ref_apply. */
void bn_ref_backward_frozen(real *dz, const double *scale, const struct op *op);

/* pool.c. The avg functions are NODE_AVG_POOL (the divisor is the number of pixels that are inside
 * the map) and NODE_GLOBAL_AVG. Max pool: the first of equal pixels has the gradient; NaN is the
 * maximum. The backward functions add to dx. */
void pool_ref_max(real *y, const real *x, const struct op *op);
void pool_ref_max_backward(real *dx, const real *dy, const real *x, const struct op *op);
void pool_ref_avg(real *y, const real *x, const struct op *op);
void pool_ref_avg_backward(real *dx, const real *dy, const struct op *op);

/* fc.c: y = weight x + bias; the weight's gradients are those of the convolution. */
void fc_ref_forward(real *y, const real *x, const real *weight, const real *bias,
                    const struct op *op);
void fc_ref_backward_bias(real *dbias, const real *dy, const struct op *op);

/* update.c. */
bool update_ref_finite(const real *values, size_t count);
struct update_ref {
    real lr, momentum, decay, grad_scale;
};
/* g = grad_scale gradient + decay w; v = momentum v + g; w -= lr (g + momentum v) */
void update_ref_nag(real *w, real *v, const real *gradient, size_t count,
                    const struct update_ref *update);
/* average = decay average + (1 - decay) values */
void update_ref_average(real *average, const real *values, size_t count, double decay);
/* running += NET_BN_MOMENTUM (sum / micro_batches - running) */
void update_ref_running(real *running, const real *sum, size_t count, double micro_batches);

#endif

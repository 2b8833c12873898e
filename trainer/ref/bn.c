/* SPDX-License-Identifier: Apache-2.0 */
/* Batch normalisation: statistics, forward, backward; the formulas are in trainer/ref/ops.h. */
#include <math.h>
#include <string.h>

#include "trainer/ref/ops.h"
#include "trainer/ref/ref.h"

static size_t pixels_of(const struct op *op) /* of one image */
{
    return (size_t)op->node->out_height * op->node->out_width;
}

/* Adds up the images' partial sums in order: total[channel] of part 0 or 1. */
static void reduce(double *total, int part, const struct op *op)
{
    int channels = op->node->out_channels, pitch = pitch_of(channels);
    memset(total, 0, (size_t)channels * sizeof *total);
    for (int n = 0; n < op->batch; n++)
        for (int c = 0; c < channels; c++)
            total[c] += op->partial[((size_t)n * 2 + part) * pitch + c];
}

void bn_ref_statistics(double *mean, double *var, const real *y, const struct op *op)
{
    int channels = op->node->out_channels, pitch = pitch_of(channels);
    size_t pixels = pixels_of(op);
    double count = (double)pixels * op->batch;
#pragma omp parallel for num_threads(op->threads) schedule(static)
    for (int n = 0; n < op->batch; n++) {
        double *sum = op->partial + (size_t)n * 2 * pitch;
        memset(sum, 0, (size_t)pitch * sizeof *sum);
        for (const real *at = y + n * pixels * pitch, *end = at + pixels * pitch; at < end;
             at += pitch)
            for (int c = 0; c < channels; c++)
                sum[c] += at[c];
    }
    reduce(mean, 0, op);
    for (int c = 0; c < channels; c++)
        mean[c] /= count;
#pragma omp parallel for num_threads(op->threads) schedule(static)
    for (int n = 0; n < op->batch; n++) {
        double *sum = op->partial + (size_t)n * 2 * pitch;
        memset(sum, 0, (size_t)pitch * sizeof *sum);
        for (const real *at = y + n * pixels * pitch, *end = at + pixels * pitch; at < end;
             at += pitch)
            for (int c = 0; c < channels; c++)
                sum[c] += (at[c] - mean[c]) * (at[c] - mean[c]);
    }
    reduce(var, 0, op);
    for (int c = 0; c < channels; c++)
        var[c] /= count;
}

void bn_ref_apply(real *out, const real *y, const real *residual, const double *scale,
                  const double *shift, const struct op *op)
{
    int channels = op->node->out_channels, pitch = pitch_of(channels);
    size_t pixels = pixels_of(op) * (size_t)op->batch;
    bool relu = op->node->relu;
#pragma omp parallel for num_threads(op->threads) schedule(static)
    for (size_t p = 0; p < pixels; p++)
        for (int c = 0; c < channels; c++) {
            size_t at = p * pitch + c;
            double value = scale[c] * y[at] + shift[c];
            if (residual)
                value += residual[at];
            /* not (value > 0): a NaN must survive */
            out[at] = (real)(relu && value < 0 ? 0 : value);
        }
}

void bn_ref_apply_halves(real *out, const real *y, const double *scale, const double *shift,
                         const struct op *op)
{
    int channels = op->node->out_channels, pitch = pitch_of(channels);
    size_t pixels = pixels_of(op) * (size_t)op->batch;
#pragma omp parallel for num_threads(op->threads) schedule(static)
    for (size_t p = 0; p < pixels; p++) {
        real *at = out + p * pitch;
        for (int c = 0; c < channels; c++)
            at[c] = (real)(scale[c] * y[p * pitch + c] + shift[c]);
        fp16_ref_round(at, (size_t)channels);
        for (int c = 0; c < channels; c++)
            at[c] = at[c] < 0 ? 0 : at[c];
    }
}

void bn_ref_sums(double *mean, double *var, const real *y, const struct op *op)
{
    int channels = op->node->out_channels, pitch = pitch_of(channels);
    size_t pixels = pixels_of(op);
    double count = (double)pixels * op->batch;
#pragma omp parallel for num_threads(op->threads) schedule(static)
    for (int n = 0; n < op->batch; n++) {
        double *sum = op->partial + (size_t)n * 2 * pitch, *squares = sum + pitch;
        memset(sum, 0, 2 * (size_t)pitch * sizeof *sum);
        for (size_t p = n * pixels; p < (n + 1) * pixels; p++)
            for (int c = 0; c < channels; c++) {
                double value = y[p * pitch + c];
                sum[c] += value;
                squares[c] += value * value;
            }
    }
    reduce(mean, 0, op);
    reduce(var, 1, op);
    for (int c = 0; c < channels; c++) {
        mean[c] = (float)mean[c] / count;
        var[c] = fmax((float)var[c] / count - mean[c] * mean[c], 0);
    }
}

static double normed(const struct bn_ref *bn, size_t at, int c)
{
    double inverse = 1.0 / sqrt(bn->var[c] + NET_BN_EPSILON);
    return (bn->y[at] - bn->mean[c]) * inverse * bn->gamma[c] + bn->beta[c];
}

void bn_ref_mask(real *dz, const struct bn_ref *bn, const struct bn_ref *other,
                 const real *residual, const struct op *op)
{
    int channels = op->node->out_channels, pitch = pitch_of(channels);
    size_t pixels = pixels_of(op) * (size_t)op->batch;
#pragma omp parallel for num_threads(op->threads) schedule(static)
    for (size_t p = 0; p < pixels; p++)
        for (int c = 0; c < channels; c++) {
            size_t at = p * pitch + c;
            double z = normed(bn, at, c);
            z += other ? normed(other, at, c) : residual ? residual[at] : 0;
            if (!(z > 0))
                dz[at] = 0;
        }
}

/* By image: the sums of dz and of dz (y - mean). */
static void sum_backward(const real *dz, const real *y, const double *mean, const struct op *op)
{
    int channels = op->node->out_channels, pitch = pitch_of(channels);
    size_t pixels = pixels_of(op);
#pragma omp parallel for num_threads(op->threads) schedule(static)
    for (int n = 0; n < op->batch; n++) {
        double *sum = op->partial + (size_t)n * 2 * pitch, *product = sum + pitch;
        memset(sum, 0, 2 * (size_t)pitch * sizeof *sum);
        for (size_t p = n * pixels; p < (n + 1) * pixels; p++)
            for (int c = 0; c < channels; c++) {
                sum[c] += dz[p * pitch + c];
                product[c] += dz[p * pitch + c] * (y[p * pitch + c] - mean[c]);
            }
    }
}

/* With x^ = (y - mean) / sqrt(var + eps): dy = gamma / sqrt(var + eps) * (dz - mean(dz) - x^ *
 * mean(dz x^)) (Ioffe and Szegedy 2015, section 3). */
void bn_ref_backward(real *dz, real *dgamma, real *dbeta, const real *y, const double *mean,
                     const double *var, const real *gamma, const struct op *op)
{
    int channels = op->node->out_channels, pitch = pitch_of(channels);
    size_t pixels = pixels_of(op);
    double count = (double)pixels * op->batch;
    sum_backward(dz, y, mean, op);
    double *sum = op->partial + (size_t)op->batch * 2 * pitch, *product = sum + pitch;
    reduce(sum, 0, op);
    reduce(product, 1, op);
    for (int c = 0; c < channels; c++) {
        double inverse = 1.0 / sqrt(var[c] + NET_BN_EPSILON);
        if (dgamma)
            dgamma[c] = (real)(product[c] * inverse);
        if (dbeta)
            dbeta[c] = (real)sum[c];
        sum[c] /= count; /* from here on means, the second one over the variance */
        product[c] *= inverse * inverse / count;
    }
    double *scale = op->partial; /* the images' sums are done with */
    for (int c = 0; c < channels; c++)
        scale[c] = gamma[c] / sqrt(var[c] + NET_BN_EPSILON);
#pragma omp parallel for num_threads(op->threads) schedule(static)
    for (size_t p = 0; p < pixels * (size_t)op->batch; p++)
        for (int c = 0; c < channels; c++) {
            size_t at = p * pitch + c;
            dz[at] = (real)(scale[c] * (dz[at] - sum[c] - (y[at] - mean[c]) * product[c]));
        }
}

void bn_ref_backward_sums(real *dz, real *dgamma, real *dbeta, const struct bn_ref *bn,
                          const struct op *op)
{
    int channels = op->node->out_channels, pitch = pitch_of(channels);
    size_t pixels = pixels_of(op) * (size_t)op->batch;
    sum_backward(dz, bn->y, bn->mean, op);
    double *sum = op->partial + (size_t)op->batch * 2 * pitch, *product = sum + pitch;
    reduce(sum, 0, op);
    reduce(product, 1, op);
    double *a = op->partial, *b = a + pitch; /* the images' sums are done with */
    double *constant = sum;
    for (int c = 0; c < channels; c++) {
        double inverse = 1.0 / sqrt(bn->var[c] + NET_BN_EPSILON), total = sum[c];
        double scaled = product[c] * inverse, of_dz = bn->gamma[c] * inverse;
        double of_y = -of_dz * inverse * scaled / (double)pixels;
        if (dgamma)
            dgamma[c] = (real)scaled;
        if (dbeta)
            dbeta[c] = (real)total;
        a[c] = (float)of_dz;
        b[c] = (float)of_y;
        constant[c] = (float)(-of_dz * total / (double)pixels - of_y * bn->mean[c]);
    }
#pragma omp parallel for num_threads(op->threads) schedule(static)
    for (size_t p = 0; p < pixels; p++)
        for (int c = 0; c < channels; c++) {
            size_t at = p * pitch + c;
            dz[at] = (real)(a[c] * dz[at] + b[c] * bn->y[at] + constant[c]);
        }
}

void bn_ref_backward_frozen(real *dz, const double *scale, const struct op *op)
{
    int channels = op->node->out_channels, pitch = pitch_of(channels);
    size_t pixels = pixels_of(op) * (size_t)op->batch;
#pragma omp parallel for num_threads(op->threads) schedule(static)
    for (size_t p = 0; p < pixels; p++)
        for (int c = 0; c < channels; c++)
            dz[p * pitch + c] = (real)(dz[p * pitch + c] * scale[c]);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What batch normalisation is split into where it is fused with convolutions: the sums of a map
 * (cuDNN: "Generate Stats", the sum and sum of squares per channel), what follows from them
 * ("Batchnorm Finalize"; equivalent scale and bias as the API reference has them for
 * CUDNN_FUSED_BN_FINALIZE_STATISTICS_TRAINING: eq_scale = scale / std, eq_bias = bias - mean
 * eq_scale), and the backward's sums with the three coefficients of dx = A dy + B x + C (Ioffe and
 * Szegedy 2015, section 3, sorted by dy and x). */
#include <math.h>
#include <stdlib.h>

#include "tests/vgpu/ops.h"

#define STATS(name) CUDNN_ATTR_OPERATION_GENSTATS_##name
#define FINALIZE(name) CUDNN_ATTR_OPERATION_BN_FINALIZE_##name
#define WEIGHTS(name) CUDNN_ATTR_OPERATION_BN_BWD_WEIGHTS_##name

static double *value_of(const struct descriptor *op, const struct values *values, int name)
{
    return vgpu_value(values, vgpu_get_tensor(op, name));
}

static void check_float_vectors(const struct descriptor *op, const int *names, int count,
                                int64_t channels)
{
    for (int i = 0; i < count; i++) {
        const struct tensor *tensor = vgpu_get_tensor(op, names[i]);
        if (!tensor)
            continue;
        if (tensor->type != CUDNN_DATA_FLOAT)
            vgpu_fail("%s is not fp32", vgpu_name_of(names[i]));
        vgpu_check_vector(tensor, names[i], channels);
    }
}

static void check_float_math(const struct descriptor *op, int name)
{
    if (vgpu_get_int(op, name, -1) != CUDNN_DATA_FLOAT)
        vgpu_fail("%s is not fp32", vgpu_name_of(name));
}

void vgpu_stats_check(const struct descriptor *op)
{
    static const int sums[] = {STATS(SUMDESC), STATS(SQSUMDESC)};
    const struct tensor *x = vgpu_get_tensor(op, STATS(XDESC));
    check_float_math(op, STATS(MATH_PREC));
    if (x->rank != 4)
        vgpu_fail("sums of a tensor that is not 4-D");
    check_float_vectors(op, sums, 2, x->dim[1]);
}

void vgpu_stats_compute(const struct descriptor *op, const struct values *values)
{
    const struct tensor *shape = vgpu_get_tensor(op, STATS(XDESC));
    const double *x = vgpu_value(values, shape);
    double *sum = value_of(op, values, STATS(SUMDESC));
    double *squares = value_of(op, values, STATS(SQSUMDESC));
    int64_t channels = shape->dim[1], count = vgpu_tensor_count(shape);
#pragma omp parallel for
    for (int64_t c = 0; c < channels; c++) {
        sum[c] = squares[c] = 0;
        for (int64_t i = c; i < count; i += channels) {
            sum[c] += x[i];
            squares[c] += x[i] * x[i];
        }
    }
}

void vgpu_finalize_check(const struct descriptor *op)
{
    static const int vectors[] = {FINALIZE(Y_SUM_DESC),
                                  FINALIZE(Y_SQ_SUM_DESC),
                                  FINALIZE(SCALE_DESC),
                                  FINALIZE(BIAS_DESC),
                                  FINALIZE(PREV_RUNNING_MEAN_DESC),
                                  FINALIZE(PREV_RUNNING_VAR_DESC),
                                  FINALIZE(UPDATED_RUNNING_MEAN_DESC),
                                  FINALIZE(UPDATED_RUNNING_VAR_DESC),
                                  FINALIZE(SAVED_MEAN_DESC),
                                  FINALIZE(SAVED_INV_STD_DESC)};
    const struct tensor *sum = vgpu_get_tensor(op, FINALIZE(Y_SUM_DESC));
    const struct tensor *scale = vgpu_get_tensor(op, FINALIZE(EQ_SCALE_DESC));
    const struct tensor *shift = vgpu_get_tensor(op, FINALIZE(EQ_BIAS_DESC));
    const struct tensor *count = vgpu_get_tensor(op, FINALIZE(ACCUM_COUNT_DESC));
    check_float_math(op, FINALIZE(MATH_PREC));
    if (vgpu_get_int(op, FINALIZE(STATS_MODE), -1) != CUDNN_BN_FINALIZE_STATISTICS_TRAINING)
        vgpu_fail("the double finalises statistics in training only");
    check_float_vectors(op, vectors, sizeof vectors / sizeof *vectors, sum->dim[1]);
    vgpu_check_vector(scale, FINALIZE(EQ_SCALE_DESC), sum->dim[1]);
    vgpu_check_vector(shift, FINALIZE(EQ_BIAS_DESC), sum->dim[1]);
    if (scale->type != shift->type)
        vgpu_fail("equivalent scale and bias are of different types");
    if (count->type != CUDNN_DATA_INT64 || !count->by_value || vgpu_tensor_count(count) != 1)
        vgpu_fail("the count of accumulated values is not one int64 by value");
    int running = 0;
    for (int i = 4; i < 8; i++)
        running += vgpu_get(op, vectors[i]) != NULL;
    running += vgpu_get(op, FINALIZE(EXP_AVERATE_FACTOR_DESC)) != NULL;
    if (running != 0 && running != 5)
        vgpu_fail("some of the running statistics and their factor are set and some are not");
}

static void move_running(const struct descriptor *op, const struct values *values, int64_t c,
                         double mean, double unbiased)
{
    if (!vgpu_get(op, FINALIZE(EXP_AVERATE_FACTOR_DESC)))
        return;
    double factor = value_of(op, values, FINALIZE(EXP_AVERATE_FACTOR_DESC))[0];
    value_of(op, values, FINALIZE(UPDATED_RUNNING_MEAN_DESC))[c] =
        (1 - factor) * value_of(op, values, FINALIZE(PREV_RUNNING_MEAN_DESC))[c] + factor * mean;
    value_of(op, values, FINALIZE(UPDATED_RUNNING_VAR_DESC))[c] =
        (1 - factor) * value_of(op, values, FINALIZE(PREV_RUNNING_VAR_DESC))[c] + factor * unbiased;
}

void vgpu_finalize_compute(const struct descriptor *op, const struct values *values)
{
    const struct tensor *shape = vgpu_get_tensor(op, FINALIZE(EQ_SCALE_DESC));
    const double *sum = value_of(op, values, FINALIZE(Y_SUM_DESC));
    const double *squares = value_of(op, values, FINALIZE(Y_SQ_SUM_DESC));
    const double *gamma = value_of(op, values, FINALIZE(SCALE_DESC));
    const double *beta = value_of(op, values, FINALIZE(BIAS_DESC));
    double *mean = value_of(op, values, FINALIZE(SAVED_MEAN_DESC));
    double *inverse = value_of(op, values, FINALIZE(SAVED_INV_STD_DESC));
    double *scale = vgpu_value(values, shape);
    double *shift = value_of(op, values, FINALIZE(EQ_BIAS_DESC));
    double count = value_of(op, values, FINALIZE(ACCUM_COUNT_DESC))[0];
    double epsilon = value_of(op, values, FINALIZE(EPSILON_DESC))[0];
    int64_t channels = vgpu_tensor_count(shape);
    for (int64_t c = 0; c < channels; c++) {
        double average = sum[c] / count;
        double variance = fmax(squares[c] / count - average * average, 0.0);
        mean[c] = (float)average; /* as they are stored */
        inverse[c] = (float)(1.0 / sqrt(variance + epsilon));
        scale[c] = gamma[c] * inverse[c];
        shift[c] = beta[c] - mean[c] * scale[c];
        move_running(op, values, c, average, variance * count / (count - 1));
    }
    vgpu_tensor_round(scale, channels, shape->type);
    vgpu_tensor_round(shift, channels, shape->type);
}

void vgpu_weights_check(const struct descriptor *op)
{
    static const int vectors[] = {WEIGHTS(MEAN_DESC),       WEIGHTS(INVSTD_DESC),
                                  WEIGHTS(BN_SCALE_DESC),   WEIGHTS(DBN_SCALE_DESC),
                                  WEIGHTS(DBN_BIAS_DESC),   WEIGHTS(EQ_DY_SCALE_DESC),
                                  WEIGHTS(EQ_X_SCALE_DESC), WEIGHTS(EQ_BIAS)};
    const struct tensor *x = vgpu_get_tensor(op, WEIGHTS(X_DESC));
    check_float_math(op, WEIGHTS(MATH_PREC));
    if (x->rank != 4 || !vgpu_tensor_same_shape(x, vgpu_get_tensor(op, WEIGHTS(DY_DESC))))
        vgpu_fail("the backward's sums: x and dy are not 4-D of the same shape");
    check_float_vectors(op, vectors, sizeof vectors / sizeof *vectors, x->dim[1]);
}

void vgpu_weights_compute(const struct descriptor *op, const struct values *values)
{
    const struct tensor *shape = vgpu_get_tensor(op, WEIGHTS(X_DESC));
    const double *x = vgpu_value(values, shape), *dy = value_of(op, values, WEIGHTS(DY_DESC));
    const double *mean = value_of(op, values, WEIGHTS(MEAN_DESC));
    const double *inverse = value_of(op, values, WEIGHTS(INVSTD_DESC));
    const double *gamma = value_of(op, values, WEIGHTS(BN_SCALE_DESC));
    double *dscale = value_of(op, values, WEIGHTS(DBN_SCALE_DESC));
    double *dbias = value_of(op, values, WEIGHTS(DBN_BIAS_DESC));
    double *a = value_of(op, values, WEIGHTS(EQ_DY_SCALE_DESC));
    double *b = value_of(op, values, WEIGHTS(EQ_X_SCALE_DESC));
    double *constant = value_of(op, values, WEIGHTS(EQ_BIAS));
    int64_t channels = shape->dim[1], count = vgpu_tensor_count(shape);
    double pixels = (double)(count / channels);
#pragma omp parallel for
    for (int64_t c = 0; c < channels; c++) {
        double sum = 0, product = 0; /* of dy, of dy with the normalised x */
        for (int64_t i = c; i < count; i += channels) {
            sum += dy[i];
            product += dy[i] * (x[i] - mean[c]) * inverse[c];
        }
        dbias[c] = sum;
        dscale[c] = product;
        a[c] = gamma[c] * inverse[c];
        b[c] = -a[c] * inverse[c] * product / pixels;
        constant[c] = -a[c] * sum / pixels - b[c] * mean[c];
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Batch normalisation: y = scale (x - mean) / sqrt(variance + epsilon) + bias over every pixel of a
 * channel (cuDNN: "Normalizations"), its running statistics with the unbiased variance, and its
 * gradient (Ioffe and Szegedy 2015, section 3). */
#include <math.h>
#include <stdlib.h>

#include "tests/vgpu/ops.h"

#define FORWARD(name) CUDNN_ATTR_OPERATION_NORM_FWD_##name
#define BACKWARD(name) CUDNN_ATTR_OPERATION_NORM_BWD_##name

void vgpu_check_vector(const struct tensor *tensor, int name, int64_t channels)
{
    if (tensor->rank != 4 || tensor->dim[1] != channels || vgpu_tensor_count(tensor) != channels)
        vgpu_fail("%s is not 1 x %lld x 1 x 1", vgpu_name_of(name), (long long)channels);
}

static void check_vector(const struct descriptor *op, int name, int64_t channels)
{
    const struct tensor *tensor = vgpu_get_tensor(op, name);
    if (!tensor)
        return;
    if (tensor->type != CUDNN_DATA_FLOAT)
        vgpu_fail("%s is not fp32", vgpu_name_of(name));
    vgpu_check_vector(tensor, name, channels);
}

static void check_scalar(const struct descriptor *op, int name)
{
    const struct tensor *tensor = vgpu_get_tensor(op, name);
    if (tensor && (vgpu_tensor_count(tensor) != 1 || tensor->type != CUDNN_DATA_FLOAT))
        vgpu_fail("%s is not one fp32", vgpu_name_of(name));
}

static void check_maps(const struct tensor *x, const struct tensor *other, const char *name)
{
    if (x->rank != 4 || !vgpu_tensor_same_shape(x, other))
        vgpu_fail("normalisation: x and %s are not 4-D of the same shape", name);
}

void vgpu_norm_forward_check(const struct descriptor *op)
{
    const struct tensor *x = vgpu_get_tensor(op, FORWARD(XDESC));
    check_maps(x, vgpu_get_tensor(op, FORWARD(YDESC)), "y");
    if (vgpu_get_int(op, FORWARD(MODE), -1) != CUDNN_BATCH_NORM)
        vgpu_fail("the double normalises over the batch only");
    bool infers = vgpu_norm_infers(op);
    if (!infers && vgpu_get_int(op, FORWARD(PHASE), -1) != CUDNN_NORM_FWD_TRAINING)
        vgpu_fail("normalisation in an unknown phase");
    if (infers == (vgpu_get(op, FORWARD(EPSILON_DESC)) != NULL))
        vgpu_fail("normalisation: training needs an epsilon, inference takes none");
    static const int vectors[] = {FORWARD(SCALE_DESC),
                                  FORWARD(BIAS_DESC),
                                  FORWARD(MEAN_DESC),
                                  FORWARD(INV_VARIANCE_DESC),
                                  FORWARD(INPUT_RUNNING_MEAN_DESC),
                                  FORWARD(INPUT_RUNNING_VAR_DESC),
                                  FORWARD(OUTPUT_RUNNING_MEAN_DESC),
                                  FORWARD(OUTPUT_RUNNING_VAR_DESC)};
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++)
        check_vector(op, vectors[i], x->dim[1]);
    check_scalar(op, FORWARD(EPSILON_DESC));
    check_scalar(op, FORWARD(EXP_AVG_FACTOR_DESC));
    int running = 0;
    for (size_t i = 4; i < sizeof vectors / sizeof *vectors; i++)
        running += vgpu_get(op, vectors[i]) != NULL;
    running += vgpu_get(op, FORWARD(EXP_AVG_FACTOR_DESC)) != NULL;
    if (running != 0 && (running != 5 || infers))
        vgpu_fail("some of the running statistics and their factor are set and some are not");
}

bool vgpu_norm_infers(const struct descriptor *op)
{
    return op->kind->type == CUDNN_BACKEND_OPERATION_NORM_FORWARD_DESCRIPTOR &&
           vgpu_get_int(op, FORWARD(PHASE), -1) == CUDNN_NORM_FWD_INFERENCE;
}

struct channel { /* sums over its pixels */
    double mean, variance;
};

static struct channel statistics(const double *x, int64_t pixels, int64_t channels, int64_t c)
{
    struct channel it = {0};
    for (int64_t p = 0; p < pixels; p++)
        it.mean += x[p * channels + c];
    it.mean /= (double)pixels;
    for (int64_t p = 0; p < pixels; p++) {
        double apart = x[p * channels + c] - it.mean;
        it.variance += apart * apart;
    }
    it.variance /= (double)pixels;
    return it;
}

static void move_running(const struct descriptor *op, const struct values *values, int64_t c,
                         const struct channel *it, int64_t pixels)
{
    if (!vgpu_get(op, FORWARD(EXP_AVG_FACTOR_DESC)))
        return;
    double factor = vgpu_value(values, vgpu_get_tensor(op, FORWARD(EXP_AVG_FACTOR_DESC)))[0];
    double unbiased = it->variance * (double)pixels / (double)(pixels - 1);
    const double *mean = vgpu_value(values, vgpu_get_tensor(op, FORWARD(INPUT_RUNNING_MEAN_DESC)));
    const double *var = vgpu_value(values, vgpu_get_tensor(op, FORWARD(INPUT_RUNNING_VAR_DESC)));
    vgpu_value(values, vgpu_get_tensor(op, FORWARD(OUTPUT_RUNNING_MEAN_DESC)))[c] =
        (1 - factor) * mean[c] + factor * it->mean;
    vgpu_value(values, vgpu_get_tensor(op, FORWARD(OUTPUT_RUNNING_VAR_DESC)))[c] =
        (1 - factor) * var[c] + factor * unbiased;
}

void vgpu_norm_forward_compute(const struct descriptor *op, const struct values *values)
{
    const struct tensor *shape = vgpu_get_tensor(op, FORWARD(XDESC));
    const struct tensor *result = vgpu_get_tensor(op, FORWARD(YDESC));
    const double *x = vgpu_value(values, shape);
    const double *scale = vgpu_value(values, vgpu_get_tensor(op, FORWARD(SCALE_DESC)));
    const double *bias = vgpu_value(values, vgpu_get_tensor(op, FORWARD(BIAS_DESC)));
    bool infers = vgpu_norm_infers(op);
    double epsilon = infers ? 0 : vgpu_value(values, vgpu_get_tensor(op, FORWARD(EPSILON_DESC)))[0];
    double *mean = vgpu_value(values, vgpu_get_tensor(op, FORWARD(MEAN_DESC)));
    double *inverse = vgpu_value(values, vgpu_get_tensor(op, FORWARD(INV_VARIANCE_DESC)));
    double *y = vgpu_value(values, result);
    int64_t channels = shape->dim[1], pixels = vgpu_tensor_count(shape) / channels;
#pragma omp parallel for
    for (int64_t c = 0; c < channels; c++) {
        if (!infers) {
            struct channel it = statistics(x, pixels, channels, c);
            mean[c] = (float)it.mean; /* as they are stored */
            inverse[c] = (float)(1.0 / sqrt(it.variance + epsilon));
            move_running(op, values, c, &it, pixels);
        }
        for (int64_t p = 0; p < pixels; p++)
            y[p * channels + c] = (x[p * channels + c] - mean[c]) * inverse[c] * scale[c] + bias[c];
    }
    vgpu_tensor_round(y, pixels * channels, result->type);
}

void vgpu_norm_backward_check(const struct descriptor *op)
{
    const struct tensor *x = vgpu_get_tensor(op, BACKWARD(XDESC));
    check_maps(x, vgpu_get_tensor(op, BACKWARD(DYDESC)), "dy");
    check_maps(x, vgpu_get_tensor(op, BACKWARD(DXDESC)), "dx");
    if (vgpu_get_int(op, BACKWARD(MODE), -1) != CUDNN_BATCH_NORM)
        vgpu_fail("the double normalises over the batch only");
    static const int vectors[] = {BACKWARD(MEAN_DESC), BACKWARD(INV_VARIANCE_DESC),
                                  BACKWARD(SCALE_DESC), BACKWARD(DSCALE_DESC),
                                  BACKWARD(DBIAS_DESC)};
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++)
        check_vector(op, vectors[i], x->dim[1]);
    check_scalar(op, BACKWARD(EPSILON_DESC));
}

void vgpu_norm_backward_compute(const struct descriptor *op, const struct values *values)
{
    const struct tensor *shape = vgpu_get_tensor(op, BACKWARD(XDESC));
    const struct tensor *result = vgpu_get_tensor(op, BACKWARD(DXDESC));
    const double *x = vgpu_value(values, shape);
    const double *dy = vgpu_value(values, vgpu_get_tensor(op, BACKWARD(DYDESC)));
    const double *mean = vgpu_value(values, vgpu_get_tensor(op, BACKWARD(MEAN_DESC)));
    const double *inverse = vgpu_value(values, vgpu_get_tensor(op, BACKWARD(INV_VARIANCE_DESC)));
    const double *scale = vgpu_value(values, vgpu_get_tensor(op, BACKWARD(SCALE_DESC)));
    double *dscale = vgpu_value(values, vgpu_get_tensor(op, BACKWARD(DSCALE_DESC)));
    double *dbias = vgpu_value(values, vgpu_get_tensor(op, BACKWARD(DBIAS_DESC)));
    double *dx = vgpu_value(values, result);
    int64_t channels = shape->dim[1], pixels = vgpu_tensor_count(shape) / channels;
#pragma omp parallel for
    for (int64_t c = 0; c < channels; c++) {
        double sum = 0, product = 0; /* of dy, of dy with the normalised x */
        for (int64_t i = c; i < pixels * channels; i += channels) {
            sum += dy[i];
            product += dy[i] * (x[i] - mean[c]) * inverse[c];
        }
        dbias[c] = sum;
        dscale[c] = product;
        double sum_share = sum / (double)pixels;
        double product_share = product / (double)pixels;
        for (int64_t i = c; i < pixels * channels; i += channels)
            dx[i] = scale[c] * inverse[c] *
                    (dy[i] - sum_share - (x[i] - mean[c]) * inverse[c] * product_share);
    }
    vgpu_tensor_round(dx, pixels * channels, result->type);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* cuDNN's pointwise operations on the double. */
#include <math.h>

#include "tests/vgpu/ops.h"

void (*vgpu_observe_relu)(const double *values, const int64_t dim[4]);

struct pointwise {
    cudnnPointwiseMode_t mode;
    bool backward, binary;
    const struct tensor *x, *b, *y; /* backward: dy, x, dx */
};

static struct pointwise pointwise_of(const struct descriptor *op)
{
    const struct descriptor *how =
        vgpu_get_descriptor(op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR);
    struct pointwise it = {
        .mode = (cudnnPointwiseMode_t)vgpu_get_int(how, CUDNN_ATTR_POINTWISE_MODE, -1)};
    it.backward = it.mode == CUDNN_POINTWISE_RELU_BWD;
    it.binary = it.mode != CUDNN_POINTWISE_RELU_FWD && it.mode != CUDNN_POINTWISE_IDENTITY;
    if (vgpu_get(how, CUDNN_ATTR_POINTWISE_RELU_LOWER_CLIP))
        vgpu_fail("a clipped ReLU, which the double does not have");
    if (vgpu_get_int(how, CUDNN_ATTR_POINTWISE_MATH_PREC, -1) != CUDNN_DATA_FLOAT)
        vgpu_fail("a pointwise operation computes in another type than fp32");
    it.x = vgpu_get_tensor(op, it.backward ? CUDNN_ATTR_OPERATION_POINTWISE_DYDESC
                                           : CUDNN_ATTR_OPERATION_POINTWISE_XDESC);
    it.b = vgpu_get_tensor(op, it.backward ? CUDNN_ATTR_OPERATION_POINTWISE_XDESC
                                           : CUDNN_ATTR_OPERATION_POINTWISE_BDESC);
    it.y = vgpu_get_tensor(op, it.backward ? CUDNN_ATTR_OPERATION_POINTWISE_DXDESC
                                           : CUDNN_ATTR_OPERATION_POINTWISE_YDESC);
    return it;
}

static void check_spread(const struct tensor *from, const struct tensor *to, const char *name)
{
    if (from->rank != to->rank)
        vgpu_fail("pointwise: %s has %d dimensions, the result %d", name, from->rank, to->rank);
    for (int i = 0; i < to->rank; i++)
        if (from->dim[i] != 1 && from->dim[i] != to->dim[i])
            vgpu_fail("pointwise: dimension %d of %s is %lld, of the result %lld", i, name,
                      (long long)from->dim[i], (long long)to->dim[i]);
}

void vgpu_pointwise_check(const struct descriptor *op)
{
    const struct pointwise it = pointwise_of(op);
    switch ((int)it.mode) {
    case CUDNN_POINTWISE_ADD:
    case CUDNN_POINTWISE_MUL:
    case CUDNN_POINTWISE_SUB:
    case CUDNN_POINTWISE_IDENTITY:
    case CUDNN_POINTWISE_RELU_FWD:
    case CUDNN_POINTWISE_RELU_BWD:
    case CUDNN_POINTWISE_CMP_GT:
        break;
    default:
        vgpu_fail("the double has no pointwise mode %d", (int)it.mode);
    }
    if (!it.x || !it.y || (it.binary && !it.b))
        vgpu_fail("pointwise mode %d lacks an operand", (int)it.mode);
    if (!it.binary && it.b)
        vgpu_fail("pointwise mode %d takes one operand and has two", (int)it.mode);
    if (vgpu_get_real(op, CUDNN_ATTR_OPERATION_POINTWISE_ALPHA1, 1) != 1 ||
        vgpu_get_real(op, CUDNN_ATTR_OPERATION_POINTWISE_ALPHA2, 1) != 1)
        vgpu_fail("pointwise: the double has alpha 1 only");
    if ((it.mode == CUDNN_POINTWISE_CMP_GT) != (it.y->type == CUDNN_DATA_BOOLEAN))
        vgpu_fail("pointwise mode %d gives a %s", (int)it.mode, vgpu_element_name(it.y->type));
    check_spread(it.x, it.y, it.backward ? "dy" : "x");
    if (it.b)
        check_spread(it.b, it.y, it.backward ? "x" : "b");
    if (!vgpu_tensor_same_shape(it.x, it.y) && !(it.b && vgpu_tensor_same_shape(it.b, it.y)))
        vgpu_fail("pointwise: no operand has the shape of the result");
}

static double apply(cudnnPointwiseMode_t mode, double x, double b)
{
    switch ((int)mode) {
    case CUDNN_POINTWISE_ADD:
        return x + b;
    case CUDNN_POINTWISE_MUL:
        return x * b;
    case CUDNN_POINTWISE_SUB:
        return x - b;
    case CUDNN_POINTWISE_RELU_FWD:
        return fmax(x, 0.0);
    case CUDNN_POINTWISE_RELU_BWD:
        return b > 0 ? x : 0.0;
    case CUDNN_POINTWISE_CMP_GT:
        return x > b;
    default:
        return x;
    }
}

struct step { /* how an operand's index moves with the result's pixel and channel */
    bool pixel, channel;
    int64_t channels;
};

/* 4-D operands that are whole maps, vectors over channels, or one number; by their dimensions. */
static struct step step_of(const struct tensor *tensor)
{
    struct step step = {.channels = tensor->rank > 1 ? tensor->dim[1] : 1};
    step.channel = step.channels > 1;
    int64_t pixels = vgpu_tensor_count(tensor) / step.channels;
    step.pixel = pixels > 1;
    return step;
}

static void check_step(const struct tensor *from, const struct tensor *to)
{
    int64_t pixels = vgpu_tensor_count(from) / from->dim[1];
    if (pixels != 1 && pixels != vgpu_tensor_count(to) / to->dim[1])
        vgpu_fail("pointwise: the double spreads over all pixels or none");
}

void vgpu_pointwise_compute(const struct descriptor *op, const struct values *values)
{
    const struct pointwise it = pointwise_of(op);
    const double *x = vgpu_value(values, it.x), *b = it.b ? vgpu_value(values, it.b) : x;
    double *y = vgpu_value(values, it.y);
    const struct tensor *second = it.b ? it.b : it.x;
    check_step(it.x, it.y);
    check_step(second, it.y);
    struct step sx = step_of(it.x), sb = step_of(second);
    int64_t channels = it.y->dim[1], pixels = vgpu_tensor_count(it.y) / channels;
#pragma omp parallel for
    for (int64_t p = 0; p < pixels; p++)
        for (int64_t c = 0; c < channels; c++)
            y[p * channels + c] =
                apply(it.mode, x[(sx.pixel ? p * sx.channels : 0) + (sx.channel ? c : 0)],
                      b[(sb.pixel ? p * sb.channels : 0) + (sb.channel ? c : 0)]);
    /* A product that is not stored goes into a fused multiply-add, as it did in cuDNN 9.19 on an
     * H100. */
    if (it.mode != CUDNN_POINTWISE_MUL || !it.y->is_virtual)
        vgpu_tensor_round(y, pixels * channels, it.y->type);
    if (it.mode == CUDNN_POINTWISE_RELU_FWD && vgpu_observe_relu)
        vgpu_observe_relu(y, it.y->dim);
}

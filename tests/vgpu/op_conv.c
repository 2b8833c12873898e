/* SPDX-License-Identifier: Apache-2.0 */
/* Convolutions (cross-correlation) as matrix products over the unfolded input. */
#include <stdlib.h>
#include <string.h>

#include "tests/vgpu/ops.h"

enum { X, W, Y }; /* whichever of the three is the result */

static const int names[3][4] = {
    {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC},
    {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
     CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC},
    {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
     CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC}};

struct conv {
    int result;
    const struct tensor *x, *w, *y; /* [n][c][h][w], [k][c][r][s], [n][k][p][q] */
    const int64_t *stride, *before, *after;
    double alpha, beta;
};

static struct conv conv_of(const struct descriptor *op)
{
    int type = (int)op->kind->type;
    int result = type == CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR         ? Y
                 : type == CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR ? X
                                                                                        : W;
    static const int alphas[] = {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                                 CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                                 CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA};
    static const int betas[] = {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA,
                                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA,
                                CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA};
    const struct descriptor *how = vgpu_get_descriptor(op, names[result][3]);
    return (struct conv){.result = result,
                         .x = vgpu_get_tensor(op, names[result][X]),
                         .w = vgpu_get_tensor(op, names[result][W]),
                         .y = vgpu_get_tensor(op, names[result][Y]),
                         .stride = vgpu_get_ints(how, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, 2),
                         .before = vgpu_get_ints(how, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, 2),
                         .after = vgpu_get_ints(how, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, 2),
                         .alpha = vgpu_get_real(op, alphas[result], 1),
                         .beta = vgpu_get_real(op, betas[result], 0)};
}

static void check_mode(const struct descriptor *op, int result)
{
    const struct descriptor *how = vgpu_get_descriptor(op, names[result][3]);
    const int64_t *dilation = vgpu_get_ints(how, CUDNN_ATTR_CONVOLUTION_DILATIONS, 2);
    if (vgpu_get_int(how, CUDNN_ATTR_CONVOLUTION_CONV_MODE, -1) != CUDNN_CROSS_CORRELATION)
        vgpu_fail("the convolution's mode is not cross-correlation");
    if (vgpu_get_int(how, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, -1) != CUDNN_DATA_FLOAT)
        vgpu_fail("the convolution computes in another type than fp32");
    if (vgpu_get_int(how, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, -1) != 2)
        vgpu_fail("the convolution has other than 2 spatial dimensions");
    if (dilation[0] != 1 || dilation[1] != 1)
        vgpu_fail("the convolution is dilated by %lld, %lld; the double has only 1",
                  (long long)dilation[0], (long long)dilation[1]);
}

void vgpu_convolution_check(const struct descriptor *op)
{
    const struct conv conv = conv_of(op);
    check_mode(op, conv.result);
    if (conv.x->rank != 4 || conv.w->rank != 4 || conv.y->rank != 4)
        vgpu_fail("the convolution's tensors are not all 4-D");
    const int64_t *x = conv.x->dim, *w = conv.w->dim, *y = conv.y->dim;
    if (x[1] != w[1])
        vgpu_fail("x has %lld channels and w has %lld: a grouped convolution without being asked",
                  (long long)x[1], (long long)w[1]);
    if (x[0] != y[0] || w[0] != y[1])
        vgpu_fail("y is %lld images of %lld channels, x and w make it %lld of %lld",
                  (long long)y[0], (long long)y[1], (long long)x[0], (long long)w[0]);
    for (int i = 0; i < 2; i++) {
        int64_t span = x[2 + i] + conv.before[i] + conv.after[i] - w[2 + i];
        if (conv.stride[i] < 1 || span < 0 || span / conv.stride[i] + 1 != y[2 + i])
            vgpu_fail(
                "spatial dimension %d: x %lld, pads %lld and %lld, filter %lld, stride %lld do "
                "not make y %lld",
                i, (long long)x[2 + i], (long long)conv.before[i], (long long)conv.after[i],
                (long long)w[2 + i], (long long)conv.stride[i], (long long)y[2 + i]);
    }
    const struct tensor *result = conv.result == X ? conv.x : conv.result == W ? conv.w : conv.y;
    if (conv.beta != 0 && result->is_virtual)
        vgpu_fail("beta %g on a virtual result", conv.beta);
}

/* One image between x and unfolded[n][p][q][r][s][c]: what each tap reads, zero outside of x; or,
 * to fold, its transpose: what lies on the same pixel is added up. */
static void walk(double *x, double *unfolded, const struct conv *conv, int64_t n, bool to_fold)
{
    const int64_t *xd = conv->x->dim, *wd = conv->w->dim, *yd = conv->y->dim, channels = xd[1];
    double *at = unfolded + n * yd[2] * yd[3] * wd[2] * wd[3] * channels;
    for (int64_t p = 0; p < yd[2]; p++)
        for (int64_t q = 0; q < yd[3]; q++)
            for (int64_t r = 0; r < wd[2]; r++)
                for (int64_t s = 0; s < wd[3]; s++, at += channels) {
                    int64_t h = p * conv->stride[0] + r - conv->before[0];
                    int64_t v = q * conv->stride[1] + s - conv->before[1];
                    bool inside = h >= 0 && v >= 0 && h < xd[2] && v < xd[3];
                    double *pixel = inside ? x + ((n * xd[2] + h) * xd[3] + v) * channels : NULL;
                    for (int64_t c = 0; to_fold && inside && c < channels; c++)
                        pixel[c] += at[c];
                    for (int64_t c = 0; !to_fold && c < channels; c++)
                        at[c] = inside ? pixel[c] : 0.0;
                }
}

static void unfold(double *unfolded, double *x, const struct conv *conv)
{
#pragma omp parallel for
    for (int64_t n = 0; n < conv->x->dim[0]; n++)
        walk(x, unfolded, conv, n, false);
}

static void fold(double *x, double *unfolded, const struct conv *conv)
{
    memset(x, 0, (size_t)vgpu_tensor_count(conv->x) * sizeof *x);
#pragma omp parallel for
    for (int64_t n = 0; n < conv->x->dim[0]; n++)
        walk(x, unfolded, conv, n, true);
}

void vgpu_convolution_compute(const struct descriptor *op, const struct values *values)
{
    const struct conv conv = conv_of(op);
    const struct tensor *result = conv.result == X ? conv.x : conv.result == W ? conv.w : conv.y;
    double *x = vgpu_value(values, conv.x), *w = vgpu_value(values, conv.w);
    double *y = vgpu_value(values, conv.y), *to = vgpu_value(values, result);
    int64_t rows = conv.y->dim[0] * conv.y->dim[2] * conv.y->dim[3], k = conv.w->dim[0];
    int64_t taps = conv.w->dim[1] * conv.w->dim[2] * conv.w->dim[3];
    int64_t count = vgpu_tensor_count(result);
    double *unfolded = vgpu_numbers(rows * taps),
           *turned = vgpu_numbers(k * (rows > taps ? rows : taps));
    double *before = vgpu_numbers(count);
    if (conv.beta != 0)
        memcpy(before, to, (size_t)count * sizeof *to);
    if (conv.result != X)
        unfold(unfolded, x, &conv);
    if (conv.result == Y) {
        vgpu_transpose(turned, w, k, taps);
        vgpu_gemm(y, unfolded, turned, rows, k, taps, false);
    } else if (conv.result == X) {
        vgpu_gemm(unfolded, y, w, rows, taps, k, false);
        fold(x, unfolded, &conv);
    } else {
        vgpu_transpose(turned, y, rows, k);
        vgpu_gemm(w, turned, unfolded, k, taps, rows, false);
    }
    for (int64_t i = 0; i < count; i++)
        to[i] = conv.alpha * to[i] + (conv.beta != 0 ? conv.beta * before[i] : 0.0);
    /* A result in memory is rounded on its way there: sums over it are of what has been added up,
     * as cuDNN 9.19's were on an H100. */
    if (result->is_virtual)
        vgpu_tensor_round(to, count, result->type);
    free(before);
    free(unfolded);
    free(turned);
}

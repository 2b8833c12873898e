/* SPDX-License-Identifier: Apache-2.0 */
#include "trainer/cuda/graph_ops.h"

#include <stdbool.h>

typedef cudnnBackendDescriptor_t descriptor;

static const int64_t alignment = 16; /* bytes, of every tensor */

static descriptor tensor(struct graph *graph, int64_t id, const struct graph_shape *shape,
                         cudnnDataType_t type, bool is_virtual, bool by_value)
{
    const int64_t dims[4] = {shape->batch, shape->channels, shape->height, shape->width};
    const int64_t strides[4] = {shape->channels * shape->height * shape->width, 1,
                                shape->channels * shape->width, shape->channels};
    struct describe *d = &graph->describe;
    descriptor made = describe_new(d, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    describe_set_type(d, made, CUDNN_ATTR_TENSOR_DATA_TYPE, type);
    describe_set(d, made, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dims);
    describe_set(d, made, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, strides);
    describe_set(d, made, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &id);
    describe_set(d, made, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
    describe_set(d, made, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &is_virtual);
    if (by_value)
        describe_set(d, made, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &by_value);
    describe_finalize(d, made);
    return made;
}

descriptor graph_tensor(struct graph *graph, enum graph_role role, const struct graph_shape *shape,
                        cudnnDataType_t type)
{
    if (role == GRAPH_NOTHING)
        return tensor(graph, GRAPH_ROLES + graph->virtual_count++, shape, type, true, false);
    size_t bits = type == CUDNN_DATA_FLOAT  ? 32
                  : type == CUDNN_DATA_HALF ? 16
                  : type == CUDNN_DATA_INT8 ? 8
                                            : 1; /* booleans are packed */
    size_t count = (size_t)(shape->batch * shape->channels * shape->height * shape->width);
    graph->role_bytes[graph->role_count] = (count * bits + 7) / 8;
    graph->roles[graph->role_count++] = role;
    return tensor(graph, role, shape, type, false, false);
}

static descriptor by_value(struct graph *graph, enum graph_role role, cudnnDataType_t type)
{
    const struct graph_shape one = {1, 1, 1, 1};
    graph->roles[graph->role_count++] = role;
    return tensor(graph, role, &one, type, false, true);
}

descriptor graph_scalar(struct graph *graph, enum graph_role role)
{
    return by_value(graph, role, CUDNN_DATA_FLOAT);
}

descriptor graph_count(struct graph *graph, enum graph_role role)
{
    return by_value(graph, role, CUDNN_DATA_INT64);
}

static void add(struct graph *graph, descriptor operation)
{
    describe_finalize(&graph->describe, operation);
    graph->ops[graph->op_count++] = operation;
}

static descriptor convolution(struct graph *graph, const struct graph_spec *spec)
{
    const int64_t dims = 2, pads[2] = {spec->pad, spec->pad},
                  strides[2] = {spec->stride, spec->stride}, dilations[2] = {1, 1};
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    struct describe *d = &graph->describe;
    descriptor made = describe_new(d, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    describe_set(d, made, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &dims);
    describe_set_type(d, made, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_DATA_FLOAT);
    describe_set(d, made, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    describe_set(d, made, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, pads);
    describe_set(d, made, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, pads);
    describe_set(d, made, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, strides);
    describe_set(d, made, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, dilations);
    describe_finalize(d, made);
    return made;
}

/* The attributes that the three convolutions name differently. */
struct conv_names {
    cudnnBackendDescriptorType_t type;
    cudnnBackendAttributeName_t conv, a, b, c, alpha, beta;
};

static void add_conv(struct graph *graph, const struct graph_spec *spec,
                     const struct conv_names *names, descriptor a, descriptor b, descriptor c,
                     float beta)
{
    const float alpha = 1;
    struct describe *d = &graph->describe;
    descriptor operation = describe_new(d, names->type);
    describe_set_descriptor(d, operation, names->conv, convolution(graph, spec));
    describe_set_descriptor(d, operation, names->a, a);
    describe_set_descriptor(d, operation, names->b, b);
    describe_set_descriptor(d, operation, names->c, c);
    describe_set(d, operation, names->alpha, CUDNN_TYPE_FLOAT, 1, &alpha);
    describe_set(d, operation, names->beta, CUDNN_TYPE_FLOAT, 1, &beta);
    add(graph, operation);
}

void graph_conv(struct graph *graph, const struct graph_spec *spec, descriptor x, descriptor w,
                descriptor y)
{
    static const struct conv_names names = {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
                                            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                                            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                                            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                                            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
                                            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                                            CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA};
    add_conv(graph, spec, &names, x, w, y, 0);
}

void graph_conv_data(struct graph *graph, const struct graph_spec *spec, descriptor dy,
                     descriptor w, descriptor dx)
{
    static const struct conv_names names = {
        CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA};
    add_conv(graph, spec, &names, dy, w, dx,
             spec->accumulate && !spec->masked && !spec->sums ? 1 : 0);
}

void graph_conv_weight(struct graph *graph, const struct graph_spec *spec, descriptor x,
                       descriptor dy, descriptor dw)
{
    static const struct conv_names names = {
        CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
        CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA};
    add_conv(graph, spec, &names, x, dy, dw, 0);
}

/* Without its tensors. */
static descriptor pointwise(struct graph *graph, cudnnPointwiseMode_t mode)
{
    struct describe *d = &graph->describe;
    descriptor what = describe_new(d, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    describe_set(d, what, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    describe_set_type(d, what, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_DATA_FLOAT);
    describe_finalize(d, what);
    descriptor operation = describe_new(d, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    describe_set_descriptor(d, operation, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, what);
    return operation;
}

void graph_pointwise(struct graph *graph, cudnnPointwiseMode_t mode, descriptor x, descriptor b,
                     descriptor y)
{
    struct describe *d = &graph->describe;
    descriptor operation = pointwise(graph, mode);
    describe_set_descriptor(d, operation, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
    if (b)
        describe_set_descriptor(d, operation, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b);
    describe_set_descriptor(d, operation, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
    add(graph, operation);
}

void graph_relu_backward(struct graph *graph, descriptor dy, descriptor x, descriptor dx)
{
    struct describe *d = &graph->describe;
    descriptor o = pointwise(graph, CUDNN_POINTWISE_RELU_BWD);
    describe_set_descriptor(d, o, CUDNN_ATTR_OPERATION_POINTWISE_DYDESC, dy);
    describe_set_descriptor(d, o, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
    describe_set_descriptor(d, o, CUDNN_ATTR_OPERATION_POINTWISE_DXDESC, dx);
    add(graph, o);
}

void graph_stats(struct graph *graph, descriptor x, descriptor sum, descriptor squares)
{
    const cudnnGenStatsMode_t mode = CUDNN_GENSTATS_SUM_SQSUM;
    struct describe *d = &graph->describe;
    descriptor o = describe_new(d, CUDNN_BACKEND_OPERATION_GEN_STATS_DESCRIPTOR);
    describe_set(d, o, CUDNN_ATTR_OPERATION_GENSTATS_MODE, CUDNN_TYPE_GENSTATS_MODE, 1, &mode);
    describe_set_type(d, o, CUDNN_ATTR_OPERATION_GENSTATS_MATH_PREC, CUDNN_DATA_FLOAT);
    describe_set_descriptor(d, o, CUDNN_ATTR_OPERATION_GENSTATS_XDESC, x);
    describe_set_descriptor(d, o, CUDNN_ATTR_OPERATION_GENSTATS_SUMDESC, sum);
    describe_set_descriptor(d, o, CUDNN_ATTR_OPERATION_GENSTATS_SQSUMDESC, squares);
    add(graph, o);
}

#define FINALIZE(name) CUDNN_ATTR_OPERATION_BN_FINALIZE_##name

void graph_finalize_stats(struct graph *graph, const struct graph_finalized *tensors)
{
    const cudnnBnFinalizeStatsMode_t mode = CUDNN_BN_FINALIZE_STATISTICS_TRAINING;
    struct describe *d = &graph->describe;
    descriptor o = describe_new(d, CUDNN_BACKEND_OPERATION_BN_FINALIZE_STATISTICS_DESCRIPTOR);
    describe_set(d, o, FINALIZE(STATS_MODE), CUDNN_TYPE_BN_FINALIZE_STATS_MODE, 1, &mode);
    describe_set_type(d, o, FINALIZE(MATH_PREC), CUDNN_DATA_FLOAT);
    describe_set_descriptor(d, o, FINALIZE(Y_SUM_DESC), tensors->sum);
    describe_set_descriptor(d, o, FINALIZE(Y_SQ_SUM_DESC), tensors->squares);
    describe_set_descriptor(d, o, FINALIZE(SCALE_DESC), tensors->gamma);
    describe_set_descriptor(d, o, FINALIZE(BIAS_DESC), tensors->beta);
    describe_set_descriptor(d, o, FINALIZE(SAVED_MEAN_DESC), tensors->mean);
    describe_set_descriptor(d, o, FINALIZE(SAVED_INV_STD_DESC), tensors->inverse);
    describe_set_descriptor(d, o, FINALIZE(EQ_SCALE_DESC), tensors->scale);
    describe_set_descriptor(d, o, FINALIZE(EQ_BIAS_DESC), tensors->shift);
    describe_set_descriptor(d, o, FINALIZE(ACCUM_COUNT_DESC), tensors->count);
    describe_set_descriptor(d, o, FINALIZE(EPSILON_DESC), tensors->epsilon);
    describe_set_descriptor(d, o, FINALIZE(EXP_AVERATE_FACTOR_DESC), tensors->factor);
    describe_set_descriptor(d, o, FINALIZE(PREV_RUNNING_MEAN_DESC), tensors->running[0]);
    describe_set_descriptor(d, o, FINALIZE(PREV_RUNNING_VAR_DESC), tensors->running[1]);
    describe_set_descriptor(d, o, FINALIZE(UPDATED_RUNNING_MEAN_DESC), tensors->moved[0]);
    describe_set_descriptor(d, o, FINALIZE(UPDATED_RUNNING_VAR_DESC), tensors->moved[1]);
    add(graph, o);
}

#define WEIGHTS(name) CUDNN_ATTR_OPERATION_BN_BWD_WEIGHTS_##name

void graph_backward_sums(struct graph *graph, const struct graph_sums *tensors)
{
    struct describe *d = &graph->describe;
    descriptor o = describe_new(d, CUDNN_BACKEND_OPERATION_BN_BWD_WEIGHTS_DESCRIPTOR);
    describe_set_type(d, o, WEIGHTS(MATH_PREC), CUDNN_DATA_FLOAT);
    describe_set_descriptor(d, o, WEIGHTS(X_DESC), tensors->x);
    describe_set_descriptor(d, o, WEIGHTS(MEAN_DESC), tensors->mean);
    describe_set_descriptor(d, o, WEIGHTS(INVSTD_DESC), tensors->inverse);
    describe_set_descriptor(d, o, WEIGHTS(BN_SCALE_DESC), tensors->gamma);
    describe_set_descriptor(d, o, WEIGHTS(DY_DESC), tensors->dz);
    describe_set_descriptor(d, o, WEIGHTS(DBN_SCALE_DESC), tensors->dscale);
    describe_set_descriptor(d, o, WEIGHTS(DBN_BIAS_DESC), tensors->dbias);
    describe_set_descriptor(d, o, WEIGHTS(EQ_DY_SCALE_DESC), tensors->a);
    describe_set_descriptor(d, o, WEIGHTS(EQ_X_SCALE_DESC), tensors->b);
    describe_set_descriptor(d, o, WEIGHTS(EQ_BIAS), tensors->c);
    add(graph, o);
}

static void norm_forward(struct graph *graph, cudnnBackendNormFwdPhase_t phase, descriptor x,
                         descriptor y, descriptor scale, descriptor bias, descriptor mean,
                         descriptor inverse, descriptor epsilon)
{
    const cudnnBackendNormMode_t mode = CUDNN_BATCH_NORM;
    struct describe *d = &graph->describe;
    descriptor o = describe_new(d, CUDNN_BACKEND_OPERATION_NORM_FORWARD_DESCRIPTOR);
    describe_set(d, o, CUDNN_ATTR_OPERATION_NORM_FWD_MODE, CUDNN_TYPE_NORM_MODE, 1, &mode);
    describe_set(d, o, CUDNN_ATTR_OPERATION_NORM_FWD_PHASE, CUDNN_TYPE_NORM_FWD_PHASE, 1, &phase);
    describe_set_descriptor(d, o, CUDNN_ATTR_OPERATION_NORM_FWD_XDESC, x);
    describe_set_descriptor(d, o, CUDNN_ATTR_OPERATION_NORM_FWD_MEAN_DESC, mean);
    describe_set_descriptor(d, o, CUDNN_ATTR_OPERATION_NORM_FWD_INV_VARIANCE_DESC, inverse);
    describe_set_descriptor(d, o, CUDNN_ATTR_OPERATION_NORM_FWD_SCALE_DESC, scale);
    describe_set_descriptor(d, o, CUDNN_ATTR_OPERATION_NORM_FWD_BIAS_DESC, bias);
    if (epsilon)
        describe_set_descriptor(d, o, CUDNN_ATTR_OPERATION_NORM_FWD_EPSILON_DESC, epsilon);
    describe_set_descriptor(d, o, CUDNN_ATTR_OPERATION_NORM_FWD_YDESC, y);
    add(graph, o);
}

void graph_norm_inference(struct graph *graph, descriptor x, descriptor y, descriptor scale,
                          descriptor bias, descriptor mean, descriptor inverse)
{
    norm_forward(graph, CUDNN_NORM_FWD_INFERENCE, x, y, scale, bias, mean, inverse, NULL);
}

void graph_norm(struct graph *graph, descriptor x, descriptor y, descriptor scale, descriptor bias,
                descriptor mean, descriptor inverse, descriptor epsilon)
{
    norm_forward(graph, CUDNN_NORM_FWD_TRAINING, x, y, scale, bias, mean, inverse, epsilon);
}

void graph_norm_backward(struct graph *graph, const struct graph_norm_gradients *gradients)
{
    const cudnnBackendNormMode_t mode = CUDNN_BATCH_NORM;
    struct describe *d = &graph->describe;
    descriptor o = describe_new(d, CUDNN_BACKEND_OPERATION_NORM_BACKWARD_DESCRIPTOR);
    describe_set(d, o, CUDNN_ATTR_OPERATION_NORM_BWD_MODE, CUDNN_TYPE_NORM_MODE, 1, &mode);
    describe_set_descriptor(d, o, CUDNN_ATTR_OPERATION_NORM_BWD_XDESC, gradients->x);
    describe_set_descriptor(d, o, CUDNN_ATTR_OPERATION_NORM_BWD_MEAN_DESC, gradients->mean);
    describe_set_descriptor(d, o, CUDNN_ATTR_OPERATION_NORM_BWD_INV_VARIANCE_DESC,
                            gradients->inverse);
    describe_set_descriptor(d, o, CUDNN_ATTR_OPERATION_NORM_BWD_DYDESC, gradients->dy);
    describe_set_descriptor(d, o, CUDNN_ATTR_OPERATION_NORM_BWD_SCALE_DESC, gradients->scale);
    describe_set_descriptor(d, o, CUDNN_ATTR_OPERATION_NORM_BWD_DSCALE_DESC, gradients->dscale);
    describe_set_descriptor(d, o, CUDNN_ATTR_OPERATION_NORM_BWD_DBIAS_DESC, gradients->dbias);
    describe_set_descriptor(d, o, CUDNN_ATTR_OPERATION_NORM_BWD_DXDESC, gradients->dx);
    add(graph, o);
}

/* What is behind the map where the last window ends: 0 when it ends inside. */
static int64_t post_padding(int32_t in, int32_t out, int32_t window, int32_t stride, int32_t pad)
{
    int64_t past = (int64_t)(out - 1) * stride + window - in - pad;
    return past > 0 ? past : 0;
}

/* Windows that never leave the map need no counting of their pixels. */
static cudnnResampleMode_t pool_mode(const struct graph_spec *spec, int64_t post_h, int64_t post_w)
{
    if (spec->kind == GRAPH_MAX_POOL || spec->kind == GRAPH_MAX_POOL_BACKWARD)
        return CUDNN_RESAMPLE_MAXPOOL;
    return spec->pad || post_h || post_w ? CUDNN_RESAMPLE_AVGPOOL_EXCLUDE_PADDING
                                         : CUDNN_RESAMPLE_AVGPOOL_INCLUDE_PADDING;
}

static descriptor resample(struct graph *graph, const struct graph_spec *spec)
{
    int32_t height = spec->kernel ? spec->kernel : spec->in_height;
    int32_t width = spec->kernel ? spec->kernel : spec->in_width;
    int32_t down = spec->kernel ? spec->stride : height,
            across = spec->kernel ? spec->stride : width;
    int64_t post_h = post_padding(spec->in_height, spec->out_height, height, down, spec->pad);
    int64_t post_w = post_padding(spec->in_width, spec->out_width, width, across, spec->pad);
    const cudnnResampleMode_t mode = pool_mode(spec, post_h, post_w);
    const cudnnPaddingMode_t padding =
        mode == CUDNN_RESAMPLE_MAXPOOL ? CUDNN_NEG_INF_PAD : CUDNN_ZERO_PAD;
    const int64_t dims = 2;
    const cudnnFraction_t pre[2] = {{spec->pad, 1}, {spec->pad, 1}},
                          post[2] = {{post_h, 1}, {post_w, 1}};
    const cudnnFraction_t strides[2] = {{down, 1}, {across, 1}},
                          windows[2] = {{height, 1}, {width, 1}};
    struct describe *d = &graph->describe;
    descriptor made = describe_new(d, CUDNN_BACKEND_RESAMPLE_DESCRIPTOR);
    describe_set(d, made, CUDNN_ATTR_RESAMPLE_MODE, CUDNN_TYPE_RESAMPLE_MODE, 1, &mode);
    describe_set_type(d, made, CUDNN_ATTR_RESAMPLE_COMP_TYPE, CUDNN_DATA_FLOAT);
    describe_set(d, made, CUDNN_ATTR_RESAMPLE_PADDING_MODE, CUDNN_TYPE_PADDING_MODE, 1, &padding);
    describe_set(d, made, CUDNN_ATTR_RESAMPLE_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &dims);
    describe_set(d, made, CUDNN_ATTR_RESAMPLE_POST_PADDINGS, CUDNN_TYPE_FRACTION, 2, post);
    describe_set(d, made, CUDNN_ATTR_RESAMPLE_PRE_PADDINGS, CUDNN_TYPE_FRACTION, 2, pre);
    describe_set(d, made, CUDNN_ATTR_RESAMPLE_STRIDES, CUDNN_TYPE_FRACTION, 2, strides);
    describe_set(d, made, CUDNN_ATTR_RESAMPLE_WINDOW_DIMS, CUDNN_TYPE_FRACTION, 2, windows);
    describe_finalize(d, made);
    return made;
}

struct pool_names {
    cudnnBackendDescriptorType_t type;
    cudnnBackendAttributeName_t what, in, out, index;
};

static void add_pool(struct graph *graph, const struct graph_spec *spec,
                     const struct pool_names *names, descriptor in, descriptor out,
                     descriptor index)
{
    struct describe *d = &graph->describe;
    descriptor o = describe_new(d, names->type);
    describe_set_descriptor(d, o, names->what, resample(graph, spec));
    describe_set_descriptor(d, o, names->in, in);
    describe_set_descriptor(d, o, names->out, out);
    if (index)
        describe_set_descriptor(d, o, names->index, index);
    add(graph, o);
}

void graph_pool(struct graph *graph, const struct graph_spec *spec, descriptor x, descriptor y,
                descriptor index)
{
    static const struct pool_names names = {
        CUDNN_BACKEND_OPERATION_RESAMPLE_FWD_DESCRIPTOR, CUDNN_ATTR_OPERATION_RESAMPLE_FWD_DESC,
        CUDNN_ATTR_OPERATION_RESAMPLE_FWD_XDESC, CUDNN_ATTR_OPERATION_RESAMPLE_FWD_YDESC,
        CUDNN_ATTR_OPERATION_RESAMPLE_FWD_IDXDESC};
    add_pool(graph, spec, &names, x, y, index);
}

void graph_pool_backward(struct graph *graph, const struct graph_spec *spec, descriptor dx,
                         descriptor dy, descriptor index)
{
    static const struct pool_names names = {
        CUDNN_BACKEND_OPERATION_RESAMPLE_BWD_DESCRIPTOR, CUDNN_ATTR_OPERATION_RESAMPLE_BWD_DESC,
        CUDNN_ATTR_OPERATION_RESAMPLE_BWD_DXDESC, CUDNN_ATTR_OPERATION_RESAMPLE_BWD_DYDESC,
        CUDNN_ATTR_OPERATION_RESAMPLE_BWD_IDXDESC};
    add_pool(graph, spec, &names, dx, dy, index);
}

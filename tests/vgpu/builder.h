/* SPDX-License-Identifier: Apache-2.0 */
/* Graphs in few words, for the double's own tests. Everything aborts or asserts on failure. */
#ifndef TESTS_VGPU_BUILDER_H
#define TESTS_VGPU_BUILDER_H

#include <cudnn.h>
#include <stdbool.h>

#include "tests/vgpu/testing.h"

typedef cudnnBackendDescriptor_t descriptor;

static int64_t build_uid;
static descriptor build_all[8192]; /* everything that was made */
static int build_count;

static inline descriptor build_new(cudnnBackendDescriptorType_t type)
{
    descriptor it = NULL;
    assert_int_equal(cudnnBackendCreateDescriptor(type, &it), CUDNN_STATUS_SUCCESS);
    assert_true(build_count < (int)(sizeof build_all / sizeof *build_all));
    build_all[build_count++] = it;
    return it;
}

static inline void build_destroy_all(void)
{
    while (build_count > 0)
        assert_int_equal(cudnnBackendDestroyDescriptor(build_all[--build_count]),
                         CUDNN_STATUS_SUCCESS);
}

static inline void build_set(descriptor it, int name, cudnnBackendAttributeType_t type,
                             int64_t count, const void *values)
{
    assert_int_equal(
        cudnnBackendSetAttribute(it, (cudnnBackendAttributeName_t)name, type, count, values),
        CUDNN_STATUS_SUCCESS);
}

static inline void build_link(descriptor it, int name, descriptor to)
{
    if (to)
        build_set(it, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &to);
}

static inline descriptor build_final(descriptor it)
{
    assert_int_equal(cudnnBackendFinalize(it), CUDNN_STATUS_SUCCESS);
    return it;
}

enum { REAL, VIRTUAL, BY_VALUE };

static inline descriptor build_tensor(const int64_t dim[4], const int64_t stride[4],
                                      cudnnDataType_t type, int kind)
{
    descriptor it = build_new(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    int64_t alignment = 16, uid = ++build_uid;
    bool is_virtual = kind == VIRTUAL, by_value = kind == BY_VALUE;
    build_set(it, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    build_set(it, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dim);
    build_set(it, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, stride);
    build_set(it, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid);
    build_set(it, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
    build_set(it, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &is_virtual);
    build_set(it, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &by_value);
    return build_final(it);
}

/* Channels last. */
static inline descriptor build_map(int64_t n, int64_t c, int64_t h, int64_t w, cudnnDataType_t type,
                                   int kind)
{
    return build_tensor((int64_t[]){n, c, h, w}, (int64_t[]){c * h * w, 1, c * w, c}, type, kind);
}

static inline descriptor build_vector(int64_t c)
{
    return build_map(1, c, 1, 1, CUDNN_DATA_FLOAT, REAL);
}

static inline descriptor build_scalar(void)
{
    return build_map(1, 1, 1, 1, CUDNN_DATA_FLOAT, BY_VALUE);
}

static inline descriptor build_convolution(int64_t stride, int64_t pad)
{
    descriptor it = build_new(CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    cudnnDataType_t type = CUDNN_DATA_FLOAT;
    cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    int64_t dims = 2, pads[] = {pad, pad}, strides[] = {stride, stride}, ones[] = {1, 1};
    build_set(it, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    build_set(it, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    build_set(it, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &dims);
    build_set(it, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, pads);
    build_set(it, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, pads);
    build_set(it, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, strides);
    build_set(it, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, ones);
    return build_final(it);
}

/* side: 0 forward (x, w -> y), 1 data (dy, w -> dx), 2 filter (x, dy -> dw) */
static inline descriptor build_conv(int side, descriptor x, descriptor w, descriptor y,
                                    descriptor how, float beta)
{
    static const int types[] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
                                CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
                                CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR};
    static const int names[3][6] = {
        {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
         CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA},
        {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA},
        {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA}};
    descriptor it = build_new((cudnnBackendDescriptorType_t)types[side]);
    float alpha = 1;
    build_link(it, names[side][0], x);
    build_link(it, names[side][1], w);
    build_link(it, names[side][2], y);
    build_link(it, names[side][3], how);
    build_set(it, names[side][4], CUDNN_TYPE_FLOAT, 1, &alpha);
    build_set(it, names[side][5], CUDNN_TYPE_FLOAT, 1, &beta);
    return build_final(it);
}

/* b NULL where the mode takes one operand. RELU_BWD: x is dy, b the forward's x, y is dx. */
static inline descriptor build_pointwise(cudnnPointwiseMode_t mode, descriptor x, descriptor b,
                                         descriptor y)
{
    descriptor how = build_new(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    cudnnDataType_t type = CUDNN_DATA_FLOAT;
    build_set(how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    build_set(how, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &type);
    descriptor it = build_new(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    bool back = mode == CUDNN_POINTWISE_RELU_BWD;
    build_link(it, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, build_final(how));
    build_link(
        it, back ? CUDNN_ATTR_OPERATION_POINTWISE_DYDESC : CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
    build_link(
        it, back ? CUDNN_ATTR_OPERATION_POINTWISE_XDESC : CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b);
    build_link(
        it, back ? CUDNN_ATTR_OPERATION_POINTWISE_DXDESC : CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
    return build_final(it);
}

struct build_norm { /* tensors; forward: x y, backward: x dx, dy */
    descriptor x, y, dy, scale, bias, mean, inverse, epsilon, dscale, dbias;
};

static inline descriptor build_norm(const struct build_norm *it, bool forward)
{
    descriptor op = build_new(forward ? CUDNN_BACKEND_OPERATION_NORM_FORWARD_DESCRIPTOR
                                      : CUDNN_BACKEND_OPERATION_NORM_BACKWARD_DESCRIPTOR);
    cudnnBackendNormMode_t mode = CUDNN_BATCH_NORM;
    cudnnBackendNormFwdPhase_t phase = CUDNN_NORM_FWD_TRAINING;
    build_set(op, forward ? CUDNN_ATTR_OPERATION_NORM_FWD_MODE : CUDNN_ATTR_OPERATION_NORM_BWD_MODE,
              CUDNN_TYPE_NORM_MODE, 1, &mode);
    if (forward) {
        build_set(op, CUDNN_ATTR_OPERATION_NORM_FWD_PHASE, CUDNN_TYPE_NORM_FWD_PHASE, 1, &phase);
        build_link(op, CUDNN_ATTR_OPERATION_NORM_FWD_XDESC, it->x);
        build_link(op, CUDNN_ATTR_OPERATION_NORM_FWD_SCALE_DESC, it->scale);
        build_link(op, CUDNN_ATTR_OPERATION_NORM_FWD_BIAS_DESC, it->bias);
        build_link(op, CUDNN_ATTR_OPERATION_NORM_FWD_EPSILON_DESC, it->epsilon);
        build_link(op, CUDNN_ATTR_OPERATION_NORM_FWD_MEAN_DESC, it->mean);
        build_link(op, CUDNN_ATTR_OPERATION_NORM_FWD_INV_VARIANCE_DESC, it->inverse);
        build_link(op, CUDNN_ATTR_OPERATION_NORM_FWD_YDESC, it->y);
    } else {
        build_link(op, CUDNN_ATTR_OPERATION_NORM_BWD_XDESC, it->x);
        build_link(op, CUDNN_ATTR_OPERATION_NORM_BWD_DYDESC, it->dy);
        build_link(op, CUDNN_ATTR_OPERATION_NORM_BWD_SCALE_DESC, it->scale);
        build_link(op, CUDNN_ATTR_OPERATION_NORM_BWD_MEAN_DESC, it->mean);
        build_link(op, CUDNN_ATTR_OPERATION_NORM_BWD_INV_VARIANCE_DESC, it->inverse);
        build_link(op, CUDNN_ATTR_OPERATION_NORM_BWD_DSCALE_DESC, it->dscale);
        build_link(op, CUDNN_ATTR_OPERATION_NORM_BWD_DBIAS_DESC, it->dbias);
        build_link(op, CUDNN_ATTR_OPERATION_NORM_BWD_DXDESC, it->y);
    }
    return build_final(op);
}

struct build_pool {
    cudnnResampleMode_t mode;
    int64_t window, stride, before, after;
};

static inline descriptor build_pool(const struct build_pool *pool, bool forward, descriptor x,
                                    descriptor y, descriptor index)
{
    descriptor how = build_new(CUDNN_BACKEND_RESAMPLE_DESCRIPTOR);
    cudnnDataType_t type = CUDNN_DATA_FLOAT;
    cudnnPaddingMode_t padding =
        pool->mode == CUDNN_RESAMPLE_MAXPOOL ? CUDNN_NEG_INF_PAD : CUDNN_ZERO_PAD;
    int64_t dims = 2;
    build_set(how, CUDNN_ATTR_RESAMPLE_MODE, CUDNN_TYPE_RESAMPLE_MODE, 1, &pool->mode);
    build_set(how, CUDNN_ATTR_RESAMPLE_PADDING_MODE, CUDNN_TYPE_PADDING_MODE, 1, &padding);
    build_set(how, CUDNN_ATTR_RESAMPLE_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    build_set(how, CUDNN_ATTR_RESAMPLE_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &dims);
    const int64_t numbers[] = {pool->window, pool->stride, pool->before, pool->after};
    static const int names[] = {CUDNN_ATTR_RESAMPLE_WINDOW_DIMS, CUDNN_ATTR_RESAMPLE_STRIDES,
                                CUDNN_ATTR_RESAMPLE_PRE_PADDINGS,
                                CUDNN_ATTR_RESAMPLE_POST_PADDINGS};
    for (int i = 0; i < 4; i++) {
        cudnnFraction_t both[] = {{numbers[i], 1}, {numbers[i], 1}};
        build_set(how, names[i], CUDNN_TYPE_FRACTION, 2, both);
    }
    descriptor op = build_new(forward ? CUDNN_BACKEND_OPERATION_RESAMPLE_FWD_DESCRIPTOR
                                      : CUDNN_BACKEND_OPERATION_RESAMPLE_BWD_DESCRIPTOR);
    build_link(op,
               forward ? CUDNN_ATTR_OPERATION_RESAMPLE_FWD_DESC
                       : CUDNN_ATTR_OPERATION_RESAMPLE_BWD_DESC,
               build_final(how));
    build_link(op,
               forward ? CUDNN_ATTR_OPERATION_RESAMPLE_FWD_XDESC
                       : CUDNN_ATTR_OPERATION_RESAMPLE_BWD_DXDESC,
               x);
    build_link(op,
               forward ? CUDNN_ATTR_OPERATION_RESAMPLE_FWD_YDESC
                       : CUDNN_ATTR_OPERATION_RESAMPLE_BWD_DYDESC,
               y);
    build_link(op,
               forward ? CUDNN_ATTR_OPERATION_RESAMPLE_FWD_IDXDESC
                       : CUDNN_ATTR_OPERATION_RESAMPLE_BWD_IDXDESC,
               index);
    return build_final(op);
}

static inline descriptor build_graph(cudnnHandle_t handle, int count, const descriptor ops[])
{
    descriptor graph = build_new(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    build_set(graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle);
    build_set(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, count, ops);
    return build_final(graph);
}

/* How many configurations the heuristics have; configs[] of them, made here. */
static inline int64_t build_configs(descriptor graph, cudnnBackendHeurMode_t mode,
                                    descriptor configs[8])
{
    descriptor it = build_new(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    build_link(it, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
    build_set(it, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    build_final(it);
    int64_t count = 0, given = 0;
    cudnnBackendGetAttribute(it, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0,
                             &count, NULL);
    for (int64_t i = 0; i < count; i++)
        configs[i] = build_new(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    if (count)
        cudnnBackendGetAttribute(it, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                 count, &given, configs);
    assert_int_equal(count, given);
    return count;
}

static inline descriptor build_plan(cudnnHandle_t handle, descriptor config)
{
    descriptor plan = build_new(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    build_set(plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &handle);
    build_link(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
    return plan;
}

#endif

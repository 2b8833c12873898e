/* SPDX-License-Identifier: Apache-2.0 */
#include "trainer/cuda/graph.h"

#include <stdbool.h>
#include <stdio.h>

#include "trainer/cuda/graph_ops.h"

typedef cudnnBackendDescriptor_t descriptor;

static descriptor in_map(struct graph *graph, const struct graph_spec *spec, enum graph_role role)
{
    const struct graph_shape shape = {spec->batch, spec->in_channels, spec->in_height,
                                      spec->in_width};
    return graph_tensor(graph, role, &shape, CUDNN_DATA_HALF);
}

static struct graph_shape out_shape(const struct graph_spec *spec)
{
    return (struct graph_shape){spec->batch, spec->out_channels, spec->out_height, spec->out_width};
}

static descriptor out_map(struct graph *graph, const struct graph_spec *spec, enum graph_role role)
{
    const struct graph_shape shape = out_shape(spec);
    return graph_tensor(graph, role, &shape, CUDNN_DATA_HALF);
}

/* A map between two operations. */
static descriptor between(struct graph *graph, const struct graph_spec *spec, cudnnDataType_t type)
{
    const struct graph_shape shape = out_shape(spec);
    return graph_tensor(graph, GRAPH_NOTHING, &shape, type);
}

static descriptor mask_of(struct graph *graph, const struct graph_spec *spec)
{
    const struct graph_shape shape = out_shape(spec);
    return graph_tensor(graph, GRAPH_MASK, &shape, CUDNN_DATA_BOOLEAN);
}

static descriptor channel(struct graph *graph, const struct graph_spec *spec, enum graph_role role,
                          cudnnDataType_t type)
{
    const struct graph_shape shape = {1, spec->out_channels, 1, 1};
    return graph_tensor(graph, role, &shape, type);
}

static descriptor weights(struct graph *graph, const struct graph_spec *spec, enum graph_role role)
{
    const struct graph_shape shape = {spec->out_channels, spec->in_channels, spec->kernel,
                                      spec->kernel};
    return graph_tensor(graph, role, &shape, CUDNN_DATA_HALF);
}

static void describe_conv(struct graph *graph, const struct graph_spec *spec)
{
    graph_conv(graph, spec, in_map(graph, spec, GRAPH_X), weights(graph, spec, GRAPH_W),
               out_map(graph, spec, GRAPH_Y));
}

/* The order conv, + residual, + bias, ReLU is the one that precompiled engines know. */
static void describe_conv_bias(struct graph *graph, const struct graph_spec *spec)
{
    descriptor at = between(graph, spec, CUDNN_DATA_FLOAT);
    graph_conv(graph, spec, in_map(graph, spec, GRAPH_X), weights(graph, spec, GRAPH_W), at);
    if (spec->residual) {
        descriptor sum = between(graph, spec, CUDNN_DATA_FLOAT);
        graph_pointwise(graph, CUDNN_POINTWISE_ADD, at, out_map(graph, spec, GRAPH_RESIDUAL), sum);
        at = sum;
    }
    descriptor out = out_map(graph, spec, GRAPH_OUT);
    descriptor sum = spec->relu ? between(graph, spec, CUDNN_DATA_FLOAT) : out;
    graph_pointwise(graph, CUDNN_POINTWISE_ADD, at,
                    channel(graph, spec, GRAPH_BIAS, CUDNN_DATA_HALF), sum);
    if (spec->relu)
        graph_pointwise(graph, CUDNN_POINTWISE_RELU_FWD, sum, NULL, out);
}

static void describe_conv_data(struct graph *graph, const struct graph_spec *spec)
{
    graph_conv_data(graph, spec, out_map(graph, spec, GRAPH_DY), weights(graph, spec, GRAPH_W),
                    in_map(graph, spec, GRAPH_DX));
}

static void describe_conv_weight(struct graph *graph, const struct graph_spec *spec)
{
    graph_conv_weight(graph, spec, in_map(graph, spec, GRAPH_X), out_map(graph, spec, GRAPH_DY),
                      weights(graph, spec, GRAPH_DW));
}

/* Where BN's result goes: on to the residual or ReLU, or out. */
static descriptor after_norm(struct graph *graph, const struct graph_spec *spec, descriptor out)
{
    return spec->residual || spec->relu ? between(graph, spec, CUDNN_DATA_FLOAT) : out;
}

/* + residual, ReLU, mask: from `at` to `out`. */
static void describe_end(struct graph *graph, const struct graph_spec *spec, descriptor at,
                         descriptor out)
{
    if (spec->residual) {
        descriptor sum = spec->relu ? between(graph, spec, CUDNN_DATA_FLOAT) : out;
        graph_pointwise(graph, CUDNN_POINTWISE_ADD, at, out_map(graph, spec, GRAPH_RESIDUAL), sum);
        at = sum;
    }
    if (!spec->relu)
        return;
    graph_pointwise(graph, CUDNN_POINTWISE_RELU_FWD, at, NULL, out);
    graph_pointwise(graph, CUDNN_POINTWISE_CMP_GT, out, graph_scalar(graph, GRAPH_ZERO),
                    mask_of(graph, spec));
}

static void describe_norm(struct graph *graph, const struct graph_spec *spec)
{
    descriptor out = out_map(graph, spec, GRAPH_OUT);
    descriptor normed = after_norm(graph, spec, out);
    graph_norm(graph, out_map(graph, spec, GRAPH_Y), normed,
               channel(graph, spec, GRAPH_SCALE_OF, CUDNN_DATA_FLOAT),
               channel(graph, spec, GRAPH_BIAS, CUDNN_DATA_FLOAT),
               channel(graph, spec, GRAPH_MEAN, CUDNN_DATA_FLOAT),
               channel(graph, spec, GRAPH_INVERSE, CUDNN_DATA_FLOAT),
               graph_scalar(graph, GRAPH_EPSILON));
    describe_end(graph, spec, normed, out);
}

static void describe_scale(struct graph *graph, const struct graph_spec *spec)
{
    descriptor out = out_map(graph, spec, GRAPH_OUT);
    descriptor scaled = between(graph, spec, CUDNN_DATA_FLOAT);
    descriptor shifted = after_norm(graph, spec, out);
    graph_pointwise(graph, CUDNN_POINTWISE_MUL, out_map(graph, spec, GRAPH_Y),
                    channel(graph, spec, GRAPH_SCALE_OF, CUDNN_DATA_FLOAT), scaled);
    graph_pointwise(graph, CUDNN_POINTWISE_ADD, scaled,
                    channel(graph, spec, GRAPH_BIAS, CUDNN_DATA_FLOAT), shifted);
    describe_end(graph, spec, shifted, out);
}

/* dout behind the mask: dz, stored where it is kept. */
static descriptor describe_mask(struct graph *graph, const struct graph_spec *spec)
{
    descriptor dout = out_map(graph, spec, GRAPH_DOUT);
    if (!spec->relu)
        return dout;
    descriptor dz =
        spec->keep ? out_map(graph, spec, GRAPH_DZ) : between(graph, spec, CUDNN_DATA_HALF);
    graph_pointwise(graph, CUDNN_POINTWISE_MUL, dout, mask_of(graph, spec), dz);
    return dz;
}

static void describe_norm_backward(struct graph *graph, const struct graph_spec *spec)
{
    descriptor dz = describe_mask(graph, spec);
    const struct graph_norm_gradients gradients = {
        .dy = dz,
        .x = out_map(graph, spec, GRAPH_Y),
        .mean = channel(graph, spec, GRAPH_MEAN, CUDNN_DATA_FLOAT),
        .inverse = channel(graph, spec, GRAPH_INVERSE, CUDNN_DATA_FLOAT),
        .scale = channel(graph, spec, GRAPH_SCALE_OF, CUDNN_DATA_FLOAT),
        .dscale = channel(graph, spec, GRAPH_DSCALE, CUDNN_DATA_FLOAT),
        .dbias = channel(graph, spec, GRAPH_DBIAS, CUDNN_DATA_FLOAT),
        .dx = out_map(graph, spec, GRAPH_DY),
    };
    graph_norm_backward(graph, &gradients);
}

static void describe_scale_backward(struct graph *graph, const struct graph_spec *spec)
{
    graph_pointwise(graph, CUDNN_POINTWISE_MUL, describe_mask(graph, spec),
                    channel(graph, spec, GRAPH_SCALE_OF, CUDNN_DATA_FLOAT),
                    out_map(graph, spec, GRAPH_DY));
}

static descriptor index_map(struct graph *graph, const struct graph_spec *spec)
{
    const struct graph_shape shape = out_shape(spec);
    return spec->infers ? NULL : graph_tensor(graph, GRAPH_INDEX, &shape, CUDNN_DATA_INT8);
}

static void describe_pool(struct graph *graph, const struct graph_spec *spec)
{
    descriptor index = spec->kind == GRAPH_MAX_POOL ? index_map(graph, spec) : NULL;
    graph_pool(graph, spec, in_map(graph, spec, GRAPH_X), out_map(graph, spec, GRAPH_OUT), index);
}

static void describe_pool_backward(struct graph *graph, const struct graph_spec *spec)
{
    descriptor index = spec->kind == GRAPH_MAX_POOL_BACKWARD ? index_map(graph, spec) : NULL;
    graph_pool_backward(graph, spec, in_map(graph, spec, GRAPH_DX),
                        out_map(graph, spec, GRAPH_DOUT), index);
}

static const struct {
    void (*describe)(struct graph *graph, const struct graph_spec *spec);
    const char *name;
} kinds[GRAPH_KINDS] = {
    [GRAPH_CONV] = {describe_conv, "conv"},
    [GRAPH_CONV_BIAS] = {describe_conv_bias, "conv+bias"},
    [GRAPH_CONV_DATA] = {describe_conv_data, "conv data"},
    [GRAPH_CONV_WEIGHT] = {describe_conv_weight, "conv weight"},
    [GRAPH_NORM] = {describe_norm, "norm"},
    [GRAPH_NORM_BACKWARD] = {describe_norm_backward, "norm backward"},
    [GRAPH_SCALE] = {describe_scale, "scale"},
    [GRAPH_SCALE_BACKWARD] = {describe_scale_backward, "scale backward"},
    [GRAPH_MAX_POOL] = {describe_pool, "max pool"},
    [GRAPH_MAX_POOL_BACKWARD] = {describe_pool_backward, "max pool backward"},
    [GRAPH_AVG_POOL] = {describe_pool, "avg pool"},
    [GRAPH_AVG_POOL_BACKWARD] = {describe_pool_backward, "avg pool backward"},
};

void graph_describe(struct graph *graph, const struct graph_spec *spec, cudnnHandle_t handle)
{
    *graph = (struct graph){0};
    kinds[spec->kind].describe(graph, spec);
    struct describe *describe = &graph->describe;
    graph->descriptor = describe_new(describe, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    describe_set(describe, graph->descriptor, CUDNN_ATTR_OPERATIONGRAPH_OPS,
                 CUDNN_TYPE_BACKEND_DESCRIPTOR, graph->op_count, graph->ops);
    if (handle)
        describe_set(describe, graph->descriptor, CUDNN_ATTR_OPERATIONGRAPH_HANDLE,
                     CUDNN_TYPE_HANDLE, 1, &handle);
    describe_finalize(describe, graph->descriptor);
}

void graph_name(char *text, size_t bytes, const struct graph_spec *spec)
{
    bool conv = spec->kind <= GRAPH_CONV_WEIGHT;
    char window[48] = "";
    if (spec->kernel > 0)
        snprintf(window, sizeof window, " %dx%d/%d", spec->kernel, spec->kernel, spec->stride);
    char channels[48];
    snprintf(channels, sizeof channels, conv ? "%d>%d" : "%d",
             conv ? spec->in_channels : spec->out_channels, spec->out_channels);
    snprintf(text, bytes, "%s%s%s%s%s %s%s at %dx%d, batch %d", kinds[spec->kind].name,
             spec->residual ? "+residual" : "", spec->relu ? "+relu" : "",
             spec->keep ? "+keep" : "", spec->accumulate ? "+accumulate" : "", channels, window,
             conv ? spec->in_height : spec->out_height, conv ? spec->in_width : spec->out_width,
             spec->batch);
}

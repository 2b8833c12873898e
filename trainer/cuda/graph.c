/* SPDX-License-Identifier: Apache-2.0 */
#include "trainer/cuda/graph.h"

#include <stdbool.h>
#include <stdio.h>

#include "trainer/cuda/graph_ops.h"
#include "trainer/cuda/graph_fused.h"
#include "trainer/cuda/graph_tensors.h"

typedef cudnnBackendDescriptor_t descriptor;

static void describe_conv(struct graph *graph, const struct graph_spec *spec)
{
    descriptor x = graph_prologue(graph, spec), y = graph_out_map(graph, spec, GRAPH_Y);
    graph_conv(graph, spec, x, graph_weights(graph, spec, GRAPH_W), y);
    if (spec->stats)
        graph_stats(graph, y, graph_channel(graph, spec, GRAPH_SUM, CUDNN_DATA_FLOAT),
                    graph_channel(graph, spec, GRAPH_SQUARES, CUDNN_DATA_FLOAT));
}

/* The order conv, + residual, + bias, ReLU is the one that precompiled engines know. */
static void describe_conv_bias(struct graph *graph, const struct graph_spec *spec)
{
    descriptor at = graph_between(graph, spec, CUDNN_DATA_FLOAT);
    graph_conv(graph, spec, graph_in_map(graph, spec, GRAPH_X), graph_weights(graph, spec, GRAPH_W),
               at);
    if (spec->residual) {
        descriptor sum = graph_between(graph, spec, CUDNN_DATA_FLOAT);
        graph_pointwise(graph, CUDNN_POINTWISE_ADD, at, graph_out_map(graph, spec, GRAPH_RESIDUAL),
                        sum);
        at = sum;
    }
    descriptor out = graph_out_map(graph, spec, GRAPH_OUT);
    descriptor sum = spec->relu ? graph_between(graph, spec, CUDNN_DATA_FLOAT) : out;
    graph_pointwise(graph, CUDNN_POINTWISE_ADD, at,
                    graph_channel(graph, spec, GRAPH_BIAS, CUDNN_DATA_HALF), sum);
    if (spec->relu)
        graph_pointwise(graph, CUDNN_POINTWISE_RELU_FWD, sum, NULL, out);
}

static void describe_conv_data(struct graph *graph, const struct graph_spec *spec)
{
    if (spec->sums) {
        graph_conv_data_sums(graph, spec);
        return;
    }
    descriptor dy = graph_out_map(graph, spec, GRAPH_DY), w = graph_weights(graph, spec, GRAPH_W);
    descriptor dx = graph_in_map(graph, spec, GRAPH_DX);
    if (!spec->masked) {
        graph_conv_data(graph, spec, dy, w, dx);
        return;
    }
    descriptor at = graph_between_in(graph, spec, CUDNN_DATA_FLOAT);
    graph_conv_data(graph, spec, dy, w, at);
    if (spec->accumulate) {
        descriptor sum = graph_between_in(graph, spec, CUDNN_DATA_FLOAT);
        graph_pointwise(graph, CUDNN_POINTWISE_ADD, at, graph_in_map(graph, spec, GRAPH_OTHER),
                        sum);
        at = sum;
    }
    graph_pointwise(graph, CUDNN_POINTWISE_MUL, at, graph_mask_in(graph, spec), dx);
}

static void describe_conv_weight(struct graph *graph, const struct graph_spec *spec)
{
    graph_conv_weight(graph, spec, graph_prologue(graph, spec),
                      graph_out_map(graph, spec, GRAPH_DY), graph_weights(graph, spec, GRAPH_DW));
}

/* Where BN's result goes: on to the residual or ReLU, or out. */
static descriptor after_norm(struct graph *graph, const struct graph_spec *spec, descriptor out)
{
    return spec->residual || spec->relu ? graph_between(graph, spec, CUDNN_DATA_FLOAT) : out;
}

/* + residual, ReLU, mask: from `at` to `out`. */
static void describe_end(struct graph *graph, const struct graph_spec *spec, descriptor at,
                         descriptor out)
{
    if (spec->residual) {
        descriptor sum = spec->relu ? graph_between(graph, spec, CUDNN_DATA_FLOAT) : out;
        graph_pointwise(graph, CUDNN_POINTWISE_ADD, at, graph_residual(graph, spec), sum);
        at = sum;
    }
    if (!spec->relu)
        return;
    graph_pointwise(graph, CUDNN_POINTWISE_RELU_FWD, at, NULL, out);
    graph_pointwise(graph, CUDNN_POINTWISE_CMP_GT, out, graph_scalar(graph, GRAPH_ZERO),
                    graph_mask(graph, spec));
}

static void describe_norm(struct graph *graph, const struct graph_spec *spec)
{
    descriptor out = graph_out_map(graph, spec, GRAPH_OUT);
    descriptor normed = after_norm(graph, spec, out);
    graph_norm(graph, graph_out_map(graph, spec, GRAPH_Y), normed,
               graph_channel(graph, spec, GRAPH_SCALE_OF, CUDNN_DATA_FLOAT),
               graph_channel(graph, spec, GRAPH_BIAS, CUDNN_DATA_FLOAT),
               graph_channel(graph, spec, GRAPH_MEAN, CUDNN_DATA_FLOAT),
               graph_channel(graph, spec, GRAPH_INVERSE, CUDNN_DATA_FLOAT),
               graph_scalar(graph, GRAPH_EPSILON));
    describe_end(graph, spec, normed, out);
}

static void describe_scale(struct graph *graph, const struct graph_spec *spec)
{
    descriptor out = graph_out_map(graph, spec, GRAPH_OUT);
    descriptor scaled = graph_between(graph, spec, CUDNN_DATA_FLOAT);
    descriptor shifted = after_norm(graph, spec, out);
    graph_pointwise(graph, CUDNN_POINTWISE_MUL, graph_out_map(graph, spec, GRAPH_Y),
                    graph_channel(graph, spec, GRAPH_SCALE_OF, CUDNN_DATA_FLOAT), scaled);
    graph_pointwise(graph, CUDNN_POINTWISE_ADD, scaled,
                    graph_channel(graph, spec, GRAPH_BIAS, CUDNN_DATA_FLOAT), shifted);
    describe_end(graph, spec, shifted, out);
}

/* dout behind the mask: dz, stored where it is kept. */
static descriptor describe_mask(struct graph *graph, const struct graph_spec *spec)
{
    descriptor dout = graph_out_map(graph, spec, GRAPH_DOUT);
    if (!spec->relu)
        return dout;
    descriptor dz = spec->keep ? graph_out_map(graph, spec, GRAPH_DZ)
                               : graph_between(graph, spec, CUDNN_DATA_HALF);
    graph_pointwise(graph, CUDNN_POINTWISE_MUL, dout, graph_mask(graph, spec), dz);
    return dz;
}

static void describe_norm_backward(struct graph *graph, const struct graph_spec *spec)
{
    if (spec->recompute) {
        graph_norm_backward_recomputed(graph, spec);
        return;
    }
    descriptor dz = describe_mask(graph, spec);
    const struct graph_norm_gradients gradients = {
        .dy = dz,
        .x = graph_out_map(graph, spec, GRAPH_Y),
        .mean = graph_channel(graph, spec, GRAPH_MEAN, CUDNN_DATA_FLOAT),
        .inverse = graph_channel(graph, spec, GRAPH_INVERSE, CUDNN_DATA_FLOAT),
        .scale = graph_channel(graph, spec, GRAPH_SCALE_OF, CUDNN_DATA_FLOAT),
        .dscale = graph_channel(graph, spec, GRAPH_DSCALE, CUDNN_DATA_FLOAT),
        .dbias = graph_channel(graph, spec, GRAPH_DBIAS, CUDNN_DATA_FLOAT),
        .dx = graph_out_map(graph, spec, GRAPH_DY),
    };
    graph_norm_backward(graph, &gradients);
}

static void describe_scale_backward(struct graph *graph, const struct graph_spec *spec)
{
    graph_pointwise(graph, CUDNN_POINTWISE_MUL, describe_mask(graph, spec),
                    graph_channel(graph, spec, GRAPH_SCALE_OF, CUDNN_DATA_FLOAT),
                    graph_out_map(graph, spec, GRAPH_DY));
}

static descriptor index_map(struct graph *graph, const struct graph_spec *spec)
{
    const struct graph_shape shape = graph_out_shape(spec);
    return spec->infers ? NULL : graph_tensor(graph, GRAPH_INDEX, &shape, CUDNN_DATA_INT8);
}

static void describe_pool(struct graph *graph, const struct graph_spec *spec)
{
    descriptor index = spec->kind == GRAPH_MAX_POOL ? index_map(graph, spec) : NULL;
    graph_pool(graph, spec, graph_in_map(graph, spec, GRAPH_X),
               graph_out_map(graph, spec, GRAPH_OUT), index);
}

static void describe_pool_backward(struct graph *graph, const struct graph_spec *spec)
{
    descriptor index = spec->kind == GRAPH_MAX_POOL_BACKWARD ? index_map(graph, spec) : NULL;
    graph_pool_backward(graph, spec, graph_in_map(graph, spec, GRAPH_DX),
                        graph_out_map(graph, spec, GRAPH_DOUT), index);
}

static const struct {
    void (*describe)(struct graph *graph, const struct graph_spec *spec);
    const char *name;
} kinds[GRAPH_KINDS] = {
    [GRAPH_CONV] = {describe_conv, "conv"},
    [GRAPH_CONV_BIAS] = {describe_conv_bias, "conv+bias"},
    [GRAPH_CONV_DATA] = {describe_conv_data, "conv data"},
    [GRAPH_CONV_WEIGHT] = {describe_conv_weight, "conv weight"},
    [GRAPH_FINALIZE] = {graph_finalize, "finalize"},
    [GRAPH_NORM] = {describe_norm, "norm"},
    [GRAPH_NORM_BACKWARD] = {describe_norm_backward, "norm backward"},
    [GRAPH_SCALE] = {describe_scale, "scale"},
    [GRAPH_APPLY] = {graph_apply, "apply"},
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
    snprintf(text, bytes, "%s%s%s%s%s%s%s%s%s%s%s %s%s at %dx%d, batch %d",
             spec->prologue ? "normalised " : "", kinds[spec->kind].name,
             spec->stats ? "+sums" : "", spec->dual ? "+dual" : "",
             spec->residual ? "+residual" : "", spec->relu ? "+relu" : "",
             spec->keep ? "+keep" : "", spec->accumulate ? "+accumulate" : "",
             spec->masked ? "+mask"
             : spec->sums ? "+backward sums"
                          : "",
             spec->recompute ? "+recomputed mask" : "", spec->halves ? "+fp16" : "", channels,
             window, conv ? spec->in_height : spec->out_height,
             conv ? spec->in_width : spec->out_width, spec->batch);
}

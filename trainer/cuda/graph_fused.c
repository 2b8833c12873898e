/* SPDX-License-Identifier: Apache-2.0 */
#include "trainer/cuda/graph_fused.h"

#include "trainer/cuda/graph_tensors.h"

typedef cudnnBackendDescriptor_t descriptor;

bool graph_is_fused(const struct graph_spec *spec)
{
    return spec->kind == GRAPH_FINALIZE || spec->prologue || spec->stats || spec->dual ||
           spec->masked || spec->recompute;
}

descriptor graph_prologue(struct graph *graph, const struct graph_spec *spec)
{
    descriptor x = graph_in_map(graph, spec, GRAPH_X);
    if (!spec->prologue)
        return x;
    cudnnDataType_t type = spec->kind == GRAPH_MAX_POOL ? CUDNN_DATA_FLOAT : CUDNN_DATA_HALF;
    descriptor scaled = graph_between_in(graph, spec, type);
    descriptor shifted = graph_between_in(graph, spec, type);
    descriptor clipped = graph_between_in(graph, spec, type);
    graph_pointwise(graph, CUDNN_POINTWISE_MUL, x,
                    graph_channel_in(graph, spec, GRAPH_IN_SCALE, type), scaled);
    graph_pointwise(graph, CUDNN_POINTWISE_ADD, scaled,
                    graph_channel_in(graph, spec, GRAPH_IN_SHIFT, type), shifted);
    graph_pointwise(graph, CUDNN_POINTWISE_RELU_FWD, shifted, NULL, clipped);
    return clipped;
}

descriptor graph_residual(struct graph *graph, const struct graph_spec *spec)
{
    descriptor residual = graph_out_map(graph, spec, GRAPH_RESIDUAL);
    if (!spec->dual)
        return residual;
    descriptor scaled = graph_between(graph, spec, CUDNN_DATA_FLOAT);
    descriptor shifted = graph_between(graph, spec, CUDNN_DATA_FLOAT);
    graph_pointwise(graph, CUDNN_POINTWISE_MUL, residual,
                    graph_channel(graph, spec, GRAPH_RES_SCALE, CUDNN_DATA_FLOAT), scaled);
    graph_pointwise(graph, CUDNN_POINTWISE_ADD, scaled,
                    graph_channel(graph, spec, GRAPH_RES_SHIFT, CUDNN_DATA_FLOAT), shifted);
    return shifted;
}

void graph_finalize(struct graph *graph, const struct graph_spec *spec)
{
    cudnnDataType_t given = spec->halves ? CUDNN_DATA_HALF : CUDNN_DATA_FLOAT;
    const struct graph_finalized tensors = {
        .sum = graph_channel(graph, spec, GRAPH_SUM, CUDNN_DATA_FLOAT),
        .squares = graph_channel(graph, spec, GRAPH_SQUARES, CUDNN_DATA_FLOAT),
        .gamma = graph_channel(graph, spec, GRAPH_SCALE_OF, CUDNN_DATA_FLOAT),
        .beta = graph_channel(graph, spec, GRAPH_BIAS, CUDNN_DATA_FLOAT),
        .mean = graph_channel(graph, spec, GRAPH_MEAN, CUDNN_DATA_FLOAT),
        .inverse = graph_channel(graph, spec, GRAPH_INVERSE, CUDNN_DATA_FLOAT),
        .scale = graph_channel(graph, spec, GRAPH_EQ_SCALE, given),
        .shift = graph_channel(graph, spec, GRAPH_EQ_SHIFT, given),
        .epsilon = graph_scalar(graph, GRAPH_EPSILON),
        .count = graph_count(graph, GRAPH_COUNT),
        .factor = graph_scalar(graph, GRAPH_FACTOR),
        .running = {graph_channel(graph, spec, GRAPH_RUNNING_MEAN, CUDNN_DATA_FLOAT),
                    graph_channel(graph, spec, GRAPH_RUNNING_VAR, CUDNN_DATA_FLOAT)},
        .moved = {graph_channel(graph, spec, GRAPH_MOVED_MEAN, CUDNN_DATA_FLOAT),
                  graph_channel(graph, spec, GRAPH_MOVED_VAR, CUDNN_DATA_FLOAT)},
    };
    graph_finalize_stats(graph, &tensors);
}

/* The ReLU's mask is not stored where its result is not: BN(y) again, by the saved statistics. */
void graph_norm_backward_recomputed(struct graph *graph, const struct graph_spec *spec)
{
    descriptor y = graph_out_map(graph, spec, GRAPH_Y);
    descriptor mean = graph_channel(graph, spec, GRAPH_MEAN, CUDNN_DATA_FLOAT);
    descriptor inverse = graph_channel(graph, spec, GRAPH_INVERSE, CUDNN_DATA_FLOAT);
    descriptor scale = graph_channel(graph, spec, GRAPH_SCALE_OF, CUDNN_DATA_FLOAT);
    descriptor bias = graph_channel(graph, spec, GRAPH_BIAS, CUDNN_DATA_FLOAT);
    descriptor normed = graph_between(graph, spec, CUDNN_DATA_FLOAT);
    descriptor dz = graph_between(graph, spec, CUDNN_DATA_HALF);
    graph_norm_inference(graph, y, normed, scale, bias, mean, inverse);
    graph_relu_backward(graph, graph_out_map(graph, spec, GRAPH_DOUT), normed, dz);
    const struct graph_norm_gradients gradients = {
        .dy = dz,
        .x = y,
        .mean = mean,
        .inverse = inverse,
        .scale = scale,
        .dscale = graph_channel(graph, spec, GRAPH_DSCALE, CUDNN_DATA_FLOAT),
        .dbias = graph_channel(graph, spec, GRAPH_DBIAS, CUDNN_DATA_FLOAT),
        .dx = graph_out_map(graph, spec, GRAPH_DY),
    };
    graph_norm_backward(graph, &gradients);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "trainer/cuda/graph_fused.h"

#include "trainer/cuda/graph_tensors.h"

typedef cudnnBackendDescriptor_t descriptor;

bool graph_is_fused(const struct graph_spec *spec)
{
    return spec->kind == GRAPH_FINALIZE || spec->prologue || spec->stats || spec->dual ||
           spec->masked || spec->recompute || spec->sums || spec->kind == GRAPH_APPLY;
}

/* scale x + shift, one value a channel; x goes into a convolution. */
static descriptor scale_in(struct graph *graph, const struct graph_spec *spec, descriptor x,
                           enum graph_role scale, enum graph_role shift)
{
    descriptor scaled = graph_between_in(graph, spec, CUDNN_DATA_FLOAT);
    descriptor shifted = graph_between_in(graph, spec, CUDNN_DATA_FLOAT);
    graph_pointwise(graph, CUDNN_POINTWISE_MUL, x,
                    graph_channel_in(graph, spec, scale, CUDNN_DATA_HALF), scaled);
    graph_pointwise(graph, CUDNN_POINTWISE_ADD, scaled,
                    graph_channel_in(graph, spec, shift, CUDNN_DATA_HALF), shifted);
    return shifted;
}

/* A block's end in front of the next convolution. */
static descriptor block_end(struct graph *graph, const struct graph_spec *spec)
{
    descriptor out = graph_in_map(graph, spec, GRAPH_OUT);
    descriptor sum = graph_between_in(graph, spec, CUDNN_DATA_FLOAT);
    descriptor main =
        scale_in(graph, spec, graph_in_map(graph, spec, GRAPH_X), GRAPH_IN_SCALE, GRAPH_IN_SHIFT);
    descriptor residual = graph_in_map(graph, spec, GRAPH_RESIDUAL);
    if (spec->dual)
        residual = scale_in(graph, spec, residual, GRAPH_RES_SCALE, GRAPH_RES_SHIFT);
    graph_pointwise(graph, CUDNN_POINTWISE_ADD, main, residual, sum);
    graph_pointwise(graph, CUDNN_POINTWISE_RELU_FWD, sum, NULL, out);
    return out;
}

descriptor graph_prologue(struct graph *graph, const struct graph_spec *spec)
{
    if (spec->kind == GRAPH_CONV && spec->keep)
        return block_end(graph, spec);
    descriptor x = graph_in_map(graph, spec, GRAPH_X);
    if (!spec->prologue)
        return x;
    const cudnnDataType_t type = CUDNN_DATA_HALF;
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

/* One BN in the backward: its tensors' roles, in this order. */
enum {
    BN_Y,
    BN_MEAN,
    BN_INVERSE,
    BN_GAMMA,
    BN_BETA,
    BN_DSCALE,
    BN_DBIAS,
    BN_A,
    BN_B,
    BN_C,
    BN_ROLES
};
static const enum graph_role main_bn[BN_ROLES] = {
    GRAPH_Y,      GRAPH_MEAN,  GRAPH_INVERSE, GRAPH_SCALE_OF, GRAPH_BIAS,
    GRAPH_DSCALE, GRAPH_DBIAS, GRAPH_A,       GRAPH_B,        GRAPH_C};
static const enum graph_role residual_bn[BN_ROLES] = {
    GRAPH_RESIDUAL,   GRAPH_RES_MEAN,  GRAPH_RES_INVERSE, GRAPH_RES_GAMMA, GRAPH_RES_BETA,
    GRAPH_RES_DSCALE, GRAPH_RES_DBIAS, GRAPH_RES_A,       GRAPH_RES_B,     GRAPH_RES_C};

struct bn {
    descriptor tensors[BN_ROLES];
    descriptor normed; /* BN(y) */
};

/* (y - mean) / std gamma + beta, in the words that the engine knows. */
static struct bn bn_again(struct graph *graph, const struct graph_spec *spec,
                          const enum graph_role roles[BN_ROLES])
{
    static const cudnnPointwiseMode_t modes[] = {CUDNN_POINTWISE_SUB, CUDNN_POINTWISE_MUL,
                                                 CUDNN_POINTWISE_MUL, CUDNN_POINTWISE_ADD};
    struct bn bn;
    for (int i = 0; i < BN_ROLES; i++)
        bn.tensors[i] = i == BN_Y ? graph_in_map(graph, spec, roles[i])
                                  : graph_channel_in(graph, spec, roles[i], CUDNN_DATA_FLOAT);
    bn.normed = bn.tensors[BN_Y];
    for (int i = 0; i < 4; i++) {
        descriptor next = graph_between_in(graph, spec, CUDNN_DATA_FLOAT);
        graph_pointwise(graph, modes[i], bn.normed, bn.tensors[BN_MEAN + i], next);
        bn.normed = next;
    }
    return bn;
}

static void sums_of(struct graph *graph, const struct bn *bn, descriptor dz)
{
    const struct graph_sums sums = {.x = bn->tensors[BN_Y],
                                    .mean = bn->tensors[BN_MEAN],
                                    .inverse = bn->tensors[BN_INVERSE],
                                    .gamma = bn->tensors[BN_GAMMA],
                                    .dz = dz,
                                    .dscale = bn->tensors[BN_DSCALE],
                                    .dbias = bn->tensors[BN_DBIAS],
                                    .a = bn->tensors[BN_A],
                                    .b = bn->tensors[BN_B],
                                    .c = bn->tensors[BN_C]};
    graph_backward_sums(graph, &sums);
}

static descriptor plus(struct graph *graph, const struct graph_spec *spec, descriptor a,
                       descriptor b)
{
    descriptor sum = graph_between_in(graph, spec, CUDNN_DATA_FLOAT);
    graph_pointwise(graph, CUDNN_POINTWISE_ADD, a, b, sum);
    return sum;
}

void graph_conv_data_sums(struct graph *graph, const struct graph_spec *spec)
{
    descriptor dout = graph_between_in(graph, spec, CUDNN_DATA_FLOAT);
    descriptor dz = graph_in_map(graph, spec, GRAPH_DZ);
    graph_conv_data(graph, spec, graph_out_map(graph, spec, GRAPH_DY),
                    graph_weights(graph, spec, GRAPH_W), dout);
    if (spec->accumulate)
        dout = plus(graph, spec, dout, graph_in_map(graph, spec, GRAPH_OTHER));
    const struct bn bn = bn_again(graph, spec, main_bn);
    struct bn shortcut = {.normed = NULL};
    descriptor z = bn.normed;
    if (spec->dual) {
        shortcut = bn_again(graph, spec, residual_bn);
        z = plus(graph, spec, z, shortcut.normed);
    } else if (spec->residual) {
        z = plus(graph, spec, z, graph_in_map(graph, spec, GRAPH_RESIDUAL));
    }
    graph_relu_backward(graph, dout, z, dz);
    sums_of(graph, &bn, dz);
    if (spec->dual)
        sums_of(graph, &shortcut, dz);
}

static void apply_one(struct graph *graph, const struct graph_spec *spec, descriptor dz,
                      const enum graph_role roles[BN_ROLES], enum graph_role dy)
{
    descriptor a = graph_between(graph, spec, CUDNN_DATA_FLOAT);
    descriptor b = graph_between(graph, spec, CUDNN_DATA_FLOAT);
    descriptor sum = graph_between(graph, spec, CUDNN_DATA_FLOAT);
    graph_pointwise(graph, CUDNN_POINTWISE_MUL, dz,
                    graph_channel(graph, spec, roles[BN_A], CUDNN_DATA_FLOAT), a);
    graph_pointwise(graph, CUDNN_POINTWISE_MUL, graph_out_map(graph, spec, roles[BN_Y]),
                    graph_channel(graph, spec, roles[BN_B], CUDNN_DATA_FLOAT), b);
    graph_pointwise(graph, CUDNN_POINTWISE_ADD, a, b, sum);
    graph_pointwise(graph, CUDNN_POINTWISE_ADD, sum,
                    graph_channel(graph, spec, roles[BN_C], CUDNN_DATA_FLOAT),
                    graph_out_map(graph, spec, dy));
}

void graph_apply(struct graph *graph, const struct graph_spec *spec)
{
    descriptor dz = graph_out_map(graph, spec, GRAPH_DZ);
    apply_one(graph, spec, dz, main_bn, GRAPH_DY);
    if (spec->dual)
        apply_one(graph, spec, dz, residual_bn, GRAPH_RES_DY);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The operations that graph.c puts together. Each is finalised and added to the graph. */
#ifndef TRAINER_CUDA_GRAPH_OPS_H
#define TRAINER_CUDA_GRAPH_OPS_H

#include "trainer/cuda/graph.h"

struct graph_shape {
    int64_t batch, channels, height, width; /* of weights: K, C, R, S */
};

/* A tensor in memory, channels innermost; role GRAPH_NOTHING: a virtual one. */
cudnnBackendDescriptor_t graph_tensor(struct graph *graph, enum graph_role role,
                                      const struct graph_shape *shape, cudnnDataType_t type);
/* A float, an int64_t that is given by value. */
cudnnBackendDescriptor_t graph_scalar(struct graph *graph, enum graph_role role);
cudnnBackendDescriptor_t graph_count(struct graph *graph, enum graph_role role);

void graph_conv(struct graph *graph, const struct graph_spec *spec, cudnnBackendDescriptor_t x,
                cudnnBackendDescriptor_t w, cudnnBackendDescriptor_t y);
void graph_conv_data(struct graph *graph, const struct graph_spec *spec,
                     cudnnBackendDescriptor_t dy, cudnnBackendDescriptor_t w,
                     cudnnBackendDescriptor_t dx);
void graph_conv_weight(struct graph *graph, const struct graph_spec *spec,
                       cudnnBackendDescriptor_t x, cudnnBackendDescriptor_t dy,
                       cudnnBackendDescriptor_t dw);

/* b NULL: of one argument. */
void graph_pointwise(struct graph *graph, cudnnPointwiseMode_t mode, cudnnBackendDescriptor_t x,
                     cudnnBackendDescriptor_t b, cudnnBackendDescriptor_t y);

/* dx = dy where x > 0. */
void graph_relu_backward(struct graph *graph, cudnnBackendDescriptor_t dy,
                         cudnnBackendDescriptor_t x, cudnnBackendDescriptor_t dx);

/* The sums of x and x^2 over each channel. */
void graph_stats(struct graph *graph, cudnnBackendDescriptor_t x, cudnnBackendDescriptor_t sum,
                 cudnnBackendDescriptor_t squares);

/* From them: mean, 1 / sqrt(biased variance + epsilon), and BN as scale x + shift. There is no
 * engine that does not move running statistics as well. */
struct graph_finalized {
    cudnnBackendDescriptor_t sum, squares, gamma, beta, mean, inverse, scale, shift, epsilon, count;
    cudnnBackendDescriptor_t running[2], moved[2], factor; /* mean, variance */
};
void graph_finalize_stats(struct graph *graph, const struct graph_finalized *tensors);

/* Of dz behind ReLU: BN's gradients, and dx = a dz + b x + c. */
struct graph_sums {
    cudnnBackendDescriptor_t x, mean, inverse, gamma, dz, dscale, dbias, a, b, c;
};
void graph_backward_sums(struct graph *graph, const struct graph_sums *tensors);

/* Batch normalisation with given statistics. */
void graph_norm_inference(struct graph *graph, cudnnBackendDescriptor_t x,
                          cudnnBackendDescriptor_t y, cudnnBackendDescriptor_t scale,
                          cudnnBackendDescriptor_t bias, cudnnBackendDescriptor_t mean,
                          cudnnBackendDescriptor_t inverse);

/* Batch normalisation with the batch's own statistics. */
void graph_norm(struct graph *graph, cudnnBackendDescriptor_t x, cudnnBackendDescriptor_t y,
                cudnnBackendDescriptor_t scale, cudnnBackendDescriptor_t bias,
                cudnnBackendDescriptor_t mean, cudnnBackendDescriptor_t inverse,
                cudnnBackendDescriptor_t epsilon);

struct graph_norm_gradients {
    cudnnBackendDescriptor_t dy, x, mean, inverse, scale, dscale, dbias, dx;
};
void graph_norm_backward(struct graph *graph, const struct graph_norm_gradients *gradients);

void graph_pool(struct graph *graph, const struct graph_spec *spec, cudnnBackendDescriptor_t x,
                cudnnBackendDescriptor_t y, cudnnBackendDescriptor_t index); /* NULL: none */
void graph_pool_backward(struct graph *graph, const struct graph_spec *spec,
                         cudnnBackendDescriptor_t dx, cudnnBackendDescriptor_t dy,
                         cudnnBackendDescriptor_t index); /* NULL: none */

#endif

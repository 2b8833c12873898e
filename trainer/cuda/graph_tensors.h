/* SPDX-License-Identifier: Apache-2.0 */
/* The tensors that graphs are made of, by the shape that a specification gives them. Called with a
 * role, each makes a tensor in memory: once a role and graph. */
#ifndef TRAINER_CUDA_GRAPH_TENSORS_H
#define TRAINER_CUDA_GRAPH_TENSORS_H

#include "trainer/cuda/graph_ops.h"

/* fp16 maps: what goes into a convolution or pool, and what comes out. */
cudnnBackendDescriptor_t graph_in_map(struct graph *graph, const struct graph_spec *spec,
                                      enum graph_role role);
cudnnBackendDescriptor_t graph_out_map(struct graph *graph, const struct graph_spec *spec,
                                       enum graph_role role);

/* Between two operations, virtual: shaped as what comes out, or goes in. */
cudnnBackendDescriptor_t graph_between(struct graph *graph, const struct graph_spec *spec,
                                       cudnnDataType_t type);
cudnnBackendDescriptor_t graph_between_in(struct graph *graph, const struct graph_spec *spec,
                                          cudnnDataType_t type);

/* One bit an element of what comes out, or goes in. */
cudnnBackendDescriptor_t graph_mask(struct graph *graph, const struct graph_spec *spec);
cudnnBackendDescriptor_t graph_mask_in(struct graph *graph, const struct graph_spec *spec);

/* One value a channel. */
cudnnBackendDescriptor_t graph_channel(struct graph *graph, const struct graph_spec *spec,
                                       enum graph_role role, cudnnDataType_t type);
cudnnBackendDescriptor_t graph_channel_in(struct graph *graph, const struct graph_spec *spec,
                                          enum graph_role role, cudnnDataType_t type);

cudnnBackendDescriptor_t graph_weights(struct graph *graph, const struct graph_spec *spec,
                                       enum graph_role role);
struct graph_shape graph_out_shape(const struct graph_spec *spec);

#endif

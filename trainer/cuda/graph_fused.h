/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of graphs that fuse batch normalisation with its neighbours. */
#ifndef TRAINER_CUDA_GRAPH_FUSED_H
#define TRAINER_CUDA_GRAPH_FUSED_H

#include "trainer/cuda/graph_ops.h"

/* What a convolution or pool reads: GRAPH_X as it is, or normalised on the way. */
cudnnBackendDescriptor_t graph_prologue(struct graph *graph, const struct graph_spec *spec);

/* What is added at the end of a block: GRAPH_RESIDUAL, scaled and shifted where spec->dual. */
cudnnBackendDescriptor_t graph_residual(struct graph *graph, const struct graph_spec *spec);

/* The descriptions of whole graphs. */
void graph_conv_data_sums(struct graph *graph, const struct graph_spec *spec);
void graph_apply(struct graph *graph, const struct graph_spec *spec);
void graph_finalize(struct graph *graph, const struct graph_spec *spec);
void graph_norm_backward_recomputed(struct graph *graph, const struct graph_spec *spec);

#endif

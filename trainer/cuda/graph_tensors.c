/* SPDX-License-Identifier: Apache-2.0 */
#include "trainer/cuda/graph_tensors.h"

typedef cudnnBackendDescriptor_t descriptor;

static struct graph_shape in_shape(const struct graph_spec *spec)
{
    return (struct graph_shape){spec->batch, spec->in_channels, spec->in_height, spec->in_width};
}

descriptor graph_in_map(struct graph *graph, const struct graph_spec *spec, enum graph_role role)
{
    const struct graph_shape shape = in_shape(spec);
    return graph_tensor(graph, role, &shape, CUDNN_DATA_HALF);
}

struct graph_shape graph_out_shape(const struct graph_spec *spec)
{
    return (struct graph_shape){spec->batch, spec->out_channels, spec->out_height, spec->out_width};
}

descriptor graph_out_map(struct graph *graph, const struct graph_spec *spec, enum graph_role role)
{
    const struct graph_shape shape = graph_out_shape(spec);
    return graph_tensor(graph, role, &shape, CUDNN_DATA_HALF);
}

descriptor graph_between(struct graph *graph, const struct graph_spec *spec, cudnnDataType_t type)
{
    const struct graph_shape shape = graph_out_shape(spec);
    return graph_tensor(graph, GRAPH_NOTHING, &shape, type);
}

descriptor graph_between_in(struct graph *graph, const struct graph_spec *spec,
                            cudnnDataType_t type)
{
    const struct graph_shape shape = in_shape(spec);
    return graph_tensor(graph, GRAPH_NOTHING, &shape, type);
}

descriptor graph_mask(struct graph *graph, const struct graph_spec *spec)
{
    const struct graph_shape shape = graph_out_shape(spec);
    return graph_tensor(graph, GRAPH_MASK, &shape, CUDNN_DATA_BOOLEAN);
}

descriptor graph_mask_in(struct graph *graph, const struct graph_spec *spec)
{
    const struct graph_shape shape = in_shape(spec);
    return graph_tensor(graph, GRAPH_MASK, &shape, CUDNN_DATA_BOOLEAN);
}

descriptor graph_channel_in(struct graph *graph, const struct graph_spec *spec,
                            enum graph_role role, cudnnDataType_t type)
{
    const struct graph_shape shape = {1, spec->in_channels, 1, 1};
    return graph_tensor(graph, role, &shape, type);
}

descriptor graph_channel(struct graph *graph, const struct graph_spec *spec, enum graph_role role,
                         cudnnDataType_t type)
{
    const struct graph_shape shape = {1, spec->out_channels, 1, 1};
    return graph_tensor(graph, role, &shape, type);
}

descriptor graph_weights(struct graph *graph, const struct graph_spec *spec, enum graph_role role)
{
    const struct graph_shape shape = {spec->out_channels, spec->in_channels, spec->kernel,
                                      spec->kernel};
    return graph_tensor(graph, role, &shape, CUDNN_DATA_HALF);
}

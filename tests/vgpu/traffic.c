/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/vgpu/traffic.h"

#include <stdlib.h>

#include "tests/vgpu/graph.h"

static bool is_map(const struct tensor *tensor)
{
    return tensor->rank == 4 && tensor->dim[0] * tensor->dim[2] * tensor->dim[3] > 1;
}

/* How often a kernel must read an operand: statistics of a whole batch are known only when all of
 * it has been read, and then it is read again, being larger than a cache. */
static int readings(const struct descriptor *graph, const struct tensor *tensor)
{
    int count, most = 1;
    struct descriptor *const *ops = vgpu_graph_operations(graph, &count);
    for (int i = 0; i < count; i++) {
        bool forward = ops[i]->kind->type == CUDNN_BACKEND_OPERATION_NORM_FORWARD_DESCRIPTOR;
        if (!vgpu_is_norm(ops[i]) || vgpu_norm_infers(ops[i]))
            continue;
        if (!forward || vgpu_get_tensor(ops[i], CUDNN_ATTR_OPERATION_NORM_FWD_XDESC) == tensor)
            most = 2;
    }
    return most;
}

static bool adds(const struct descriptor *graph)
{
    int count;
    struct descriptor *const *ops = vgpu_graph_operations(graph, &count);
    for (int i = 0; i < count; i++)
        if (vgpu_get_real(ops[i], CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA, 0) != 0)
            return true;
    return false;
}

struct traffic vgpu_traffic(cudnnBackendDescriptor_t handle)
{
    const struct descriptor *graph = vgpu_descriptor(handle);
    struct operands *all = malloc(sizeof *all);
    struct traffic traffic = {0};
    if (!all)
        vgpu_fail("no memory");
    vgpu_graph_operands(all, graph);
    for (int i = 0; i < all->count; i++) {
        const struct operand *operand = &all->items[i];
        const struct tensor *tensor = &operand->tensor->tensor;
        if (tensor->is_virtual || tensor->by_value)
            continue;
        double bytes = (double)vgpu_tensor_bytes(tensor);
        if (operand->producers) { /* what a kernel wrote it has at hand */
            traffic.once += bytes;
            traffic.twice += bytes;
        }
        if (!operand->producers || adds(graph)) {
            traffic.once += bytes;
            traffic.twice += bytes * (is_map(tensor) ? readings(graph, tensor) : 1);
        }
    }
    free(all);
    return traffic;
}

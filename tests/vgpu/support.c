/* SPDX-License-Identifier: Apache-2.0 */
/* What cuDNN 9.19's heuristics were seen to take and to refuse (on H100 and A100), of the graphs
 * that a trainer is tempted to build. */
#include <stdlib.h>
#include <string.h>

#include "tests/vgpu/graph.h"

#define OPERATION(name) CUDNN_BACKEND_OPERATION_##name##_DESCRIPTOR

struct operations {
    struct descriptor *const *all;
    int count;
};

static bool is(const struct descriptor *op, cudnnBackendDescriptorType_t type)
{
    return op->kind->type == type;
}

static bool is_map(const struct tensor *tensor)
{
    return tensor->rank == 4 && tensor->type == CUDNN_DATA_HALF && !tensor->is_virtual;
}

bool vgpu_is_conv(const struct descriptor *op)
{
    return !strncmp(op->kind->text, "OPERATION_CONVOLUTION", 21);
}

bool vgpu_is_norm(const struct descriptor *op)
{
    return !strncmp(op->kind->text, "OPERATION_NORM", 14);
}

/* Channels last, as every fp16 engine with tensor cores wants it. */
static bool channels_last(const struct tensor *tensor)
{
    return tensor->dim[1] == 1 || tensor->stride[1] == 1;
}

static bool operands_supported(const struct descriptor *graph)
{
    struct operands *all = malloc(sizeof *all);
    if (!all)
        vgpu_fail("no memory");
    vgpu_graph_operands(all, graph);
    bool supported = true;
    for (int i = 0; i < all->count; i++)
        if (is_map(&all->items[i].tensor->tensor))
            supported &= channels_last(&all->items[i].tensor->tensor);
    free(all);
    return supported;
}

static bool norm_supported(const struct descriptor *op)
{
    bool forward = is(op, OPERATION(NORM_FORWARD));
    const struct tensor *x = vgpu_get_tensor(op, forward ? CUDNN_ATTR_OPERATION_NORM_FWD_XDESC
                                                         : CUDNN_ATTR_OPERATION_NORM_BWD_XDESC);
    return vgpu_device()->major >= 8 && !x->is_virtual && x->dim[1] % 8 == 0;
}

/* The operation that writes a tensor; NULL: none of the graph. */
static const struct descriptor *writer_of(const struct operations *ops, const struct tensor *tensor)
{
    for (int i = 0; i < ops->count; i++)
        for (const struct rule *rule = ops->all[i]->kind->rules; rule->text; rule++)
            if (vgpu_role(ops->all[i], rule) == OUTPUT &&
                vgpu_get_tensor(ops->all[i], rule->name) == tensor)
                return ops->all[i];
    return NULL;
}

static bool has_mode(const struct descriptor *op, cudnnPointwiseMode_t mode)
{
    if (!op || !is(op, OPERATION(POINTWISE)))
        return false;
    const struct descriptor *how =
        vgpu_get_descriptor(op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR);
    return vgpu_get_int(how, CUDNN_ATTR_POINTWISE_MODE, -1) == (int64_t)mode;
}

static bool channel_operand(const struct descriptor *op)
{
    const struct tensor *b = vgpu_get_tensor(op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC);
    return b && b->type == CUDNN_DATA_HALF && vgpu_tensor_count(b) == b->dim[1];
}

/* scale x + shift with fp16 vectors, of a map in memory. */
static bool scales_and_shifts(const struct operations *ops, const struct tensor *tensor)
{
    const struct descriptor *add = writer_of(ops, tensor);
    if (!has_mode(add, CUDNN_POINTWISE_ADD) || !channel_operand(add))
        return false;
    const struct descriptor *mul =
        writer_of(ops, vgpu_get_tensor(add, CUDNN_ATTR_OPERATION_POINTWISE_XDESC));
    return has_mode(mul, CUDNN_POINTWISE_MUL) && channel_operand(mul) &&
           !vgpu_get_tensor(mul, CUDNN_ATTR_OPERATION_POINTWISE_XDESC)->is_virtual;
}

/* What comes before a convolution: ReLU of scale x + shift, the result not stored; or, on sm_90 and
 * before a 1x1, also of the sum of two maps, the result stored. */
static bool prologue_supported(const struct operations *ops, const struct tensor *x,
                               const struct tensor *w)
{
    const struct descriptor *relu = writer_of(ops, x);
    if (!has_mode(relu, CUDNN_POINTWISE_RELU_FWD))
        return false;
    const struct tensor *in = vgpu_get_tensor(relu, CUDNN_ATTR_OPERATION_POINTWISE_XDESC);
    if (x->is_virtual)
        return x->type == CUDNN_DATA_HALF && scales_and_shifts(ops, in);
    const struct descriptor *add = writer_of(ops, in);
    if (vgpu_device()->major < 9 || w->dim[2] != 1 || !has_mode(add, CUDNN_POINTWISE_ADD))
        return false;
    const struct tensor *left = vgpu_get_tensor(add, CUDNN_ATTR_OPERATION_POINTWISE_XDESC);
    const struct tensor *right = vgpu_get_tensor(add, CUDNN_ATTR_OPERATION_POINTWISE_BDESC);
    return scales_and_shifts(ops, left) && (is_map(right) || scales_and_shifts(ops, right));
}

/* No engine multiplies before a convolution's gradients, or gives a filter's gradient in fp32. */
static bool conv_supported(const struct operations *ops, const struct descriptor *op)
{
    bool forward = is(op, OPERATION(CONVOLUTION_FORWARD));
    bool filter = is(op, OPERATION(CONVOLUTION_BACKWARD_FILTER));
    if (!forward && !filter)
        return !writer_of(ops, vgpu_get_tensor(op, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY));
    const struct tensor *x =
        vgpu_get_tensor(op, forward ? CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X
                                    : CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X);
    const struct tensor *w =
        vgpu_get_tensor(op, forward ? CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W
                                    : CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW);
    if (filter &&
        (w->type != CUDNN_DATA_HALF ||
         writer_of(ops, vgpu_get_tensor(op, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY))))
        return false;
    return !writer_of(ops, x) || prologue_supported(ops, x, w);
}

/* Sums of a map only where a convolution of the graph has just written it; a backward's sums only
 * behind a gradient that passed a ReLU's derivative. */
static bool sums_supported(const struct operations *ops, const struct descriptor *op)
{
    if (is(op, OPERATION(GEN_STATS))) {
        const struct tensor *x = vgpu_get_tensor(op, CUDNN_ATTR_OPERATION_GENSTATS_XDESC);
        const struct descriptor *conv = writer_of(ops, x);
        return conv && is(conv, OPERATION(CONVOLUTION_FORWARD)) && is_map(x);
    }
    return has_mode(
        writer_of(ops, vgpu_get_tensor(op, CUDNN_ATTR_OPERATION_BN_BWD_WEIGHTS_DY_DESC)),
        CUDNN_POINTWISE_RELU_BWD);
}

static bool sums_anything(const struct descriptor *op)
{
    return is(op, OPERATION(GEN_STATS)) || is(op, OPERATION(BN_BWD_WEIGHTS));
}

/* No running statistics, no engine. */
static bool finalize_supported(const struct descriptor *op)
{
    return vgpu_get(op, CUDNN_ATTR_OPERATION_BN_FINALIZE_PREV_RUNNING_MEAN_DESC) != NULL;
}

/* $VGPU_REFUSE: "sums" or "masks", what this chip has no engine for, as another one may. */
static bool is_refused(const struct operations *ops)
{
    const char *what = getenv("VGPU_REFUSE");
    bool sums = false, gradient = false, product = false;
    for (int i = 0; i < ops->count; i++) {
        sums |= is(ops->all[i], OPERATION(GEN_STATS));
        gradient |= is(ops->all[i], OPERATION(CONVOLUTION_BACKWARD_DATA));
        product |= has_mode(ops->all[i], CUDNN_POINTWISE_MUL);
    }
    return what && (strcmp(what, "sums") ? gradient && product : sums);
}

static bool operation_supported(const struct operations *ops, const struct descriptor *op)
{
    if (vgpu_is_norm(op))
        return norm_supported(op);
    if (vgpu_is_conv(op))
        return conv_supported(ops, op);
    if (sums_anything(op))
        return sums_supported(ops, op);
    /* cuDNN 9.19 has an engine for a max pool that scales what it reads: it wrote zeros on an H100.
     */
    if (is(op, OPERATION(RESAMPLE_FWD)))
        return ops->count == 1;
    return !is(op, OPERATION(BN_FINALIZE_STATISTICS)) || finalize_supported(op);
}

bool vgpu_graph_supported(const struct descriptor *graph)
{
    struct operations ops;
    int large = 0; /* those that an engine is built around: one */
    ops.all = vgpu_graph_operations(graph, &ops.count);
    for (int i = 0; i < ops.count; i++) {
        const struct descriptor *op = ops.all[i];
        if (!operation_supported(&ops, op))
            return false;
        large += !is(op, OPERATION(POINTWISE)) && !sums_anything(op) && !vgpu_norm_infers(op);
    }
    return large <= 1 && !is_refused(&ops) && operands_supported(graph);
}

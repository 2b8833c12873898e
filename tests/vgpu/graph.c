/* SPDX-License-Identifier: Apache-2.0 */
/* Operations and operation graphs: that they are whole, and in what order they are computed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/vgpu/graph.h"

#define OPERATION(name) CUDNN_BACKEND_OPERATION_##name##_DESCRIPTOR

static const struct operation {
    cudnnBackendDescriptorType_t type;
    const char *text;
    void (*check)(const struct descriptor *op);
    void (*compute)(const struct descriptor *op, const struct values *values);
} table[] = {
    {OPERATION(CONVOLUTION_FORWARD), "conv forward", vgpu_convolution_check,
     vgpu_convolution_compute},
    {OPERATION(CONVOLUTION_BACKWARD_DATA), "conv backward data", vgpu_convolution_check,
     vgpu_convolution_compute},
    {OPERATION(CONVOLUTION_BACKWARD_FILTER), "conv backward filter", vgpu_convolution_check,
     vgpu_convolution_compute},
    {OPERATION(POINTWISE), "pointwise", vgpu_pointwise_check, vgpu_pointwise_compute},
    {OPERATION(NORM_FORWARD), "norm forward", vgpu_norm_forward_check, vgpu_norm_forward_compute},
    {OPERATION(NORM_BACKWARD), "norm backward", vgpu_norm_backward_check,
     vgpu_norm_backward_compute},
    {OPERATION(GEN_STATS), "sums", vgpu_stats_check, vgpu_stats_compute},
    {OPERATION(BN_FINALIZE_STATISTICS), "finalize", vgpu_finalize_check, vgpu_finalize_compute},
    {OPERATION(BN_BWD_WEIGHTS), "backward sums", vgpu_weights_check, vgpu_weights_compute},
    {OPERATION(RESAMPLE_FWD), "pool forward", vgpu_resample_check, vgpu_resample_forward_compute},
    {OPERATION(RESAMPLE_BWD), "pool backward", vgpu_resample_check, vgpu_resample_backward_compute},
};

static const struct operation *operation_of(const struct descriptor *op)
{
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (table[i].type == op->kind->type)
            return &table[i];
    vgpu_fail("%s is no operation", op->kind->text);
}

enum role vgpu_role(const struct descriptor *op, const struct rule *rule)
{
    bool statistics = rule->name == CUDNN_ATTR_OPERATION_NORM_FWD_MEAN_DESC ||
                      rule->name == CUDNN_ATTR_OPERATION_NORM_FWD_INV_VARIANCE_DESC;
    return statistics && vgpu_norm_infers(op) ? INPUT : rule->role;
}

double *vgpu_value(const struct values *values, const struct tensor *tensor)
{
    for (int i = 0; i < values->count; i++)
        if (&values->tensors[i]->tensor == tensor)
            return values->data[i];
    vgpu_fail("a tensor that is not of the graph");
}

/* The label is there while the checks run, so that they name the operation. */
void vgpu_operation_finalize(struct descriptor *op)
{
    size_t at = (size_t)snprintf(op->label, sizeof op->label, "%s", operation_of(op)->text);
    for (const struct rule *rule = op->kind->rules; rule->text; rule++) {
        const struct tensor *tensor = rule->role == PLAIN ? NULL : vgpu_get_tensor(op, rule->name);
        if (!tensor || vgpu_tensor_count(tensor) == 1 || at + 2 >= sizeof op->label)
            continue;
        char text[80];
        vgpu_tensor_text(text, sizeof text, tensor);
        at += (size_t)snprintf(op->label + at, sizeof op->label - at, "%s %s",
                               rule->role == OUTPUT ? " ->" : "", text);
        if (op->kind->type != OPERATION(CONVOLUTION_FORWARD) &&
            op->kind->type != OPERATION(CONVOLUTION_BACKWARD_DATA) &&
            op->kind->type != OPERATION(CONVOLUTION_BACKWARD_FILTER))
            break;
    }
    const char *before = vgpu_actor.label;
    vgpu_actor.label = op->label;
    operation_of(op)->check(op);
    vgpu_actor.label = before;
}

struct descriptor *const *vgpu_graph_operations(const struct descriptor *graph, int *count)
{
    const struct attribute *ops = vgpu_get(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS);
    *count = (int)ops->count;
    return ops->data;
}

/* Calls visit for every tensor of every operation. */
static void each_operand(const struct descriptor *graph, void *user,
                         void (*visit)(void *user, struct descriptor *tensor,
                                       const struct rule *rule, enum role role))
{
    int count;
    struct descriptor *const *ops = vgpu_graph_operations(graph, &count);
    for (int i = 0; i < count; i++)
        for (const struct rule *rule = ops[i]->kind->rules; rule->text; rule++)
            if (rule->role != PLAIN && vgpu_get(ops[i], rule->name))
                visit(user, vgpu_get_descriptor(ops[i], rule->name), rule, vgpu_role(ops[i], rule));
}

static void visit(void *user, struct descriptor *tensor, const struct rule *rule, enum role role)
{
    struct operands *all = user;
    int i = 0;
    while (i < all->count && all->items[i].tensor != tensor) {
        if (all->items[i].tensor->tensor.uid == tensor->tensor.uid)
            vgpu_fail("two tensors of the graph have the unique id %lld: %s and %s",
                      (long long)tensor->tensor.uid, all->items[i].name, rule->text);
        i++;
    }
    if (i == (int)(sizeof all->items / sizeof *all->items))
        vgpu_fail("a graph with more tensors than the double has room for");
    struct operand *operand = &all->items[i];
    if (i == all->count) {
        *operand = (struct operand){.tensor = tensor, .name = rule->text};
        all->count++;
    }
    if (role == OUTPUT) {
        operand->name = rule->text;
        operand->producers++;
    } else {
        operand->readers++;
    }
}

void vgpu_graph_operands(struct operands *all, const struct descriptor *graph)
{
    all->count = 0;
    each_operand(graph, all, visit);
}

static void check_operand(const struct operand *operand)
{
    const struct tensor *tensor = &operand->tensor->tensor;
    if (operand->producers > 1)
        vgpu_fail("%s (unique id %lld) is written by %d operations", operand->name,
                  (long long)tensor->uid, operand->producers);
    if (tensor->by_value && (operand->producers || tensor->is_virtual))
        vgpu_fail("%s (unique id %lld) is by value and yet a result or virtual", operand->name,
                  (long long)tensor->uid);
    if (tensor->is_virtual && (!operand->producers || !operand->readers))
        vgpu_fail("%s (unique id %lld) is virtual, and no operation %s it", operand->name,
                  (long long)tensor->uid, operand->producers ? "reads" : "writes");
}

/* Whether an operation of the graph that is not done yet writes what op reads. */
static bool must_wait(const struct descriptor *op, struct descriptor *const *ops, const bool *done,
                      int count)
{
    for (const struct rule *in = op->kind->rules; in->text; in++) {
        const struct descriptor *wanted =
            vgpu_role(op, in) == INPUT ? vgpu_get_descriptor(op, in->name) : NULL;
        for (int i = 0; wanted && i < count; i++)
            for (const struct rule *out = ops[i]->kind->rules; !done[i] && out->text; out++)
                if (vgpu_role(ops[i], out) == OUTPUT &&
                    vgpu_get_descriptor(ops[i], out->name) == wanted)
                    return true;
    }
    return false;
}

static void order(int *dst, struct descriptor *const *ops, int count)
{
    bool done[OPERATIONS] = {false};
    for (int n = 0; n < count; n++) {
        int next = 0;
        while (next < count && (done[next] || must_wait(ops[next], ops, done, count)))
            next++;
        if (next == count)
            vgpu_fail("the graph's operations wait for each other");
        done[next] = true;
        dst[n] = next;
    }
}

void vgpu_graph_finalize(struct descriptor *graph)
{
    int count, sequence[OPERATIONS];
    struct descriptor *const *ops = vgpu_graph_operations(graph, &count);
    size_t at = 0;
    for (int i = 0; i < count && at < sizeof graph->label; i++)
        at += (size_t)snprintf(graph->label + at, sizeof graph->label - at, "%s%s", i ? " + " : "",
                               i && ops[i]->kind->type == OPERATION(POINTWISE) ? "pointwise"
                                                                               : ops[i]->label);
    const char *before = vgpu_actor.label;
    vgpu_actor.label = graph->label;
    struct operands *all = malloc(sizeof *all);
    if (!all)
        vgpu_fail("no memory");
    vgpu_graph_operands(all, graph);
    for (int i = 0; i < all->count; i++)
        check_operand(&all->items[i]);
    order(sequence, ops, count);
    free(all);
    vgpu_actor.label = before;
}

void vgpu_graph_compute(const struct descriptor *graph, const struct values *values)
{
    int count, sequence[OPERATIONS];
    struct descriptor *const *ops = vgpu_graph_operations(graph, &count);
    order(sequence, ops, count);
    for (int i = 0; i < count; i++) {
        const struct descriptor *op = ops[sequence[i]];
        operation_of(op)->compute(op, values);
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
/* A cuDNN operation graph on the double: its tensors, its operations in an order that can be run.
 */
#ifndef TESTS_VGPU_GRAPH_H
#define TESTS_VGPU_GRAPH_H

#include "tests/vgpu/memory.h"
#include "tests/vgpu/ops.h"

struct operand { /* a tensor of a graph */
    struct descriptor *tensor;
    const char *name; /* what an operation calls it: the one that writes it, else the first */
    int producers, readers;
};
struct operands {
    struct operand items[OPERANDS * OPERATIONS];
    int count;
};

/* Whether an operation reads or writes a tensor: by the table, but for statistics that are given.
 */
enum role vgpu_role(const struct descriptor *op, const struct rule *rule);

/* Every tensor of a graph once. Aborts when two have the same unique id. */
void vgpu_graph_operands(struct operands *all, const struct descriptor *graph);
/* support.c: whether any engine takes it, as cuDNN 9.19 was seen to. */
bool vgpu_graph_supported(const struct descriptor *graph);
bool vgpu_is_conv(const struct descriptor *op);
bool vgpu_is_norm(const struct descriptor *op);

void vgpu_graph_compute(const struct descriptor *graph, const struct values *values);

#endif

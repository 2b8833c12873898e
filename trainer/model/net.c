/* SPDX-License-Identifier: Apache-2.0 */
/* What every network has, whichever family it is of: shapes, names, counts, copies. */
#include "trainer/model/net.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"

void net_close(struct net *net)
{
    if (!net)
        return;
    free(net->nodes);
    free(net->tensors);
    free(net);
}

int net_copy(struct net **out, const struct net *net)
{
    *out = NULL;
    struct net *copy = malloc(sizeof *copy);
    if (!copy)
        return err_set(ERR_NOMEM, "no memory for a network");
    *copy = *net;
    copy->nodes = malloc((size_t)net->node_count * sizeof *net->nodes);
    copy->tensors = malloc((size_t)net->tensor_count * sizeof *net->tensors);
    if (!copy->nodes || !copy->tensors) {
        net_close(copy);
        return err_set(ERR_NOMEM, "no memory for a network");
    }
    memcpy(copy->nodes, net->nodes, (size_t)net->node_count * sizeof *net->nodes);
    memcpy(copy->tensors, net->tensors, (size_t)net->tensor_count * sizeof *net->tensors);
    *out = copy;
    return 0;
}

static int windows(int in, const struct node *node)
{
    int span = in + 2 * node->pad - node->kernel;
    if (span < 0)
        return 0;
    int count = span / node->stride + 1;
    if (node->kind == NODE_AVG_POOL && span % node->stride != 0)
        count++;
    /* PyTorch's rule of the ceil mode: the last window starts inside the input or its left padding.
     */
    if (node->kind == NODE_AVG_POOL && (count - 1) * node->stride >= in + node->pad)
        count--;
    return count;
}

int net_reshape(struct net *net, int size_px)
{
    for (int i = 0; i < net->node_count; i++) {
        struct node *node = &net->nodes[i];
        int height = size_px, width = size_px;
        if (node->kind != NODE_INPUT) {
            height = net->nodes[node->input].out_height;
            width = net->nodes[node->input].out_width;
        }
        node->in_height = height;
        node->in_width = width;
        switch (node->kind) {
        case NODE_INPUT:
            break;
        case NODE_CONV:
        case NODE_MAX_POOL:
        case NODE_AVG_POOL:
            if (node->stride > 1 && (height < 2 || width < 2))
                return err_set(ERR_ARG, "images of %d px are too small for %s", size_px,
                               net->model);
            height = windows(height, node);
            width = windows(width, node);
            break;
        case NODE_GLOBAL_AVG:
        case NODE_FC:
            height = width = 1;
            break;
        }
        if (height < 1 || width < 1)
            return err_set(ERR_ARG, "images of %d px are too small for %s", size_px, net->model);
        node->out_height = height;
        node->out_width = width;
    }
    net->size_px = size_px;
    return 0;
}

int net_tensor(const struct net *net, const char *name)
{
    for (int i = 0; i < net->tensor_count; i++)
        if (strcmp(net->tensors[i].name, name) == 0)
            return i;
    return -1;
}

/* The stage of a tensor by its name ("layer3.0.conv1.weight" is of stage 3); the stem is 0. */
static int stage_of(const struct tensor *tensor)
{
    int stage;
    return sscanf(tensor->name, "layer%d.", &stage) == 1 ? stage : 0;
}

void net_freeze(struct net *net, int stages)
{
    for (int i = 0; i < net->tensor_count; i++)
        if (!net->tensors[i].head && stage_of(&net->tensors[i]) <= stages)
            net->tensors[i].trained = false;
}

bool net_bn_frozen(const struct net *net, const struct node *node)
{
    return node->kind == NODE_CONV && !net->tensors[node->gamma].trained &&
           !net->tensors[node->beta].trained;
}

static bool is_statistic(const struct tensor *tensor)
{
    return tensor->kind == TENSOR_RUNNING_MEAN || tensor->kind == TENSOR_RUNNING_VAR;
}

uint64_t net_parameters(const struct net *net)
{
    uint64_t total = 0;
    for (int i = 0; i < net->tensor_count; i++)
        if (!is_statistic(&net->tensors[i]))
            total += net->tensors[i].count;
    return total;
}

uint64_t net_macs(const struct net *net)
{
    uint64_t total = 0;
    for (int i = 0; i < net->node_count; i++) {
        const struct node *node = &net->nodes[i];
        uint64_t outputs =
            (uint64_t)node->out_channels * (uint64_t)node->out_height * (uint64_t)node->out_width;
        if (node->kind == NODE_CONV)
            total +=
                outputs * (uint64_t)node->in_channels * (uint64_t)(node->kernel * node->kernel);
        if (node->kind == NODE_FC)
            total += outputs * (uint64_t)node->in_channels;
    }
    return total;
}

bool net_decayed(const struct tensor *tensor, bool no_bias_decay)
{
    if (is_statistic(tensor))
        return false;
    return !no_bias_decay || tensor->kind == TENSOR_CONV_WEIGHT || tensor->kind == TENSOR_FC_WEIGHT;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "trainer/model/build.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"

/* Makes room for one more element. */
static void *grown(void *array, int *room, int count, size_t element, int *error)
{
    if (count < *room)
        return array;
    int more = *room ? 2 * *room : 64;
    void *bigger = realloc(array, (size_t)more * element);
    if (!bigger) {
        *error = err_set(ERR_NOMEM, "no memory for a network");
        return array;
    }
    *room = more;
    return bigger;
}

static int add_node(struct build *build, enum node_kind kind, int input)
{
    struct net *net = build->net;
    if (build->error)
        return -1;
    net->nodes =
        grown(net->nodes, &build->node_room, net->node_count, sizeof *net->nodes, &build->error);
    if (build->error)
        return -1;
    int channels = input < 0 ? net->channels : net->nodes[input].out_channels;
    net->nodes[net->node_count] = (struct node){.kind = kind,
                                                .input = input,
                                                .residual = -1,
                                                .kernel = 1,
                                                .stride = 1,
                                                .in_channels = channels,
                                                .out_channels = channels,
                                                .weight = -1,
                                                .bias = -1,
                                                .gamma = -1,
                                                .beta = -1,
                                                .running_mean = -1,
                                                .running_var = -1};
    return net->node_count++;
}

static int add_tensor(struct build *build, enum tensor_kind kind, const char *module,
                      const char *part, int rank, const int shape[4])
{
    struct net *net = build->net;
    if (build->error)
        return -1;
    net->tensors = grown(net->tensors, &build->tensor_room, net->tensor_count, sizeof *net->tensors,
                         &build->error);
    if (build->error)
        return -1;
    struct tensor *tensor = &net->tensors[net->tensor_count];
    *tensor = (struct tensor){.kind = kind, .rank = rank, .count = 1};
    snprintf(tensor->name, sizeof tensor->name, "%s.%s", module, part);
    for (int i = 0; i < 4; i++) {
        tensor->shape[i] = i < rank ? shape[i] : 1;
        tensor->count *= (size_t)tensor->shape[i];
    }
    tensor->trained = kind != TENSOR_RUNNING_MEAN && kind != TENSOR_RUNNING_VAR;
    tensor->head = kind == TENSOR_FC_WEIGHT || kind == TENSOR_FC_BIAS;
    return net->tensor_count++;
}

void build_begin(struct build *build, const char *model, int channels, int classes)
{
    *build = (struct build){0};
    build->net = calloc(1, sizeof *build->net);
    if (!build->net) {
        build->error = err_set(ERR_NOMEM, "no memory for a network");
        return;
    }
    snprintf(build->net->model, sizeof build->net->model, "%s", model);
    build->net->channels = channels;
    build->net->classes = classes;
    add_node(build, NODE_INPUT, -1);
}

int build_conv(struct build *build, const struct build_conv *what, const char *conv, const char *bn)
{
    int index = add_node(build, NODE_CONV, what->input);
    if (index < 0)
        return -1;
    struct node node = build->net->nodes[index];
    node.residual = what->residual;
    node.relu = what->relu;
    node.kernel = what->kernel;
    node.stride = what->stride;
    node.pad = what->pad;
    node.out_channels = what->out_channels;
    const int weight[4] = {node.out_channels, node.in_channels, node.kernel, node.kernel};
    const int vector[4] = {node.out_channels};
    node.weight = add_tensor(build, TENSOR_CONV_WEIGHT, conv, "weight", 4, weight);
    node.gamma = add_tensor(build, TENSOR_GAMMA, bn, "weight", 1, vector);
    node.beta = add_tensor(build, TENSOR_BETA, bn, "bias", 1, vector);
    node.running_mean = add_tensor(build, TENSOR_RUNNING_MEAN, bn, "running_mean", 1, vector);
    node.running_var = add_tensor(build, TENSOR_RUNNING_VAR, bn, "running_var", 1, vector);
    if (build->error)
        return -1;
    build->net->tensors[node.gamma].last_gamma = what->last;
    build->net->nodes[index] = node;
    return index;
}

int build_pool(struct build *build, enum node_kind kind, int input, int kernel, int stride, int pad)
{
    int index = add_node(build, kind, input);
    if (index < 0)
        return -1;
    struct node *node = &build->net->nodes[index];
    node->kernel = kernel;
    node->stride = stride;
    node->pad = pad;
    return index;
}

int build_global_avg(struct build *build, int input)
{
    return add_node(build, NODE_GLOBAL_AVG, input);
}

int build_fc(struct build *build, int input)
{
    int index = add_node(build, NODE_FC, input);
    if (index < 0)
        return -1;
    struct node node = build->net->nodes[index];
    node.out_channels = build->net->classes;
    const int weight[4] = {node.out_channels, node.in_channels};
    node.weight = add_tensor(build, TENSOR_FC_WEIGHT, "fc", "weight", 2, weight);
    node.bias = add_tensor(build, TENSOR_FC_BIAS, "fc", "bias", 1, weight);
    if (build->error)
        return -1;
    build->net->nodes[index] = node;
    return index;
}

int build_end(struct net **out, struct build *build, int size_px)
{
    *out = NULL;
    if (!build->error)
        build->error = net_reshape(build->net, size_px);
    if (build->error) {
        net_close(build->net);
        return build->error;
    }
    *out = build->net;
    return 0;
}

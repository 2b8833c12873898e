/* SPDX-License-Identifier: Apache-2.0 */
#include "trainer/cuda/schedule_build.h"

static size_t channel_bytes(const struct node *node)
{
    return (size_t)layout_padded(node->out_channels) * sizeof(float);
}

/* Inference: BN is in the weights and the bias. */
static void forward_folded(struct building *building, int index)
{
    const struct node *node = &building->net->nodes[index];
    struct graph_spec spec = schedule_spec(building, index, GRAPH_CONV_BIAS);
    spec.relu = node->relu;
    spec.residual = node->residual >= 0;
    schedule_graph(building, index, &spec);
    schedule_use(building, GRAPH_X, building->nodes[node->input].out);
    schedule_put(building, GRAPH_W, PLACE_FOLDED, node->weight);
    schedule_put(building, GRAPH_BIAS, PLACE_FOLDED, node->beta);
    if (spec.residual)
        schedule_use(building, GRAPH_RESIDUAL, building->nodes[node->residual].out);
    building->nodes[index].out = schedule_want(building, schedule_map_bytes(building, index));
    schedule_use(building, GRAPH_OUT, building->nodes[index].out);
}

static void forward_conv(struct building *building, int index)
{
    const struct node *node = &building->net->nodes[index];
    const struct graph_spec spec = schedule_spec(building, index, GRAPH_CONV);
    schedule_graph(building, index, &spec);
    schedule_use(building, GRAPH_X, building->nodes[node->input].out);
    schedule_put(building, GRAPH_W, PLACE_HALVES, node->weight);
    building->nodes[index].y = schedule_want(building, schedule_map_bytes(building, index));
    schedule_use(building, GRAPH_Y, building->nodes[index].y);
}

/* Frozen BN is a scale and a shift. */
static void freeze(struct building *building, int index)
{
    const struct node *node = &building->net->nodes[index];
    struct node_blocks *blocks = &building->nodes[index];
    schedule_step(building, STEP_FREEZE, index);
    blocks->scale = schedule_want(building, channel_bytes(node));
    blocks->shift = schedule_want(building, channel_bytes(node));
    schedule_use(building, GRAPH_SCALE_OF, blocks->scale);
    schedule_use(building, GRAPH_BIAS, blocks->shift);
}

/* Behind the convolution: BN or its frozen form, residual, ReLU. */
static void forward_norm(struct building *building, int index)
{
    const struct node *node = &building->net->nodes[index];
    struct node_blocks *blocks = &building->nodes[index];
    if (blocks->frozen)
        freeze(building, index);
    struct graph_spec spec =
        schedule_spec(building, index, blocks->frozen ? GRAPH_SCALE : GRAPH_NORM);
    spec.relu = node->relu;
    spec.residual = node->residual >= 0;
    schedule_graph(building, index, &spec);
    schedule_use(building, GRAPH_Y, blocks->y);
    if (blocks->frozen) {
        schedule_use(building, GRAPH_SCALE_OF, blocks->scale);
        schedule_use(building, GRAPH_BIAS, blocks->shift);
    } else {
        blocks->mean = schedule_want(building, channel_bytes(node));
        blocks->inverse = schedule_want(building, channel_bytes(node));
        schedule_put(building, GRAPH_SCALE_OF, PLACE_VALUES, node->gamma);
        schedule_put(building, GRAPH_BIAS, PLACE_VALUES, node->beta);
        schedule_use(building, GRAPH_MEAN, blocks->mean);
        schedule_use(building, GRAPH_INVERSE, blocks->inverse);
        schedule_put(building, GRAPH_EPSILON, PLACE_EPSILON, 0);
    }
    if (spec.residual)
        schedule_use(building, GRAPH_RESIDUAL, building->nodes[node->residual].out);
    blocks->out = schedule_want(building, schedule_map_bytes(building, index));
    schedule_use(building, GRAPH_OUT, blocks->out);
    if (!spec.relu)
        return;
    blocks->mask = schedule_want(building, schedule_map_bytes(building, index) / 16);
    schedule_use(building, GRAPH_MASK, blocks->mask);
    schedule_put(building, GRAPH_ZERO, PLACE_ZERO, 0);
}

static void forward_pool(struct building *building, int index)
{
    const struct node *node = &building->net->nodes[index];
    struct node_blocks *blocks = &building->nodes[index];
    bool max = node->kind == NODE_MAX_POOL;
    struct graph_spec spec = schedule_spec(building, index, max ? GRAPH_MAX_POOL : GRAPH_AVG_POOL);
    spec.infers = max && !building->schedule->trains;
    schedule_graph(building, index, &spec);
    schedule_use(building, GRAPH_X, building->nodes[node->input].out);
    blocks->out = schedule_want(building, schedule_map_bytes(building, index));
    schedule_use(building, GRAPH_OUT, blocks->out);
    if (!max || spec.infers)
        return;
    blocks->index = schedule_want(building, schedule_map_bytes(building, index) / 2);
    schedule_use(building, GRAPH_INDEX, blocks->index);
}

static void forward_fc(struct building *building, int index)
{
    const struct node *node = &building->net->nodes[index];
    schedule_step(building, STEP_FC, index);
    schedule_use(building, GRAPH_X, building->nodes[node->input].out);
    schedule_put(building, GRAPH_W, PLACE_HALVES, node->weight);
    schedule_put(building, GRAPH_BIAS, PLACE_VALUES, node->bias);
    schedule_use(building, GRAPH_OUT, building->schedule->logits);
    schedule_step(building, STEP_LOSS, index);
}

void schedule_forward(struct building *building)
{
    const struct net *net = building->net;
    for (int i = 0; i < net->node_count; i++)
        switch (net->nodes[i].kind) {
        case NODE_INPUT:
            schedule_step(building, STEP_INPUT, i);
            building->nodes[i].out = schedule_want(building, schedule_map_bytes(building, i));
            schedule_use(building, GRAPH_OUT, building->nodes[i].out);
            break;
        case NODE_CONV:
            if (!building->schedule->trains) {
                forward_folded(building, i);
                break;
            }
            forward_conv(building, i);
            forward_norm(building, i);
            break;
        case NODE_MAX_POOL:
        case NODE_AVG_POOL:
        case NODE_GLOBAL_AVG:
            forward_pool(building, i);
            break;
        case NODE_FC:
            forward_fc(building, i);
            break;
        }
}

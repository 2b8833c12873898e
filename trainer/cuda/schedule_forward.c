/* SPDX-License-Identifier: Apache-2.0 */
/* The forward half of a step's list of work: from the unpacked images to the logits. */
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

void schedule_use_input(struct building *building, int input)
{
    const struct node_blocks *blocks = &building->nodes[input];
    if (!schedule_is_virtual(building, input)) {
        schedule_use(building, GRAPH_X, blocks->out);
        return;
    }
    schedule_use(building, GRAPH_X, blocks->y);
    schedule_use(building, GRAPH_IN_SCALE, blocks->scale);
    schedule_use(building, GRAPH_IN_SHIFT, blocks->shift);
}

static void want_statistics(struct building *building, int index)
{
    struct node_blocks *blocks = &building->nodes[index];
    blocks->mean = schedule_want(building, channel_bytes(&building->net->nodes[index]));
    blocks->inverse = schedule_want(building, channel_bytes(&building->net->nodes[index]));
    schedule_use(building, GRAPH_MEAN, blocks->mean);
    schedule_use(building, GRAPH_INVERSE, blocks->inverse);
}

/* Running statistics move in the update, by what all ranks and micro-batches have summed; what the
 * library makes of this batch's is left where it falls. */
static void use_running(struct building *building, const struct node *node)
{
    schedule_put(building, GRAPH_RUNNING_MEAN, PLACE_VALUES, node->running_mean);
    schedule_put(building, GRAPH_RUNNING_VAR, PLACE_VALUES, node->running_var);
    schedule_put(building, GRAPH_FACTOR, PLACE_ONE, 0);
    schedule_use(building, GRAPH_MOVED_MEAN, schedule_want(building, channel_bytes(node)));
    schedule_use(building, GRAPH_MOVED_VAR, schedule_want(building, channel_bytes(node)));
}

/* Of a convolution's sums: BN's statistics, scale and shift. */
static void finalize(struct building *building, int index, int sum, int squares)
{
    const struct node *node = &building->net->nodes[index];
    struct node_blocks *blocks = &building->nodes[index];
    struct graph_spec spec = schedule_spec(building, index, GRAPH_FINALIZE);
    spec.halves = fusion_halves(building->forms, building->net, index);
    schedule_graph(building, index, &spec);
    schedule_use(building, GRAPH_SUM, sum);
    schedule_use(building, GRAPH_SQUARES, squares);
    schedule_put(building, GRAPH_SCALE_OF, PLACE_VALUES, node->gamma);
    schedule_put(building, GRAPH_BIAS, PLACE_VALUES, node->beta);
    schedule_put(building, GRAPH_EPSILON, PLACE_EPSILON, 0);
    schedule_put(building, GRAPH_COUNT, PLACE_COUNT, index);
    want_statistics(building, index);
    use_running(building, node);
    blocks->scale = schedule_want(building, channel_bytes(node));
    blocks->shift = schedule_want(building, channel_bytes(node));
    schedule_use(building, GRAPH_EQ_SCALE, blocks->scale);
    schedule_use(building, GRAPH_EQ_SHIFT, blocks->shift);
}

/* What is added before ReLU: stored, or y and what makes it. */
static void use_residual(struct building *building, int residual)
{
    const struct node_blocks *blocks = &building->nodes[residual];
    if (!schedule_is_virtual(building, residual)) {
        schedule_use(building, GRAPH_RESIDUAL, blocks->out);
        return;
    }
    schedule_use(building, GRAPH_RESIDUAL, blocks->y);
    schedule_use(building, GRAPH_RES_SCALE, blocks->scale);
    schedule_use(building, GRAPH_RES_SHIFT, blocks->shift);
}

/* The end of the block before, which the last step stores. */
static void end_block(struct building *building, int index)
{
    struct node_blocks *blocks = &building->nodes[index];
    schedule_use(building, GRAPH_X, blocks->y);
    schedule_use(building, GRAPH_IN_SCALE, blocks->scale);
    schedule_use(building, GRAPH_IN_SHIFT, blocks->shift);
    use_residual(building, building->net->nodes[index].residual);
    blocks->out = schedule_want(building, schedule_map_bytes(building, index));
    schedule_use(building, GRAPH_OUT, blocks->out);
}

static void forward_conv(struct building *building, int index)
{
    const struct node *node = &building->net->nodes[index];
    const struct graph_spec spec = schedule_conv(building, index);
    schedule_graph(building, index, &spec);
    if (spec.keep)
        end_block(building, node->input);
    else
        schedule_use_input(building, node->input);
    schedule_put(building, GRAPH_W, PLACE_HALVES, node->weight);
    building->nodes[index].y = schedule_want(building, schedule_map_bytes(building, index));
    schedule_use(building, GRAPH_Y, building->nodes[index].y);
    if (!spec.stats)
        return;
    int sum = schedule_want(building, channel_bytes(node));
    int squares = schedule_want(building, channel_bytes(node));
    schedule_use(building, GRAPH_SUM, sum);
    schedule_use(building, GRAPH_SQUARES, squares);
    finalize(building, index, sum, squares);
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

/* Behind the convolution: BN, frozen or not, residual, ReLU. */
static void forward_norm(struct building *building, int index)
{
    const struct node *node = &building->net->nodes[index];
    struct node_blocks *blocks = &building->nodes[index];
    if (blocks->frozen)
        freeze(building, index);
    const struct graph_spec spec = schedule_end(building, index);
    schedule_graph(building, index, &spec);
    schedule_use(building, GRAPH_Y, blocks->y);
    if (spec.kind == GRAPH_SCALE) {
        schedule_use(building, GRAPH_SCALE_OF, blocks->scale);
        schedule_use(building, GRAPH_BIAS, blocks->shift);
    } else {
        schedule_put(building, GRAPH_SCALE_OF, PLACE_VALUES, node->gamma);
        schedule_put(building, GRAPH_BIAS, PLACE_VALUES, node->beta);
        want_statistics(building, index);
        schedule_put(building, GRAPH_EPSILON, PLACE_EPSILON, 0);
    }
    if (spec.residual)
        use_residual(building, node->residual);
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
            if (building->forms[i] <= FORM_STORED)
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

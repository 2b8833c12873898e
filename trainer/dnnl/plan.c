/* SPDX-License-Identifier: Apache-2.0 */
/* Time runs over the nodes forward, 0 .. count - 1, and backward, two steps for each: in the first
 * BN and the gradient of the weights, in the second a convolution's gradient of its input. */
#include "trainer/dnnl/dnnl.h"

static int backward_time(const struct program *program, int index)
{
    return 3 * program->net->node_count - 2 * index;
}

static int data_time(const struct program *program, int index)
{
    return backward_time(program, index) + 1;
}

static int end_time(const struct program *program)
{
    return data_time(program, 0);
}

static size_t map_values(const struct program *program, const struct map *map)
{
    return (size_t)map->batch * (size_t)map->blocks * (size_t)map->height * (size_t)map->width *
           (size_t)backend_cpu_of(program->state)->kernels->block;
}

static size_t map_bytes(const struct program *program, const struct map *map)
{
    return map_values(program, map) * backend_cpu_of(program->state)->kernels->element;
}

static size_t out_bytes(const struct program *program, int index)
{
    const struct node *node = &program->net->nodes[index];
    size_t batch = (size_t)program->config.batch;
    if (node->kind == NODE_INPUT)
        return batch * (size_t)program->input_channels * (size_t)node->out_height *
               (size_t)node->out_width * backend_cpu_of(program->state)->kernels->element;
    if (node->kind == NODE_GLOBAL_AVG || node->kind == NODE_FC)
        return batch * (size_t)node->out_channels * sizeof(float);
    return map_bytes(program, &program->nodes[index].out);
}

static bool weight_is_trained(const struct program *program, int index)
{
    int weight = program->net->nodes[index].weight;
    return weight >= 0 && program->net->tensors[weight].trained;
}

enum { WORTH_AGAIN = 4 << 20 }; /* bytes: maps that no cache keeps until the backward anyway */

/* Whether a convolution's normalised map is made again in the backward, by a pass over what is kept
 * for its own backward, instead of being kept: its only reader is another convolution. */
static bool made_again(const struct program *program, int index)
{
    const struct net *net = program->net;
    const struct node *node = &net->nodes[index];
    int readers = 0, convolutions = 0;
    for (int i = index + 1; i < net->node_count; i++) {
        readers += (net->nodes[i].input == index) + (net->nodes[i].residual == index);
        convolutions += net->nodes[i].input == index && net->nodes[i].kind == NODE_CONV &&
                        weight_is_trained(program, i);
    }
    return program_trains(program) && node->kind == NODE_CONV && node->residual < 0 &&
           program->nodes[index].needs_grad && readers == 1 && convolutions == 1 &&
           out_bytes(program, index) >= WORTH_AGAIN;
}

/* Of a node's output: what reads it last, and in training what needs it for a gradient. */
static int last_use(const struct program *program, int index)
{
    const struct net *net = program->net;
    const struct node *node = &net->nodes[index];
    int last = index;
    for (int reader = index + 1; reader < net->node_count; reader++) {
        bool input = net->nodes[reader].input == index;
        if (!input && net->nodes[reader].residual != index)
            continue;
        bool backward = program_trains(program) && input && weight_is_trained(program, reader) &&
                        !made_again(program, index);
        int time = backward ? backward_time(program, reader) : reader;
        last = time > last ? time : last;
    }
    bool mask = node->kind == NODE_CONV && node->relu && node->residual >= 0;
    if (program_trains(program) && program->nodes[index].needs_grad && mask)
        last = backward_time(program, index);
    return node->kind == NODE_FC ? end_time(program) : last;
}

static size_t scratch_of(const struct conv *conv)
{
    return conv ? conv_scratch_bytes(conv) : 0;
}

/* What the library works in while it computes, and nobody else meanwhile. */
static void scratch_lives(struct program *program, int index)
{
    struct node_plan *plan = &program->nodes[index];
    struct arena *arena = program->arena;
    int weights = backward_time(program, index), data = data_time(program, index);
    plan->blocks.scratch_forward = arena_want(arena, scratch_of(plan->forward), index, index);
    plan->blocks.scratch_weights =
        arena_want(arena, scratch_of(plan->backward_weights), weights, weights);
    plan->blocks.scratch_data = arena_want(arena, scratch_of(plan->backward_data), data, data);
    if (plan->backward_weights)
        plan->blocks.packed_gradient =
            arena_want(arena, conv_packed_bytes(plan->backward_weights), weights, weights);
}

static void forward_lives(struct program *program, int index)
{
    struct node_plan *plan = &program->nodes[index];
    const struct node *node = &program->net->nodes[index];
    struct arena *arena = program->arena;
    int end = end_time(program);
    plan->blocks.out =
        arena_want(arena, out_bytes(program, index), index, last_use(program, index));
    bool backward = program_trains(program) && plan->needs_grad;
    if (node->kind == NODE_CONV) {
        size_t channels =
            (size_t)plan->out.blocks * (size_t)backend_cpu_of(program->state)->kernels->block;
        plan->blocks.params =
            arena_want(arena, channels * (5 * sizeof(float) + 4 * sizeof(double)), 0, end);
        scratch_lives(program, index);
        bool at_use = program_packs_at_use(program);
        plan->blocks.packed_forward = arena_want(arena, conv_packed_bytes(plan->forward),
                                                 at_use ? index : 0, at_use ? index : end);
        int back = data_time(program, index);
        if (plan->backward_data)
            plan->blocks.packed_data = arena_want(arena, conv_packed_bytes(plan->backward_data),
                                                  at_use ? back : 0, at_use ? back : end);
        if (backward)
            plan->blocks.x =
                arena_want(arena, map_bytes(program, &plan->out), index, data_time(program, index));
    }
    if (node->kind == NODE_MAX_POOL && backward)
        plan->blocks.chosen = arena_want(arena, map_values(program, &plan->out), index,
                                         backward_time(program, index));
}

/* Gives a part of the gradient of node `to` to it; false when it has to be added to the first. */
static bool contribute(struct program *program, int to, int block)
{
    struct node_plan *plan = &program->nodes[to];
    if (plan->gradient_count == GRADIENTS)
        return false;
    plan->blocks.gradients[plan->gradient_count++] = block;
    arena_extend(program->arena, block, backward_time(program, to));
    return true;
}

static void backward_lives(struct program *program, int index)
{
    struct node_plan *plan = &program->nodes[index];
    const struct node *node = &program->net->nodes[index];
    int now = backward_time(program, index);
    if (!plan->needs_grad)
        return;
    plan->to_residual = node->residual >= 0 && program->nodes[node->residual].needs_grad;
    if (plan->to_residual)
        plan->add_residual = !contribute(program, node->residual, plan->blocks.gradients[0]);
    if (plan->add_residual) /* at the very end */
        arena_extend(program->arena, plan->blocks.gradients[0], data_time(program, index));
    if (node->kind == NODE_CONV && made_again(program, node->input))
        program->nodes[node->input].blocks.again =
            arena_want(program->arena, out_bytes(program, node->input), now, now);
    if (node->input < 0 || !program->nodes[node->input].needs_grad)
        return;
    int made = node->kind == NODE_CONV ? data_time(program, index) : now;
    plan->blocks.to_input = arena_want(program->arena, out_bytes(program, node->input), made,
                                       data_time(program, index));
    plan->add_input = !contribute(program, node->input, plan->blocks.to_input);
}

int plan_dnnl_end(const struct program *program)
{
    return end_time(program);
}

void plan_dnnl_lives(struct program *program)
{
    const struct net *net = program->net;
    for (int i = 0; i < net->node_count; i++)
        forward_lives(program, i);
    for (int i = net->node_count - 1; i >= 0 && program_trains(program); i--)
        backward_lives(program, i);
}

static void place_params(struct bn *bn, void *memory, size_t channels)
{
    double *wide = memory;
    bn->mean = wide;
    bn->var = wide + channels;
    bn->dgamma = wide + 2 * channels;
    bn->dbeta = wide + 3 * channels;
    float *narrow = (float *)(wide + 4 * channels);
    bn->gamma = narrow;
    bn->beta = narrow + channels;
    bn->scale = narrow + 2 * channels;
    bn->shift = narrow + 3 * channels;
    bn->centre = narrow + 4 * channels;
}

static void place_node(struct program *program, int index)
{
    struct node_plan *plan = &program->nodes[index];
    const struct node_blocks *blocks = &plan->blocks;
    const struct arena *arena = program->arena;
    plan->at = (struct node_memory){.x = arena_at(arena, blocks->x),
                                    .out = arena_at(arena, blocks->out),
                                    .scratch_forward = arena_at(arena, blocks->scratch_forward),
                                    .scratch_weights = arena_at(arena, blocks->scratch_weights),
                                    .scratch_data = arena_at(arena, blocks->scratch_data),
                                    .packed_gradient = arena_at(arena, blocks->packed_gradient),
                                    .again = arena_at(arena, blocks->again),
                                    .chosen = arena_at(arena, blocks->chosen),
                                    .packed_forward = arena_at(arena, blocks->packed_forward),
                                    .packed_data = arena_at(arena, blocks->packed_data),
                                    .to_input = arena_at(arena, blocks->to_input)};
    for (int i = 0; i < plan->gradient_count; i++)
        plan->at.gradients[i] = arena_at(arena, blocks->gradients[i]);
    if (blocks->params >= 0) {
        size_t channels =
            (size_t)plan->out.blocks * (size_t)backend_cpu_of(program->state)->kernels->block;
        place_params(&plan->bn, arena_at(arena, blocks->params), channels);
        plan->bn.partial = program->partial;
    }
}

void plan_dnnl_memory(struct program *program)
{
    const struct arena *arena = program->arena;
    program->staging = arena_at(arena, program->blocks.staging);
    program->partial = arena_at(arena, program->blocks.partial);
    program->dlogits32 = arena_at(arena, program->blocks.dlogits32);
    program->logits = arena_at(arena, program->blocks.logits);
    program->dlogits = arena_at(arena, program->blocks.dlogits);
    for (int i = 0; i < program->net->node_count; i++)
        place_node(program, i);
}

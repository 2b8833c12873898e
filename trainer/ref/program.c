/* SPDX-License-Identifier: Apache-2.0 */
/* Compiling a net for a batch size: which maps live when, and their memory. */
#include "trainer/ref/program.h"

#include <stdlib.h>

#include "common/err.h"
#include "trainer/checks.h"

static void *take(struct program *program, size_t count, size_t size, int *code)
{
    void *memory = NULL;
    if (!*code && program->owned_count < program->owned_room)
        memory = calloc(count ? count : 1, size);
    if (!memory) {
        *code = err_set(ERR_NOMEM, "no memory for %s at a batch of %d", program->net->model,
                        program->config.batch);
        return NULL;
    }
    program->owned[program->owned_count++] = memory;
    program->bytes += count * size;
    return memory;
}

static size_t map_size(const struct program *program, const struct node *node)
{
    return (size_t)program->config.batch * node->out_height * node->out_width *
           pitch_of(node->out_channels);
}

static bool is_trained(const struct net *net, int tensor)
{
    return tensor >= 0 && net->tensors[tensor].trained;
}

static void find_gradients(struct program *program)
{
    const struct net *net = program->net;
    for (int i = 0; i < net->node_count; i++) {
        const struct node *node = &net->nodes[i];
        program->nodes[i].needs_grad =
            is_trained(net, node->weight) || is_trained(net, node->bias) ||
            is_trained(net, node->gamma) || is_trained(net, node->beta) ||
            (node->input >= 0 && program->nodes[node->input].needs_grad) ||
            (node->residual >= 0 && program->nodes[node->residual].needs_grad);
    }
}

/* The last node that reads node i's output. */
static int last_reader(const struct net *net, int i)
{
    int last = i;
    for (int reader = i + 1; reader < net->node_count; reader++)
        if (net->nodes[reader].input == i || net->nodes[reader].residual == i)
            last = reader;
    return last;
}

/* Outputs live until their last reader when nothing will go backward over them; gradients from the
 * last reader's turn in the backward, which begins at time node_count, to the node's own. */
static void find_lifetimes(struct plan_block *outputs, struct plan_block *gradients,
                           const struct program *program)
{
    const struct net *net = program->net;
    int count = net->node_count;
    for (int i = 0; i < count; i++) {
        int last = last_reader(net, i);
        size_t size = map_size(program, &net->nodes[i]);
        outputs[i] = (struct plan_block){i, program_trains(program) ? count : last, size};
        gradients[i] = (struct plan_block){2 * count - last, 2 * count - i,
                                           program->nodes[i].needs_grad ? size : 0};
    }
}

/* Plans and allocates one kind of map; maps[i] NULL where it is not wanted. */
static void allocate_maps(real **maps, struct program *program, const struct plan_block *blocks,
                          int *code)
{
    size_t count = (size_t)program->net->node_count;
    int *buffer = calloc(count, sizeof *buffer);
    size_t *sizes = calloc(count, sizeof *sizes);
    real **memory = calloc(count, sizeof *memory);
    if (buffer && sizes && memory) {
        int buffers = plan_ref(buffer, sizes, blocks, (int)count);
        for (int b = 0; b < buffers; b++)
            memory[b] = take(program, sizes[b], sizeof(real), code);
        for (size_t i = 0; i < count; i++)
            maps[i] = buffer[i] < 0 ? NULL : memory[buffer[i]];
    } else {
        *code = err_set(ERR_NOMEM, "no memory for planning %s", program->net->model);
    }
    free(buffer);
    free(sizes);
    free(memory);
}

static void allocate_nodes(struct program *program, int *code)
{
    const struct net *net = program->net;
    size_t count = (size_t)net->node_count;
    struct plan_block *outputs = calloc(count, sizeof *outputs);
    struct plan_block *gradients = calloc(count, sizeof *gradients);
    real **maps = calloc(2 * count, sizeof *maps);
    if (!outputs || !gradients || !maps) {
        *code = err_set(ERR_NOMEM, "no memory for planning %s", net->model);
        goto done;
    }
    find_lifetimes(outputs, gradients, program);
    allocate_maps(maps, program, outputs, code);
    if (program_trains(program))
        allocate_maps(maps + count, program, gradients, code);
    for (size_t i = 0; i < count; i++) {
        const struct node *node = &net->nodes[i];
        struct node_memory *memory = &program->nodes[i];
        memory->out = maps[i];
        memory->grad = maps[count + i];
        if (node->kind != NODE_CONV || !program_trains(program))
            continue;
        memory->y = take(program, map_size(program, node), sizeof(real), code);
        memory->mean = take(program, (size_t)node->out_channels, sizeof(double), code);
        memory->var = take(program, (size_t)node->out_channels, sizeof(double), code);
    }
done:
    free(outputs);
    free(gradients);
    free(maps);
}

static void allocate_scratch(struct program *program, int *code)
{
    const struct net *net = program->net;
    size_t packed = 1, widest = (size_t)pitch_of(net->channels), largest = 1;
    for (int i = 0; i < net->node_count; i++) {
        const struct node *node = &net->nodes[i];
        if (node->weight >= 0 && conv_ref_packed(node) > packed)
            packed = conv_ref_packed(node);
        if (node->weight >= 0 && net->tensors[node->weight].count > largest)
            largest = net->tensors[node->weight].count;
        if ((size_t)pitch_of(node->out_channels) > widest)
            widest = (size_t)pitch_of(node->out_channels);
    }
    size_t batch = (size_t)program->config.batch, logits = batch * (size_t)net->classes;
    program->packed = take(program, packed, sizeof(real), code);
    if (program->state->backend->halves || program->state->backend->bf16)
        program->rounded = take(program, largest, sizeof(real), code);
    program->zeros = take(program, widest, sizeof(real), code);
    program->partial = take(program, 2 * (batch + 1) * widest, sizeof(double), code);
    program->scale = take(program, widest, sizeof(double), code);
    program->shift = take(program, widest, sizeof(double), code);
    program->logits = take(program, logits, sizeof(double), code);
    program->dlogits = take(program, logits, sizeof(double), code);
}

/* What a program cannot be. */
static int check(const struct program *program)
{
    const struct program *teacher = program->config.teacher;
    int code = checks_program(&program->config, program->net);
    return code || !teacher
               ? code
               : checks_teacher(&teacher->config, teacher->net, &program->config, program->net);
}

int program_ref_open(struct program **out, struct state *state, const struct program_config *config)
{
    *out = NULL;
    struct program *program = calloc(1, sizeof *program);
    if (!program)
        return err_set(ERR_NOMEM, "no memory for a program");
    program->state = state;
    program->config = *config;
    int code = net_copy(&program->net, state->net);
    if (code)
        goto fail;
    int size_px = config->size_px ? config->size_px : program->net->size_px;
    if ((code = net_reshape(program->net, size_px)) != 0 || (code = check(program)) != 0)
        goto fail;
    size_t nodes = (size_t)program->net->node_count;
    program->owned_room = (int)(5 * nodes) + 16;
    program->nodes = calloc(nodes, sizeof *program->nodes);
    program->forms = calloc(nodes, sizeof *program->forms);
    program->owned = calloc((size_t)program->owned_room, sizeof *program->owned);
    if (!program->nodes || !program->forms || !program->owned) {
        code = err_set(ERR_NOMEM, "no memory for a program");
        goto fail;
    }
    find_gradients(program);
    if (program_trains(program))
        fusion_forms(program->forms, program->net, state->backend->fusion);
    allocate_nodes(program, &code);
    allocate_scratch(program, &code);
    if (!code && program_trains(program))
        code = state_ref_split(state, config->bucket_bytes);
    if (code)
        goto fail;
    *out = program;
    return 0;
fail:
    program_ref_close(program);
    return code;
}

void program_ref_close(struct program *program)
{
    if (!program)
        return;
    for (int i = 0; i < program->owned_count; i++)
        free(program->owned[i]);
    free(program->owned);
    free(program->nodes);
    free(program->forms);
    net_close(program->net);
    free(program);
}

size_t program_ref_bytes(const struct program *program)
{
    return program->bytes;
}

double program_ref_seconds(const struct program *program)
{
    return program->seconds;
}

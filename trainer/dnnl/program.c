/* SPDX-License-Identifier: Apache-2.0 */
/* Compiling a net for a batch size: layouts, primitives, memory. */
#include <omp.h>
#include <stdlib.h>

#include "common/err.h"
#include "common/log.h"
#include "trainer/checks.h"
#include "trainer/dnnl/dnnl.h"

static bool is_trained(const struct net *net, int tensor)
{
    return tensor >= 0 && net->tensors[tensor].trained;
}

static int blocks_of(const struct program *program, int channels)
{
    int block = backend_cpu_of(program->state)->kernels->block;
    return (channels + block - 1) / block;
}

static void describe_nodes(struct program *program)
{
    const struct net *net = program->net;
    for (int i = 0; i < net->node_count; i++) {
        const struct node *node = &net->nodes[i];
        struct node_plan *plan = &program->nodes[i];
        int batch = program->config.batch;
        plan->in = (struct map){batch, blocks_of(program, node->in_channels), node->in_height,
                                node->in_width};
        plan->out = (struct map){batch, blocks_of(program, node->out_channels), node->out_height,
                                 node->out_width};
        plan->blocks =
            (struct node_blocks){-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, {-1, -1}};
        plan->frozen = net_bn_frozen(net, node);
        plan->needs_grad = is_trained(net, node->weight) || is_trained(net, node->bias) ||
                           is_trained(net, node->gamma) || is_trained(net, node->beta) ||
                           (node->input >= 0 && program->nodes[node->input].needs_grad) ||
                           (node->residual >= 0 && program->nodes[node->residual].needs_grad);
    }
}

static struct conv_shape shape_of(const struct program *program, const struct node *node)
{
    const int block = backend_cpu_of(program->state)->kernels->block;
    return (struct conv_shape){
        .batch = program->config.batch,
        .in_channels = node->in_channels,
        .in_height = node->in_height,
        .in_width = node->in_width,
        .out_channels = node->out_channels,
        .out_height = node->out_height,
        .out_width = node->out_width,
        .kernel = node->kernel,
        .stride = node->stride,
        .pad = node->pad,
        .block = block,
        .bf16 = backend_cpu_of(program->state)->bf16,
        .plain_input = node->input == 0 && program->input_block == 1,
        .plain_channels = program->input_channels,
    };
}

/* Whether the library has fast code for the convolution with this layout of the input. */
static int try_input(bool *fast, const struct program *program, const struct node *node)
{
    const struct conv_shape shape = shape_of(program, node);
    struct engine *engine = backend_cpu_of(program->state)->engine;
    *fast = true;
    for (int pass = 0; pass < (program_trains(program) ? 2 : 1); pass++) {
        struct conv *conv;
        int code = conv_open(&conv, engine, &shape, pass ? CONV_BACKWARD_WEIGHTS : CONV_FORWARD,
                             false, false);
        if (code)
            return code;
        if (conv_is_slow(conv))
            *fast = false;
        conv_close(conv);
    }
    return 0;
}

/* The layout in which the first convolution reads the pixels: their own channels, padded to three
 * (for AVX2 the library has fast code for three channels but not for the gradient with one), or
 * blocked as everything else, which is also what other readers need. */
static int choose_input(struct program *program)
{
    const struct net *net = program->net;
    const int block = backend_cpu_of(program->state)->kernels->block;
    const struct node *first = NULL;
    bool plain = true;
    for (int i = 1; i < net->node_count; i++) {
        const struct node *node = &net->nodes[i];
        if (node->input == 0 && node->kind == NODE_CONV && !first)
            first = node;
        if ((node->input == 0 && node->kind != NODE_CONV) || node->residual == 0)
            plain = false;
    }
    const struct {
        int block, channels;
    } choices[] = {{1, net->channels}, {1, 3}, {block, conv_rounded(net->channels, block)}};
    for (int i = plain && first ? 0 : 2; i < 3; i++) {
        bool fast = true;
        if (choices[i].channels < net->channels)
            continue;
        program->input_block = choices[i].block;
        program->input_channels = choices[i].channels;
        int code = i < 2 ? try_input(&fast, program, first) : 0;
        if (code || fast)
            return code;
    }
    return 0;
}

static int open_pass(struct conv **out, const struct program *program, int index,
                     enum conv_pass pass)
{
    const struct node *node = &program->net->nodes[index];
    const struct conv_shape shape = shape_of(program, node);
    bool infer = !program_trains(program);
    int code = conv_open(out, backend_cpu_of(program->state)->engine, &shape, pass, infer,
                         infer && node->relu && node->residual < 0);
    if (!code && conv_is_slow(*out))
        log_verbose("oneDNN has only slow code (%s) for node %d of %s, pass %d",
                    conv_implementation(*out), index, program->net->model, (int)pass);
    return code;
}

static int open_convolution(struct program *program, int index)
{
    const struct node *node = &program->net->nodes[index];
    struct node_plan *plan = &program->nodes[index];
    int code = open_pass(&plan->forward, program, index, CONV_FORWARD);
    if (code || !program_trains(program))
        return code;
    if (is_trained(program->net, node->weight))
        code = open_pass(&plan->backward_weights, program, index, CONV_BACKWARD_WEIGHTS);
    if (!code && program->nodes[node->input].needs_grad)
        code = open_pass(&plan->backward_data, program, index, CONV_BACKWARD_DATA);
    return code;
}

/* What the shared work space must hold for one pass. */
static void measure(size_t *staging, const struct conv *conv)
{
    if (conv && conv_staging_bytes(conv) > *staging)
        *staging = conv_staging_bytes(conv);
}

static void want_shared(struct program *program)
{
    const struct net *net = program->net;
    size_t staging = 0, widest = 0;
    for (int i = 0; i < net->node_count; i++) {
        const struct node_plan *plan = &program->nodes[i];
        measure(&staging, plan->forward);
        measure(&staging, plan->backward_data);
        measure(&staging, plan->backward_weights);
        if ((size_t)plan->out.blocks > widest)
            widest = (size_t)plan->out.blocks;
    }
    size_t batch = (size_t)program->config.batch, logits = batch * (size_t)net->classes;
    size_t block = (size_t)backend_cpu_of(program->state)->kernels->block;
    struct arena *arena = program->arena;
    int end = plan_dnnl_end(program);
    program->blocks.staging = arena_want(arena, staging, 0, end);
    program->blocks.partial =
        arena_want(arena, 2 * batch * widest * block * sizeof(double), 0, end);
    program->blocks.logits = arena_want(arena, logits * sizeof(double), 0, end);
    program->blocks.dlogits = arena_want(arena, logits * sizeof(double), 0, end);
    program->blocks.dlogits32 = arena_want(arena, logits * sizeof(float), 0, end);
}

static int check_node(const struct program *program, int index)
{
    const struct net *net = program->net;
    const struct node *node = &net->nodes[index];
    const struct node *input = node->input < 0 ? NULL : &net->nodes[node->input];
    int readers = 0;
    for (int i = index + 1; i < net->node_count; i++)
        readers += net->nodes[i].input == index || net->nodes[i].residual == index;
    if (!readers && index < net->node_count - 1)
        return err_set(ERR_UNSUPPORTED, "dnnl: nothing reads node %d of %s", index, net->model);
    if (input && (input->kind == NODE_GLOBAL_AVG) != (node->kind == NODE_FC))
        return err_set(ERR_UNSUPPORTED,
                       "dnnl: an FC follows a global average and nothing else does (node %d of %s)",
                       index, net->model);
    if (node->kind == NODE_MAX_POOL && node->kernel > 15)
        return err_set(ERR_UNSUPPORTED, "dnnl: a max pool of %d pixels is too wide", node->kernel);
    return 0;
}

static int check(const struct program *program)
{
    const struct net *net = program->net;
    const struct program *teacher = program->config.teacher;
    int code = checks_program(&program->config, net);
    for (int i = 0; i < net->node_count && !code; i++)
        code = check_node(program, i);
    return code || !teacher ? code
                            : checks_teacher(&teacher->config, teacher->net, &program->config, net);
}

static int compile(struct program *program)
{
    const struct net *net = program->net;
    /* Primitives are made for as many threads as OpenMP has. */
    omp_set_num_threads(program->state->backend->threads);
    describe_nodes(program);
    int code = check(program);
    if (!code)
        code = choose_input(program);
    for (int i = 0; i < net->node_count && !code; i++)
        if (net->nodes[i].kind == NODE_CONV)
            code = open_convolution(program, i);
    if (code)
        return code;
    want_shared(program);
    plan_dnnl_lives(program);
    code = arena_place(program->arena);
    if (!code)
        plan_dnnl_memory(program);
    return code;
}

int program_dnnl_open(struct program **out, struct state *state,
                      const struct program_config *config)
{
    *out = NULL;
    struct program *program = calloc(1, sizeof *program);
    if (!program)
        return err_set(ERR_NOMEM, "no memory for a program");
    program->state = state;
    program->config = *config;
    program->version = UINT64_MAX; /* no weights are packed yet */
    int code = net_copy(&program->net, state->net);
    if (!code && config->size_px)
        code = net_reshape(program->net, config->size_px);
    if (code)
        goto fail;
    program->nodes = calloc((size_t)program->net->node_count, sizeof *program->nodes);
    program->arena = arena_open();
    if (!program->nodes || !program->arena) {
        code = err_set(ERR_NOMEM, "no memory for a program");
        goto fail;
    }
    code = compile(program);
    if (!code && program_trains(program))
        code = state_ref_split(state, config->bucket_bytes);
    if (code)
        goto fail;
    *out = program;
    return 0;
fail:
    program_dnnl_close(program);
    return code;
}

void program_dnnl_close(struct program *program)
{
    if (!program)
        return;
    for (int i = 0; program->nodes && i < program->net->node_count; i++) {
        conv_close(program->nodes[i].forward);
        conv_close(program->nodes[i].backward_data);
        conv_close(program->nodes[i].backward_weights);
    }
    free(program->nodes);
    free(program->profile);
    arena_close(program->arena);
    net_close(program->net);
    free(program);
}

size_t program_dnnl_bytes(const struct program *program)
{
    return arena_bytes(program->arena);
}

double program_dnnl_seconds(const struct program *program)
{
    return program->seconds;
}

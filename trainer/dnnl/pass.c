/* SPDX-License-Identifier: Apache-2.0 */
/* The passes of a program: forward node by node, loss, backward in reverse. */
#include <math.h>
#include <omp.h>
#include <string.h>

#include "common/clock.h"
#include "common/err.h"
#include "trainer/checks.h"
#include "trainer/dnnl/dnnl.h"
#include "trainer/loss.h"
#include "trainer/unpack.h"

static const struct kernels *kernels_of(const struct program *program)
{
    return backend_cpu_of(program->state)->kernels;
}

static int threads_of(const struct program *program)
{
    return program->state->backend->threads;
}

/* BN with running statistics as one multiplication and one addition. */
static void fold_running(const struct state *state, const struct node *node, struct bn *bn)
{
    const float *mean = state_values(state, node->running_mean);
    const float *var = state_values(state, node->running_var);
    for (int c = 0; c < node->out_channels; c++) {
        double inverse = 1.0 / sqrt((double)var[c] + NET_BN_EPSILON);
        bn->mean[c] = mean[c];
        bn->var[c] = var[c];
        bn->centre[c] = mean[c];
        bn->scale[c] = (float)(bn->gamma[c] * inverse);
        bn->shift[c] = (float)(bn->beta[c] - mean[c] * (bn->gamma[c] * inverse));
    }
}

/* Into the layout of a pass. */
static int pack(struct program *program, int index, struct conv *conv, void *packed,
                const float *scale)
{
    double mark_s = profile_dnnl_mark(program);
    const float *weights = state_values(program->state, program->net->nodes[index].weight);
    int code = conv_pack(conv, packed, weights, scale, program->staging);
    profile_dnnl_add(program, index, WORK_PACK, mark_s);
    return code;
}

static int renew_node(struct program *program, int index)
{
    const struct node *node = &program->net->nodes[index];
    const struct state *state = program->state;
    struct node_plan *plan = &program->nodes[index];
    if (node->kind != NODE_CONV)
        return 0;
    size_t bytes = (size_t)node->out_channels * sizeof(float);
    memcpy((float *)plan->bn.gamma, state_values(state, node->gamma), bytes);
    memcpy((float *)plan->bn.beta, state_values(state, node->beta), bytes);
    if (!program_trains(program) || plan->frozen)
        fold_running(state, node, &plan->bn);
    if (program_packs_at_use(program))
        return 0;
    const float *scale = program_trains(program) ? NULL : plan->bn.scale;
    int code = pack(program, index, plan->forward, plan->at.packed_forward, scale);
    if (!code && plan->backward_data)
        code = pack(program, index, plan->backward_data, plan->at.packed_data, NULL);
    return code;
}

/* Copies of the weights in the layouts of the passes. */
static int renew(struct program *program)
{
    if (program->version == program->state->version)
        return 0;
    for (int i = 0; i < program->net->node_count; i++) {
        int code = renew_node(program, i);
        if (code)
            return code;
    }
    program->version = program->state->version;
    return 0;
}

/* Leaves the batch's statistics, the variance unbiased, in the slot. */
static void store_statistics(const struct program *program, int index, int slot)
{
    const struct node *node = &program->net->nodes[index];
    const struct bn *bn = &program->nodes[index].bn;
    double count = (double)program->samples * node->out_height * node->out_width;
    float *mean = state_slot(program->state, slot, node->running_mean);
    float *var = state_slot(program->state, slot, node->running_var);
    for (int c = 0; c < node->out_channels; c++) {
        mean[c] = (float)bn->mean[c];
        var[c] = (float)(bn->var[c] * count / (count - 1.0));
    }
}

static int forward_conv(struct program *program, int index, int slot)
{
    const struct node *node = &program->net->nodes[index];
    struct node_plan *plan = &program->nodes[index];
    const struct kernels *kernels = kernels_of(program);
    const void *residual = node->residual < 0 ? NULL : program->nodes[node->residual].at.out;
    void *x = plan->at.x ? plan->at.x : plan->at.out;
    const struct conv_data data = {.in = program->nodes[node->input].at.out,
                                   .weights = plan->at.packed_forward,
                                   .out = x,
                                   .scratch = plan->at.scratch_forward,
                                   .bias = plan->bn.shift};
    int code = 0, threads = threads_of(program);
    if (program_packs_at_use(program))
        code = pack(program, index, plan->forward, plan->at.packed_forward, NULL);
    double mark_s = profile_dnnl_mark(program);
    if (!code)
        code = conv_run(plan->forward, &data);
    if (code)
        return code;
    mark_s = profile_dnnl_add(program, index, WORK_CONV, mark_s);
    if (!program_trains(program)) {
        if (residual)
            kernels->add(x, residual, node->relu, &plan->out, threads);
    } else if (plan->frozen) {
        kernels->bn_apply(plan->at.out, x, residual, node->relu, &plan->bn, &plan->out, threads);
    } else {
        kernels->bn_forward(plan->at.out, x, residual, node->relu, &plan->bn, &plan->out, threads);
        store_statistics(program, index, slot);
    }
    profile_dnnl_add(program, index, WORK_BN, mark_s);
    return 0;
}

static int forward_fc(struct program *program, int index)
{
    const struct node *node = &program->net->nodes[index];
    const struct state *state = program->state;
    const float *bias = state_values(state, node->bias);
    float *logits = program->nodes[index].at.out;
    int batch = program->config.batch, classes = node->out_channels;
    int code =
        matrix_product(logits, program->nodes[node->input].at.out, false,
                       state_values(state, node->weight), true, batch, classes, node->in_channels);
    for (int n = 0; n < batch; n++)
        for (int k = 0; k < classes; k++) {
            size_t at = (size_t)n * (size_t)classes + (size_t)k;
            program->logits[at] = logits[at] += bias[k];
        }
    return code;
}

static int forward_node(struct program *program, const struct batch *batch, int index, int slot)
{
    const struct node *node = &program->net->nodes[index];
    struct node_plan *plan = &program->nodes[index];
    const struct kernels *kernels = kernels_of(program);
    const void *in = node->input < 0 ? NULL : program->nodes[node->input].at.out;
    int threads = threads_of(program);
    switch (node->kind) {
    case NODE_INPUT:
        pixels_dnnl_load(plan->at.out, batch, program);
        break;
    case NODE_CONV:
        return forward_conv(program, index, slot);
    case NODE_MAX_POOL:
        kernels->max_forward(plan->at.out, plan->at.chosen, in, node->kernel, node->stride,
                             node->pad, &plan->in, &plan->out, threads);
        break;
    case NODE_AVG_POOL:
        kernels->avg_forward(plan->at.out, in, node->kernel, node->stride, node->pad, &plan->in,
                             &plan->out, threads);
        break;
    case NODE_GLOBAL_AVG:
        kernels->global_forward(plan->at.out, in, node->in_channels, &plan->in, threads);
        break;
    case NODE_FC:
        return forward_fc(program, index);
    }
    return 0;
}

/* Of nodes that are one kind of work; a convolution counts its own. */
static void add_other_work(struct program *program, int index, double mark_s)
{
    enum node_kind kind = program->net->nodes[index].kind;
    if (kind != NODE_CONV)
        profile_dnnl_add(program, index,
                         kind == NODE_INPUT ? WORK_INPUT
                         : kind == NODE_FC  ? WORK_CLASSIFIER
                                            : WORK_POOL,
                         mark_s);
}

static int forward(struct program *program, const struct batch *batch, int slot)
{
    program->samples = batch->samples;
    int code = renew(program);
    for (int i = 0; i < program->net->node_count && !code; i++) {
        double mark_s = profile_dnnl_mark(program);
        code = forward_node(program, batch, i, slot);
        add_other_work(program, i, mark_s);
    }
    return code;
}

static void store_gradient(float *dst, const double *src, int count)
{
    for (int c = 0; dst && c < count; c++)
        dst[c] = (float)src[c];
}

/* The library's code, or where that is slow (and the input blocked) our own. */
static int backward_weights(struct program *program, int index, const struct conv_data *data,
                            float *gradient)
{
    const struct node *node = &program->net->nodes[index];
    const struct node_plan *plan = &program->nodes[index];
    double mark_s = profile_dnnl_mark(program);
    if (conv_is_slow(plan->backward_weights) && (node->input > 0 || program->input_block > 1)) {
        kernels_of(program)->conv_weights(gradient, data->in, data->out, node->in_channels,
                                          node->out_channels, node->kernel, node->stride, node->pad,
                                          &plan->in, &plan->out, threads_of(program));
        profile_dnnl_add(program, index, WORK_CONV_WEIGHTS, mark_s);
        return 0;
    }
    int code = conv_run(plan->backward_weights, data);
    mark_s = profile_dnnl_add(program, index, WORK_CONV_WEIGHTS, mark_s);
    if (!code)
        code = conv_unpack(plan->backward_weights, gradient, plan->at.packed_gradient,
                           program->staging);
    profile_dnnl_add(program, index, WORK_UNPACK, mark_s);
    return code;
}

/* What a convolution read, kept or made again. */
static void *input_of(struct program *program, int index)
{
    int input = program->net->nodes[index].input;
    const struct node_plan *plan = &program->nodes[input];
    if (!plan->at.again)
        return plan->at.out;
    double mark_s = profile_dnnl_mark(program);
    kernels_of(program)->bn_apply(plan->at.again, plan->at.x, NULL, program->net->nodes[input].relu,
                                  &plan->bn, &plan->out, threads_of(program));
    profile_dnnl_add(program, input, WORK_BN, mark_s);
    return plan->at.again;
}

static int backward_data(struct program *program, int index, struct conv_data *data)
{
    const struct node_plan *plan = &program->nodes[index];
    int code = 0;
    if (program_packs_at_use(program))
        code = pack(program, index, plan->backward_data, plan->at.packed_data, NULL);
    double mark_s = profile_dnnl_mark(program);
    data->in = plan->at.to_input;
    data->weights = plan->at.packed_data;
    data->scratch = plan->at.scratch_data;
    if (!code)
        code = conv_run(plan->backward_data, data);
    profile_dnnl_add(program, index, WORK_CONV_DATA, mark_s);
    return code;
}

static int backward_conv(struct program *program, int index, int slot)
{
    const struct node *node = &program->net->nodes[index];
    const struct state *state = program->state;
    struct node_plan *plan = &program->nodes[index];
    void *const *gradients = plan->at.gradients;
    const void *y = node->residual < 0 ? NULL : plan->at.out;
    bool keep = plan->to_residual && (node->relu || gradients[1]);
    double mark_s = profile_dnnl_mark(program);
    kernels_of(program)->bn_backward(plan->at.x, gradients[0], gradients[1], y, node->relu, keep,
                                     plan->frozen, &plan->bn, &plan->out, threads_of(program));
    store_gradient(state_slot(state, slot, node->gamma), plan->bn.dgamma, node->out_channels);
    store_gradient(state_slot(state, slot, node->beta), plan->bn.dbeta, node->out_channels);
    profile_dnnl_add(program, index, WORK_BN_BACKWARD, mark_s);
    struct conv_data data = {.weights = plan->at.packed_gradient,
                             .out = plan->at.x,
                             .scratch = plan->at.scratch_weights};
    int code = 0;
    if (plan->backward_weights) {
        data.in = input_of(program, index);
        code = backward_weights(program, index, &data, state_slot(state, slot, node->weight));
    }
    if (!code && plan->backward_data)
        code = backward_data(program, index, &data);
    return code;
}

static int backward_fc(struct program *program, int index, int slot)
{
    const struct node *node = &program->net->nodes[index];
    const struct state *state = program->state;
    const struct node_plan *plan = &program->nodes[index];
    int batch = program->config.batch, classes = node->out_channels, features = node->in_channels;
    float *bias = state_slot(state, slot, node->bias);
    float *weights = state_slot(state, slot, node->weight);
    for (int k = 0; bias && k < classes; k++) {
        double sum = 0;
        for (int n = 0; n < batch; n++)
            sum += program->dlogits32[(size_t)n * (size_t)classes + (size_t)k];
        bias[k] = (float)sum;
    }
    int code = 0;
    if (weights)
        code = matrix_product(weights, program->dlogits32, true, program->nodes[node->input].at.out,
                              false, classes, features, batch);
    if (!code && plan->at.to_input)
        code = matrix_product(plan->at.to_input, program->dlogits32, false,
                              state_values(state, node->weight), false, batch, features, classes);
    return code;
}

static int backward_node(struct program *program, int index, int slot)
{
    const struct node *node = &program->net->nodes[index];
    const struct node_plan *plan = &program->nodes[index];
    const struct kernels *kernels = kernels_of(program);
    const struct node_memory *at = &plan->at;
    int threads = threads_of(program), code = 0;
    double mark_s = profile_dnnl_mark(program);
    if (node->kind == NODE_CONV)
        code = backward_conv(program, index, slot);
    if (node->kind == NODE_FC)
        code = backward_fc(program, index, slot);
    if (node->kind == NODE_MAX_POOL && at->to_input)
        kernels->max_backward(at->to_input, at->gradients[0], at->gradients[1], at->chosen,
                              node->kernel, node->stride, node->pad, &plan->in, &plan->out,
                              threads);
    if (node->kind == NODE_AVG_POOL && at->to_input)
        kernels->avg_backward(at->to_input, at->gradients[0], at->gradients[1], node->kernel,
                              node->stride, node->pad, &plan->in, &plan->out, threads);
    if (node->kind == NODE_GLOBAL_AVG && at->to_input)
        kernels->global_backward(at->to_input, at->gradients[0], node->in_channels, &plan->in,
                                 threads);
    add_other_work(program, index, mark_s);
    mark_s = profile_dnnl_mark(program);
    if (plan->add_residual)
        kernels->add(program->nodes[node->residual].at.gradients[0], at->gradients[0], false,
                     &plan->out, threads);
    if (plan->add_input)
        kernels->add(program->nodes[node->input].at.gradients[0], at->to_input, false, &plan->in,
                     threads);
    if (plan->add_residual || plan->add_input)
        profile_dnnl_add(program, index, WORK_ADD, mark_s);
    return code;
}

struct announcer { /* of buckets whose content is complete */
    void (*ready)(void *user, int bucket);
    void *user;
    int next;
};

static void announce(struct announcer *announcer, const struct state *state, size_t complete)
{
    while (announcer->next < state->bucket_total &&
           state->bucket_ends[announcer->next] <= complete) {
        if (announcer->ready)
            announcer->ready(announcer->user, announcer->next);
        announcer->next++;
    }
}

/* Where the gradients of a node end in a slot; 0 when it has none. */
static size_t gradients_end(const struct state *state, const struct node *node)
{
    const int tensors[] = {node->weight, node->bias, node->gamma, node->beta};
    size_t end = 0;
    for (int i = 0; i < 4; i++) {
        int tensor = tensors[i];
        if (tensor < 0 || state->slot_at[tensor] == NOWHERE)
            continue;
        size_t after = state->slot_at[tensor] + state->net->tensors[tensor].count;
        end = after > end ? after : end;
    }
    return end;
}

static int backward(struct program *program, int slot, struct announcer *announcer)
{
    const struct net *net = program->net;
    size_t logits = (size_t)program->samples * (size_t)net->classes;
    for (size_t i = 0; i < logits; i++)
        program->dlogits32[i] = (float)program->dlogits[i];
    for (int i = net->node_count - 1; i > 0; i--) {
        int code = program->nodes[i].needs_grad ? backward_node(program, i, slot) : 0;
        if (code)
            return code;
        announce(announcer, program->state, gradients_end(program->state, &net->nodes[i]));
    }
    announce(announcer, program->state, program->state->slot_count);
    return 0;
}

static void store_metrics(struct state *state, int slot, const struct loss_sums *sums)
{
    float *metrics = state_slot_metrics(state, slot);
    metrics[0] = (float)sums->loss;
    metrics[1] = (float)sums->top1;
    metrics[2] = (float)sums->top5;
    metrics[3] = (float)sums->samples;
    if (slot == state->updated_slot)
        state->updated_slot = -1;
}

int pass_dnnl_run(struct program *program, const struct batch *batch, int slot, double loss_factor,
                  void (*bucket_ready)(void *user, int bucket), void *user)
{
    bool train = program_trains(program);
    struct program *teacher = train ? program->config.teacher : NULL;
    int code =
        checks_batch(batch, &program->config, program->net, slot, program->state->slot_total);
    /* The library takes as many threads as OpenMP has; they belong to the thread that calls. */
    omp_set_num_threads(threads_of(program));
    double start_s = clock_seconds();
    if (!code && teacher) {
        code = forward(teacher, batch, -1);
        double now_s = clock_seconds();
        teacher->seconds += now_s - start_s;
        start_s = now_s;
    }
    if (!code)
        code = forward(program, batch, slot);
    if (code)
        return code;
    struct loss_sums sums;
    loss_batch(&sums, train ? program->dlogits : NULL, program->logits,
               teacher ? teacher->logits : NULL, batch->labels, batch->samples,
               program->net->classes, train ? &program->config.loss : &loss_plain, loss_factor);
    store_metrics(program->state, slot, &sums);
    struct announcer announcer = {.ready = bucket_ready, .user = user};
    if (train)
        code = backward(program, slot, &announcer);
    program->seconds += clock_seconds() - start_s;
    return code;
}

int pass_dnnl_logits(float *dst, struct program *program)
{
    size_t count = (size_t)program->samples * (size_t)program->net->classes;
    for (size_t i = 0; i < count; i++)
        dst[i] = (float)program->logits[i];
    return 0;
}

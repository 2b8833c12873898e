/* SPDX-License-Identifier: Apache-2.0 */
/* The passes of a program: forward node by node, loss, backward in reverse. */
#include <math.h>
#include <string.h>

#include "common/clock.h"
#include "common/err.h"
#include "trainer/checks.h"
#include "trainer/loss.h"
#include "trainer/ref/program.h"
#include "trainer/unpack.h"

enum { RUN_VALUES = 1024 }; /* of the input that are unpacked at a time */

static struct op op_of(const struct program *program, int index)
{
    return (struct op){.node = &program->net->nodes[index],
                       .batch = program->samples,
                       .threads = program->state->backend->threads,
                       .packed = program->packed,
                       .zeros = program->zeros,
                       .partial = program->partial};
}

static void load_pixels(real *dst, const struct batch *batch, const struct program *program)
{
    const struct net *net = program->net;
    int channels = net->channels, pitch = pitch_of(channels);
    size_t image = (size_t)net->size_px * net->size_px, run = RUN_VALUES / channels;
    for (int n = 0; n < batch->samples; n++) {
        for (size_t begin = 0, count; begin < image; begin += count) {
            float values[RUN_VALUES];
            count = image - begin < run ? image - begin : run;
            unpack_pixels(values, batch, &program->config.input, net, n, begin, count);
            for (size_t p = 0; p < count; p++, dst += pitch)
                for (int c = 0; c < channels; c++)
                    dst[c] = values[p * channels + c];
        }
    }
}

/* BN as one multiplication and one addition a channel. */
static void fold(double *scale, double *shift, double mean, double var, real gamma, real beta)
{
    *scale = gamma / sqrt(var + NET_BN_EPSILON);
    *shift = beta - mean * *scale;
}

static void fold_running(struct program *program, const struct node *node)
{
    const struct state *state = program->state;
    for (int c = 0; c < node->out_channels; c++)
        fold(&program->scale[c], &program->shift[c], state_values(state, node->running_mean)[c],
             state_values(state, node->running_var)[c], state_values(state, node->gamma)[c],
             state_values(state, node->beta)[c]);
}

/* A device with fp16 maps keeps the mean and 1 / sqrt(var + epsilon) in fp32 for the backward. */
static void round_statistics(const struct program *program, const struct node_memory *memory,
                             int channels)
{
    for (int c = 0; program->state->backend->halves && c < channels; c++) {
        double inverse = (float)(1.0 / sqrt(memory->var[c] + NET_BN_EPSILON));
        memory->mean[c] = (float)memory->mean[c];
        memory->var[c] = 1.0 / (inverse * inverse) - NET_BN_EPSILON;
    }
}

/* Folds the batch's statistics and leaves them, the variance unbiased, in the slot. */
static void fold_batch(struct program *program, int index, int slot)
{
    const struct state *state = program->state;
    const struct node *node = &program->net->nodes[index];
    const struct node_memory *memory = &program->nodes[index];
    const struct op op = op_of(program, index);
    if (program->forms[index] == FORM_PLAIN)
        bn_ref_statistics(memory->mean, memory->var, memory->y, &op);
    else
        bn_ref_sums(memory->mean, memory->var, memory->y, &op);
    round_statistics(program, memory, node->out_channels);
    double count = (double)program->samples * node->out_height * node->out_width;
    for (int c = 0; c < node->out_channels; c++) {
        fold(&program->scale[c], &program->shift[c], memory->mean[c], memory->var[c],
             state_values(state, node->gamma)[c], state_values(state, node->beta)[c]);
        state_slot(state, slot, node->running_mean)[c] = (real)memory->mean[c];
        state_slot(state, slot, node->running_var)[c] =
            (real)(memory->var[c] * count / (count - 1.0));
    }
}

static size_t map_count(const struct program *program, int index)
{
    const struct node *node = &program->net->nodes[index];
    return (size_t)program->samples * node->out_height * node->out_width *
           pitch_of(node->out_channels);
}

/* With bf16 the classifier and what it reads are fp32. */
static bool is_fp32(const struct program *program, int index)
{
    enum node_kind kind = program->net->nodes[index].kind;
    return program->state->backend->bf16 && (kind == NODE_GLOBAL_AVG || kind == NODE_FC);
}

static void round_out(struct program *program, int index)
{
    if (is_fp32(program, index))
        return;
    program_round(program, program->nodes[index].out, map_count(program, index));
}

/* The weights as they are stored. */
static const real *weights_of(struct program *program, const struct node *node)
{
    const real *values = state_values(program->state, node->weight);
    if (!program->rounded || is_fp32(program, (int)(node - program->net->nodes)))
        return values;
    size_t count = program->net->tensors[node->weight].count;
    memcpy(program->rounded, values, count * sizeof *values);
    program_round(program, program->rounded, count);
    return program->rounded;
}

/* Inference in fp16 or bf16 has BN folded into the stored weights, and fp16 into the bias too. */
static const real *folded_weights_of(struct program *program, const struct node *node)
{
    const real *values = state_values(program->state, node->weight);
    size_t filter = program->net->tensors[node->weight].count / (size_t)node->out_channels;
    fold_running(program, node);
    for (int k = 0; k < node->out_channels; k++) {
        real shift = (real)program->shift[k];
        for (size_t i = 0; i < filter; i++)
            program->rounded[k * filter + i] = (real)(values[k * filter + i] * program->scale[k]);
        if (program->state->backend->halves)
            fp16_ref_round(&shift, 1);
        program->shift[k] = shift;
        program->scale[k] = 1;
    }
    program_round(program, program->rounded, filter * (size_t)node->out_channels);
    return program->rounded;
}

/* Scale and shift as a device stores them: fp16 for a convolution's prologue, else fp32. */
static void round_fold(struct program *program, int index)
{
    const struct node *node = &program->net->nodes[index];
    bool halves = fusion_halves(program->forms, program->net, index);
    for (int c = 0; c < node->out_channels; c++) {
        real scale = (real)program->scale[c], shift = (real)program->shift[c];
        if (halves) {
            fp16_ref_round(&scale, 1);
            fp16_ref_round(&shift, 1);
        }
        program->scale[c] = (float)scale;
        program->shift[c] = (float)shift;
    }
}

static void forward_conv(struct program *program, int index, int slot)
{
    const struct node *node = &program->net->nodes[index];
    const struct node_memory *memory = &program->nodes[index];
    const struct op op = op_of(program, index);
    const real *in = program->nodes[node->input].out;
    real *y = memory->y ? memory->y : memory->out;
    enum fusion_form form = program->forms[index];
    if (!program_trains(program) && program->rounded) {
        conv_ref_forward(y, in, folded_weights_of(program, node), &op);
    } else {
        conv_ref_forward(y, in, weights_of(program, node), &op);
        if (memory->y && form == FORM_PLAIN)
            program_round(program, y, map_count(program, index));
        if (program_trains(program) && !net_bn_frozen(program->net, node))
            fold_batch(program, index, slot);
        else
            fold_running(program, node);
        if (memory->y && form != FORM_PLAIN) /* a convolution sums what it has not rounded yet */
            program_round(program, y, map_count(program, index));
    }
    if (form != FORM_PLAIN)
        round_fold(program, index);
    if (form == FORM_PROLOGUE)
        bn_ref_apply_halves(memory->out, y, program->scale, program->shift, &op);
    else
        bn_ref_apply(memory->out, y, node->residual < 0 ? NULL : program->nodes[node->residual].out,
                     program->scale, program->shift, &op);
    if (form < FORM_PROLOGUE)
        round_out(program, index);
}

static void forward(struct program *program, const struct batch *batch, int slot)
{
    const struct net *net = program->net;
    program->samples = batch->samples;
    for (int i = 0; i < net->node_count; i++) {
        const struct node *node = &net->nodes[i];
        const struct op op = op_of(program, i);
        real *out = program->nodes[i].out;
        const real *in = node->input < 0 ? NULL : program->nodes[node->input].out;
        switch (node->kind) {
        case NODE_INPUT:
            load_pixels(out, batch, program);
            round_out(program, i); /* of bytes: halves are halves already */
            break;
        case NODE_CONV:
            forward_conv(program, i, slot);
            break;
        case NODE_MAX_POOL:
            pool_ref_max(out, in, &op);
            break;
        case NODE_AVG_POOL:
        case NODE_GLOBAL_AVG:
            pool_ref_avg(out, in, &op);
            round_out(program, i);
            break;
        case NODE_FC:
            fc_ref_forward(out, in, weights_of(program, node),
                           state_values(program->state, node->bias), &op);
            break;
        }
    }
    const real *logits = program->nodes[net->node_count - 1].out;
    int pitch = pitch_of(net->classes);
    for (int n = 0; n < batch->samples; n++)
        for (int k = 0; k < net->classes; k++)
            program->logits[(size_t)n * net->classes + k] =
                program->rounded ? (float)logits[(size_t)n * pitch + k] /* fp32 beside fp16 */
                                 : logits[(size_t)n * pitch + k];
}

/* The gradient of a node's output, to be added to; NULL when nothing before it is trained. */
static real *gradient_of(struct program *program, int index)
{
    struct node_memory *memory = &program->nodes[index];
    if (!memory->needs_grad)
        return NULL;
    if (!memory->has_grad) {
        const struct node *node = &program->net->nodes[index];
        memset(memory->grad, 0,
               (size_t)program->samples * node->out_height * node->out_width *
                   pitch_of(node->out_channels) * sizeof *memory->grad);
        memory->has_grad = true;
    }
    return memory->grad;
}

/* After something was added to it. */
static void round_gradient(struct program *program, int index)
{
    if (is_fp32(program, index))
        return;
    program_round(program, program->nodes[index].grad, map_count(program, index));
}

/* Sends the gradient of a convolution's or FC's output on to its input. */
static void backward_input(struct program *program, int index, const real *grad)
{
    const struct node *node = &program->net->nodes[index];
    const struct op op = op_of(program, index);
    real *to_input = gradient_of(program, node->input);
    if (!to_input)
        return;
    conv_ref_backward_data(to_input, grad, weights_of(program, node), &op);
    round_gradient(program, node->input);
}

static void backward_relu(real *grad, const real *out, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (out[i] <= 0)
            grad[i] = 0;
}

static struct bn_ref bn_of(const struct program *program, int index)
{
    const struct node *node = &program->net->nodes[index];
    const struct node_memory *memory = &program->nodes[index];
    return (struct bn_ref){.y = memory->y,
                           .gamma = state_values(program->state, node->gamma),
                           .beta = state_values(program->state, node->beta),
                           .mean = memory->mean,
                           .var = memory->var};
}

/* ReLU's mask is not stored: by what was before it. */
static void mask_again(struct program *program, int index, real *grad)
{
    int residual = program->net->nodes[index].residual;
    const struct op op = op_of(program, index);
    const struct bn_ref bn = bn_of(program, index);
    if (residual >= 0 && program->forms[residual] == FORM_SHORTCUT) {
        const struct bn_ref shortcut = bn_of(program, residual);
        bn_ref_mask(grad, &bn, &shortcut, NULL, &op);
    } else {
        bn_ref_mask(grad, &bn, NULL, residual < 0 ? NULL : program->nodes[residual].out, &op);
    }
}

/* From BN's output (grad) to its input, in place. */
static void backward_bn(struct program *program, int index, int slot, real *grad)
{
    const struct state *state = program->state;
    const struct node *node = &program->net->nodes[index];
    const struct node_memory *memory = &program->nodes[index];
    const struct op op = op_of(program, index);
    if (net_bn_frozen(program->net, node)) {
        fold_running(program, node);
        bn_ref_backward_frozen(grad, program->scale, &op);
        return;
    }
    real *dgamma = state_slot(state, slot, node->gamma);
    real *dbeta = state_slot(state, slot, node->beta);
    const struct bn_ref bn = bn_of(program, index);
    if (fusion_sums(program->forms, program->net, state->backend->fusion, index))
        bn_ref_backward_sums(grad, dgamma, dbeta, &bn, &op);
    else
        bn_ref_backward(grad, dgamma, dbeta, memory->y, memory->mean, memory->var, bn.gamma, &op);
}

static void backward_conv(struct program *program, int index, int slot, real *grad)
{
    const struct state *state = program->state;
    const struct node *node = &program->net->nodes[index];
    const struct op op = op_of(program, index);
    size_t count = map_count(program, index);
    if (node->relu && program->forms[index] >= FORM_BLOCK)
        mask_again(program, index, grad);
    else if (node->relu)
        backward_relu(grad, program->nodes[index].out, count);
    real *to_residual = node->residual < 0 ? NULL : gradient_of(program, node->residual);
    for (size_t i = 0; to_residual && i < count; i++)
        to_residual[i] += grad[i];
    if (to_residual)
        round_gradient(program, node->residual);
    backward_bn(program, index, slot, grad);
    program_round(program, grad, count);
    real *dweight = state_slot(state, slot, node->weight);
    if (dweight) {
        conv_ref_backward_weight(dweight, program->nodes[node->input].out, grad, &op);
        if (state->backend->halves)
            fp16_ref_round(dweight, program->net->tensors[node->weight].count);
    }
    backward_input(program, index, grad);
}

static void backward_fc(struct program *program, int index, int slot, const real *grad)
{
    const struct state *state = program->state;
    const struct node *node = &program->net->nodes[index];
    const struct op op = op_of(program, index);
    real *dweight = state_slot(state, slot, node->weight);
    real *dbias = state_slot(state, slot, node->bias);
    if (dbias)
        fc_ref_backward_bias(dbias, grad, &op);
    if (dweight)
        conv_ref_backward_weight(dweight, program->nodes[node->input].out, grad, &op);
    backward_input(program, index, grad);
}

static void backward_node(struct program *program, int index, int slot)
{
    const struct node *node = &program->net->nodes[index];
    const struct op op = op_of(program, index);
    real *grad = gradient_of(program, index);
    if (!grad)
        return;
    real *to_input;
    switch (node->kind) {
    case NODE_INPUT:
        break;
    case NODE_CONV:
        backward_conv(program, index, slot, grad);
        break;
    case NODE_MAX_POOL:
        if ((to_input = gradient_of(program, node->input)) != NULL)
            pool_ref_max_backward(to_input, grad, program->nodes[node->input].out, &op);
        if (to_input)
            round_gradient(program, node->input);
        break;
    case NODE_AVG_POOL:
    case NODE_GLOBAL_AVG:
        if ((to_input = gradient_of(program, node->input)) != NULL)
            pool_ref_avg_backward(to_input, grad, &op);
        if (to_input)
            round_gradient(program, node->input);
        break;
    case NODE_FC:
        backward_fc(program, index, slot, grad);
        break;
    }
}

static void backward(struct program *program, int slot)
{
    const struct net *net = program->net;
    int last = net->node_count - 1, pitch = pitch_of(net->classes);
    for (int i = 0; i < net->node_count; i++)
        program->nodes[i].has_grad = false;
    real *grad = gradient_of(program, last);
    if (!grad)
        return;
    for (int n = 0; n < program->samples; n++)
        for (int k = 0; k < net->classes; k++)
            grad[(size_t)n * pitch + k] = (real)program->dlogits[(size_t)n * net->classes + k];
    round_gradient(program, last);
    for (int i = last; i > 0; i--)
        backward_node(program, i, slot);
}

int pass_ref_run(struct program *program, const struct batch *batch, int slot, double loss_factor,
                 void (*bucket_ready)(void *user, int bucket), void *user)
{
    int code =
        checks_batch(batch, &program->config, program->net, slot, program->state->slot_total);
    if (code)
        return code;
    struct program *teacher = program->config.teacher;
    bool train = program_trains(program);
    double start_s = clock_seconds();
    if (teacher && train) {
        forward(teacher, batch, -1);
        double now_s = clock_seconds();
        teacher->seconds += now_s - start_s;
        start_s = now_s;
    }
    forward(program, batch, slot);

    struct loss_sums sums;
    loss_batch(&sums, train ? program->dlogits : NULL, program->logits,
               teacher && train ? teacher->logits : NULL, batch->labels, batch->samples,
               program->net->classes, train ? &program->config.loss : &loss_plain, loss_factor);
    real *metrics = state_slot_metrics(program->state, slot);
    metrics[0] = (real)sums.loss;
    metrics[1] = (real)sums.top1;
    metrics[2] = (real)sums.top5;
    metrics[3] = (real)sums.samples;
    if (slot == program->state->updated_slot)
        program->state->updated_slot = -1;
    if (train)
        backward(program, slot);
    program->seconds += clock_seconds() - start_s;
    for (int b = 0; train && bucket_ready && b < program->state->bucket_total; b++)
        bucket_ready(user, b);
    return 0;
}

int pass_ref_logits(float *dst, struct program *program)
{
    size_t count = (size_t)program->samples * program->net->classes;
    for (size_t i = 0; i < count; i++)
        dst[i] = (float)program->logits[i];
    return 0;
}

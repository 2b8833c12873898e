/* SPDX-License-Identifier: Apache-2.0 */
/* Running a program: its steps in order, all queued. */
#include <string.h>

#include "common/err.h"
#include "trainer/checks.h"
#include "trainer/cuda/cuda.h"
#include "trainer/cuda/ranges.h"

/* One run. */
struct pass {
    struct program *program;
    int samples, slot;
    void (*bucket_ready)(void *user, int bucket);
    void *user;
    struct arrival arrival; /* a teacher reads its student's */
    const float *teacher;   /* logits */
};

static cudaStream_t compute_of(const struct pass *pass)
{
    return pass->program->state->backend->compute;
}

static void *place_of(const struct pass *pass, const struct step *step, enum graph_role role)
{
    return program_cuda_at(pass->program, step->at[role]);
}

static int run_input(const struct pass *pass, const struct step *step)
{
    const struct net *net = pass->program->net;
    const struct input_format *input = &pass->program->config.input;
    struct kernel_unpack args = {.control = pass->arrival.control,
                                 .out = place_of(pass, step, GRAPH_OUT),
                                 .batch = pass->program->config.batch,
                                 .samples = pass->samples,
                                 .image_pixels = net->size_px * net->size_px,
                                 .channels = net->channels,
                                 .lanes = layout_padded(net->channels),
                                 .bytes = input->bytes,
                                 .chunk_size = input->chunk_size};
    for (int turn = 0; turn < 2; turn++) {
        args.pixels[turn] = pass->arrival.pixels[turn];
        args.labels[turn] = pass->arrival.labels[turn];
        args.offsets[turn] = pass->arrival.offsets[turn];
    }
    memcpy(args.mean, input->mean, sizeof args.mean);
    memcpy(args.std, input->std, sizeof args.std);
    return cuda_check(kernel_unpack(&args, compute_of(pass)), "unpacking pixels");
}

static int run_graph(const struct pass *pass, int index)
{
    const struct program *program = pass->program;
    const struct plan *plan = program->plans[index];
    cudnnStatus_t status =
        cudnnBackendExecute(program->state->backend->dnn, plan->executable, program->packs[index]);
    if (status == CUDNN_STATUS_SUCCESS)
        return 0;
    char name[160];
    graph_name(name, sizeof name, &plan->spec);
    return cuda_check_dnn(status, name);
}

static struct kernel_fold fold_of(const struct program *program)
{
    return (struct kernel_fold){.values = program->state->values,
                                .rows = program->folds,
                                .row_total = program->fold_total,
                                .epsilon = program->epsilon};
}

static int run_freeze(const struct pass *pass, const struct step *step)
{
    const struct program *program = pass->program;
    struct kernel_fold args = fold_of(program);
    args.rows += program->fold_begins[step->node];
    args.row_total = layout_padded(program->net->nodes[step->node].out_channels);
    args.scales = place_of(pass, step, GRAPH_SCALE_OF);
    args.shifts = place_of(pass, step, GRAPH_BIAS);
    return cuda_check(kernel_fold(&args, compute_of(pass)), "scaling by frozen BN");
}

int pass_cuda_fold(struct program *program)
{
    if (program_trains(program) || program->version == program->state->version ||
        program->fold_total == 0)
        return 0;
    struct kernel_fold args = fold_of(program);
    args.folded = program_cuda_block(program, program->schedule->folded);
    int code = cuda_outside(program->state->backend);
    if (code)
        return code;
    program->version = program->state->version;
    return cuda_check(kernel_fold(&args, program->state->backend->compute),
                      "folding BN into the weights");
}

static int run_fc(const struct pass *pass, const struct step *step)
{
    const struct fc_data data = {.x = place_of(pass, step, GRAPH_X),
                                 .weights = place_of(pass, step, GRAPH_W),
                                 .bias = place_of(pass, step, GRAPH_BIAS),
                                 .logits = place_of(pass, step, GRAPH_OUT),
                                 .workspace = pass->program->workspace};
    return fc_cuda_forward(pass->program->fc, &data);
}

static int run_loss(const struct pass *pass)
{
    const struct program *program = pass->program;
    const struct schedule *schedule = program->schedule;
    const struct loss_config *config = &program->config.loss;
    const struct state *state = program->state;
    bool trains = program_trains(program);
    bool distils = trains && pass->teacher && config->kd_temperature > 0;
    double epsilon = trains ? config->label_smoothing : 0;
    int classes = program->net->classes;
    double off = epsilon / (config->smoothing_over_k ? classes : classes - 1);
    const struct kernel_loss args = {
        .control = pass->arrival.control,
        .flags = state->flags,
        .logits = program_cuda_block(program, schedule->logits),
        .teacher = distils ? pass->teacher : NULL,
        .labels = {pass->arrival.labels[0], pass->arrival.labels[1]},
        .gradient = program_cuda_block(program, schedule->dlogits),
        .losses = program_cuda_block(program, schedule->losses),
        .batch = program->config.batch,
        .samples = pass->samples,
        .classes = classes,
        .pitch = layout_padded(classes),
        .off = off,
        .on = config->smoothing_over_k ? 1 - epsilon : 1 - epsilon - off,
        .hard_weight = distils ? config->kd_hard_weight : 1,
        .soft_weight = config->kd_soft_weight,
        .temperature = distils ? config->kd_temperature : 1,
    };
    const struct kernel_sum_losses sum = {.dst = state_slot(state, pass->slot) +
                                                 state->layout->statistics_end,
                                          .losses = args.losses,
                                          .batch = args.batch};
    cudaError_t error = kernel_loss(&args, compute_of(pass));
    if (!error)
        error = kernel_sum_losses(&sum, compute_of(pass));
    return cuda_check(error, "the loss");
}

/* Gradients of the classifier go straight to the slot. */
static int run_fc_backward(const struct pass *pass, const struct step *step)
{
    const struct program *program = pass->program;
    const struct state *state = program->state;
    const struct node *node = &program->net->nodes[step->node];
    float *slot = state_slot(state, pass->slot);
    const struct fc_data data = {.x = place_of(pass, step, GRAPH_X),
                                 .weights = place_of(pass, step, GRAPH_W),
                                 .dlogits = place_of(pass, step, GRAPH_DOUT),
                                 .dx = place_of(pass, step, GRAPH_DX),
                                 .dweights = slot + state->layout->at[node->weight],
                                 .workspace = program->workspace};
    const struct kernel_sum_rows bias = {.dst = slot + state->layout->at[node->bias],
                                         .src = data.dlogits,
                                         .rows = program->config.batch,
                                         .columns = layout_padded(program->net->classes)};
    int code = 0;
    if (program->net->tensors[node->bias].trained)
        code = cuda_check(kernel_sum_rows(&bias, compute_of(pass)), "the bias's gradient");
    if (!code && program->net->tensors[node->weight].trained)
        code = fc_cuda_backward_weights(program->fc, &data);
    return code || !data.dx ? code : fc_cuda_backward_data(program->fc, &data);
}

/* Fills a bucket, which is complete then. */
static int run_gather(const struct pass *pass, const struct step *step)
{
    const struct program *program = pass->program;
    const struct state *state = program->state;
    int begin = step->bucket ? program->gather_ends[step->bucket - 1] : 0;
    int count = program->gather_ends[step->bucket] - begin;
    const struct kernel_gather args = {.slot = state_slot(state, pass->slot),
                                       .chunks = program->gathers + begin,
                                       .chunk_total = count,
                                       .epsilon = program->epsilon};
    cudaError_t error = count > 0 ? kernel_gather(&args, compute_of(pass)) : cudaSuccess;
    cudaEvent_t ready = state->ready[pass->slot * state->layout->bucket_total + step->bucket];
    if (!error)
        error = cudaEventRecord(ready, compute_of(pass));
    if (!error && pass->bucket_ready)
        pass->bucket_ready(pass->user, step->bucket);
    return cuda_check(error, "gathering gradients");
}

static int run_step(const struct pass *pass, int index)
{
    const struct step *step = &pass->program->schedule->steps[index];
    switch (step->kind) {
    case STEP_INPUT:
        return run_input(pass, step);
    case STEP_GRAPH:
        return run_graph(pass, index);
    case STEP_FREEZE:
        return run_freeze(pass, step);
    case STEP_FC:
        return run_fc(pass, step);
    case STEP_LOSS:
        return pass->slot < 0 ? 0 : run_loss(pass); /* a teacher has none */
    case STEP_FC_BACKWARD:
        return run_fc_backward(pass, step);
    case STEP_GATHER:
        return run_gather(pass, step);
    }
    return 0;
}

static int run_steps(const struct pass *pass)
{
    struct program *program = pass->program;
    int steps = program->schedule->step_count;
    program->samples = pass->samples;
    int code = pass_cuda_fold(program);
    for (int i = 0; i < steps && !code; i++) {
        code = profile_cuda_mark(program, i);
        range_begin(program, i);
        if (!code)
            code = run_step(pass, i);
        range_end();
    }
    if (!code)
        code = profile_cuda_mark(program, steps);
    return code;
}

/* Of a step; other runs are not timed. */
static int clock_teacher(const struct pass *pass, bool ends)
{
    const struct captured_step *step = pass->program->state->stepping;
    const struct kernel_teacher args = {
        .control = pass->arrival.control, .report = step ? step->report : NULL, .ends = ends};
    return step ? cuda_check(kernel_teacher(&args, compute_of(pass)), "timing a teacher") : 0;
}

static int run_teacher(struct pass *pass)
{
    struct program *teacher = program_trains(pass->program) ? pass->program->config.teacher : NULL;
    if (!teacher)
        return 0;
    struct pass taught = *pass;
    taught.program = teacher;
    taught.slot = -1;
    pass->teacher = program_cuda_block(teacher, teacher->schedule->logits);
    int code = clock_teacher(pass, false);
    if (!code)
        code = run_steps(&taught);
    return code ? code : clock_teacher(pass, true);
}

/* The program, and before it the teacher. */
static int run_both(struct pass *pass)
{
    struct state *state = pass->program->state;
    if (pass->slot == state->updated_slot)
        state->updated_slot = -1;
    int code = run_teacher(pass);
    return code ? code : run_steps(pass);
}

static int set_factor(const struct program *program, double loss_factor)
{
    const struct kernel_set set = {.control = program->input->control,
                                   .turn = (uint32_t)program->input->turn,
                                   .values = {.factor = {loss_factor, loss_factor}}};
    return cuda_check(kernel_set(&set, program->state->backend->compute), "setting a factor");
}

int pass_cuda_run(struct program *program, const struct batch *batch, int slot, double loss_factor,
                  void (*bucket_ready)(void *user, int bucket), void *user)
{
    struct state *state = program->state;
    struct captured_step *step = program->step;
    if (!batch && step && state->stepping == step)
        return pass_cuda_queue(program, step->queued++, slot, bucket_ready, user);
    if (!batch)
        return err_set(ERR_ARG, "a run outside of a step needs a batch");
    struct pass pass = {.program = program,
                        .samples = batch->samples,
                        .slot = slot,
                        .bucket_ready = bucket_ready,
                        .user = user,
                        .arrival = input_cuda_arrival(program->input, 0)};
    int code = checks_batch(batch, &program->config, program->net, slot, state->slot_total);
    if (!code)
        code = input_cuda_load(program->input, 0, batch);
    if (!code)
        code = cuda_outside(state->backend);
    if (!code)
        code = input_cuda_arrive(program->input);
    if (!code)
        code = set_factor(program, loss_factor);
    if (!code)
        code = run_both(&pass);
    if (!code)
        code = profile_cuda_add(program);
    if (!code)
        code = input_cuda_release(program->input);
    program->input->turn ^= !code;
    return code;
}

int pass_cuda_queue(struct program *program, int place, int slot,
                    void (*bucket_ready)(void *user, int bucket), void *user)
{
    struct pass pass = {.program = program,
                        .samples = program->config.batch,
                        .slot = slot,
                        .bucket_ready = bucket_ready,
                        .user = user};
    if (place >= program->input->micro_batches)
        return err_set(ERR_ARG, "a step has %d micro-batches and no more",
                       program->input->micro_batches);
    pass.arrival = input_cuda_arrival(program->input, place);
    int code = checks_slot(slot, program->state->slot_total);
    return code ? code : run_both(&pass);
}

int pass_cuda_inputs_read(struct program *program)
{
    return input_cuda_read(program->input);
}

int pass_cuda_logits(float *dst, struct program *program)
{
    const struct net *net = program->net;
    cudaStream_t compute = program->state->backend->compute;
    size_t pitch = (size_t)layout_padded(net->classes), width = (size_t)net->classes;
    const float *src = program_cuda_block(program, program->schedule->logits);
    cudaError_t error = cudaSuccess;
    int code = cuda_outside(program->state->backend);
    if (code)
        return code;
    for (int i = 0; i < program->samples && !error; i++)
        error = cudaMemcpyAsync(dst + (size_t)i * width, src + (size_t)i * pitch,
                                width * sizeof *dst, cudaMemcpyDeviceToHost, compute);
    if (!error)
        error = cudaStreamSynchronize(compute);
    return cuda_check(error, "reading logits back");
}

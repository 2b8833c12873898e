/* SPDX-License-Identifier: Apache-2.0 */
/* Running a program: its steps in order, all queued. */
#include <string.h>

#include "common/err.h"
#include "trainer/checks.h"
#include "trainer/cuda/cuda.h"

/* One run. */
struct pass {
    struct program *program;
    const struct batch *batch;
    int slot;
    double loss_factor;
    void (*bucket_ready)(void *user, int bucket);
    void *user;
    /* What arrived, on the device; a teacher reads its student's. */
    const void *pixels;
    const struct chunk_label *labels;
    const float *offsets;
    const float *teacher; /* logits */
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
    struct kernel_unpack args = {.pixels = pass->pixels,
                                 .labels = pass->labels,
                                 .offsets = pass->offsets,
                                 .out = place_of(pass, step, GRAPH_OUT),
                                 .batch = pass->program->config.batch,
                                 .samples = pass->batch->samples,
                                 .image_pixels = net->size_px * net->size_px,
                                 .channels = net->channels,
                                 .lanes = layout_padded(net->channels),
                                 .bytes = input->bytes,
                                 .chunk_size = input->chunk_size};
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

/* Inference: BN goes into the weights when they have moved. */
static int fold_moved(const struct pass *pass)
{
    struct program *program = pass->program;
    if (program_trains(program) || program->version == program->state->version ||
        program->fold_total == 0)
        return 0;
    struct kernel_fold args = fold_of(program);
    args.folded = program_cuda_block(program, program->schedule->folded);
    program->version = program->state->version;
    return cuda_check(kernel_fold(&args, compute_of(pass)), "folding BN into the weights");
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
        .logits = program_cuda_block(program, schedule->logits),
        .teacher = distils ? pass->teacher : NULL,
        .labels = pass->labels,
        .gradient = program_cuda_block(program, schedule->dlogits),
        .losses = program_cuda_block(program, schedule->losses),
        .batch = program->config.batch,
        .samples = pass->batch->samples,
        .classes = classes,
        .pitch = layout_padded(classes),
        .off = off,
        .on = config->smoothing_over_k ? 1 - epsilon : 1 - epsilon - off,
        .hard_weight = distils ? config->kd_hard_weight : 1,
        .soft_weight = config->kd_soft_weight,
        .temperature = distils ? config->kd_temperature : 1,
        .factor = pass->loss_factor,
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
    pass->program->samples = pass->batch->samples;
    int code = fold_moved(pass);
    for (int i = 0; i < pass->program->schedule->step_count && !code; i++)
        code = run_step(pass, i);
    return code;
}

/* Brings the batch to the device, on the stream for that, behind the reader of two runs ago. */
static int copy_input(struct pass *pass)
{
    struct program *program = pass->program;
    const struct schedule *schedule = program->schedule;
    const struct backend *backend = program->state->backend;
    const struct batch *batch = pass->batch;
    int turn = (int)(program->runs % 2);
    size_t samples = (size_t)batch->samples;
    void *pixels = program_cuda_block(program, schedule->pixels[turn]);
    void *labels = program_cuda_block(program, schedule->labels[turn]);
    void *offsets = program_cuda_block(program, schedule->offsets[turn]);
    cudaError_t error = cudaSuccess;
    if (program->runs >= 2)
        error = cudaStreamWaitEvent(backend->copy, program->unpacked[turn], 0);
    if (!error)
        error = cudaMemcpyAsync(pixels, batch->pixels,
                                schedule->pixel_bytes / (size_t)schedule->batch * samples,
                                cudaMemcpyHostToDevice, backend->copy);
    if (!error)
        error = cudaMemcpyAsync(labels, batch->labels, samples * sizeof *batch->labels,
                                cudaMemcpyHostToDevice, backend->copy);
    if (!error && offsets)
        error = cudaMemcpyAsync(offsets, batch->offsets, samples * sizeof *batch->offsets,
                                cudaMemcpyHostToDevice, backend->copy);
    if (!error)
        error = cudaEventRecord(program->copied[turn], backend->copy);
    if (!error)
        error = cudaStreamWaitEvent(backend->compute, program->copied[turn], 0);
    pass->pixels = pixels;
    pass->labels = labels;
    pass->offsets = offsets;
    return cuda_check(error, "copying a batch");
}

/* What arrived has been read; its place is free for the run after the next one. */
static int release_input(const struct pass *pass)
{
    struct program *program = pass->program;
    int turn = (int)(program->runs++ % 2);
    return cuda_check(cudaEventRecord(program->unpacked[turn], compute_of(pass)),
                      "recording an event");
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
    return run_steps(&taught);
}

int pass_cuda_run(struct program *program, const struct batch *batch, int slot, double loss_factor,
                  void (*bucket_ready)(void *user, int bucket), void *user)
{
    struct pass pass = {.program = program,
                        .batch = batch,
                        .slot = slot,
                        .loss_factor = loss_factor,
                        .bucket_ready = bucket_ready,
                        .user = user};
    int code =
        checks_batch(batch, &program->config, program->net, slot, program->state->slot_total);
    if (!code)
        code = copy_input(&pass);
    if (!code && slot == program->state->updated_slot)
        program->state->updated_slot = -1;
    if (!code)
        code = run_teacher(&pass);
    if (!code)
        code = run_steps(&pass);
    return code ? code : release_input(&pass);
}

int pass_cuda_inputs_read(struct program *program)
{
    if (program->runs == 0)
        return 0;
    cudaError_t error = cudaEventSynchronize(program->copied[(program->runs - 1) % 2]);
    return cuda_check(error, "waiting for a copy");
}

int pass_cuda_logits(float *dst, struct program *program)
{
    const struct net *net = program->net;
    cudaStream_t compute = program->state->backend->compute;
    size_t pitch = (size_t)layout_padded(net->classes), width = (size_t)net->classes;
    const float *src = program_cuda_block(program, program->schedule->logits);
    cudaError_t error = cudaSuccess;
    for (int i = 0; i < program->samples && !error; i++)
        error = cudaMemcpyAsync(dst + (size_t)i * width, src + (size_t)i * pitch,
                                width * sizeof *dst, cudaMemcpyDeviceToHost, compute);
    if (!error)
        error = cudaStreamSynchronize(compute);
    return cuda_check(error, "reading logits back");
}

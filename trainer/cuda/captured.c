/* SPDX-License-Identifier: Apache-2.0 */
/* Whole steps. The first is queued as it comes, so that libraries load what they load late; the
 * second is captured as a CUDA graph, which runs it and all that follow. What differs between steps
 * is copied to the device before each (kernels.h: kernel_values).
 *
 * Two steps may be under way: the host prepares one and waits for the one before. So what is copied
 * for a step, and what is told of it, has two places, taken in turn with their streams (cuda.h). A
 * stream has one step at a time, so the host waits for a step by waiting for its stream. */
#include <stdlib.h>

#include "common/err.h"
#include "common/log.h"
#include "trainer/checks.h"
#include "trainer/cuda/cuda.h"

enum { UNDER_WAY = 2 };
_Static_assert(sizeof(struct kernel_values) % 16 == 0, "turns share no 16 bytes");

static cudaError_t pinned(void *memory, size_t bytes)
{
    return cudaHostAlloc(memory, bytes, cudaHostAllocDefault);
}

int captured_cuda_open(struct captured_step **out, struct program *program)
{
    struct backend *backend = program->state->backend;
    struct captured_step *step = calloc(1, sizeof *step);
    *out = step;
    if (!step)
        return err_set(ERR_NOMEM, "no memory for a program");
    step->program = program;
    int code = cuda_alloc(&step->report, backend, 2 * sizeof *step->report, "a step's report");
    cudaError_t error = pinned(&step->values, 2 * sizeof *step->values);
    if (!error)
        error = pinned(&step->told, 2 * sizeof *step->told);
    return code ? code : cuda_check(error, "taking pinned memory");
}

void captured_cuda_close(struct captured_step *step)
{
    if (!step)
        return;
    struct backend *backend = step->program->state->backend;
    if (backend->latest == step)
        backend->latest = NULL;
    if (step->graph)
        cudaGraphExecDestroy(step->graph);
    if (step->report)
        cudaFree(step->report);
    if (step->values)
        cudaFreeHost(step->values);
    if (step->told)
        cudaFreeHost(step->told);
    free(step);
}

struct kernel_values captured_cuda_values(const struct update *update)
{
    float scale = (float)update->grad_scale;
    return (struct kernel_values){
        .grad_scale = {scale, scale},
        .lr = (float)update->lr,
        .head_lr = (float)(update->head_lr != 0 ? update->head_lr : update->lr),
        .momentum = (float)update->momentum,
        .matrix_decay = (float)update->weight_decay,
        .vector_decay = (float)(update->no_bias_decay ? 0 : update->weight_decay),
        .running_momentum = NET_BN_MOMENTUM,
        .micro_batches = (float)update->micro_batches,
        .skip = update->skip_nonfinite,
    };
}

int captured_cuda_load(struct program *program, int micro_batch, const struct batch *batch)
{
    struct captured_step *step = program->step;
    if (!step || micro_batch != step->loaded || micro_batch >= program->input->micro_batches)
        return err_set(ERR_ARG, "micro-batch %d cannot be loaded now", micro_batch);
    if (step->begun - step->waited == UNDER_WAY)
        return err_set(ERR_ARG, "two steps are under way: their results come first");
    int code = checks_batch(batch, &program->config, program->net, 0, 1);
    if (!code)
        code = input_cuda_load(program->input, micro_batch, batch);
    step->loaded += !code;
    return code;
}

/* The values of this step go to its turn's place. */
static int copy_values(struct captured_step *step, const struct step_values *values)
{
    struct input *input = step->program->input;
    struct kernel_values *host = &step->values[input->turn];
    *host = captured_cuda_values(&values->update);
    for (int i = 0; i < 2; i++) {
        host->factor[i] = values->loss_scale[i] * values->loss_share;
        host->grad_scale[i] = (float)(1 / values->loss_scale[i]);
    }
    return cuda_check(cudaMemcpyAsync(&input->control->values[input->turn], host, sizeof *host,
                                      cudaMemcpyHostToDevice, input_cuda_stream(input)),
                      "copying a step's values");
}

/* All of the step that is the same each time. */
static int queue_step(struct captured_step *step, int (*queue)(void *user), void *user)
{
    struct program *program = step->program;
    struct state *state = program->state;
    const struct kernel_begin begin = {
        .control = program->input->control, .flags = state->flags, .report = step->report};
    int code = cuda_check(kernel_begin(&begin, state->backend->compute), "beginning a step");
    if (code)
        return code;
    state->stepping = step;
    step->queued = 0;
    step->slot = -1;
    code = queue(user);
    state->stepping = NULL;
    if (!code && (step->queued != program->input->micro_batches || step->slot < 0))
        code = err_set(ERR_ARG, "a step of %d micro-batches had %d, and %s update",
                       program->input->micro_batches, step->queued, step->slot < 0 ? "no" : "an");
    return code;
}

static int instantiate(struct captured_step *step, cudaGraph_t graph)
{
    size_t nodes = 0;
    cudaError_t error = cudaGraphGetNodes(graph, NULL, &nodes);
    if (!error)
        error = cudaGraphInstantiate(&step->graph, graph, 0);
    if (!error)
        log_verbose("a step of %s is one CUDA graph of %zu nodes", step->program->net->model,
                    nodes);
    return cuda_check(error, "making a CUDA graph");
}

/* Nothing runs while it is captured. */
static int capture(struct captured_step *step, int (*queue)(void *user), void *user)
{
    struct backend *backend = step->program->state->backend;
    cudaGraph_t graph = NULL;
    int code = cuda_outside(backend);
    if (!code)
        code =
            cuda_check(cudaStreamBeginCapture(backend->compute, cudaStreamCaptureModeThreadLocal),
                       "beginning to capture a step");
    if (code)
        return code;
    code = queue_step(step, queue, user);
    cudaError_t error = cudaStreamEndCapture(backend->compute, &graph); /* also behind a failure */
    if (!code)
        code = cuda_check(error, "capturing a step");
    if (!code)
        code = instantiate(step, graph);
    if (graph)
        cudaGraphDestroy(graph);
    return code ? err_wrap(code, "a step cannot be one CUDA graph (--cuda-graph no does without)")
                : 0;
}

/* On its turn's stream, behind what there is; the runtime puts it behind its own last run. */
static int launch(const struct captured_step *step)
{
    const struct input *input = step->program->input;
    struct backend *backend = input->backend;
    int code = backend->latest == step ? 0 : cuda_outside(backend);
    if (!code && backend->latest_turn < 0)
        code = cuda_order(backend, backend->compute, input_cuda_stream(input));
    if (!code)
        code = cuda_check(cudaGraphLaunch(step->graph, input_cuda_stream(input)), "running a step");
    if (code)
        return code;
    backend->latest = step;
    backend->latest_turn = input->turn;
    return 0;
}

static int launch_captured(struct captured_step *step, int (*queue)(void *user), void *user)
{
    int code = step->graph ? 0 : capture(step, queue, user);
    if (!code && step->program->input->watched)
        code = input_cuda_mark(step->program->input);
    return code ? code : launch(step);
}

static int run_queued(struct captured_step *step, int (*queue)(void *user), void *user)
{
    struct input *input = step->program->input;
    int code = cuda_outside(input->backend);
    if (!code)
        code = input_cuda_arrive(input);
    if (!code)
        code = queue_step(step, queue, user);
    return code ? code : input_cuda_release(input);
}

/* What it did to the state, for those who ask later. */
static void note_update(const struct captured_step *step)
{
    struct state *state = step->program->state;
    state->updated_slot = step->slot;
    state->skips = step->values[step->program->input->turn].skip;
    state->version++;
}

/* Into the turn's place on the host. */
static int copy_report(const struct captured_step *step)
{
    const struct input *input = step->program->input;
    return cuda_check(cudaMemcpyAsync(&step->told[input->turn], &step->report[input->turn],
                                      sizeof *step->report, cudaMemcpyDeviceToHost,
                                      input_cuda_stream(input)),
                      "copying a step's report");
}

int captured_cuda_run(struct program *program, const struct step_values *values,
                      int (*queue)(void *user), void *user)
{
    struct captured_step *step = program->step;
    if (!step || step->loaded != program->input->micro_batches)
        return err_set(ERR_ARG, "a step needs its %d micro-batches first",
                       program->input->micro_batches);
    step->loaded = 0;
    bool captured = !program->state->backend->uncaptured && step->begun > 0;
    int code = copy_values(step, values);
    if (!code && program->config.teacher)
        code = pass_cuda_fold(program->config.teacher);
    if (!code)
        code = (captured ? launch_captured : run_queued)(step, queue, user);
    if (!code)
        code = copy_report(step);
    if (code)
        return code;
    note_update(step);
    step->begun++;
    program->input->turn ^= 1;
    return 0;
}

int captured_cuda_wait(struct batch_metrics *metrics, struct program *program)
{
    struct captured_step *step = program->step;
    struct input *input = program->input;
    if (!step || step->begun == step->waited)
        return err_set(ERR_ARG, "no step is under way");
    int turn = step->begun - step->waited == UNDER_WAY ? input->turn : 1 - input->turn;
    int code = cuda_check(cudaStreamSynchronize(input->backend->turns[turn]),
                          "waiting for the end of a step");
    if (code)
        return code;
    const struct kernel_report *told = &step->told[turn];
    *metrics = (struct batch_metrics){.loss = told->sums[0],
                                      .top1 = told->sums[1],
                                      .top5 = told->sums[2],
                                      .samples = told->sums[3],
                                      .finite = !told->bad};
    program->seconds += (double)(told->step_ns - told->teacher_ns) * 1e-9;
    if (program->config.teacher)
        program->config.teacher->seconds += (double)told->teacher_ns * 1e-9;
    input->unmarked[turn] = false;
    step->waited++;
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Whole steps. The first is queued as it comes, so that libraries load what they load late; the
 * second is captured as a CUDA graph, which runs it and all that follow. What differs between steps
 * is copied to the device before each (kernels.h: kernel_values).
 *
 * Two steps may be under way: the host prepares one and waits for the one before. So what is copied
 * for a step, and what is told of it, has two places, taken in turn, and nothing else orders the
 * host's use of them. */
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

int steps_cuda_open(struct steps **out, struct program *program)
{
    struct backend *backend = program->state->backend;
    struct steps *steps = calloc(1, sizeof *steps);
    *out = steps;
    if (!steps)
        return err_set(ERR_NOMEM, "no memory for a program");
    steps->program = program;
    int code = cuda_alloc(&steps->report, backend, sizeof *steps->report, "a step's report");
    cudaError_t error = pinned(&steps->values, 2 * sizeof *steps->values);
    if (!error)
        error = pinned(&steps->told, 2 * sizeof *steps->told);
    return code ? code : cuda_check(error, "taking pinned memory");
}

void steps_cuda_close(struct steps *steps)
{
    if (!steps)
        return;
    if (steps->graph)
        cudaGraphExecDestroy(steps->graph);
    if (steps->report)
        cudaFree(steps->report);
    if (steps->values)
        cudaFreeHost(steps->values);
    if (steps->told)
        cudaFreeHost(steps->told);
    free(steps);
}

struct kernel_values steps_cuda_values(const struct update *update)
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

int steps_cuda_load(struct program *program, int micro_batch, const struct batch *batch)
{
    struct steps *steps = program->steps;
    if (!steps || micro_batch != steps->loaded || micro_batch >= program->input->micro_batches)
        return err_set(ERR_ARG, "micro-batch %d cannot be loaded now", micro_batch);
    if (steps->begun - steps->waited == UNDER_WAY)
        return err_set(ERR_ARG, "two steps are under way: their results come first");
    int code = checks_batch(batch, &program->config, program->net, 0, 1);
    if (!code)
        code = input_cuda_load(program->input, micro_batch, batch);
    steps->loaded += !code;
    return code;
}

/* The values of this step go to its turn's place. */
static int copy_values(struct steps *steps, const struct step_values *values)
{
    struct input *input = steps->program->input;
    struct kernel_values *host = &steps->values[input->turn];
    *host = steps_cuda_values(&values->update);
    for (int i = 0; i < 2; i++) {
        host->factor[i] = values->loss_scale[i] * values->loss_share;
        host->grad_scale[i] = (float)(1 / values->loss_scale[i]);
    }
    return cuda_check(cudaMemcpyAsync(&input->control->values[input->turn], host, sizeof *host,
                                      cudaMemcpyHostToDevice, input->backend->copy),
                      "copying a step's values");
}

/* All of the step that is the same each time. */
static int queue_step(struct steps *steps, int (*queue)(void *user), void *user)
{
    struct program *program = steps->program;
    struct state *state = program->state;
    const struct kernel_begin begin = {.control = program->input->control, .flags = state->flags};
    int code = cuda_check(kernel_begin(&begin, state->backend->compute), "beginning a step");
    if (code)
        return code;
    state->stepping = steps;
    steps->queued = 0;
    steps->slot = -1;
    code = queue(user);
    state->stepping = NULL;
    if (!code && (steps->queued != program->input->micro_batches || steps->slot < 0))
        code = err_set(ERR_ARG, "a step of %d micro-batches had %d, and %s update",
                       program->input->micro_batches, steps->queued, steps->slot < 0 ? "no" : "an");
    return code;
}

static int instantiate(struct steps *steps, cudaGraph_t graph)
{
    size_t nodes = 0;
    cudaError_t error = cudaGraphGetNodes(graph, NULL, &nodes);
    if (!error)
        error = cudaGraphInstantiate(&steps->graph, graph, 0);
    if (!error)
        log_verbose("a step of %s is one CUDA graph of %zu nodes", steps->program->net->model,
                    nodes);
    return cuda_check(error, "making a CUDA graph");
}

/* Nothing runs while it is captured. */
static int capture(struct steps *steps, int (*queue)(void *user), void *user)
{
    cudaStream_t compute = steps->program->state->backend->compute;
    cudaGraph_t graph = NULL;
    int code = cuda_check(cudaStreamBeginCapture(compute, cudaStreamCaptureModeThreadLocal),
                          "beginning to capture a step");
    if (code)
        return code;
    code = queue_step(steps, queue, user);
    cudaError_t error = cudaStreamEndCapture(compute, &graph); /* also behind a failure */
    if (!code)
        code = cuda_check(error, "capturing a step");
    if (!code)
        code = instantiate(steps, graph);
    if (graph)
        cudaGraphDestroy(graph);
    return code ? err_wrap(code, "a step cannot be one CUDA graph (--cuda-graph no does without)")
                : 0;
}

static int run_step(struct steps *steps, int (*queue)(void *user), void *user)
{
    struct backend *backend = steps->program->state->backend;
    bool captured = !backend->uncaptured && steps->begun > 0;
    if (!captured)
        return queue_step(steps, queue, user);
    int code = steps->graph ? 0 : capture(steps, queue, user);
    return code ? code
                : cuda_check(cudaGraphLaunch(steps->graph, backend->compute), "running a step");
}

/* What it did to the state, for those who ask later. */
static void note_update(const struct steps *steps)
{
    struct state *state = steps->program->state;
    state->updated_slot = steps->slot;
    state->skips = steps->values[steps->program->input->turn].skip;
    state->version++;
}

/* Into the turn's place on the host. */
static int copy_report(const struct steps *steps)
{
    const struct program *program = steps->program;
    return cuda_check(cudaMemcpyAsync(&steps->told[program->input->turn], steps->report,
                                      sizeof *steps->report, cudaMemcpyDeviceToHost,
                                      program->state->backend->compute),
                      "copying a step's report");
}

int steps_cuda_run(struct program *program, const struct step_values *values,
                   int (*queue)(void *user), void *user)
{
    struct steps *steps = program->steps;
    if (!steps || steps->loaded != program->input->micro_batches)
        return err_set(ERR_ARG, "a step needs its %d micro-batches first",
                       program->input->micro_batches);
    steps->loaded = 0;
    int code = copy_values(steps, values);
    if (!code)
        code = input_cuda_arrive(program->input);
    if (!code && program->config.teacher)
        code = pass_cuda_fold(program->config.teacher);
    if (!code)
        code = run_step(steps, queue, user);
    if (!code)
        code = copy_report(steps);
    if (code)
        return code;
    note_update(steps);
    steps->begun++;
    return input_cuda_release(program->input);
}

int steps_cuda_wait(struct batch_metrics *metrics, struct program *program)
{
    struct steps *steps = program->steps;
    struct input *input = program->input;
    if (!steps || steps->begun == steps->waited)
        return err_set(ERR_ARG, "no step is under way");
    int turn = steps->begun - steps->waited == UNDER_WAY ? input->turn : 1 - input->turn;
    int code =
        cuda_check(cudaEventSynchronize(input->released[turn]), "waiting for the end of a step");
    if (code)
        return code;
    const struct kernel_report *told = &steps->told[turn];
    *metrics = (struct batch_metrics){.loss = told->sums[0],
                                      .top1 = told->sums[1],
                                      .top5 = told->sums[2],
                                      .samples = told->sums[3],
                                      .finite = !told->bad};
    input->reading[turn] = false;
    steps->waited++;
    return 0;
}

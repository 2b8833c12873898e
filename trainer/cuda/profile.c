/* SPDX-License-Identifier: Apache-2.0 */
/* What runs are spent on, by events between the steps of the schedule; and what the GPU does at
 * best. */
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "trainer/cuda/cuda.h"

struct profile {
    cudaEvent_t *marks; /* [steps + 1]: before each, and behind the last */
    double *seconds;    /* [steps]: of all runs */
    int steps;
};

void profile_cuda_close(struct profile *profile)
{
    if (!profile)
        return;
    for (int i = 0; profile->marks && i <= profile->steps; i++)
        if (profile->marks[i])
            cudaEventDestroy(profile->marks[i]);
    free(profile->marks);
    free(profile->seconds);
    free(profile);
}

static int open_profile(struct profile **out, int steps)
{
    struct profile *profile = calloc(1, sizeof *profile);
    *out = profile;
    if (profile) {
        profile->steps = steps;
        profile->marks = calloc((size_t)steps + 1, sizeof(cudaEvent_t));
        profile->seconds = calloc((size_t)steps, sizeof(double));
    }
    if (!profile || !profile->marks || !profile->seconds)
        return err_set(ERR_NOMEM, "out of memory for a profile");
    cudaError_t error = cudaSuccess;
    for (int i = 0; i <= steps && !error; i++)
        error = cudaEventCreateWithFlags(&profile->marks[i], cudaEventDefault);
    return cuda_check(error, "making an event");
}

int profile_cuda_start(struct program *program)
{
    int steps = program->schedule->step_count;
    if (!program->profile)
        return open_profile(&program->profile, steps);
    memset(program->profile->seconds, 0, (size_t)steps * sizeof(double));
    return 0;
}

int profile_cuda_mark(const struct program *program, int index)
{
    if (!program->profile)
        return 0;
    return cuda_check(
        cudaEventRecord(program->profile->marks[index], program->state->backend->compute),
        "recording an event");
}

int profile_cuda_add(const struct program *program)
{
    struct profile *profile = program->profile;
    if (!profile)
        return 0;
    cudaError_t error = cudaEventSynchronize(profile->marks[profile->steps]);
    for (int i = 0; i < profile->steps && !error; i++) {
        float ms = 0;
        error = cudaEventElapsedTime(&ms, profile->marks[i], profile->marks[i + 1]);
        profile->seconds[i] += ms * 1e-3;
    }
    return cuda_check(error, "timing a run");
}

/* --- what a step of the schedule has to do ---------------------------------------------------- */

static bool has(const struct step *step, enum graph_role role)
{
    return step->at[role].kind != PLACE_NONE;
}

static double weights_of(const struct graph_spec *spec)
{
    return (double)spec->in_channels * spec->out_channels * spec->kernel * spec->kernel;
}

/* Of a tensor in memory; vectors do not count beside maps. */
static double bytes_of(const struct graph_spec *spec, enum graph_role role)
{
    double in = (double)spec->batch * spec->in_channels * spec->in_height * spec->in_width;
    double out = (double)spec->batch * spec->out_channels * spec->out_height * spec->out_width;
    switch ((int)role) {
    case GRAPH_X:
        return 2 * in;
    case GRAPH_DX:
        return 2 * in * (spec->accumulate ? 2 : 1);
    case GRAPH_W:
    case GRAPH_DW:
        return 2 * weights_of(spec);
    case GRAPH_Y:
    case GRAPH_RESIDUAL:
    case GRAPH_OUT:
    case GRAPH_DOUT:
    case GRAPH_DZ:
    case GRAPH_DY:
        return 2 * out;
    case GRAPH_MASK:
        return out / 8;
    case GRAPH_INDEX:
        return out;
    default:
        return 0;
    }
}

static const char *work_of_graph(const struct step *step, const struct graph_spec *spec)
{
    bool convolves = has(step, GRAPH_W) || has(step, GRAPH_DW);
    if (!convolves && (spec->kind == GRAPH_MAX_POOL || spec->kind == GRAPH_MAX_POOL_BACKWARD ||
                       spec->kind == GRAPH_AVG_POOL || spec->kind == GRAPH_AVG_POOL_BACKWARD))
        return "pool";
    if (has(step, GRAPH_DW))
        return "convolution, weights' gradient";
    if (convolves)
        return has(step, GRAPH_DX) ? "convolution, data's gradient" : "convolution";
    return has(step, GRAPH_DSCALE) || has(step, GRAPH_DOUT) ? "BN backward" : "BN, ReLU, add";
}

static void cost_of_graph(struct profile_line *line, const struct step *step,
                          const struct graph_spec *spec)
{
    line->work = work_of_graph(step, spec);
    for (int role = 0; role < GRAPH_ROLES; role++)
        if (has(step, (enum graph_role)role))
            line->bytes += bytes_of(spec, (enum graph_role)role);
    if (has(step, GRAPH_W) || has(step, GRAPH_DW))
        line->flops = 2.0 * spec->batch * spec->out_height * spec->out_width * weights_of(spec);
}

static void cost_of(struct profile_line *line, const struct program *program, int index)
{
    const struct schedule *schedule = program->schedule;
    const struct step *step = &schedule->steps[index];
    const struct node *node = step->node >= 0 ? &program->net->nodes[step->node] : NULL;
    double batch = program->config.batch;
    line->node = step->node < 0 ? 0 : step->node;
    switch ((int)step->kind) {
    case STEP_INPUT:
        line->work = "input";
        break;
    case STEP_GRAPH:
        cost_of_graph(line, step, &schedule->graphs[step->graph]);
        break;
    case STEP_FC:
    case STEP_FC_BACKWARD:
        line->work = "classifier";
        line->flops =
            (step->kind == STEP_FC ? 2 : 4) * batch * node->in_channels * node->out_channels;
        break;
    case STEP_LOSS:
        line->work = "loss";
        break;
    case STEP_GATHER:
        line->work = "gradients gathered";
        break;
    default:
        line->work = "frozen BN";
    }
}

int profile_cuda_read(struct profile_line *lines, int most, const struct program *program)
{
    const struct profile *profile = program->profile;
    int count = profile ? profile->steps : 0;
    for (int i = 0; i < count && i < most; i++) {
        lines[i] = (struct profile_line){.seconds = profile->seconds[i]};
        cost_of(&lines[i], program, i);
    }
    return count < most ? count : most;
}

/* --- what the GPU does at best: the best of a few --------------------------------------------- */

struct trial {
    struct backend *backend;
    uint8_t *memory; /* device */
    size_t bytes;
    struct fc *fc;
    int side;
};

static int copy_memory(void *user)
{
    const struct trial *trial = user;
    return cuda_check(cudaMemcpyAsync(trial->memory + trial->bytes / 2, trial->memory,
                                      trial->bytes / 2, cudaMemcpyDeviceToDevice,
                                      trial->backend->compute),
                      "copying memory");
}

static int multiply(void *user)
{
    const struct trial *trial = user;
    size_t matrix = (size_t)trial->side * (size_t)trial->side * sizeof(uint16_t);
    const struct fc_data data = {.x = (const uint16_t *)trial->memory,
                                 .weights = (const uint16_t *)(trial->memory + matrix),
                                 .bias = (const float *)trial->memory,
                                 .logits = (float *)(trial->memory + 2 * matrix),
                                 .workspace = trial->memory + 4 * matrix};
    return fc_cuda_forward(trial->fc, &data);
}

int profile_cuda_best(double *best_s, struct backend *backend, int tries, int (*work)(void *user),
                      void *user)
{
    cudaEvent_t marks[2] = {NULL, NULL};
    cudaStream_t compute = backend->compute;
    int code = cuda_outside(backend);
    for (int i = 0; i < 2 && !code; i++)
        code = cuda_check(cudaEventCreateWithFlags(&marks[i], cudaEventDefault), "making an event");
    for (int i = 0; i < tries && !code; i++) {
        float ms = 0;
        code = cuda_check(cudaEventRecord(marks[0], compute), "recording an event");
        if (!code)
            code = work(user);
        cudaError_t error = code ? cudaSuccess : cudaEventRecord(marks[1], compute);
        if (!code && !error)
            error = cudaEventSynchronize(marks[1]);
        if (!code && !error)
            error = cudaEventElapsedTime(&ms, marks[0], marks[1]);
        code = code ? code : cuda_check(error, "timing the GPU");
        if (i == 0 || ms * 1e-3 < *best_s)
            *best_s = ms * 1e-3;
    }
    for (int i = 0; i < 2; i++)
        if (marks[i])
            cudaEventDestroy(marks[i]);
    return code;
}

int profile_cuda_peaks(double *flops, double *bytes, struct backend *backend)
{
    enum { TRIES = 5 };
    struct trial trial = {.backend = backend, .bytes = (size_t)512 << 20, .side = 8192};
    double copy_s = 0, product_s = 0, side = trial.side;
    int code = cuda_alloc(&trial.memory, backend, trial.bytes + ((size_t)64 << 20), "a trial");
    if (!code)
        code = fc_cuda_open(&trial.fc, backend, trial.side, trial.side, trial.side, false);
    if (!code && 4 * side * side * sizeof(uint16_t) + (double)fc_cuda_workspace(trial.fc) >
                     (double)(trial.bytes + ((size_t)64 << 20)))
        code = err_set(ERR_INTERNAL, "cuBLASLt wants a larger workspace than was allowed");
    if (!code)
        code = profile_cuda_best(&copy_s, backend, TRIES, copy_memory, &trial);
    if (!code)
        code = profile_cuda_best(&product_s, backend, TRIES, multiply, &trial);
    *bytes = code ? 0 : (double)trial.bytes / copy_s; /* half of it read, half written */
    *flops = code ? 0 : 2 * side * side * side / product_s;
    cudaStreamSynchronize(backend->compute);
    fc_cuda_close(trial.fc);
    if (trial.memory)
        cudaFree(trial.memory);
    return code;
}

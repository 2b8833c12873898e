/* SPDX-License-Identifier: Apache-2.0 */
/* Compiling a net: its schedule, the plans of cuDNN, memory, and what each plan runs on. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/log.h"
#include "trainer/checks.h"
#include "trainer/cuda/cuda.h"

static const double mib = 1 << 20;

void *program_cuda_at(const struct program *program, struct place place)
{
    const struct state *state = program->state;
    const struct layout *layout = state->layout;
    switch (place.kind) {
    case PLACE_NONE:
        break;
    case PLACE_BLOCK:
        return program_cuda_block(program, place.index);
    case PLACE_HALVES:
        return state->halves + layout->at[place.index];
    case PLACE_VALUES:
        return state->values + layout->at[place.index];
    case PLACE_FOLDED:
        return (uint16_t *)program_cuda_block(program, program->schedule->folded) +
               layout->at[place.index];
    case PLACE_EPSILON:
        return (void *)&program->epsilon;
    case PLACE_ZERO:
        return (void *)&program->zero;
    case PLACE_ONE:
        return (void *)&program->one;
    case PLACE_COUNT:
        return &program->counts[place.index];
    }
    return NULL;
}

static int check_teacher(const struct program *program)
{
    const struct program *teacher = program->config.teacher;
    return teacher ? checks_teacher(&teacher->config, teacher->net, &program->config, program->net)
                   : 0;
}

/* Bytes of all blocks at another batch; 0 when it cannot be. */
static size_t bytes_at(const struct program *program, int batch)
{
    struct program_config config = program->config;
    struct schedule *schedule;
    config.batch = batch;
    if (fit_cuda_schedule(&schedule, program, batch))
        return 0;
    size_t bytes = schedule_bytes(schedule) + input_cuda_bytes(&config, program->net);
    schedule_close(schedule);
    return bytes;
}

/* Of all that grows with the batch. */
static size_t bytes_of(const struct program *program)
{
    return schedule_bytes(program->schedule) + input_cuda_bytes(&program->config, program->net);
}

/* Memory is out: how much is wanted and free, and the largest batch that would do. */
static int too_large(const struct program *program, size_t wanted, size_t free_bytes)
{
    int low = 0, high = program->config.batch;
    size_t overhead = wanted - bytes_of(program);
    while (high - low > 1) {
        int middle = low + (high - low) / 2;
        size_t bytes = bytes_at(program, middle);
        if (bytes && bytes + overhead <= free_bytes)
            low = middle;
        else
            high = middle;
    }
    if (low > 8)
        low = low / 8 * 8;
    char way_out[80] = "even a micro-batch of 1 does not";
    if (low > 0)
        snprintf(way_out, sizeof way_out, "a micro-batch of %d does (--micro-batch %d)", low, low);
    return err_set(ERR_NOMEM,
                   "%s at a micro-batch of %d needs %.0f MiB of the GPU's memory, %.0f are free, "
                   "and does not fit; %s",
                   program->net->model, program->config.batch, (double)wanted / mib,
                   (double)free_bytes / mib, way_out);
}

int program_cuda_check_memory(const struct program *program, size_t wanted)
{
    size_t free_bytes = 0, total = 0;
    int code = cuda_check(cudaMemGetInfo(&free_bytes, &total), "asking for the free memory");
    if (!code && wanted > free_bytes)
        code = too_large(program, wanted, free_bytes);
    return code;
}

/* What one graph runs on. */
static int pack(struct program *program, int index)
{
    const struct plan *plan = program->plans[index];
    const struct step *step = &program->schedule->steps[index];
    void *pointers[GRAPH_ROLES];
    for (int i = 0; i < plan->graph->role_count; i++) {
        enum graph_role role = plan->graph->roles[i];
        pointers[i] = program_cuda_at(program, step->at[role]);
        if (!pointers[i])
            return err_set(ERR_INTERNAL, "step %d of %s has no memory for role %d", index,
                           program->net->model, (int)role);
    }
    return plan_pack(&program->packs[index], plan, pointers, program->workspace);
}

static struct kernel_gather_chunk
gather_chunk(const struct program *program, const struct gather *gather, size_t begin, size_t count)
{
    size_t width = gather->kind == GATHER_HALVES ? sizeof(uint16_t) : sizeof(float);
    return (struct kernel_gather_chunk){
        .src = (const uint8_t *)program_cuda_at(program, gather->from) + begin * width,
        .at = (uint32_t)(program->state->layout->at[gather->tensor] + begin),
        .count = (uint32_t)count,
        .kind = gather->kind == GATHER_HALVES   ? KERNEL_HALVES
                : gather->kind == GATHER_FLOATS ? KERNEL_FLOATS
                                                : KERNEL_VARIANCES,
        .unbias = (float)gather->unbias};
}

/* The tables of what goes into the slot, bucket by bucket. */
static int upload_gathers(struct program *program)
{
    const struct schedule *schedule = program->schedule;
    const struct layout *layout = program->state->layout;
    size_t room = layout->statistics_end / KERNEL_CHUNK + (size_t)schedule->gather_count + 1;
    struct kernel_gather_chunk *chunks = calloc(room, sizeof *chunks);
    program->gather_ends = calloc((size_t)layout->bucket_total, sizeof *program->gather_ends);
    if (!chunks || !program->gather_ends) {
        free(chunks);
        return err_set(ERR_NOMEM, "no memory for a table of gradients");
    }
    int total = 0;
    for (int b = 0; b < layout->bucket_total; b++) {
        size_t first = b ? layout->bucket_ends[b - 1] : 0;
        for (int i = 0; i < schedule->gather_count; i++) {
            const struct gather *gather = &schedule->gathers[i];
            size_t at = layout->at[gather->tensor];
            size_t count = layout_count(&program->net->tensors[gather->tensor]);
            if (at < first || at >= layout->bucket_ends[b])
                continue;
            for (size_t k = 0; k < count; k += KERNEL_CHUNK)
                chunks[total++] = gather_chunk(program, gather, k,
                                               count - k < KERNEL_CHUNK ? count - k : KERNEL_CHUNK);
        }
        program->gather_ends[b] = total;
    }
    int code = cuda_upload(&program->gathers, program->state->backend, chunks,
                           (size_t)(total ? total : 1) * sizeof *chunks, "a table of gradients");
    free(chunks);
    return code;
}

static bool is_folded(const struct program *program, int index)
{
    const struct node *node = &program->net->nodes[index];
    return node->kind == NODE_CONV &&
           (!program_trains(program) || net_bn_frozen(program->net, node));
}

static void fold_rows(struct kernel_fold_row *rows, const struct program *program,
                      const struct node *node)
{
    const struct layout *layout = program->state->layout;
    int channels = layout_padded(node->out_channels);
    size_t filter = layout_count(&program->net->tensors[node->weight]) / (size_t)channels;
    for (int c = 0; c < channels; c++)
        rows[c] = (struct kernel_fold_row){
            .filter_at = (uint32_t)(layout->at[node->weight] + (size_t)c * filter),
            .filter_count = program_trains(program) ? 0 : (uint32_t)filter,
            .gamma_at = (uint32_t)layout->at[node->gamma] + (uint32_t)c,
            .beta_at = (uint32_t)layout->at[node->beta] + (uint32_t)c,
            .mean_at = (uint32_t)layout->at[node->running_mean] + (uint32_t)c,
            .var_at = (uint32_t)layout->at[node->running_var] + (uint32_t)c};
}

/* The rows of every BN with running statistics. */
static int upload_folds(struct program *program)
{
    const struct net *net = program->net;
    size_t room = 1;
    for (int i = 0; i < net->node_count; i++)
        room += is_folded(program, i) ? (size_t)layout_padded(net->nodes[i].out_channels) : 0;
    struct kernel_fold_row *rows = calloc(room, sizeof *rows);
    program->fold_begins = calloc((size_t)net->node_count, sizeof *program->fold_begins);
    if (!rows || !program->fold_begins) {
        free(rows);
        return err_set(ERR_NOMEM, "no memory for a table of BN");
    }
    for (int i = 0; i < net->node_count; i++) {
        program->fold_begins[i] = program->fold_total;
        if (!is_folded(program, i))
            continue;
        fold_rows(rows + program->fold_total, program, &net->nodes[i]);
        program->fold_total += layout_padded(net->nodes[i].out_channels);
    }
    int code = cuda_upload(&program->folds, program->state->backend, rows, room * sizeof *rows,
                           "a table of BN");
    free(rows);
    return code;
}

static void tell_memory(const struct program *program)
{
    log_info("GPU memory for %s, %s, micro-batch %d: %.0f MiB of maps and gradients, %.0f MiB of "
             "workspace, %.0f MiB for what arrives",
             program->net->model, program_trains(program) ? "training" : "inference",
             program->config.batch, (double)schedule_bytes(program->schedule) / mib,
             (double)program->workspace_bytes / mib,
             (double)input_cuda_bytes(&program->config, program->net) / mib);
}

static int allocate(struct program *program)
{
    size_t blocks = schedule_bytes(program->schedule);
    size_t fc = fc_cuda_workspace(program->fc);
    if (fc > program->workspace_bytes)
        program->workspace_bytes = fc;
    int code = program_cuda_check_memory(program, bytes_of(program) + program->workspace_bytes);
    if (!code)
        code = cuda_alloc(&program->memory, program->state->backend,
                          blocks + program->workspace_bytes, "a program");
    if (!code)
        code = input_cuda_open(&program->input, program->state->backend, &program->config,
                               program->net);
    if (!code && program_trains(program))
        code = captured_cuda_open(&program->step, program);
    if (!code) {
        program->workspace = program->memory + blocks;
        tell_memory(program);
    }
    return code;
}

/* Of each node's output, in a channel; NULL when memory is out. */
static int64_t *count_values(const struct program *program)
{
    const struct net *net = program->net;
    int64_t *counts = calloc((size_t)net->node_count, sizeof *counts);
    for (int i = 0; counts && i < net->node_count; i++)
        counts[i] =
            (int64_t)program->config.batch * net->nodes[i].out_height * net->nodes[i].out_width;
    return counts;
}

static int compile(struct program *program)
{
    struct backend *backend = program->state->backend;
    const struct net *net = program->net;
    const struct node *last = &net->nodes[net->node_count - 1];
    bool trains = program_trains(program);
    int code = check_teacher(program);
    if (!code && trains)
        code = state_cuda_split(program->state, program->config.bucket_bytes);
    if (!code)
        code = fit_cuda_program(program);
    if (code)
        return code;
    size_t steps = (size_t)program->schedule->step_count;
    program->packs = calloc(steps, sizeof *program->packs);
    if (!program->packs || !(program->counts = count_values(program)))
        return err_set(ERR_NOMEM, "no memory for a program");
    if (!code)
        code = fc_cuda_open(&program->fc, backend, program->config.batch,
                            layout_padded(last->in_channels), layout_padded(net->classes), trains);
    if (!code)
        code = allocate(program);
    for (int i = 0; i < (int)steps && !code; i++)
        if (program->plans[i])
            code = pack(program, i);
    if (!code && trains)
        code = upload_gathers(program);
    if (!code)
        code = upload_folds(program);
    return code;
}

int program_cuda_open(struct program **out, struct state *state,
                      const struct program_config *config)
{
    *out = NULL;
    struct program *program = calloc(1, sizeof *program);
    if (!program)
        return err_set(ERR_NOMEM, "no memory for a program");
    program->state = state;
    program->config = *config;
    program->version = UINT64_MAX; /* nothing is folded yet */
    program->epsilon = NET_BN_EPSILON;
    program->one = 1;
    int code = net_copy(&program->net, state->net);
    if (!code && config->size_px)
        code = net_reshape(program->net, config->size_px);
    if (!code)
        code = compile(program);
    if (code) {
        program_cuda_close(program);
        return code;
    }
    *out = program;
    return 0;
}

void program_cuda_close(struct program *program)
{
    if (!program)
        return;
    cuda_finish(program->state->backend);
    for (int i = 0; program->packs && i < program->schedule->step_count; i++)
        if (program->packs[i])
            cudnnBackendDestroyDescriptor(program->packs[i]);
    captured_cuda_close(program->step);
    profile_cuda_close(program->profile);
    input_cuda_close(program->input);
    void *const memory[] = {program->memory, program->gathers, program->folds};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++)
        if (memory[i])
            cudaFree(memory[i]);
    free(program->packs);
    free(program->plans);
    free(program->counts);
    free(program->gather_ends);
    free(program->fold_begins);
    fc_cuda_close(program->fc);
    schedule_close(program->schedule);
    net_close(program->net);
    free(program);
}

size_t program_cuda_bytes(const struct program *program)
{
    return bytes_of(program) + program->workspace_bytes;
}

double program_cuda_seconds(const struct program *program)
{
    return program->seconds;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Weights, momentum, statistics and gradient slots on the device. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/log.h"
#include "trainer/checks.h"
#include "trainer/cuda/cuda.h"

static const double mib = 1 << 20;

static uint32_t flags_of(const struct tensor *tensor)
{
    bool matrix = net_decayed(tensor, true);
    return (tensor->trained ? UPDATE_TRAINED : 0) | (matrix ? UPDATE_MATRIX : 0) |
           (tensor->head ? UPDATE_HEAD : 0);
}

/* What the update works on: every tensor with a place in slots, in chunks. */
static int upload_chunks(struct state *state)
{
    const struct net *net = state->net;
    const struct layout *layout = state->layout;
    size_t room = layout->statistics_end / KERNEL_CHUNK + (size_t)net->tensor_count + 1;
    struct kernel_chunk *chunks = calloc(room, sizeof *chunks);
    if (!chunks)
        return err_set(ERR_NOMEM, "no memory for the weights of %s", net->model);
    int total = 0;
    for (int i = 0; i < net->tensor_count; i++) {
        size_t count = layout_in_slot(layout, i) ? layout_count(&net->tensors[i]) : 0;
        for (size_t at = 0; at < count; at += KERNEL_CHUNK) {
            size_t left = count - at < KERNEL_CHUNK ? count - at : KERNEL_CHUNK;
            chunks[total++] = (struct kernel_chunk){(uint32_t)(layout->at[i] + at), (uint32_t)left,
                                                    flags_of(&net->tensors[i])};
        }
    }
    state->chunk_total = total;
    int code = cuda_upload(&state->chunks, state->backend, chunks, (size_t)total * sizeof *chunks,
                           "the table of tensors");
    free(chunks);
    return code;
}

int state_cuda_open(struct state **out, struct backend *backend, const struct net *net, int slots)
{
    *out = NULL;
    struct state *state = calloc(1, sizeof *state);
    if (!state)
        return err_set(ERR_NOMEM, "no memory for the weights");
    state->backend = backend;
    state->slot_total = slots;
    state->updated_slot = -1;
    int code = net_copy(&state->net, net);
    if (!code)
        code = layout_open(&state->layout, net);
    if (code)
        goto fail;
    const struct layout *layout = state->layout;
    if (layout->value_count > UINT32_MAX) {
        code = err_set(ERR_UNSUPPORTED, "%s has too many weights for the cuda backend", net->model);
        goto fail;
    }
    /* At least one slot: a teacher's state has none. */
    size_t slot_bytes = layout->slot_count * sizeof(float) * (size_t)(slots > 0 ? slots : 1);
    if ((code = cuda_alloc(&state->values, backend, layout->value_count * 4, "weights")) != 0 ||
        (code = cuda_alloc(&state->momenta, backend, layout->gradient_count * 4, "momentum")) !=
            0 ||
        (code = cuda_alloc(&state->halves, backend, layout->value_count * 2, "weights")) != 0 ||
        (code = cuda_alloc(&state->slots, backend, slot_bytes, "gradients")) != 0 ||
        (code = cuda_alloc(&state->flags, backend, KERNEL_FLAGS * sizeof *state->flags, "flags")) !=
            0 ||
        (code = cuda_alloc(&state->control, backend, sizeof *state->control, "an update")) != 0 ||
        (code = upload_chunks(state)) != 0)
        goto fail;
    log_info("GPU memory for the weights of %s, their momentum and %d slots of gradients: %.0f MiB",
             net->model, slots,
             (double)(layout->value_count * 6 + layout->gradient_count * 4 + slot_bytes) / mib);
    *out = state;
    return 0;
fail:
    state_cuda_close(state);
    return code;
}

void state_cuda_close(struct state *state)
{
    if (!state)
        return;
    cuda_finish(state->backend);
    int events = state->ready ? state->slot_total * state->layout->bucket_total : 0;
    for (int i = 0; i < events; i++)
        if (state->ready[i])
            cudaEventDestroy(state->ready[i]);
    free(state->ready);
    void *const memory[] = {state->values, state->momenta, state->halves, state->slots,
                            state->flags,  state->control, state->chunks};
    for (size_t i = 0; i < sizeof memory / sizeof memory[0]; i++)
        if (memory[i])
            cudaFree(memory[i]);
    layout_close(state->layout);
    net_close(state->net);
    free(state);
}

/* Where the values of a kind are; NULL with the error set when the tensor has none. */
static float *values_of(struct state *state, enum state_kind kind, int tensor)
{
    if (checks_tensor(state->net, kind, tensor))
        return NULL;
    float *values = kind == STATE_WEIGHT ? state->values : state->momenta;
    return values + state->layout->at[tensor];
}

int state_cuda_set(struct state *state, enum state_kind kind, int tensor, const float *src)
{
    float *dst = values_of(state, kind, tensor);
    if (!dst)
        return ERR_ARG;
    const struct tensor *what = &state->net->tensors[tensor];
    cudaStream_t compute = state->backend->compute;
    size_t count = layout_count(what);
    float *host = malloc(count * sizeof *host);
    if (!host)
        return err_set(ERR_NOMEM, "no memory for %s", what->name);
    layout_from_canonical(host, src, what);
    int code = cuda_outside(state->backend);
    cudaError_t error = cudaSuccess;
    if (!code)
        error = cudaMemcpyAsync(dst, host, count * sizeof *host, cudaMemcpyHostToDevice, compute);
    const struct kernel_cast cast = {state->halves + state->layout->at[tensor], dst, count};
    if (!code && !error && kind == STATE_WEIGHT)
        error = kernel_cast(&cast, compute);
    if (!code && !error)
        error = cudaStreamSynchronize(compute);
    free(host);
    state->version++;
    return code ? code : cuda_check(error, "setting weights");
}

/* A tensor's floats from the device, in the canonical layout. */
static int download(float *dst, struct state *state, const float *src, int tensor)
{
    const struct tensor *what = &state->net->tensors[tensor];
    cudaStream_t compute = state->backend->compute;
    size_t count = layout_count(what);
    float *host = malloc(count * sizeof *host);
    if (!host)
        return err_set(ERR_NOMEM, "no memory for %s", what->name);
    int code = cuda_outside(state->backend);
    cudaError_t error = cudaSuccess;
    if (!code)
        error = cudaMemcpyAsync(host, src, count * sizeof *host, cudaMemcpyDeviceToHost, compute);
    if (!code && !error)
        error = cudaStreamSynchronize(compute);
    if (!code && !error)
        layout_to_canonical(dst, host, what);
    free(host);
    return code ? code : cuda_check(error, "reading weights back");
}

int state_cuda_get(float *dst, struct state *state, enum state_kind kind, int tensor)
{
    const float *src = values_of(state, kind, tensor);
    return src ? download(dst, state, src, tensor) : ERR_ARG;
}

int state_cuda_split(struct state *state, size_t bucket_bytes)
{
    int code = layout_split(state->layout, state->net, bucket_bytes);
    if (code || state->ready)
        return code;
    int events = state->slot_total * state->layout->bucket_total;
    state->ready = calloc((size_t)events + 1, sizeof *state->ready);
    if (!state->ready)
        return err_set(ERR_NOMEM, "no memory for the gradients' events");
    for (int i = 0; i < events && !code; i++)
        code = cuda_check(cudaEventCreateWithFlags(&state->ready[i], cudaEventDisableTiming),
                          "making an event");
    return code;
}

int state_cuda_buckets(const struct state *state)
{
    return state->layout->bucket_total;
}

struct bucket state_cuda_bucket(struct state *state, int slot, int bucket)
{
    const struct layout *layout = state->layout;
    size_t begin = bucket ? layout->bucket_ends[bucket - 1] : 0;
    return (struct bucket){.data = state_slot(state, slot) + begin,
                           .count = layout->bucket_ends[bucket] - begin,
                           .ready = state->ready[slot * layout->bucket_total + bucket]};
}

/* The sum is ready when what it was added from is: its bucket's event moves with it. */
static cudaError_t add_bucket(struct state *state, int dst, int src, int bucket)
{
    const struct bucket to = state_cuda_bucket(state, dst, bucket);
    const struct bucket from = state_cuda_bucket(state, src, bucket);
    const struct kernel_add add = {to.data, from.data, to.count};
    cudaError_t error = kernel_add(&add, state->backend->compute);
    return error ? error : cudaEventRecord(to.ready, state->backend->compute);
}

int state_cuda_slot_add(struct state *state, int dst, int src, int bucket)
{
    int total = state->layout->bucket_total;
    if (checks_slot(dst, state->slot_total) || checks_slot(src, state->slot_total) ||
        checks_bucket(bucket, total))
        return ERR_ARG;
    int code = cuda_outside(state->backend);
    cudaError_t error = cudaSuccess;
    for (int i = 0; i < total && !code && !error; i++)
        if (bucket == BUCKETS_ALL || bucket == i)
            error = add_bucket(state, dst, src, i);
    return code ? code : cuda_check(error, "adding gradients");
}

int state_cuda_slot_get(float *dst, struct state *state, int slot, int tensor)
{
    if (checks_slot(slot, state->slot_total))
        return ERR_ARG;
    if (tensor < 0 || tensor >= state->net->tensor_count || !layout_in_slot(state->layout, tensor))
        return err_set(ERR_ARG, "tensor %d of %s has no gradient", tensor, state->net->model);
    return download(dst, state, state_slot(state, slot) + state->layout->at[tensor], tensor);
}

/* Outside of a step its numbers are set first. */
static int set_update(struct state *state, const struct update *update)
{
    const struct kernel_set set = {
        .control = state->control, .flags = state->flags, .values = captured_cuda_values(update)};
    state->skips = update->skip_nonfinite;
    return cuda_check(kernel_set(&set, state->backend->compute), "setting an update");
}

int state_cuda_update(struct state *state, int slot, const struct update *update)
{
    struct captured_step *captured = state->stepping;
    int code = checks_slot(slot, state->slot_total);
    if (!code && !update && !captured)
        code = err_set(ERR_ARG, "an update outside of a step needs its numbers");
    if (!code)
        code = cuda_outside(state->backend);
    if (!code && update)
        code = set_update(state, update);
    if (code)
        return code;
    cudaStream_t compute = state->backend->compute;
    const float *values = state_slot(state, slot);
    const struct kernel_finite finite = {values, state->layout->statistics_end,
                                         &state->flags[KERNEL_BAD]};
    const struct kernel_update step = {
        .control = update ? state->control : captured->program->input->control,
        .flags = state->flags,
        .values = state->values,
        .momenta = state->momenta,
        .slot = values,
        .halves = state->halves,
        .chunks = state->chunks,
        .chunk_total = state->chunk_total,
        .sums = values + state->layout->statistics_end,
        .report = update ? NULL : captured->report,
    };
    cudaError_t error = kernel_finite(&finite, compute);
    if (!error)
        error = kernel_update(&step, compute);
    if (update)
        state->updated_slot = slot;
    else
        captured->slot = slot;
    state->version++;
    return cuda_check(error, "updating the weights");
}

int state_cuda_average(struct state *average, struct state *state, double decay)
{
    const struct kernel_average args = {.bad = state->skips ? &state->flags[KERNEL_BAD] : NULL,
                                        .average = average->values,
                                        .halves = average->halves,
                                        .values = state->values,
                                        .count = state->layout->value_count,
                                        .decay = (float)decay};
    int code = cuda_outside(state->backend);
    if (code)
        return code;
    average->version++;
    return cuda_check(kernel_average(&args, state->backend->compute), "averaging the weights");
}

int state_cuda_metrics(struct batch_metrics *metrics, struct state *state, int slot)
{
    if (checks_slot(slot, state->slot_total))
        return ERR_ARG;
    cudaStream_t compute = state->backend->compute;
    float sums[METRICS];
    int bad = 0;
    int code = cuda_outside(state->backend);
    if (code)
        return code;
    cudaError_t error =
        cudaMemcpyAsync(sums, state_slot(state, slot) + state->layout->statistics_end, sizeof sums,
                        cudaMemcpyDeviceToHost, compute);
    if (!error && slot == state->updated_slot)
        error = cudaMemcpyAsync(&bad, &state->flags[KERNEL_BAD], sizeof bad, cudaMemcpyDeviceToHost,
                                compute);
    if (!error)
        error = cudaStreamSynchronize(compute);
    if (error)
        return cuda_check(error, "reading the metrics back");
    *metrics = (struct batch_metrics){
        .loss = sums[0], .top1 = sums[1], .top5 = sums[2], .samples = sums[3], .finite = !bad};
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What arrives from the host: its places on the device and the copies into them. */
#include <stdlib.h>

#include "common/err.h"
#include "trainer/cuda/cuda.h"

enum { ALIGNMENT = 256 }; /* bytes, as cudaMalloc gives them */

static size_t aligned(size_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* Where the parts of a place lie. */
static struct input measure(const struct program_config *config, const struct net *net)
{
    size_t batch = (size_t)config->batch, size = (size_t)net->size_px;
    struct input input = {.micro_batches = config->micro_batches > 0 ? config->micro_batches : 1};
    input.sample_bytes = size * size * (size_t)net->channels *
                         (config->input.bytes ? sizeof(uint8_t) : sizeof(uint16_t));
    input.label_at = aligned(batch * input.sample_bytes);
    input.place_bytes = input.label_at + aligned(batch * sizeof(struct chunk_label));
    if (config->input.bytes) {
        input.offset_at = input.place_bytes;
        input.place_bytes += aligned(batch * 3 * sizeof(float));
    }
    return input;
}

static size_t memory_bytes(const struct input *input)
{
    return 2 * (size_t)input->micro_batches * input->place_bytes;
}

size_t input_cuda_bytes(const struct program_config *config, const struct net *net)
{
    const struct input input = measure(config, net);
    return memory_bytes(&input) + sizeof(struct kernel_control);
}

static int make_events(struct input *input)
{
    cudaError_t error = cudaSuccess;
    for (int i = 0; i < 2 && !error; i++) {
        error = cudaEventCreateWithFlags(&input->copied[i], cudaEventDisableTiming);
        if (!error)
            error = cudaEventCreateWithFlags(&input->released[i], cudaEventDisableTiming);
    }
    return cuda_check(error, "making an event");
}

/* The control's turn is that of what was read last: steps begin by going on to the other. */
static int set_turn(const struct input *input)
{
    const struct kernel_set set = {.control = input->control, .turn = 1};
    return cuda_check(kernel_set(&set, input->backend->compute), "setting the turn");
}

int input_cuda_open(struct input **out, struct backend *backend,
                    const struct program_config *config, const struct net *net)
{
    struct input *input = malloc(sizeof *input);
    *out = input;
    if (!input)
        return err_set(ERR_NOMEM, "no memory for a program");
    *input = measure(config, net);
    input->backend = backend;
    int code = cuda_alloc(&input->memory, backend, memory_bytes(input), "what arrives");
    if (!code)
        code = cuda_alloc(&input->control, backend, sizeof *input->control, "what arrives");
    if (!code)
        code = set_turn(input);
    if (!code) /* the copies' stream does not wait for the zeros that were queued on the other */
        code = cuda_check(cudaStreamSynchronize(backend->compute), "clearing memory");
    return code ? code : make_events(input);
}

void input_cuda_close(struct input *input)
{
    if (!input)
        return;
    for (int i = 0; i < 2; i++) {
        if (input->copied[i])
            cudaEventDestroy(input->copied[i]);
        if (input->released[i])
            cudaEventDestroy(input->released[i]);
    }
    if (input->memory)
        cudaFree(input->memory);
    if (input->control)
        cudaFree(input->control);
    free(input);
}

static uint8_t *place_of(const struct input *input, int turn, int micro_batch)
{
    size_t index = (size_t)(turn * input->micro_batches + micro_batch);
    return input->memory + index * input->place_bytes;
}

struct arrival input_cuda_arrival(const struct input *input, int micro_batch)
{
    struct arrival arrival = {.control = input->control};
    for (int turn = 0; turn < 2; turn++) {
        const uint8_t *place = place_of(input, turn, micro_batch);
        arrival.pixels[turn] = place;
        arrival.labels[turn] = (const struct chunk_label *)(place + input->label_at);
        if (input->offset_at)
            arrival.offsets[turn] = (const float *)(place + input->offset_at);
    }
    return arrival;
}

/* Behind what reads the turn's places, unless the host has seen it done. */
static cudaError_t await_readers(struct input *input)
{
    int turn = input->turn;
    if (!input->reading[turn])
        return cudaSuccess;
    input->reading[turn] = false;
    return cudaStreamWaitEvent(input->backend->copy, input->released[turn], 0);
}

int input_cuda_load(struct input *input, int micro_batch, const struct batch *batch)
{
    cudaStream_t copy = input->backend->copy;
    uint8_t *place = place_of(input, input->turn, micro_batch);
    size_t samples = (size_t)batch->samples;
    cudaError_t error = await_readers(input);
    if (!error)
        error = cudaMemcpyAsync(place, batch->pixels, samples * input->sample_bytes,
                                cudaMemcpyHostToDevice, copy);
    if (!error)
        error = cudaMemcpyAsync(place + input->label_at, batch->labels,
                                samples * sizeof *batch->labels, cudaMemcpyHostToDevice, copy);
    if (!error && input->offset_at)
        error = cudaMemcpyAsync(place + input->offset_at, batch->offsets,
                                samples * sizeof *batch->offsets, cudaMemcpyHostToDevice, copy);
    return cuda_check(error, "copying a batch");
}

int input_cuda_arrive(struct input *input)
{
    int turn = input->turn;
    cudaError_t error = cudaEventRecord(input->copied[turn], input->backend->copy);
    if (!error)
        error = cudaStreamWaitEvent(input->backend->compute, input->copied[turn], 0);
    return cuda_check(error, "copying a batch");
}

int input_cuda_release(struct input *input)
{
    int turn = input->turn;
    input->turn = 1 - turn;
    input->reading[turn] = true;
    return cuda_check(cudaEventRecord(input->released[turn], input->backend->compute),
                      "recording an event");
}

int input_cuda_read(struct input *input)
{
    return cuda_check(cudaStreamSynchronize(input->backend->copy), "waiting for a copy");
}

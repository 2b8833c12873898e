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
    for (int i = 0; i < 2 && !error; i++)
        error = cudaEventCreateWithFlags(&input->copied[i], cudaEventDisableTiming);
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
    if (!code) /* the copies' streams do not wait for the zeros that were queued on another */
        code = cuda_check(cudaStreamSynchronize(backend->compute), "clearing memory");
    return code ? code : make_events(input);
}

void input_cuda_close(struct input *input)
{
    if (!input)
        return;
    for (int i = 0; i < 2; i++)
        if (input->copied[i])
            cudaEventDestroy(input->copied[i]);
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

int input_cuda_load(struct input *input, int micro_batch, const struct batch *batch)
{
    cudaStream_t copy = input_cuda_stream(input);
    uint8_t *place = place_of(input, input->turn, micro_batch);
    size_t samples = (size_t)batch->samples;
    input->unmarked[input->turn] = true;
    cudaError_t error = cudaMemcpyAsync(place, batch->pixels, samples * input->sample_bytes,
                                        cudaMemcpyHostToDevice, copy);
    if (!error)
        error = cudaMemcpyAsync(place + input->label_at, batch->labels,
                                samples * sizeof *batch->labels, cudaMemcpyHostToDevice, copy);
    if (!error && input->offset_at)
        error = cudaMemcpyAsync(place + input->offset_at, batch->offsets,
                                samples * sizeof *batch->offsets, cudaMemcpyHostToDevice, copy);
    return cuda_check(error, "copying a batch");
}

int input_cuda_mark(struct input *input)
{
    int turn = input->turn;
    input->unmarked[turn] = false;
    return cuda_check(cudaEventRecord(input->copied[turn], input_cuda_stream(input)),
                      "copying a batch");
}

int input_cuda_arrive(struct input *input)
{
    int code = input_cuda_mark(input);
    if (code)
        return code;
    return cuda_check(cudaStreamWaitEvent(input->backend->compute, input->copied[input->turn], 0),
                      "copying a batch");
}

int input_cuda_release(struct input *input)
{
    return cuda_order(input->backend, input->backend->compute, input_cuda_stream(input));
}

/* The stream of unmarked copies may have a whole step behind them; from now on all are marked. */
int input_cuda_read(struct input *input)
{
    cudaError_t error = cudaSuccess;
    for (int turn = 0; turn < 2 && !error; turn++)
        error = input->unmarked[turn] ? cudaStreamSynchronize(input->backend->turns[turn])
                                      : cudaEventSynchronize(input->copied[turn]);
    input->watched = true;
    return cuda_check(error, "waiting for a copy");
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What arrived from the loaders, as the network's input. */
#include "trainer/cuda/launch.cuh"

#include "trainer/cuda/kernels.h"

/* Without an index, which would put the array on the stack. */
__device__ static float of_channel(const float values[3], int channel)
{
    return channel == 0 ? values[0] : channel == 1 ? values[1] : values[2];
}

struct arrived { /* of this turn */
    const void *pixels;
    const struct chunk_label *labels;
    const float *offsets;
};

/* Without an index, as above. */
__device__ static struct arrived arrived(const struct kernel_unpack &args)
{
    const bool second = args.control->turn != 0;
    const struct arrived arrived = {second ? args.pixels[1] : args.pixels[0],
                                    second ? args.labels[1] : args.labels[0],
                                    second ? args.offsets[1] : args.offsets[0]};
    return arrived;
}

/* (byte + (offset - mean)) * (1 / std), in this order, as trainer/unpack.c has it. */
__device__ static float normalise(const struct kernel_unpack &args, const struct arrived &from,
                                  int sample, size_t pixel, int channel)
{
    const uint8_t *bytes = (const uint8_t *)from.pixels;
    size_t at = ((size_t)sample * args.image_pixels + pixel) * args.channels + channel;
    float shift = from.offsets[3 * sample + channel] - of_channel(args.mean, channel);
    return ((float)bytes[at] + shift) * (1.0f / of_channel(args.std, channel));
}

__device__ static uint16_t value_of_bytes(const struct kernel_unpack &args,
                                          const struct arrived &from, int sample, size_t pixel,
                                          int channel)
{
    const struct chunk_label label = from.labels[sample];
    if (label.a == CHUNK_LABEL_MASKED)
        return 0;
    float value = normalise(args, from, sample, pixel, channel);
    if (label.lam != 1.0f) {
        int position = sample % args.chunk_size;
        int partner = sample - position + args.chunk_size - 1 - position;
        value =
            label.lam * value + (1.0f - label.lam) * normalise(args, from, partner, pixel, channel);
    }
    return to_half(value);
}

__device__ static uint16_t value_of(const struct kernel_unpack &args, const struct arrived &from,
                                    int sample, size_t pixel, int channel)
{
    if (channel >= args.channels || sample >= args.samples)
        return 0;
    if (args.bytes)
        return value_of_bytes(args, from, sample, pixel, channel);
    const uint16_t *halves = (const uint16_t *)from.pixels;
    return halves[((size_t)sample * args.image_pixels + pixel) * args.channels + channel];
}

/* A thread has eight lanes of a pixel: one store of 16 bytes. */
__global__ static void unpack(const struct kernel_unpack args)
{
    const struct arrived from = arrived(args);
    size_t groups = (size_t)args.lanes / 8;
    size_t total = (size_t)args.batch * args.image_pixels * groups;
    for (size_t i = thread_number(); i < total; i += thread_total()) {
        size_t pixel = i / groups % args.image_pixels;
        int sample = (int)(i / groups / args.image_pixels), lane = (int)(i % groups) * 8;
        uint32_t pairs[4];
        for (int k = 0; k < 4; k++)
            pairs[k] = (uint32_t)value_of(args, from, sample, pixel, lane + 2 * k) |
                       (uint32_t)value_of(args, from, sample, pixel, lane + 2 * k + 1) << 16;
        ((uint4 *)args.out)[i] = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
    }
}

cudaError_t kernel_unpack(const struct kernel_unpack *args, cudaStream_t stream)
{
    size_t threads = (size_t)args->batch * args->image_pixels * (args->lanes / 8);
    LAUNCH(unpack, blocks_for(threads), THREADS, 0, stream, *args);
    return cudaGetLastError();
}

/* SPDX-License-Identifier: Apache-2.0 */
/* A block of threads a sample. Softmax and loss are in double, which costs nothing beside a
 * convolution: what is stored in halves then is the exact value's nearest. */
#include "trainer/cuda/launch.cuh"

#include <math.h>

#include "trainer/cuda/kernels.h"

struct softmax { /* of values over a temperature: exp(value / temperature - shift) / sum */
    double shift, sum, temperature;
};

__device__ static struct softmax softmax_of(const float *values, int classes, double temperature,
                                            double *shared)
{
    double largest = -INFINITY, sum = 0;
    for (int i = threadIdx.x; i < classes; i += THREADS)
        largest = fmax(largest, values[i] / temperature);
    largest = block_reduce<true>(largest, shared);
    for (int i = threadIdx.x; i < classes; i += THREADS)
        sum += exp(values[i] / temperature - largest);
    sum = block_reduce<false>(sum, shared);
    const struct softmax softmax = {largest, sum, temperature};
    return softmax;
}

__device__ static double probability(const struct softmax &softmax, float value)
{
    return exp(value / softmax.temperature - softmax.shift) / softmax.sum;
}

/* - log of it */
__device__ static double surprise(const struct softmax &softmax, float value)
{
    return log(softmax.sum) - (value / softmax.temperature - softmax.shift);
}

__device__ static double target_of(const struct kernel_loss &args, const struct chunk_label &label,
                                   int class_index)
{
    double q = args.off;
    if ((uint32_t)class_index == label.a)
        q += args.on * label.lam;
    if ((uint32_t)class_index == label.b)
        q += args.on * (1.0 - label.lam);
    return q;
}

/* How many classes rank before the target; NaN ranks before everything and after nothing. */
__device__ static float rank_of(const float *z, uint32_t target, int classes, double *shared)
{
    float at = z[target];
    double before = 0;
    for (int i = threadIdx.x; i < classes; i += THREADS) {
        bool after = z[i] < at || (z[i] == at && (uint32_t)i >= target);
        before += after ? 0 : 1;
    }
    return block_reduce<false>(before, shared);
}

/* A sample that is not there, or masked: nothing is counted, no gradient. */
__device__ static void clear(const struct kernel_loss &args, int sample)
{
    for (int i = threadIdx.x; args.gradient && i < args.pitch; i += THREADS)
        args.gradient[(size_t)sample * args.pitch + i] = 0;
    if (threadIdx.x < 4)
        args.losses[4 * sample + threadIdx.x] = 0;
}

__global__ static void loss(const struct kernel_loss args)
{
    __shared__ double shared[WARPS];
    int sample = blockIdx.x;
    const uint32_t turn = args.control->turn;
    const double factor = args.control->values[turn].factor[args.flags[KERNEL_BAD_BEFORE] != 0];
    const struct chunk_label *labels = turn ? args.labels[1] : args.labels[0];
    const struct chunk_label label = labels[sample < args.samples ? sample : 0];
    if (sample >= args.samples || label.a == CHUNK_LABEL_MASKED) {
        clear(args, sample);
        return;
    }
    const float *z = args.logits + (size_t)sample * args.pitch;
    const float *r = args.teacher ? args.teacher + (size_t)sample * args.pitch : NULL;
    const struct softmax hard = softmax_of(z, args.classes, 1, shared);
    struct softmax soft = hard, taught = hard;
    if (r) {
        soft = softmax_of(z, args.classes, args.temperature, shared);
        taught = softmax_of(r, args.classes, args.temperature, shared);
    }
    double hard_loss = 0, soft_loss = 0;
    for (int i = threadIdx.x; i < args.pitch; i += THREADS) {
        double gradient = 0;
        if (i < args.classes) {
            double q = target_of(args, label, i);
            hard_loss += q != 0 ? q * surprise(hard, z[i]) : 0.0; /* 0 * infinity is no loss */
            gradient = args.hard_weight * (probability(hard, z[i]) - q);
        }
        if (r && i < args.classes) {
            double q = probability(taught, r[i]);
            soft_loss += q != 0 ? q * surprise(soft, z[i]) : 0.0;
            gradient += args.soft_weight * args.temperature * (probability(soft, z[i]) - q);
        }
        if (args.gradient)
            args.gradient[(size_t)sample * args.pitch + i] = to_half((float)(factor * gradient));
    }
    double total = args.hard_weight * block_reduce<false>(hard_loss, shared);
    if (r)
        total += args.soft_weight * args.temperature * args.temperature *
                 block_reduce<false>(soft_loss, shared);
    double rank = rank_of(z, label.lam >= 0.5f ? label.a : label.b, args.classes, shared);
    if (threadIdx.x == 0)
        ((float4 *)args.losses)[sample] =
            make_float4((float)total, rank < 1 ? 1.0f : 0.0f, rank < 5 ? 1.0f : 0.0f, 1.0f);
}

cudaError_t kernel_loss(const struct kernel_loss *args, cudaStream_t stream)
{
    LAUNCH(loss, (unsigned)args->batch, THREADS, 0, stream, *args);
    return cudaGetLastError();
}

__global__ static void sum_losses(const struct kernel_sum_losses args)
{
    __shared__ double shared[WARPS];
    for (int k = 0; k < 4; k++) {
        double sum = 0;
        for (int i = threadIdx.x; i < args.batch; i += THREADS)
            sum += args.losses[4 * i + k];
        sum = block_reduce<false>(sum, shared);
        if (threadIdx.x == 0)
            args.dst[k] = (float)sum;
    }
}

cudaError_t kernel_sum_losses(const struct kernel_sum_losses *args, cudaStream_t stream)
{
    LAUNCH(sum_losses, 1, THREADS, 0, stream, *args);
    return cudaGetLastError();
}

/* A thread a column: neighbours read neighbours. */
__global__ static void sum_rows(const struct kernel_sum_rows args)
{
    for (size_t column = thread_number(); column < (size_t)args.columns; column += thread_total()) {
        float sum = 0;
        for (int row = 0; row < args.rows; row++)
            sum += from_half(args.src[(size_t)row * args.columns + column]);
        args.dst[column] = sum;
    }
}

cudaError_t kernel_sum_rows(const struct kernel_sum_rows *args, cudaStream_t stream)
{
    LAUNCH(sum_rows, blocks_for((size_t)args->columns), THREADS, 0, stream, *args);
    return cudaGetLastError();
}

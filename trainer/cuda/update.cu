/* SPDX-License-Identifier: Apache-2.0 */
/* Four values a thread at a time: every count is a multiple of LANES. */
#include "trainer/cuda/launch.cuh"

#include <math.h>

#include "trainer/cuda/kernels.h"

__global__ static void finite(const struct kernel_finite args)
{
    int bad = 0;
    const float4 *values = (const float4 *)args.values;
    for (size_t i = thread_number(); i < args.count / 4; i += thread_total()) {
        const float4 v = values[i];
        bad |= !isfinite(v.x) || !isfinite(v.y) || !isfinite(v.z) || !isfinite(v.w);
    }
    if (__syncthreads_or(bad) && threadIdx.x == 0)
        atomicOr(args.flag, 1);
}

cudaError_t kernel_finite(const struct kernel_finite *args, cudaStream_t stream)
{
    LAUNCH(finite, blocks_for(args->count / 4), THREADS, 0, stream, *args);
    return cudaGetLastError();
}

struct rates { /* of one tensor */
    float lr, momentum, decay, grad_scale;
};

/* g = grad_scale gradient + decay w; v = momentum v + g; w -= lr (g + momentum v) */
__device__ static void nag(float &w, float &v, float gradient, const struct rates &rates)
{
    float g = rates.grad_scale * gradient + rates.decay * w;
    v = rates.momentum * v + g;
    w -= rates.lr * (g + rates.momentum * v);
}

__device__ static struct rates rates_of(const struct kernel_update &args, uint32_t flags)
{
    const struct kernel_values &values = args.control->values[args.control->turn];
    const struct rates rates = {flags & UPDATE_HEAD ? values.head_lr : values.lr, values.momentum,
                                flags & UPDATE_MATRIX ? values.matrix_decay : values.vector_decay,
                                values.grad_scale[args.flags[KERNEL_BAD_BEFORE] != 0]};
    return rates;
}

__device__ static void update_trained(const struct kernel_update &args, const struct rates &rates,
                                      size_t at)
{
    float4 w = *(float4 *)(args.values + at), v = *(float4 *)(args.momenta + at);
    const float4 g = *(const float4 *)(args.slot + at);
    nag(w.x, v.x, g.x, rates);
    nag(w.y, v.y, g.y, rates);
    nag(w.z, v.z, g.z, rates);
    nag(w.w, v.w, g.w, rates);
    *(float4 *)(args.values + at) = w;
    *(float4 *)(args.momenta + at) = v;
    *(uint2 *)(args.halves + at) = make_uint2(to_halves(w.x, w.y), to_halves(w.z, w.w));
}

__device__ static void update_running(const struct kernel_update &args,
                                      const struct kernel_values &values, size_t at)
{
    for (size_t i = at; i < at + 4; i++) {
        float batch = args.slot[i] / values.micro_batches;
        args.values[i] += values.running_momentum * (batch - args.values[i]);
    }
}

__device__ static void report(const struct kernel_update &args)
{
    struct kernel_report *told = args.report + args.control->turn;
    for (int i = 0; i < 4; i++)
        told->sums[i] = args.sums[i];
    told->bad = args.flags[KERNEL_BAD] != 0;
    for (int i = 0; i < 3; i++)
        told->pads[i] = 0;
    told->step_ns += device_nanoseconds();
}

__global__ static void update(const struct kernel_update args)
{
    if (args.report && blockIdx.x == 0 && threadIdx.x == 0)
        report(args);
    const struct kernel_values &values = args.control->values[args.control->turn];
    if (values.skip && args.flags[KERNEL_BAD])
        return;
    const struct kernel_chunk chunk = args.chunks[blockIdx.x];
    const struct rates rates = rates_of(args, chunk.flags);
    for (uint32_t i = 4 * threadIdx.x; i < chunk.count; i += 4 * THREADS) {
        size_t at = (size_t)chunk.at + i;
        if (chunk.flags & UPDATE_TRAINED)
            update_trained(args, rates, at);
        else
            update_running(args, values, at);
    }
}

cudaError_t kernel_update(const struct kernel_update *args, cudaStream_t stream)
{
    LAUNCH(update, (unsigned)args->chunk_total, THREADS, 0, stream, *args);
    return cudaGetLastError();
}

__global__ static void add(const struct kernel_add args)
{
    for (size_t i = thread_number(); i < args.count / 4; i += thread_total()) {
        float4 sum = ((float4 *)args.dst)[i];
        const float4 more = ((const float4 *)args.src)[i];
        sum.x += more.x;
        sum.y += more.y;
        sum.z += more.z;
        sum.w += more.w;
        ((float4 *)args.dst)[i] = sum;
    }
}

cudaError_t kernel_add(const struct kernel_add *args, cudaStream_t stream)
{
    LAUNCH(add, blocks_for(args->count / 4), THREADS, 0, stream, *args);
    return cudaGetLastError();
}

__global__ static void cast(const struct kernel_cast args)
{
    for (size_t i = thread_number(); i < args.count / 4; i += thread_total()) {
        const float4 v = ((const float4 *)args.values)[i];
        ((uint2 *)args.halves)[i] = make_uint2(to_halves(v.x, v.y), to_halves(v.z, v.w));
    }
}

cudaError_t kernel_cast(const struct kernel_cast *args, cudaStream_t stream)
{
    LAUNCH(cast, blocks_for(args->count / 4), THREADS, 0, stream, *args);
    return cudaGetLastError();
}

__global__ static void average(const struct kernel_average args)
{
    if (args.bad && *args.bad)
        return;
    const float rest = 1.0f - args.decay;
    for (size_t i = thread_number(); i < args.count / 4; i += thread_total()) {
        float4 a = ((float4 *)args.average)[i];
        const float4 v = ((const float4 *)args.values)[i];
        a.x = args.decay * a.x + rest * v.x;
        a.y = args.decay * a.y + rest * v.y;
        a.z = args.decay * a.z + rest * v.z;
        a.w = args.decay * a.w + rest * v.w;
        ((float4 *)args.average)[i] = a;
        ((uint2 *)args.halves)[i] = make_uint2(to_halves(a.x, a.y), to_halves(a.z, a.w));
    }
}

cudaError_t kernel_average(const struct kernel_average *args, cudaStream_t stream)
{
    LAUNCH(average, blocks_for(args->count / 4), THREADS, 0, stream, *args);
    return cudaGetLastError();
}

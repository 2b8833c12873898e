/* SPDX-License-Identifier: Apache-2.0 */
/* All gradients of a micro-batch, from where the backward pass left them to their slot's place. */
#include "trainer/cuda/launch.cuh"

#include "trainer/cuda/kernels.h"

__device__ static float4 four_halves(const void *src, uint32_t i)
{
    const uint2 bits = *(const uint2 *)((const uint16_t *)src + i);
    return make_float4(from_half((uint16_t)bits.x), from_half((uint16_t)(bits.x >> 16)),
                       from_half((uint16_t)bits.y), from_half((uint16_t)(bits.y >> 16)));
}

/* Unbiased, from 1 / sqrt(biased + epsilon). */
__device__ static float variance(float inverse, float unbias, float epsilon)
{
    return fmaxf(1.0f / (inverse * inverse) - epsilon, 0.0f) * unbias;
}

__global__ static void gather(const struct kernel_gather args)
{
    const struct kernel_gather_chunk chunk = args.chunks[blockIdx.x];
    for (uint32_t i = 4 * threadIdx.x; i < chunk.count; i += 4 * THREADS) {
        float4 v = chunk.kind == KERNEL_HALVES ? four_halves(chunk.src, i)
                                               : *(const float4 *)((const float *)chunk.src + i);
        if (chunk.kind == KERNEL_VARIANCES)
            v = make_float4(variance(v.x, chunk.unbias, args.epsilon),
                            variance(v.y, chunk.unbias, args.epsilon),
                            variance(v.z, chunk.unbias, args.epsilon),
                            variance(v.w, chunk.unbias, args.epsilon));
        *(float4 *)(args.slot + chunk.at + i) = v;
    }
}

cudaError_t kernel_gather(const struct kernel_gather *args, cudaStream_t stream)
{
    LAUNCH(gather, (unsigned)args->chunk_total, THREADS, 0, stream, *args);
    return cudaGetLastError();
}

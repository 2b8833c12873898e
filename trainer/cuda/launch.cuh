/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernels share: how they are launched (one place, so that a host build can put its own
 * there), half floats as bits, reductions. */
#ifndef TRAINER_CUDA_LAUNCH_CUH
#define TRAINER_CUDA_LAUNCH_CUH

#ifdef __CUDACC__
#include <cuda_runtime.h>
#else
#include <time.h>
#endif
#include <cuda_fp16.h>
#include <stdint.h>

#ifndef LAUNCH
#define LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                     \
    kernel<<<grid, block, shared_bytes, stream>>>(__VA_ARGS__)
#endif

enum { WARP = 32, THREADS = 256, WARPS = THREADS / WARP, BLOCKS_MAX = 4096 };

/* Blocks for `count` pieces of work of a thread, which loops when that is more than BLOCKS_MAX. */
static inline unsigned blocks_for(size_t count)
{
    size_t blocks = (count + THREADS - 1) / THREADS;
    return (unsigned)(blocks < 1 ? 1 : blocks > BLOCKS_MAX ? BLOCKS_MAX : blocks);
}

__device__ static inline size_t thread_number()
{
    return (size_t)blockIdx.x * blockDim.x + threadIdx.x;
}

__device__ static inline size_t thread_total()
{
    return (size_t)gridDim.x * blockDim.x;
}

/* Of a clock that all of the device's processors share; it moves every microsecond or faster. */
__device__ static inline uint64_t device_nanoseconds()
{
#ifdef __CUDACC__
    uint64_t now;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
    return now;
#else
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
#endif
}

__device__ static inline float from_half(uint16_t bits)
{
    return __half2float(__ushort_as_half(bits));
}

__device__ static inline uint16_t to_half(float value)
{
    return __half_as_ushort(__float2half_rn(value));
}

__device__ static inline uint32_t to_halves(float low, float high)
{
    return (uint32_t)to_half(low) | (uint32_t)to_half(high) << 16;
}

/* The sum, or the maximum, over the block's THREADS, in a fixed order, for every thread. shared: of
 * WARPS floats, free again when it returns. */
template <bool maximum> __device__ static inline double block_reduce(double value, double *shared)
{
    for (int step = WARP / 2; step > 0; step /= 2) {
        double other = __shfl_xor_sync(0xffffffffu, value, step);
        value = maximum ? fmax(value, other) : value + other;
    }
    if (threadIdx.x % WARP == 0)
        shared[threadIdx.x / WARP] = value;
    __syncthreads();
    double total = shared[0];
    for (int i = 1; i < WARPS; i++)
        total = maximum ? fmax(total, shared[i]) : total + shared[i];
    __syncthreads();
    return total;
}

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#include "trainer/cuda/launch.cuh"

#include "trainer/cuda/kernels.h"

__device__ static void new_update(int *flags)
{
    flags[KERNEL_BAD_BEFORE] = flags[KERNEL_BAD];
    flags[KERNEL_BAD] = 0;
}

__global__ static void set(const struct kernel_set args)
{
    if (threadIdx.x != 0)
        return;
    args.control->turn = args.turn;
    args.control->values[args.turn] = args.values;
    if (args.flags)
        new_update(args.flags);
}

cudaError_t kernel_set(const struct kernel_set *args, cudaStream_t stream)
{
    LAUNCH(set, 1, WARP, 0, stream, *args);
    return cudaGetLastError();
}

__global__ static void begin(const struct kernel_begin args)
{
    if (threadIdx.x != 0)
        return;
    args.control->turn ^= 1;
    new_update(args.flags);
}

cudaError_t kernel_begin(const struct kernel_begin *args, cudaStream_t stream)
{
    LAUNCH(begin, 1, WARP, 0, stream, *args);
    return cudaGetLastError();
}

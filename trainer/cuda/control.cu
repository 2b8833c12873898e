/* SPDX-License-Identifier: Apache-2.0 */
/* What a step is told and tells: learning rate and turn before it, flags and times after it. */
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
    struct kernel_report *told = args.report + args.control->turn;
    told->step_ns = -device_nanoseconds();
    told->teacher_ns = 0;
}

cudaError_t kernel_begin(const struct kernel_begin *args, cudaStream_t stream)
{
    LAUNCH(begin, 1, WARP, 0, stream, *args);
    return cudaGetLastError();
}

/* Sums of ends less beginnings, modulo 2^64. */
__global__ static void teacher(const struct kernel_teacher args)
{
    if (threadIdx.x != 0)
        return;
    uint64_t now = device_nanoseconds();
    args.report[args.control->turn].teacher_ns += args.ends ? now : -now;
}

cudaError_t kernel_teacher(const struct kernel_teacher *args, cudaStream_t stream)
{
    LAUNCH(teacher, 1, WARP, 0, stream, *args);
    return cudaGetLastError();
}

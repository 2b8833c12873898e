/* SPDX-License-Identifier: Apache-2.0 */
/* Batch normalisation with running statistics, folded into the convolution before it. */
#include "trainer/cuda/launch.cuh"

#include "trainer/cuda/kernels.h"

/* A block of threads a row. */

__global__ static void fold(const struct kernel_fold args)
{
    const struct kernel_fold_row row = args.rows[blockIdx.x];
    float scale = args.values[row.gamma_at] / sqrtf(args.values[row.var_at] + args.epsilon);
    float shift = args.values[row.beta_at] - args.values[row.mean_at] * scale;
    for (uint32_t i = threadIdx.x; i < row.filter_count; i += THREADS)
        args.folded[row.filter_at + i] = to_half(args.values[row.filter_at + i] * scale);
    if (threadIdx.x > 0)
        return;
    if (args.scales) {
        args.scales[blockIdx.x] = scale;
        args.shifts[blockIdx.x] = shift;
    } else {
        args.folded[row.beta_at] = to_half(shift);
    }
}

cudaError_t kernel_fold(const struct kernel_fold *args, cudaStream_t stream)
{
    LAUNCH(fold, (unsigned)args->row_total, THREADS, 0, stream, *args);
    return cudaGetLastError();
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels with known results and known faults, for the tests of the emulation. */
#ifndef TESTS_VGPU_TEST_KERNELS_H
#define TESTS_VGPU_TEST_KERNELS_H

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

struct kernel_data {
    float *out;      /* [blocks] or [count] */
    const float *in; /* [count] */
    void *halves;    /* [count] */
    int *flag;
    int count;
};

void test_sum_blocks(const struct kernel_data *data, int blocks, cudaStream_t stream);
void test_round(const struct kernel_data *data, cudaStream_t stream);
void test_vectors(const struct kernel_data *data, cudaStream_t stream); /* count a multiple of 4 */
void test_votes(const struct kernel_data *data, cudaStream_t stream);

/* Faults. */
void test_missing_barrier(const struct kernel_data *data, cudaStream_t stream);
void test_split_barrier(const struct kernel_data *data, cudaStream_t stream);
void test_split_shuffle(const struct kernel_data *data, cudaStream_t stream);
void test_unwritten_shared(const struct kernel_data *data, cudaStream_t stream);
void test_one_too_many(const struct kernel_data *data, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/vgpu/test_kernels.h"

static __global__ void sum_blocks(struct kernel_data data)
{
    __shared__ float sums[32];
    float sum = 0;
    for (int i = (int)(blockIdx.x * blockDim.x + threadIdx.x); i < data.count;
         i += (int)(gridDim.x * blockDim.x))
        sum += data.in[i];
    for (int turn = 16; turn; turn >>= 1)
        sum += __shfl_xor_sync(0xffffffffu, sum, turn);
    if (threadIdx.x % 32 == 0)
        sums[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x < 32) {
        sum = threadIdx.x < blockDim.x / 32 ? sums[threadIdx.x] : 0.0f;
        for (int by = 16; by; by >>= 1)
            sum += __shfl_down_sync(0xffffffffu, sum, by);
        if (threadIdx.x == 0)
            data.out[blockIdx.x] = sum;
    }
}

void test_sum_blocks(const struct kernel_data *data, int blocks, cudaStream_t stream)
{
    LAUNCH(sum_blocks, blocks, 256, 0, stream, *data);
}

static __global__ void to_halves(struct kernel_data data)
{
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= data.count)
        return;
    ((__half *)data.halves)[i] = __float2half_rn(data.in[i]);
    data.out[i] = __half2float(((__half *)data.halves)[i]);
    if (!isfinite(data.out[i]))
        atomicOr(data.flag, 1);
}

void test_round(const struct kernel_data *data, cudaStream_t stream)
{
    LAUNCH(to_halves, (data->count + 127) / 128, 128, 0, stream, *data);
}

static __global__ void vectors(struct kernel_data data)
{
    int i = (int)threadIdx.x;
    float4 four = ((const float4 *)data.in)[i];
    ((float4 *)data.out)[i] = make_float4(four.w, four.z, four.y, four.x);
}

void test_vectors(const struct kernel_data *data, cudaStream_t stream)
{
    LAUNCH(vectors, 1, data->count / 4, 0, stream, *data);
}

static __global__ void votes(struct kernel_data data)
{
    int any = __syncthreads_or(threadIdx.x == 70), count = __syncthreads_count(threadIdx.x < 40);
    unsigned mine = __ballot_sync(0xffffffffu, threadIdx.x % 2);
    if (threadIdx.x == 0) {
        data.out[0] = (float)any;
        data.out[1] = (float)count;
        data.out[2] = mine == 0xaaaaaaaau;
    }
}

void test_votes(const struct kernel_data *data, cudaStream_t stream)
{
    LAUNCH(votes, 1, 96, 0, stream, *data);
}

static __global__ void missing_barrier(struct kernel_data data)
{
    __shared__ float passed[64];
    passed[threadIdx.x] = 0.0f;
    __syncthreads();
    passed[threadIdx.x] = 1.0f;
    data.out[threadIdx.x] = passed[63 - threadIdx.x]; /* another warp's */
}

void test_missing_barrier(const struct kernel_data *data, cudaStream_t stream)
{
    LAUNCH(missing_barrier, 1, 64, 0, stream, *data);
}

static __global__ void split_barrier(struct kernel_data data)
{
    if (threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
    data.out[threadIdx.x] = 0;
}

void test_split_barrier(const struct kernel_data *data, cudaStream_t stream)
{
    LAUNCH(split_barrier, 1, 64, 0, stream, *data);
}

static __global__ void split_shuffle(struct kernel_data data)
{
    float value = 1.0f;
    if (threadIdx.x < 20)
        value = __shfl_xor_sync(0xffffffffu, value, 1);
    data.out[threadIdx.x] = value;
}

void test_split_shuffle(const struct kernel_data *data, cudaStream_t stream)
{
    LAUNCH(split_shuffle, 1, 32, 0, stream, *data);
}

static __global__ void unwritten_shared(struct kernel_data data)
{
    __shared__ float never[32];
    data.out[threadIdx.x] = never[threadIdx.x];
}

void test_unwritten_shared(const struct kernel_data *data, cudaStream_t stream)
{
    LAUNCH(unwritten_shared, 1, 32, 0, stream, *data);
}

static __global__ void one_too_many(struct kernel_data data)
{
    int i = (int)threadIdx.x;
    if (i <= data.count)
        data.out[i] = data.in[i];
}

void test_one_too_many(const struct kernel_data *data, cudaStream_t stream)
{
    LAUNCH(one_too_many, 1, 64, 0, stream, *data);
}

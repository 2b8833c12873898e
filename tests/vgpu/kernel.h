/* SPDX-License-Identifier: Apache-2.0 */
/* CUDA kernels as host C++, included before their source (g++ -include). One block runs at a time,
 * each of its threads on a stack of its own; barriers, votes and shuffles switch between them, and
 * abort when not all threads that must come do come, or come from different places in the source.
 *
 * Sources are compiled with -fsanitize=thread, which puts a call before every load and store;
 * kernel.cpp answers these calls itself (the sanitizer's library is not linked): device memory is
 * checked as in vgpu_touch, __shared__ memory for words that nobody wrote and for two threads on
 * one word without a barrier between them, and anything else that is not the thread's own aborts.
 *
 * What a source may use is what is here, and cuda_fp16.h. */
#ifndef TESTS_VGPU_KERNEL_H
#define TESTS_VGPU_KERNEL_H

#include <cmath>
#include <cstring>
#include <tuple>
#include <utility>

#include <cuda_runtime_api.h>
#include <cuda_fp16.h>
#include <vector_functions.h>
#include <vector_types.h>

#include "tests/vgpu/vgpu.h"

#undef __global__
#undef __device__
#undef __shared__
#undef __launch_bounds__
#define __global__
#define __device__
#define __launch_bounds__(...)
#define __shared__ static __attribute__((section("vgpu_shared")))

using std::isfinite;
using std::isinf;
using std::isnan;

/* The thread that runs. */
struct vgpu_where {
    uint3 thread, block;
    dim3 block_size, grid_size;
};
const vgpu_where &vgpu_self();
#define threadIdx (vgpu_self().thread)
#define blockIdx (vgpu_self().block)
#define blockDim (vgpu_self().block_size)
#define gridDim (vgpu_self().grid_size)
enum { warpSize = 32 };

/* line: where in the source, so that threads that meet from different places are noticed. */
enum vgpu_vote { VGPU_OR, VGPU_AND, VGPU_COUNT };
int vgpu_barrier(vgpu_vote vote, int predicate, int line);
uint64_t vgpu_exchange(unsigned mask, uint64_t value, int lane, int line); /* lane's value */
unsigned vgpu_ballot(unsigned mask, int predicate, int line);
int vgpu_lane();

#define __syncthreads() ((void)vgpu_barrier(VGPU_OR, 0, __LINE__))
#define __syncthreads_or(predicate) vgpu_barrier(VGPU_OR, predicate, __LINE__)
#define __syncthreads_and(predicate) vgpu_barrier(VGPU_AND, predicate, __LINE__)
#define __syncthreads_count(predicate) vgpu_barrier(VGPU_COUNT, predicate, __LINE__)
#define __syncwarp(...) ((void)vgpu_ballot(vgpu_mask(__VA_ARGS__), 0, __LINE__))
#define __ballot_sync(mask, predicate) vgpu_ballot(mask, predicate, __LINE__)
#define __any_sync(mask, predicate) (vgpu_ballot(mask, predicate, __LINE__) != 0)
#define __all_sync(mask, predicate) (vgpu_ballot(mask, !(predicate), __LINE__) == 0)
#define __shfl_sync(mask, value, lane, ...)                                                        \
    vgpu_shuffle(mask, value, vgpu_in_width(lane, ##__VA_ARGS__), __LINE__)
#define __shfl_xor_sync(mask, value, turn) vgpu_shuffle(mask, value, vgpu_lane() ^ (turn), __LINE__)
#define __shfl_down_sync(mask, value, by)                                                          \
    vgpu_shuffle(mask, value, vgpu_lane() + (by) < 32 ? vgpu_lane() + (int)(by) : vgpu_lane(),     \
                 __LINE__)
#define __shfl_up_sync(mask, value, by)                                                            \
    vgpu_shuffle(mask, value,                                                                      \
                 vgpu_lane() - (int)(by) >= 0 ? vgpu_lane() - (int)(by) : vgpu_lane(), __LINE__)

inline unsigned vgpu_mask(unsigned mask = 0xffffffffu)
{
    return mask;
}

inline int vgpu_in_width(int lane, int width = 32)
{
    return vgpu_lane() / width * width + lane % width;
}

template <typename T> T vgpu_shuffle(unsigned mask, T value, int lane, int line)
{
    static_assert(sizeof(T) <= sizeof(uint64_t), "shuffles move up to 8 bytes");
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    bits = vgpu_exchange(mask, bits, lane, line);
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

/* Atomics: f(old) replaces old, which is returned. */
void vgpu_atomic(const void *memory, size_t bytes);
template <typename T, typename F> __attribute__((no_sanitize_thread)) T vgpu_replace(T *memory, F f)
{
    vgpu_atomic(memory, sizeof *memory);
    T old = *memory;
    *memory = f(old);
    return old;
}
#define VGPU_ATOMIC(name, expression)                                                              \
    template <typename T, typename V> T name(T *memory, V given)                                   \
    {                                                                                              \
        T value = (T)given;                                                                        \
        return vgpu_replace(memory, [value](T old) -> T { return expression; });                   \
    }
VGPU_ATOMIC(atomicAdd, (T)(old + value))
VGPU_ATOMIC(atomicSub, (T)(old - value))
VGPU_ATOMIC(atomicMax, old > value ? old : value)
VGPU_ATOMIC(atomicMin, old < value ? old : value)
VGPU_ATOMIC(atomicOr, (T)(old | value))
VGPU_ATOMIC(atomicAnd, (T)(old &value))
VGPU_ATOMIC(atomicExch, ((void)old, value))

/* Intrinsics that have a plain meaning. */
template <typename T> T __ldg(const T *memory)
{
    return *memory;
}
inline float rsqrtf(float x)
{
    return 1.0f / sqrtf(x);
}
inline float __expf(float x)
{
    return expf(x);
}
inline float __logf(float x)
{
    return logf(x);
}
inline unsigned __float_as_uint(float x)
{
    unsigned bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}
inline float __uint_as_float(unsigned bits)
{
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}
inline int __popc(unsigned bits)
{
    return __builtin_popcount(bits);
}
template <typename T> T min(T a, T b)
{
    return a < b ? a : b;
}
template <typename T> T max(T a, T b)
{
    return a > b ? a : b;
}

/* Launches. */
struct vgpu_call {
    const char *name;
    dim3 grid, block;
    void *arguments;
    size_t argument_bytes;
    void (*run)(void *arguments); /* one thread */
    void (*drop)(void *arguments);
};
void vgpu_call_enqueue(const vgpu_call &call, size_t shared_bytes, cudaStream_t stream);

template <typename... P, typename... A>
void vgpu_launch(const char *name, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared_bytes,
                 cudaStream_t stream, A &&...given)
{
    using arguments = std::pair<void (*)(P...), std::tuple<P...>>;
    vgpu_call call = {name, grid, block, nullptr, sizeof(arguments), nullptr, nullptr};
    call.arguments = new arguments(kernel, std::tuple<P...>(std::forward<A>(given)...));
    call.run = [](void *memory) {
        arguments *all = static_cast<arguments *>(memory);
        std::apply(all->first, all->second);
    };
    call.drop = [](void *memory) { delete static_cast<arguments *>(memory); };
    vgpu_call_enqueue(call, shared_bytes, stream);
}
#define LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                     \
    vgpu_launch(#kernel, kernel, dim3(grid), dim3(block), shared_bytes, stream, __VA_ARGS__)

#endif

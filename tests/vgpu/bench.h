/* SPDX-License-Identifier: Apache-2.0 */
/* Where graphs of the double's own tests run: a stream, a handle, a workspace, operands. */
#ifndef TESTS_VGPU_BENCH_H
#define TESTS_VGPU_BENCH_H

#include "common/half.h"
#include "tests/vgpu/builder.h"

enum { ROOM = 1 << 15 };

static cudaStream_t stream;
static cudnnHandle_t handle;
static uint64_t seed;
static void *workspace;

static inline int build_setup(void **state)
{
    stream = testing_stream();
    seed = testing_seed();
    workspace = testing_device(1 << 16);
    assert_int_equal(cudnnCreate(&handle), CUDNN_STATUS_SUCCESS);
    assert_int_equal(cudnnSetStream(handle, stream), CUDNN_STATUS_SUCCESS);
    return 0;
}

/* Nothing is left when everything was destroyed. */
static inline int build_teardown(void **state)
{
    build_destroy_all();
    return vgpu_counts().live_descriptors != 0 || cudnnDestroy(handle) != CUDNN_STATUS_SUCCESS;
}

/* Tensors of a graph and where they are. */
struct binding {
    int64_t uids[24];
    void *pointers[24];
    int count;
};

static inline void bind(struct binding *binding, descriptor tensor, void *pointer)
{
    int64_t count;
    cudnnBackendGetAttribute(tensor, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &count,
                             &binding->uids[binding->count]);
    binding->pointers[binding->count++] = pointer;
}

static inline void execute(descriptor plan, const struct binding *binding)
{
    descriptor pack = build_new(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    build_set(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, binding->count,
              binding->uids);
    build_set(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, binding->count,
              binding->pointers);
    build_set(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
    build_final(pack);
    assert_int_equal(cudnnBackendExecute(handle, plan, pack), CUDNN_STATUS_SUCCESS);
    cudaStreamSynchronize(stream);
}

/* Halves with random values on the device; values[] are exactly those. */
static inline void *random_halves(float *values, int64_t count, double scale)
{
    static uint16_t halves[ROOM];
    assert_true(count <= ROOM);
    for (int64_t i = 0; i < count; i++) {
        halves[i] = half_from_float((float)((testing_unit(&seed) * 2 - 1) * scale));
        values[i] = half_to_float(halves[i]);
    }
    return testing_upload(halves, (size_t)count * 2, stream);
}

#endif

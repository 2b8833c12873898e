/* SPDX-License-Identifier: Apache-2.0 */
/* Mistakes with descriptors, graphs and variant packs: each aborts and says what is wrong. */
#include "tests/vgpu/bench.h"

static float x[1024], w[1024];

static struct {
    descriptor x, w, y, plan;
    struct binding binding;
} one;

static void one_conv(void)
{
    descriptor configs[8];
    one.x = build_map(1, 8, 4, 4, CUDNN_DATA_HALF, REAL);
    one.w = build_map(8, 8, 3, 3, CUDNN_DATA_HALF, REAL);
    one.y = build_map(1, 8, 4, 4, CUDNN_DATA_HALF, REAL);
    descriptor op = build_conv(0, one.x, one.w, one.y, build_convolution(1, 1), 0);
    build_configs(build_graph(handle, 1, &op), CUDNN_HEUR_MODE_A, configs);
    one.plan = build_final(build_plan(handle, configs[3]));
    bind(&one.binding, one.x, random_halves(x, 128, 1));
    bind(&one.binding, one.w, random_halves(w, 576, 1));
    bind(&one.binding, one.y, testing_device(256));
}

static void unset_attribute(void)
{
    cudnnBackendFinalize(build_new(CUDNN_BACKEND_TENSOR_DESCRIPTOR));
}

static void wrong_shape(void)
{
    build_conv(0, build_map(1, 8, 4, 4, CUDNN_DATA_HALF, REAL),
               build_map(8, 8, 3, 3, CUDNN_DATA_HALF, REAL),
               build_map(1, 8, 4, 4, CUDNN_DATA_HALF, REAL), build_convolution(1, 0), 0);
}

static void grouped(void)
{
    build_conv(0, build_map(1, 16, 4, 4, CUDNN_DATA_HALF, REAL),
               build_map(8, 8, 3, 3, CUDNN_DATA_HALF, REAL),
               build_map(1, 8, 4, 4, CUDNN_DATA_HALF, REAL), build_convolution(1, 1), 0);
}

static void wrong_stride(void)
{
    build_tensor((int64_t[]){1, 8, 4, 4}, (int64_t[]){128, 1, 31, 8}, CUDNN_DATA_HALF, REAL);
}

static void duplicate_uid(void)
{
    descriptor a = build_map(1, 8, 4, 4, CUDNN_DATA_HALF, REAL);
    build_uid--;
    descriptor b = build_map(1, 8, 4, 4, CUDNN_DATA_HALF, REAL);
    descriptor op = build_pointwise(CUDNN_POINTWISE_RELU_FWD, a, NULL, b);
    build_graph(handle, 1, &op);
}

static void unproduced_virtual(void)
{
    descriptor a = build_map(1, 8, 4, 4, CUDNN_DATA_HALF, VIRTUAL);
    descriptor op = build_pointwise(CUDNN_POINTWISE_RELU_FWD, a, NULL,
                                    build_map(1, 8, 4, 4, CUDNN_DATA_HALF, REAL));
    build_graph(handle, 1, &op);
}

static void missing_uid(void)
{
    one_conv();
    one.binding.count--;
    execute(one.plan, &one.binding);
}

static void unknown_uid(void)
{
    one_conv();
    bind(&one.binding, build_map(1, 8, 4, 4, CUDNN_DATA_HALF, REAL), one.binding.pointers[0]);
    execute(one.plan, &one.binding);
}

static void misaligned(void)
{
    one_conv();
    one.binding.pointers[0] = (char *)one.binding.pointers[0] + 8;
    execute(one.plan, &one.binding);
}

static void too_small(void)
{
    one_conv();
    one.binding.pointers[2] = testing_device(254);
    execute(one.plan, &one.binding);
}

static void unwritten(void)
{
    one_conv();
    one.binding.pointers[1] = testing_device(1152);
    execute(one.plan, &one.binding);
}

static void small_workspace(void)
{
    one_conv();
    workspace = testing_device(20000);
    execute(one.plan, &one.binding);
}

static void no_workspace(void)
{
    one_conv();
    workspace = NULL;
    execute(one.plan, &one.binding);
}

static void overlapping(void)
{
    one_conv();
    one.binding.pointers[2] = one.binding.pointers[0];
    execute(one.plan, &one.binding);
}

static void set_after_final(void)
{
    descriptor it = build_map(1, 8, 4, 4, CUDNN_DATA_HALF, REAL);
    build_set(it, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &(int64_t){1});
}

static void test_mistakes(void **state)
{
    testing_dies(unset_attribute, "is finalised without TENSOR_BYTE_ALIGNMENT");
    testing_dies(wrong_shape, "do not make y 4");
    testing_dies(grouped, "grouped convolution");
    testing_dies(wrong_stride, "gaps or overlap");
    testing_dies(duplicate_uid, "have the unique id");
    testing_dies(unproduced_virtual, "is virtual, and no operation writes it");
    testing_dies(missing_uid, "is not in the variant pack");
    testing_dies(unknown_uid, "which the graph does not");
    testing_dies(misaligned, "not aligned to 16 bytes");
    testing_dies(too_small, "outside of living memory");
    testing_dies(unwritten, "which nobody wrote");
    testing_dies(small_workspace, "of the workspace outside");
    testing_dies(no_workspace, "needs a workspace");
    testing_dies(overlapping, "lie on the same memory");
    testing_dies(set_after_final, "after the TENSOR was finalised");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_mistakes)};
    return cmocka_run_group_tests(tests, build_setup, build_teardown);
}

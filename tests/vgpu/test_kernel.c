/* SPDX-License-Identifier: Apache-2.0 */
/* The emulation of kernels: results, and the faults that it finds. */
#include "tests/vgpu/testing.h"

#include "common/half.h"
#include "tests/vgpu/test_kernels.h"

enum { COUNT = 4000, BLOCKS = 3 };

static float input[COUNT];
static cudaStream_t stream;

static struct kernel_data upload(int count)
{
    uint64_t seed = testing_seed();
    for (int i = 0; i < count; i++)
        input[i] = (float)(testing_unit(&seed) * 4 - 2);
    static const int zero;
    return (struct kernel_data){.out = testing_device((size_t)count * sizeof(float)),
                                .in = testing_upload(input, (size_t)count * sizeof *input, stream),
                                .halves = testing_device((size_t)count * 2),
                                .flag = testing_upload(&zero, sizeof zero, stream),
                                .count = count};
}

static int setup(void **state)
{
    stream = testing_stream();
    return 0;
}

static void test_sum(void **state)
{
    struct kernel_data data = upload(COUNT);
    test_sum_blocks(&data, BLOCKS, stream);
    float sums[BLOCKS];
    testing_download(sums, data.out, sizeof sums, stream);
    double expected = 0, got = 0;
    for (int i = 0; i < COUNT; i++)
        expected += input[i];
    for (int i = 0; i < BLOCKS; i++)
        got += sums[i];
    assert_true(fabs(got - expected) <= 1e-3);
}

static void test_halves(void **state)
{
    struct kernel_data data = upload(COUNT);
    float special[] = {65519.0f, 65520.0f, INFINITY, 0x1p-24f, 0x1p-25f, 1.0f + 0x1p-11f, -0.0f};
    memcpy(input, special, sizeof special);
    data.in = testing_upload(input, sizeof input, stream);
    test_round(&data, stream);
    static uint16_t halves[COUNT];
    int flag;
    testing_download(halves, data.halves, sizeof halves, stream);
    testing_download(&flag, data.flag, sizeof flag, stream);
    for (int i = 0; i < COUNT; i++)
        assert_int_equal(halves[i], half_from_float(input[i]));
    assert_int_equal(flag, 1);
}

static void test_wide(void **state)
{
    struct kernel_data data = upload(128);
    test_vectors(&data, stream);
    float back[128];
    testing_download(back, data.out, sizeof back, stream);
    for (int i = 0; i < 128; i++)
        assert_true(back[i] == input[i / 4 * 4 + 3 - i % 4]);
}

static void test_voting(void **state)
{
    struct kernel_data data = upload(96);
    test_votes(&data, stream);
    float back[3];
    testing_download(back, data.out, sizeof back, stream);
    assert_true(back[0] == 1 && back[1] == 40 && back[2] == 1);
}

#define FAULT(name, count)                                                                         \
    static void name(void)                                                                         \
    {                                                                                              \
        struct kernel_data data = upload(count);                                                   \
        test_##name(&data, stream);                                                                \
        cudaStreamSynchronize(stream);                                                             \
    }
FAULT(missing_barrier, 64)
FAULT(split_barrier, 64)
FAULT(split_shuffle, 64)
FAULT(unwritten_shared, 64)
FAULT(one_too_many, 60)

static void host_pointer(void)
{
    struct kernel_data data = upload(128);
    data.in = malloc(128 * sizeof(float));
    test_vectors(&data, stream);
    cudaStreamSynchronize(stream);
}

static void unwritten_memory(void)
{
    struct kernel_data data = upload(128);
    data.in = data.out;
    test_vectors(&data, stream);
    cudaStreamSynchronize(stream);
}

/* A kernel's accesses are ordered by events like every other's. */
static void unordered_kernel(void)
{
    struct kernel_data data = upload(128);
    cudaStream_t other = testing_stream();
    cudaStreamSynchronize(stream);
    cudaMemsetAsync(data.out, 0, 512, stream);
    test_vectors(&data, other);
    cudaDeviceSynchronize();
}

static void test_faults(void **state)
{
    testing_dies(missing_barrier, "no barrier is between");
    testing_dies(split_barrier, "do not all come to the same barrier");
    testing_dies(split_shuffle, "do not all come to the same operation");
    testing_dies(unwritten_shared, "its block never wrote");
    testing_dies(one_too_many, "outside of living memory");
    testing_dies(host_pointer, "which is host memory");
    testing_dies(unwritten_memory, "which nobody wrote");
    testing_dies(unordered_kernel, "no event or synchronisation");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sum),    cmocka_unit_test(test_halves), cmocka_unit_test(test_wide),
        cmocka_unit_test(test_voting), cmocka_unit_test(test_faults),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}

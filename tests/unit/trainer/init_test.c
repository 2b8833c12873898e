/* SPDX-License-Identifier: Apache-2.0 */
/* Initial weights: their distributions, and that they depend on nothing but seed and name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/testing.h"
#include "trainer/model/net.h"

static struct net *net;

static int open_net(void **unused)
{
    return net_open(&net, "resnet50d", 64, 3, 1000);
}

static int close_net(void **unused)
{
    net_close(net);
    return 0;
}

static float *drawn(const char *name, const char *scheme, bool zero_gamma, uint64_t seed)
{
    const struct tensor *tensor = &net->tensors[net_tensor(net, name)];
    float *values = malloc(tensor->count * sizeof *values);
    net_init_tensor(values, tensor, scheme, zero_gamma, seed);
    return values;
}

/* Mean within 5 of its standard deviations of 0; variance likewise, by the fourth moment. */
static void check_moments(const float *values, size_t count, double variance, double kurtosis)
{
    double sum = 0, squares = 0, n = (double)count;
    for (size_t i = 0; i < count; i++) {
        sum += values[i];
        squares += (double)values[i] * values[i];
    }
    assert_true(fabs(sum / n) <= 5 * sqrt(variance / n));
    assert_true(fabs(squares / n / variance - 1) <= 5 * sqrt((kurtosis - 1) / n));
}

static void test_xavier(void **unused)
{
    /* 512 to 512 channels, 3x3: both fans are 4,608. */
    float *values = drawn("layer4.1.conv2.weight", "xavier", false, testing_seed());
    size_t count = (size_t)512 * 512 * 9;
    double bound = sqrt(6.0 / (4608 + 4608)), largest = 0;
    for (size_t i = 0; i < count; i++)
        largest = fmax(largest, fabs(values[i]));
    assert_true(largest <= bound && largest > 0.999 * bound);
    check_moments(values, count, bound * bound / 3, 1.8);
    free(values);

    values = drawn("fc.weight", "xavier", false, testing_seed());
    check_moments(values, (size_t)1000 * 2048, 2.0 / (1000 + 2048), 1.8);
    free(values);
}

static void test_msra(void **unused)
{
    float *values = drawn("layer4.0.conv3.weight", "msra", false, testing_seed());
    check_moments(values, (size_t)2048 * 512, 2.0 / 2048, 3);
    free(values);
}

static void test_constants(void **unused)
{
    static const struct {
        const char *name;
        float plain, zero_gamma;
    } expected[] = {{"layer1.0.bn3.weight", 1, 0},
                    {"layer1.0.bn2.weight", 1, 1},
                    {"layer1.0.bn3.bias", 0, 0},
                    {"bn1.running_mean", 0, 0},
                    {"bn1.running_var", 1, 1},
                    {"fc.bias", 0, 0},
                    {"layer1.0.downsample.2.weight", 1, 1}};
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        size_t count = net->tensors[net_tensor(net, expected[i].name)].count;
        float *plain = drawn(expected[i].name, "xavier", false, 1);
        float *zero = drawn(expected[i].name, "xavier", true, 1);
        for (size_t k = 0; k < count; k++)
            assert_true(plain[k] == expected[i].plain && zero[k] == expected[i].zero_gamma);
        free(plain);
        free(zero);
    }
}

/* Pure functions of seed and name: the same again, another for another seed or name. */
static void test_pure(void **unused)
{
    float *first = drawn("layer1.0.conv2.weight", "xavier", false, 7);
    float *again = drawn("layer1.0.conv2.weight", "xavier", false, 7);
    float *seed = drawn("layer1.0.conv2.weight", "xavier", false, 8);
    float *name = drawn("layer1.1.conv2.weight", "xavier", false, 7);
    size_t bytes = 64 * 64 * 9 * sizeof *first, same_seed = 0, same_name = 0;
    assert_memory_equal(first, again, bytes);
    for (size_t i = 0; i < bytes / sizeof *first; i++) {
        same_seed += first[i] == seed[i];
        same_name += first[i] == name[i];
    }
    assert_true(same_seed < 10 && same_name < 10);
    free(first);
    free(again);
    free(seed);
    free(name);
}

/* A tensor whose count is no multiple of a block of 4. */
static void test_odd_count(void **unused)
{
    struct tensor tensor = {.name = "odd.weight",
                            .kind = TENSOR_FC_WEIGHT,
                            .shape = {3, 3, 1, 1},
                            .rank = 2,
                            .count = 9};
    float *values = malloc(9 * sizeof *values); /* of the exact size, for the sanitizer */
    net_init_tensor(values, &tensor, "xavier", false, 3);
    for (int i = 0; i < 9; i++)
        assert_true(fabsf(values[i]) <= 1.0f && values[i] != 0);
    free(values);
}

int main(void)
{
    testing_seed();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_xavier),    cmocka_unit_test(test_msra),
        cmocka_unit_test(test_constants), cmocka_unit_test(test_pure),
        cmocka_unit_test(test_odd_count),
    };
    return cmocka_run_group_tests(tests, open_net, close_net);
}

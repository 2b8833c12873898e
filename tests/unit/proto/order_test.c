/* SPDX-License-Identifier: Apache-2.0 */
/* The order is a permutation, looks like a random one, and is this very one. The statistics use
 * fixed seeds, so that they cannot fail by chance. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/hash.h"
#include "proto/order.h"
#include "tests/unit/testing.h"

static struct spec shuffled(uint64_t seed)
{
    return (struct spec){.seed = seed, .order = SPEC_ORDER_SHUFFLED};
}

static void assert_permutation(uint64_t seed, uint32_t epoch, uint32_t count)
{
    struct spec spec = shuffled(seed);
    uint8_t *seen = calloc(count, 1);
    assert_non_null(seen);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t id = order_at(&spec, epoch, i, count);
        assert_true(id < count);
        assert_int_equal(seen[id]++, 0);
    }
    free(seen);
}

static void test_permutation(void **state)
{
    static const uint32_t counts[] = {1, 2, 3, 7, 10, 16, 17, 255, 256, 257, 1000, 4096, 65537};
    uint64_t random = testing_seed();
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        for (uint32_t epoch = 0; epoch < 3; epoch++)
            assert_permutation(testing_random(&random), epoch ? UINT32_MAX / epoch : 0, counts[i]);
    }
    assert_permutation(testing_random(&random), 7, 1281167);
}

/* The whole range of counts: no overflow, no endless walk. */
static void test_large_counts(void **state)
{
    static const uint32_t counts[] = {1u << 30, (1u << 30) + 1, 1u << 31, UINT32_MAX - 1,
                                      UINT32_MAX};
    struct spec spec = shuffled(testing_seed());
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        for (uint32_t j = 0; j < 1000; j++) {
            assert_true(order_at(&spec, 1, j, counts[i]) < counts[i]);
            assert_true(order_at(&spec, 1, counts[i] - 1 - j, counts[i]) < counts[i]);
        }
    }
}

static void test_identity(void **state)
{
    struct spec spec = {.order = SPEC_ORDER_IDENTITY};
    for (uint32_t i = 0; i < 100; i++)
        assert_int_equal(order_at(&spec, i, i, 100), i);
}

/* How often two orders agree: about once, as two random permutations do (Poisson, mean 1). */
static int agreements(struct spec a, uint32_t epoch_a, struct spec b, uint32_t epoch_b)
{
    int count = 0;
    for (uint32_t i = 0; i < 1000; i++)
        count += order_at(&a, epoch_a, i, 1000) == order_at(&b, epoch_b, i, 1000);
    return count;
}

static void test_epochs_and_seeds_differ(void **state)
{
    int total = 0;
    for (uint32_t i = 0; i < 20; i++) {
        int epochs = agreements(shuffled(1), i, shuffled(1), i + 1);
        int seeds = agreements(shuffled(i), 1, shuffled(i + 1), 1);
        int high_seeds = agreements(shuffled(i), 1, shuffled(i | 1ull << 40), 1);
        assert_true(epochs < 9 && seeds < 9 && high_seeds < 9);
        total += epochs + seeds + high_seeds;
    }
    assert_in_range(total, 25, 100); /* Poisson, mean 60: 4.5 deviations */
}

/* Chi-square of counts against a uniform distribution, in deviations from its mean. */
static double deviation(const int *cells, int cell_count, double draws)
{
    double chi = 0, want = draws / cell_count, degrees = cell_count - 1;
    for (int i = 0; i < cell_count; i++)
        chi += (cells[i] - want) * (cells[i] - want) / want;
    return (chi - degrees) / sqrt(2 * degrees);
}

/* Over many epochs, the ids at two positions take all ordered pairs equally often. */
static void assert_pairs_uniform(uint32_t count, uint32_t first, uint32_t second)
{
    enum { EPOCHS = 8000 };
    int cells[20 * 19] = {0};
    struct spec spec = shuffled(11);
    for (uint32_t epoch = 0; epoch < EPOCHS; epoch++) {
        uint32_t a = order_at(&spec, epoch, first, count),
                 b = order_at(&spec, epoch, second, count);
        cells[a * (count - 1) + b - (b > a)]++;
    }
    double off = deviation(cells, (int)(count * (count - 1)), EPOCHS);
    if (!(fabs(off) < 4))
        fail_msg("positions %u and %u of %u: %g deviations", first, second, count, off);
}

static void test_pairs_are_uniform(void **state)
{
    assert_pairs_uniform(2, 0, 1);
    assert_pairs_uniform(3, 0, 1);
    assert_pairs_uniform(7, 0, 1);
    assert_pairs_uniform(16, 0, 1);
    assert_pairs_uniform(16, 0, 8);
    assert_pairs_uniform(17, 3, 16);
    assert_pairs_uniform(20, 18, 19);
}

/* All 24 permutations of four. */
static void test_permutations_are_uniform(void **state)
{
    enum { EPOCHS = 8000 };
    int cells[24] = {0};
    struct spec spec = shuffled(12);
    for (uint32_t epoch = 0; epoch < EPOCHS; epoch++) {
        int id[4], cell = 0;
        for (uint32_t i = 0; i < 4; i++)
            id[i] = (int)order_at(&spec, epoch, i, 4);
        for (int i = 0; i < 3; i++) { /* Lehmer's code */
            int smaller = 0;
            for (int j = i + 1; j < 4; j++)
                smaller += id[j] < id[i];
            cell = cell * (4 - i) + smaller;
        }
        cells[cell]++;
    }
    assert_true(fabs(deviation(cells, 24, EPOCHS)) < 4);
}

/* Over seeds rather than epochs, and at a count that needs no walk. */
static void test_first_positions(void **state)
{
    enum { SEEDS = 25600 };
    static int cells[4][256];
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct spec spec = shuffled(seed);
        for (uint32_t i = 0; i < 4; i++)
            cells[i][order_at(&spec, 0, i, 256)]++;
    }
    for (int i = 0; i < 4; i++)
        assert_true(fabs(deviation(cells[i], 256, SEEDS)) < 4);
}

/* Within an epoch: no correlation of neighbours, no preferred step from one to the next. */
static void assert_neighbours(uint32_t count)
{
    enum { CELLS = 128 };
    struct spec spec = shuffled(13);
    int cells[CELLS] = {0};
    double sum = 0, mean = (count - 1) / 2.0, variance = ((double)count * count - 1) / 12;
    uint32_t before = order_at(&spec, 5, 0, count);
    for (uint32_t i = 1; i < count; i++) {
        uint32_t id = order_at(&spec, 5, i, count);
        sum += (id - mean) * (before - mean);
        uint64_t step = id >= before ? id - before : (uint64_t)id + count - before;
        cells[step * CELLS / count]++;
        before = id;
    }
    double correlation = sum / (count - 1) / variance * sqrt(count);
    if (!(fabs(correlation) < 4 && fabs(deviation(cells, CELLS, count - 1)) < 4.5))
        fail_msg("neighbours of %u: correlation %g, steps %g", count, correlation,
                 deviation(cells, CELLS, count - 1));
}

static void test_neighbours(void **state)
{
    assert_neighbours(10000);
    assert_neighbours(60000);
    assert_neighbours(65536);
    assert_neighbours(65537);
}

/* A moved bit in the order makes every run another one. */
static void test_this_very_order(void **state)
{
    static const uint32_t counts[] = {2, 17, 256, 1000, 60000, 1281167, UINT32_MAX};
    struct hash_stream *stream = hash_stream_open();
    assert_non_null(stream);
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        struct spec spec = shuffled(0xfeedface12345678 + i);
        for (uint32_t j = 0; j < counts[i] && j < 1000; j++) {
            uint32_t id = order_at(&spec, (uint32_t)i, j, counts[i]);
            uint8_t bytes[4] = {(uint8_t)id, (uint8_t)(id >> 8), (uint8_t)(id >> 16),
                                (uint8_t)(id >> 24)};
            hash_stream_add(stream, bytes, sizeof bytes);
        }
    }
    char text[33];
    hash128_to_text(text, hash_stream_end(stream));
    hash_stream_close(stream);
    assert_string_equal(text, "689871f57bf60fa0288e5cc37f83cb95");
    static const uint32_t first[] = {373745, 296822,  62883,  403348,
                                     496439, 1020127, 278487, 973941};
    struct spec spec = shuffled(0);
    for (uint32_t i = 0; i < 8; i++)
        assert_int_equal(order_at(&spec, 0, i, 1281167), first[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_permutation),       cmocka_unit_test(test_large_counts),
        cmocka_unit_test(test_identity),          cmocka_unit_test(test_epochs_and_seeds_differ),
        cmocka_unit_test(test_pairs_are_uniform), cmocka_unit_test(test_permutations_are_uniform),
        cmocka_unit_test(test_first_positions),   cmocka_unit_test(test_neighbours),
        cmocka_unit_test(test_this_very_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

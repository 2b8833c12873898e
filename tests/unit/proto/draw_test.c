/* SPDX-License-Identifier: Apache-2.0 */
/* The draws' distributions and their very bits. The statistics use fixed seeds: they are a property
 * of the code, decided once, and cannot fail by chance. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/hash.h"
#include "proto/draw.h"

enum { DRAWS = 100000 };

static const struct draw_key key = {.seed = 0x123456789abcdef0, .epoch = 3};

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Kolmogorov and Smirnov: sqrt(n) times the largest distance between the distributions. Above 1.95
 * has probability 0.001. Sorts. */
static double ks_distance(double *values, int count, double (*cdf)(double, double),
                          double parameter)
{
    double worst = 0;
    qsort(values, (size_t)count, sizeof *values, compare);
    for (int i = 0; i < count; i++) {
        double want = cdf(values[i], parameter);
        worst = fmax(worst, fmax((i + 1.0) / count - want, want - (double)i / count));
    }
    return worst * sqrt(count);
}

/* The first `orders` raw moments within 4.5 standard errors of want. */
static void assert_moments(const double *values, const double *want, int orders)
{
    for (int order = 1; order <= orders; order++) {
        double sum = 0;
        for (int i = 0; i < DRAWS; i++)
            sum += pow(values[i], order);
        double error = sqrt((want[2 * order] - want[order] * want[order]) / DRAWS);
        if (!(fabs(sum / DRAWS - want[order]) <= 4.5 * error))
            fail_msg("moment %d is %g, not %g", order, sum / DRAWS, want[order]);
    }
}

static double cdf_normal(double x, double unused)
{
    return 0.5 * erfc(-x * M_SQRT1_2);
}

static double cdf_unit(double x, double unused)
{
    return x;
}

/* Regularised incomplete beta I_x(a, a) by Lentz's continued fraction (Numerical Recipes 6.4). */
static double cdf_beta(double x, double a)
{
    if (x <= 0 || x >= 1)
        return x <= 0 ? 0 : 1;
    if (x > 0.5)
        return 1 - cdf_beta(1 - x, a);
    double front = exp(lgamma(2 * a) - 2 * lgamma(a) + a * log(x) + a * log1p(-x)) / a;
    double c = 1, d = 1 / (1 - 2 * a * x / (a + 1)), value = d;
    for (int m = 1; m < 500; m++) {
        double even = m * (a - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
        d = 1 / (1 + even * d);
        c = 1 + even / c;
        value *= c * d;
        double odd = -(a + m) * (2 * a + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
        d = 1 / (1 + odd * d);
        c = 1 + odd / c;
        value *= c * d;
        if (fabs(c * d - 1) < 1e-14)
            break;
    }
    return front * value;
}

/* E x^n of Beta(a, a). */
static double beta_moment(double a, int order)
{
    double value = 1;
    for (int i = 0; i < order; i++)
        value *= (a + i) / (2 * a + i);
    return value;
}

static void test_units(void **state)
{
    assert_true(draw_unit(0) == 0x1p-33);
    assert_true(draw_unit(UINT32_MAX) == 1 - 0x1p-33);
    assert_true(draw_uniform(0x80000000, -2, 2) == 4 * 0x1p-33);
    assert_int_equal(draw_below(UINT32_MAX, 7), 6);
    assert_int_equal(draw_below(0, 7), 0);
    assert_int_equal(draw_below(UINT32_MAX, 1), 0);
    assert_int_equal(draw_below(UINT32_MAX, UINT32_MAX), UINT32_MAX - 1);
    static double values[DRAWS];
    double want[9];
    for (int i = 0; i < DRAWS; i++)
        values[i] = draw_unit(draw_block(key, DRAW_FLIP, (uint64_t)i, 0).word[0]);
    for (int i = 0; i < 9; i++)
        want[i] = 1.0 / (i + 1);
    assert_moments(values, want, 4);
    assert_true(ks_distance(values, DRAWS, cdf_unit, 0) < 1.95);
}

/* 256 cells over the upper and the lower byte of every word, chi-square with 255 degrees of
 * freedom: mean 255, deviation 22.6. */
static void test_bytes_are_uniform(void **state)
{
    static int cells[8][256];
    for (uint64_t i = 0; i < DRAWS; i++) {
        struct philox_block block = draw_block(key, DRAW_JITTER, i, 0);
        for (int j = 0; j < 4; j++) {
            cells[2 * j][block.word[j] >> 24]++;
            cells[2 * j + 1][block.word[j] & 255]++;
        }
    }
    for (int j = 0; j < 8; j++) {
        double chi = 0, want = DRAWS / 256.0;
        for (int i = 0; i < 256; i++)
            chi += (cells[j][i] - want) * (cells[j][i] - want) / want;
        assert_true(chi > 255 - 4 * 22.6 && chi < 255 + 4 * 22.6);
    }
}

static void test_normals(void **state)
{
    static double values[4][DRAWS];
    static const double want[] = {1, 0, 1, 0, 3, 0, 15, 0, 105};
    for (int i = 0; i < DRAWS; i++) {
        double draws[4], fewer[3];
        draw_normals(draws, 4, key, DRAW_PCA, (uint64_t)i);
        draw_normals(fewer, 3, key, DRAW_PCA, (uint64_t)i);
        assert_memory_equal(draws, fewer, sizeof fewer);
        for (int j = 0; j < 4; j++)
            values[j][i] = draws[j];
    }
    for (int j = 0; j < 4; j++) {
        for (int k = 0; k < j; k++) {
            double sum = 0;
            for (int i = 0; i < DRAWS; i++)
                sum += values[j][i] * values[k][i];
            assert_true(fabs(sum / sqrt(DRAWS)) < 4.5);
        }
    }
    for (int j = 0; j < 4; j++) {
        assert_moments(values[j], want, 4);
        assert_true(ks_distance(values[j], DRAWS, cdf_normal, 0) < 1.95);
    }
}

static void test_beta(void **state)
{
    static const double alphas[] = {0.2, 0.4, 0.5, 0.51, 1, 1.5, 4, 1000};
    static double values[DRAWS];
    for (size_t a = 0; a < sizeof alphas / sizeof alphas[0]; a++) {
        double want[9];
        for (int i = 0; i < DRAWS; i++) {
            values[i] = draw_beta(alphas[a], key, DRAW_MIXUP, (uint64_t)i << 32 | (i & 3));
            assert_true(values[i] >= 0 && values[i] <= 1);
        }
        for (int i = 0; i < 9; i++)
            want[i] = beta_moment(alphas[a], i);
        assert_moments(values, want, 4);
        double distance = ks_distance(values, DRAWS, cdf_beta, alphas[a]);
        if (!(distance < 1.95))
            fail_msg("Beta(%g): %g", alphas[a], distance);
    }
}

/* Nearly a coin: half of the mass at either end, without a NaN from what underflows. */
static void test_beta_of_tiny_alpha(void **state)
{
    int upper = 0, middle = 0;
    for (int i = 0; i < 10000; i++) {
        double value = draw_beta(1e-3, key, DRAW_MIXUP, (uint64_t)i);
        assert_true(value >= 0 && value <= 1);
        upper += value > 0.5;
        middle += value > 0.01 && value < 0.99;
    }
    assert_in_range(upper, 4775, 5225);
    assert_in_range(middle, 10, 100); /* 2 alpha log(99) / 2 of 10,000: 46 */
}

/* Each part of the counter and the key gives another block. */
static void test_everything_counts(void **state)
{
    struct philox_block blocks[] = {
        draw_block(key, DRAW_CROP, 5, 0),
        draw_block(key, DRAW_FLIP, 5, 0),
        draw_block(key, DRAW_CROP, 6, 0),
        draw_block(key, DRAW_CROP, 5 + (1ull << 32), 0),
        draw_block(key, DRAW_CROP, 5, 1),
        draw_block((struct draw_key){key.seed, key.epoch + 1}, DRAW_CROP, 5, 0),
        draw_block((struct draw_key){key.seed + 1, key.epoch}, DRAW_CROP, 5, 0),
        draw_block((struct draw_key){key.seed + (1ull << 32), key.epoch}, DRAW_CROP, 5, 0),
    };
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++) {
        for (size_t j = 0; j < i; j++)
            assert_memory_not_equal(&blocks[i], &blocks[j], sizeof blocks[i]);
    }
    const uint32_t counter[4] = {5, 7, 2 | DRAW_MIXUP << 24, 3},
                   words[2] = {0x9abcdef0, 0x12345678};
    struct philox_block want = philox(counter, words);
    struct philox_block got = draw_block(key, DRAW_MIXUP, 5 | 7ull << 32, 2);
    assert_memory_equal(&got, &want, sizeof want);
}

static void test_these_very_bits(void **state)
{
    double normals[4];
    draw_normals(normals, 4, key, DRAW_PCA, 42);
    static const double want_normals[] = {-0x1.f81d43cd97356p-2, 0x1.559e8009d6c96p-1,
                                          0x1.2ef9a8a86cc1bp-3, 0x1.e74bca1bc298ap-1};
    for (int i = 0; i < 4; i++)
        assert_true(normals[i] == want_normals[i]);
    static const double alphas[] = {0.001, 0.2, 0.5, 1, 4};
    static const double want_beta[] = {0x1p+0, 0x1.3f68430a5c613p-11, 0x1.932b7b8a8387bp-5,
                                       0x1.fb61703b04373p-2, 0x1.fe40ce74ed2e1p-2};
    for (int i = 0; i < 5; i++)
        assert_true(draw_beta(alphas[i], key, DRAW_MIXUP, 42) == want_beta[i]);
    struct hash_stream *stream = hash_stream_open();
    assert_non_null(stream);
    for (uint64_t i = 0; i < 20000; i++) {
        double results[7];
        draw_normals(results, 4, key, DRAW_PCA, i);
        results[4] = draw_beta(0.2, key, DRAW_MIXUP, i);
        results[5] = draw_beta(1, key, DRAW_MIXUP, i);
        results[6] = draw_beta(0.75, key, DRAW_MIXUP, i);
        hash_stream_add(stream, results, sizeof results);
    }
    char text[33];
    hash128_to_text(text, hash_stream_end(stream));
    hash_stream_close(stream);
    assert_string_equal(text, "be6147fa733dd28d96de4638d56aec64");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_units),
        cmocka_unit_test(test_bytes_are_uniform),
        cmocka_unit_test(test_normals),
        cmocka_unit_test(test_beta),
        cmocka_unit_test(test_beta_of_tiny_alpha),
        cmocka_unit_test(test_everything_counts),
        cmocka_unit_test(test_these_very_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

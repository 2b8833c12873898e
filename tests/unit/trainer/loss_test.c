/* SPDX-License-Identifier: Apache-2.0 */
/* The loss and its gradient: values known in closed form, optima, ranks, NaN, masked samples. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>

#include "trainer/loss.h"

static void assert_near(double value, double expected)
{
    if (!(fabs(value - expected) <= 1e-12 * (1 + fabs(expected))))
        fail_msg("%.17g where %.17g was expected", value, expected);
}

static struct loss_sums loss_of(double *gradient, const double *z, const double *r,
                                struct chunk_label label, int classes, struct loss_config config)
{
    struct loss_sums sums;
    loss_batch(&sums, gradient, z, r, &label, 1, classes, &config, 1.0);
    return sums;
}

static const struct chunk_label label0 = {0, 0, 1.0f};

static void test_cross_entropy(void **unused)
{
    const double z[3] = {1, 2, 3};
    double gradient[3], norm = log(exp(1) + exp(2) + exp(3));
    struct loss_sums sums = loss_of(gradient, z, NULL, label0, 3, loss_plain);
    assert_near(sums.loss, norm - 1);
    for (int i = 0; i < 3; i++)
        assert_near(gradient[i], exp(z[i] - norm) - (i == 0));
    /* lam of a, the rest of b */
    sums = loss_of(NULL, z, NULL, (struct chunk_label){0, 2, 0.25f}, 3, loss_plain);
    assert_near(sums.loss, norm - (0.25 * 1 + 0.75 * 3));
}

static void test_large_logits(void **unused)
{
    const double z[2] = {1000, -1000};
    struct loss_sums sums = loss_of(NULL, z, NULL, (struct chunk_label){1, 1, 1}, 2, loss_plain);
    assert_near(sums.loss, 2000);
}

/* Paper, section 5.2: the optimal gap between logits is log((K - 1)(1 - eps) / eps). */
static void test_smoothing_optimum(void **unused)
{
    enum { K = 10 };
    double z[K] = {log((K - 1) * 0.9 / 0.1)}, gradient[K];
    loss_of(gradient, z, NULL, label0, K, (struct loss_config){.label_smoothing = 0.1});
    for (int i = 0; i < K; i++)
        assert_true(fabs(gradient[i]) <= 1e-15);
    /* over K: 1 - eps + eps / K against eps / K */
    z[0] = log((0.9 + 0.01) / 0.01);
    loss_of(gradient, z, NULL, label0, K,
            (struct loss_config){.label_smoothing = 0.1, .smoothing_over_k = true});
    for (int i = 0; i < K; i++)
        assert_true(fabs(gradient[i]) <= 1e-15);
}

/* eps = (K - 1) / K gives every class 1 / K: then no logit is better than another. */
static void test_smoothing_uniform(void **unused)
{
    const double z[4] = {0, 0, 0, 0};
    double gradient[4];
    loss_of(gradient, z, NULL, label0, 4, (struct loss_config){.label_smoothing = 0.75});
    for (int i = 0; i < 4; i++)
        assert_true(fabs(gradient[i]) <= 1e-15);
}

static void test_distillation(void **unused)
{
    const double z[2] = {0.5, -0.5}, r[2] = {2, -1};
    const struct loss_config config = {
        .kd_temperature = 20, .kd_hard_weight = 1, .kd_soft_weight = 1};
    struct loss_sums sums = loss_of(NULL, z, r, label0, 2, config);
    double q = 1 / (1 + exp(-3.0 / 20)), p = 1 / (1 + exp(-1.0 / 20));
    double hard = log(1 + exp(-1));
    double soft = -(q * log(p) + (1 - q) * log(1 - p));
    assert_near(sums.loss, hard + 400 * soft);
    /* without a teacher, or without a temperature, it is the hard loss alone with weight 1 */
    assert_near(loss_of(NULL, z, NULL, label0, 2, config).loss, hard);
    assert_near(loss_of(NULL, z, r, label0, 2, loss_plain).loss, hard);
}

static void test_ranks(void **unused)
{
    const double z[7] = {1, 5, 3, 3, 2, 0, -1};
    static const struct {
        struct chunk_label label;
        double top1, top5;
    } expected[] = {
        {{1, 1, 1}, 1, 1},    {{2, 2, 1}, 0, 1},    {{0, 0, 1}, 0, 1},    {{5, 5, 1}, 0, 0},
        {{1, 6, 0.5f}, 1, 1}, {{1, 6, 0.4f}, 0, 0}, {{6, 1, 0.4f}, 1, 1},
    };
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        struct loss_sums sums = loss_of(NULL, z, NULL, expected[i].label, 7, loss_plain);
        assert_true(sums.top1 == expected[i].top1 && sums.top5 == expected[i].top5);
    }
    const double equal[6] = {0};
    assert_true(loss_of(NULL, equal, NULL, label0, 6, loss_plain).top1 == 1);
    struct loss_sums sums =
        loss_of(NULL, equal, NULL, (struct chunk_label){5, 5, 1}, 6, loss_plain);
    assert_true(sums.top1 == 0 && sums.top5 == 0);
}

static void test_nan_is_never_right(void **unused)
{
    const double z[6] = {NAN, NAN, NAN, NAN, NAN, NAN}, one[6] = {NAN, 1, 2, 3, 4, 5};
    struct loss_sums sums = loss_of(NULL, z, NULL, label0, 6, loss_plain);
    assert_true(sums.top1 == 0 && sums.top5 == 0 && isnan(sums.loss));
    sums = loss_of(NULL, one, NULL, label0, 6, loss_plain);
    assert_true(sums.top1 == 0 && sums.top5 == 0);
    sums = loss_of(NULL, one, NULL, (struct chunk_label){5, 5, 1}, 6, loss_plain);
    assert_true(sums.top1 == 0);
}

static void test_masked_and_factor(void **unused)
{
    const double z[4] = {1, 0, 0, 1};
    const struct chunk_label labels[2] = {{CHUNK_LABEL_MASKED, 0, 1}, {1, 1, 1}};
    double gradient[4] = {9, 9, 9, 9};
    struct loss_sums sums;
    loss_batch(&sums, gradient, z, NULL, labels, 2, 2, &loss_plain, 8.0);
    assert_true(sums.samples == 1 && sums.top1 == 1 && gradient[0] == 0 && gradient[1] == 0);
    assert_near(sums.loss, log(1 + exp(-1)));
    assert_near(gradient[2], 8 / (1 + exp(1)));
    assert_near(gradient[3], -8 / (1 + exp(1)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cross_entropy),      cmocka_unit_test(test_large_logits),
        cmocka_unit_test(test_smoothing_optimum),  cmocka_unit_test(test_smoothing_uniform),
        cmocka_unit_test(test_distillation),       cmocka_unit_test(test_ranks),
        cmocka_unit_test(test_nan_is_never_right), cmocka_unit_test(test_masked_and_factor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

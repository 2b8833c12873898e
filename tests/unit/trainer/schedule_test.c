/* SPDX-License-Identifier: Apache-2.0 */
/* The learning rate of every step against values worked out by hand. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "trainer/scaler.h"
#include "trainer/schedule.h"

static void assert_near(double got, double wanted)
{
    if (!(fabs(got - wanted) <= 1e-15 * fabs(wanted)))
        fail_msg("got %.17g, wanted %.17g", got, wanted);
}

/* The paper's run: 120 epochs of 5,004 steps (batch 256), decays at 30, 60, 90. */
static void step_decays_at_quarters(void **state)
{
    const uint64_t epoch = 5004;
    struct schedule schedule = {.lr = 0.1, .total_steps = 120 * epoch};
    assert_near(schedule_lr(&schedule, 0), 0.1);
    assert_near(schedule_lr(&schedule, 30 * epoch - 1), 0.1);
    assert_near(schedule_lr(&schedule, 30 * epoch), 0.01);
    assert_near(schedule_lr(&schedule, 60 * epoch - 1), 0.01);
    assert_near(schedule_lr(&schedule, 60 * epoch), 0.001);
    assert_near(schedule_lr(&schedule, 90 * epoch - 1), 0.001);
    assert_near(schedule_lr(&schedule, 90 * epoch), 0.0001);
    assert_near(schedule_lr(&schedule, 120 * epoch - 1), 0.0001);
    assert_near(schedule_lr(&schedule, 130 * epoch), 0.0001);
}

/* A quarter that is no whole step: the first step at or behind it. 10 steps: 2.5, 5, 7.5. */
static void step_rounds_up(void **state)
{
    struct schedule schedule = {.lr = 1, .total_steps = 10};
    const double wanted[] = {1, 1, 1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.001, 0.001};
    for (uint64_t step = 0; step < 10; step++)
        assert_near(schedule_lr(&schedule, step), wanted[step]);
}

/* Batch i of m has i eta / m, i from 1. */
static void warmup_rises_per_step(void **state)
{
    struct schedule schedule = {.lr = 0.4, .total_steps = 100, .warmup_steps = 8};
    for (uint64_t step = 0; step < 8; step++)
        assert_near(schedule_lr(&schedule, step), 0.05 * (double)(step + 1));
    assert_near(schedule_lr(&schedule, 8), 0.4);
    schedule.cosine = true;
    assert_near(schedule_lr(&schedule, 0), 0.05);
    assert_near(schedule_lr(&schedule, 7), 0.4);
    assert_near(schedule_lr(&schedule, 8), 0.4); /* t = 0 */
}

/* t and T leave the warm-up out: T = 12 here. */
static void cosine_leaves_warmup_out(void **state)
{
    struct schedule schedule = {.lr = 2, .cosine = true, .total_steps = 16, .warmup_steps = 4};
    assert_near(schedule_lr(&schedule, 4), 2);
    assert_near(schedule_lr(&schedule, 6), 1 + sqrt(3) / 2); /* cos 30 degrees */
    assert_near(schedule_lr(&schedule, 8), 1.5);             /* cos 60 degrees */
    assert_near(schedule_lr(&schedule, 10), 1);
    assert_near(schedule_lr(&schedule, 12), 0.5);
    double last = schedule_lr(&schedule, 15);
    assert_true(last > 0 && last < 0.05);
    assert_near(schedule_lr(&schedule, 16), last);
}

static void warmup_longer_than_the_run(void **state)
{
    struct schedule schedule = {.lr = 1, .cosine = true, .total_steps = 4, .warmup_steps = 8};
    assert_near(schedule_lr(&schedule, 3), 0.5);
    assert_near(schedule_lr(&schedule, 9), 0.5);
}

static void scale_is_one_in_fp32(void **state)
{
    struct scaler scaler;
    assert_int_equal(scaler_init(&scaler, "dynamic", PRECISION_FP32), 0);
    assert_near(scaler.scale, 1);
    assert_true(scaler_step(&scaler, true));
    assert_false(scaler_step(&scaler, false));
    assert_int_equal(scaler_init(&scaler, "1024", PRECISION_FP32), 0);
    assert_near(scaler.scale, 1);
}

static void scale_moves_when_dynamic(void **state)
{
    struct scaler scaler;
    assert_int_equal(scaler_init(&scaler, "dynamic", PRECISION_FP16), 0);
    assert_near(scaler.scale, 65536);
    assert_true(scaler_step(&scaler, false));
    assert_near(scaler.scale, 32768);
    for (int i = 0; i < SCALER_GROWTH_STEPS - 1; i++)
        assert_true(scaler_step(&scaler, true));
    assert_near(scaler.scale, 32768);
    assert_true(scaler_step(&scaler, true));
    assert_near(scaler.scale, 65536);
    for (int i = 0; i < 16; i++)
        assert_true(scaler_step(&scaler, false));
    assert_near(scaler.scale, 1);
    assert_false(scaler_step(&scaler, false));
}

static void scale_stays_when_static(void **state)
{
    struct scaler scaler;
    assert_int_equal(scaler_init(&scaler, "128", PRECISION_FP16), 0);
    for (int i = 0; i < SCALER_BAD_STEPS - 1; i++)
        assert_true(scaler_step(&scaler, false));
    assert_near(scaler.scale, 128);
    assert_false(scaler_step(&scaler, false));
    const char *const wrong[] = {"", "dynamc", "-1", "0", "nan", "inf", "12x"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_int_not_equal(scaler_init(&scaler, wrong[i], PRECISION_FP16), 0);
}

/* A run that was stopped at this scale goes on with these settings. */
static double resumed(const char *text, enum precision precision, double scale, uint64_t good_steps,
                      uint64_t bad_steps)
{
    struct scaler scaler;
    assert_int_equal(scaler_init(&scaler, text, precision), 0);
    scaler_resume(&scaler, scale, good_steps, bad_steps);
    return scaler.scale;
}

static void scale_is_the_settings_own_when_resumed(void **state)
{
    assert_near(resumed("dynamic", PRECISION_FP16, 8192, 5, 0), 8192);
    assert_near(resumed("dynamic", PRECISION_FP16, 131072, 0, 0), 131072); /* doubled just now */
    assert_near(resumed("dynamic", PRECISION_FP16, 1, 0, 3), 1);           /* halved just now */
    assert_near(resumed("dynamic", PRECISION_FP16, 1, 7, 0), 1);
    /* With --allow-change. */
    assert_near(resumed("dynamic", PRECISION_FP16, 1, 0, 0), SCALER_START); /* fp32 before */
    assert_near(resumed("128", PRECISION_FP16, 65536, 5, 0), 128);
    assert_near(resumed("dynamic", PRECISION_FP32, 65536, 5, 0), 1);
}

static void scale_counts_on_when_resumed(void **state)
{
    struct scaler scaler;
    assert_int_equal(scaler_init(&scaler, "dynamic", PRECISION_FP16), 0);
    scaler_resume(&scaler, 4096, SCALER_GROWTH_STEPS - 1, 0);
    assert_true(scaler_step(&scaler, true));
    assert_near(scaler.scale, 8192);
    assert_int_equal(scaler_init(&scaler, "128", PRECISION_FP16), 0);
    scaler_resume(&scaler, 128, 0, SCALER_BAD_STEPS - 1);
    assert_false(scaler_step(&scaler, false));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(step_decays_at_quarters),
        cmocka_unit_test(step_rounds_up),
        cmocka_unit_test(warmup_rises_per_step),
        cmocka_unit_test(cosine_leaves_warmup_out),
        cmocka_unit_test(warmup_longer_than_the_run),
        cmocka_unit_test(scale_is_one_in_fp32),
        cmocka_unit_test(scale_moves_when_dynamic),
        cmocka_unit_test(scale_stays_when_static),
        cmocka_unit_test(scale_is_the_settings_own_when_resumed),
        cmocka_unit_test(scale_counts_on_when_resumed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The reference backend in double against central differences, and in float against double. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "tests/unit/trainer/tiny_net.h"

static const struct backend_config one_thread = {.threads = 1};

static void open_case(struct tiny *tiny, const struct backend_ops *ops, int number)
{
    int code =
        tiny_open(tiny, ops, &one_thread, &tiny_cases[number], testing_seed() + (uint64_t)number);
    if (code)
        fail_msg("%s: %s", tiny_cases[number].name, err_message());
}

static double loss_at(struct tiny *tiny, int tensor, const float *base, const float *direction,
                      float step)
{
    size_t count = tiny->net->tensors[tensor].count;
    float *moved = malloc(count * sizeof *moved);
    for (size_t i = 0; i < count; i++) {
        moved[i] = base[i] + step * direction[i];
        assert_true(moved[i] - base[i] == step * direction[i]); /* exact, or the check is void */
    }
    struct batch_metrics metrics;
    assert_int_equal(tiny->ops->state_set(tiny->state, STATE_WEIGHT, tensor, moved), 0);
    assert_int_equal(tiny_run(tiny), 0);
    assert_int_equal(tiny->ops->metrics(&metrics, tiny->state, 0), 0);
    free(moved);
    return metrics.loss * tiny->factor;
}

/* Whether the derivative along a direction is what differences of the loss say: to the fourth order
 * of step over both sides (Richardson), or to the second over the one side that has no kink. */
static bool matches(double *measured, struct tiny *tiny, int tensor, const float *base,
                    const float *direction, float step, double expected, double most)
{
    double at[5]; /* -step, -step / 2, 0, step / 2, step */
    for (int i = 0; i < 5; i++)
        at[i] = loss_at(tiny, tensor, base, direction, (float)(i - 2) * step / 2);
    double behind = (3 * at[2] - 4 * at[1] + at[0]) / step;
    double ahead = (4 * at[3] - 3 * at[2] - at[4]) / step;
    *measured = (8 * (at[3] - at[1]) - (at[4] - at[0])) / (6.0 * step);
    return fabs(*measured - expected) <= most || fabs(behind - expected) <= most ||
           fabs(ahead - expected) <= most;
}

/* Along a direction of -1, 0 and 1. Where a step crosses a kink of ReLU or max pool on both sides
 * the differences are wrong, ever less likely so the smaller the step; a wrong gradient stays
 * wrong. */
static bool agrees(struct tiny *tiny, int tensor, const float *base, const float *direction,
                   const char *name)
{
    size_t count = tiny->net->tensors[tensor].count;
    float *gradient = malloc(count * sizeof *gradient);
    assert_int_equal(tiny->ops->state_set(tiny->state, STATE_WEIGHT, tensor, base), 0);
    assert_int_equal(tiny_run(tiny), 0);
    assert_int_equal(tiny->ops->slot_get(gradient, tiny->state, 0, tensor), 0);
    double expected = 0, scale = 1e-3;
    for (size_t i = 0; i < count; i++) {
        expected += (double)gradient[i] * direction[i];
        scale += fabs((double)gradient[i] * direction[i]);
    }
    free(gradient);
    double measured = 0;
    bool good = false;
    /* The gradient is read as float (6e-8); the loss' 1e-16 over the step gives 4e-9. */
    for (float step = 0x1p-12f; step >= 0x1p-22f && !good; step /= 32)
        good = matches(&measured, tiny, tensor, base, direction, step, expected, 1e-6 * scale);
    assert_int_equal(tiny->ops->state_set(tiny->state, STATE_WEIGHT, tensor, base), 0);
    if (!good)
        fprintf(stderr, "%s: %s: the gradient says %.10g, the difference %.10g\n", name,
                tiny->net->tensors[tensor].name, expected, measured);
    return good;
}

/* Random directions over all elements, or along one (so that nothing cancels). One that has kinks
 * on both sides even within the smallest step is replaced; three in a row are no accident. */
static void check_directions(struct tiny *tiny, int tensor, const float *base, bool single,
                             const char *name, uint64_t *random)
{
    size_t count = tiny->net->tensors[tensor].count;
    float *direction = calloc(count, sizeof *direction);
    bool good = false;
    for (int attempt = 0; attempt < 3 && !good; attempt++) {
        for (size_t i = 0; i < count; i++)
            direction[i] = single ? 0 : testing_random(random) % 2 ? 1 : -1;
        if (single)
            direction[testing_random(random) % count] = 1;
        good = agrees(tiny, tensor, base, direction, name);
    }
    free(direction);
    if (!good)
        fail_msg("%s: the gradient of %s is wrong", name, tiny->net->tensors[tensor].name);
}

static void check_tensor(struct tiny *tiny, int tensor, const char *name, uint64_t *random)
{
    float *base = malloc(tiny->net->tensors[tensor].count * sizeof *base);
    assert_int_equal(tiny->ops->state_get(base, tiny->state, STATE_WEIGHT, tensor), 0);
    check_directions(tiny, tensor, base, false, name, random);
    check_directions(tiny, tensor, base, true, name, random);
    free(base);
}

static void test_central_differences(void **unused)
{
    uint64_t random = testing_seed();
    for (int number = 0; number < TINY_CASES; number++) {
        struct tiny tiny;
        open_case(&tiny, &backend_ref_double, number);
        for (int i = 0; i < tiny.net->tensor_count; i++)
            if (tiny.net->tensors[i].trained)
                check_tensor(&tiny, i, tiny_cases[number].name, &random);
        tiny_close(&tiny);
    }
}

static void test_float_against_double(void **unused)
{
    for (int number = 0; number < TINY_CASES; number++)
        assert_int_equal(tiny_compare_case(&backend_ref, &backend_ref_double, &one_thread,
                                           &tiny_cases[number], testing_seed(), 2e-5),
                         0);
}

int main(void)
{
    testing_seed();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_central_differences),
        cmocka_unit_test(test_float_against_double),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

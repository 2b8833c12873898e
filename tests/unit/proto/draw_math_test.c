/* SPDX-License-Identifier: Apache-2.0 */
/* The stream's log, exp, pow and cos: within 4 units in the last place of libm's long doubles, and
 * these very bits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <float.h>
#include <math.h>
#include <string.h>

#include "common/hash.h"
#include "proto/draw.h"
#include "tests/unit/testing.h"

enum { POINTS = 200000 };

static const long double tau = 6.283185307179586476925286766559005768L;

/* Fails unless got is within 4 ulp of want; below the normal range an ulp is the subnormal step. */
static void assert_near(double got, long double want, const char *what, double x, double y)
{
    double near = (double)want;
    if (got == near)
        return;
    double magnitude = fmax(fabs(near), DBL_MIN);
    long double ulp = (long double)nextafter(magnitude, INFINITY) - magnitude;
    if (!(fabsl(got - want) <= 4 * ulp))
        fail_msg("%s(%a, %a) = %a, not %a", what, x, y, got, near);
}

/* A positive double from all binades, subnormals too. */
static double any_positive(uint64_t *random)
{
    for (;;) {
        uint64_t bits = testing_random(random) >> 1;
        double value;
        memcpy(&value, &bits, sizeof value);
        if (value > 0 && value <= DBL_MAX)
            return value;
    }
}

/* 1 + d with |d| from 1/2 down to the last bit. */
static double near_one(uint64_t *random)
{
    return 1 + (testing_unit(random) - 0.5) * exp2(-52 * testing_unit(random));
}

static void test_log(void **state)
{
    uint64_t random = testing_seed();
    for (int i = 0; i < POINTS; i++) {
        double x = i & 1 ? any_positive(&random) : near_one(&random);
        assert_near(draw_log(x), logl(x), "log", x, 0);
    }
    const double edges[] = {DBL_MIN, DBL_MAX,     DBL_TRUE_MIN,          DBL_MIN - DBL_TRUE_MIN,
                            M_SQRT2, M_SQRT1_2,   nextafter(M_SQRT2, 2), nextafter(M_SQRT1_2, 0),
                            0x1p-33, 1 - 0x1p-33, nextafter(1, 2),       nextafter(1, 0),
                            2,       0.5};
    for (size_t i = 0; i < sizeof edges / sizeof edges[0]; i++)
        assert_near(draw_log(edges[i]), logl(edges[i]), "log", edges[i], 0);
    assert_true(draw_log(1) == 0);
    assert_true(draw_log(0) == -INFINITY && draw_log(-0.0) == -INFINITY);
    assert_true(draw_log(INFINITY) == INFINITY);
    assert_true(isnan(draw_log(-1)) && isnan(draw_log(-INFINITY)) && isnan(draw_log(NAN)));
}

static void test_exp(void **state)
{
    uint64_t random = testing_seed();
    for (int i = 0; i < POINTS; i++) {
        double x =
            (testing_unit(&random) - 0.5) * (i & 1 ? 1417 : exp2(-60 * testing_unit(&random)));
        assert_near(draw_exp(x), expl(x), "exp", x, 0);
    }
    for (int k = -1074; k < 1024; k++) { /* where the reduction turns over */
        double x = (k + 0.5) * M_LN2;
        assert_near(draw_exp(x), expl(x), "exp", x, 0);
    }
    assert_near(draw_exp(709.782712893384), expl((long double)709.782712893384), "exp",
                709.782712893384, 0);
    assert_true(draw_exp(709.7827128933841) == INFINITY && draw_exp(INFINITY) == INFINITY);
    assert_true(draw_exp(-746) == 0 && draw_exp(-INFINITY) == 0);
    assert_true(draw_exp(0) == 1 && draw_exp(-0.0) == 1 && isnan(draw_exp(NAN)));
}

static void test_pow(void **state)
{
    uint64_t random = testing_seed();
    for (int i = 0; i < POINTS; i++) {
        double x = i & 1 ? any_positive(&random) : near_one(&random);
        double range = 745 / fabs(log(x)); /* all results, from 0 to infinity */
        double y = (testing_unit(&random) * 2 - 1) * fmin(range, 1e300);
        long double want = powl(x, y);
        if (want <= (long double)DBL_MAX && want >= (long double)DBL_TRUE_MIN)
            assert_near(draw_pow(x, y), want, "pow", x, y);
    }
    /* The draws' own: a uniform to the power of 1 / (alpha - 1/2). */
    for (int i = 0; i < POINTS; i++) {
        double x = testing_unit(&random) + 0x1p-60, y = 1 / (0.5 + 3 * testing_unit(&random));
        assert_near(draw_pow(x, y), powl(x, y), "pow", x, y);
    }
}

static void test_pow_specials(void **state)
{
    const double values[] = {0, DBL_TRUE_MIN, DBL_MIN, 0.5, 1, 2, 3, DBL_MAX, INFINITY, NAN};
    const double powers[] = {-INFINITY, -DBL_MAX, -3, -1,      -DBL_TRUE_MIN, 0,  DBL_TRUE_MIN,
                             0.5,       1,        2,  DBL_MAX, INFINITY,      NAN};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        for (size_t j = 0; j < sizeof powers / sizeof powers[0]; j++) {
            double got = draw_pow(values[i], powers[j]), want = pow(values[i], powers[j]);
            if (isnan(want))
                assert_true(isnan(got));
            else
                assert_near(got, want, "pow", values[i], powers[j]);
        }
    }
    assert_true(isnan(draw_pow(-1, 2)));
}

/* cos(2 pi t) by libm, from an angle of at most pi / 4. */
static long double cos_tau(double t)
{
    long double r = t > 0.5 ? 1 - (long double)t : (long double)t;
    if (r <= 0.125L)
        return cosl(tau * r);
    return r <= 0.375L ? sinl(tau * (0.25L - r)) : -cosl(tau * (0.5L - r));
}

static void test_cos(void **state)
{
    uint64_t random = testing_seed();
    for (int i = 0; i < POINTS; i++) {
        double t = testing_unit(&random);
        if (i & 1) { /* near the zeros, the ends and where the octants meet */
            t = 0.125 * (double)(testing_random(&random) % 9);
            t += (testing_unit(&random) - 0.5) * exp2(-60 * testing_unit(&random));
        }
        if (t >= 0 && t <= 1)
            assert_near(draw_cos_2pi(t), cos_tau(t), "cos_2pi", t, 0);
    }
    assert_true(draw_cos_2pi(0) == 1 && draw_cos_2pi(1) == 1 && draw_cos_2pi(0.5) == -1);
    assert_true(draw_cos_2pi(0.25) == 0 && draw_cos_2pi(0.75) == 0);
    assert_true(isnan(draw_cos_2pi(-0.1)) && isnan(draw_cos_2pi(1.1)) && isnan(draw_cos_2pi(NAN)));
}

/* All results of many calls, hashed: one changed bit anywhere fails. */
static void test_these_very_bits(void **state)
{
    static const struct {
        double x, log, exp, pow, cos;
    } vectors[] = {
#include "draw_math_vectors.inc"
    };
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        double x = vectors[i].x;
        assert_true(draw_log(x) == vectors[i].log);
        assert_true(draw_exp(x) == vectors[i].exp);
        assert_true(draw_pow(x, 4.75) == vectors[i].pow);
        assert_true(draw_cos_2pi(x / 8) == vectors[i].cos);
    }
    uint64_t random = 1;
    struct hash_stream *stream = hash_stream_open();
    assert_non_null(stream);
    for (int i = 0; i < POINTS; i++) {
        double x = any_positive(&random), unit = testing_unit(&random);
        double results[] = {draw_log(x), draw_exp((unit - 0.5) * 1400),
                            draw_pow(x, (unit - 0.5) * 1.9), draw_cos_2pi(unit)};
        hash_stream_add(stream, results, sizeof results);
    }
    char text[33];
    hash128_to_text(text, hash_stream_end(stream));
    hash_stream_close(stream);
    assert_string_equal(text, "88f3c75beb08a0965c5c9f99f7112b4d");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_log), cmocka_unit_test(test_exp),
        cmocka_unit_test(test_pow), cmocka_unit_test(test_pow_specials),
        cmocka_unit_test(test_cos), cmocka_unit_test(test_these_very_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

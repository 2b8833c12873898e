/* SPDX-License-Identifier: Apache-2.0 */
/* Halves against arithmetic in double, exhaustively where that is possible, and the vector path
 * against the scalar one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "common/half.h"
#include "common/half_arrays.h"
#include "tests/unit/testing.h"

enum { HALVES = 65536, INFINITY_BITS = 0x7c00 };

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* The value of a finite half by its definition. */
static double definition(uint16_t half)
{
    int exponent = half >> 10 & 31, mantissa = half & 0x3ff;
    double value = exponent ? ldexp(1024 + mantissa, exponent - 25) : ldexp(mantissa, -24);
    return half & 0x8000 ? -value : value;
}

/* The nearest half of a finite float: rint on the grid of its binade (rounds ties to even). */
static uint16_t nearest(float value)
{
    double magnitude = fabs((double)value);
    uint16_t sign = signbit(value) ? 0x8000 : 0;
    int exponent = magnitude < 0x1p-14 ? -14 : ilogb(magnitude);
    double steps = rint(ldexp(magnitude, 10 - exponent)); /* 1024 to 2048, less if subnormal */
    double bits = steps + 1024.0 * (exponent + 14);
    return (uint16_t)(sign | (bits > INFINITY_BITS ? INFINITY_BITS : (int)bits));
}

static int is_nan_half(uint16_t half)
{
    return (half & 0x7fff) > INFINITY_BITS;
}

static void test_every_half(void **state)
{
    for (int i = 0; i < HALVES; i++) {
        uint16_t half = (uint16_t)i;
        float value = half_to_float(half);
        if (is_nan_half(half)) {
            assert_true(isnan(value));
            assert_int_equal(half_from_float(value), half | 0x200);
        } else if ((half & 0x7fff) == INFINITY_BITS) {
            assert_true(isinf(value) && !signbit(value) == !(half & 0x8000));
            assert_int_equal(half_from_float(value), half);
        } else {
            assert_true((double)value == definition(half));
            assert_int_equal(signbit(value) != 0, half >> 15);
            assert_int_equal(half_from_float(value), half);
        }
    }
}

/* The middle between each half and the next, and the floats on both sides of it. */
static void test_every_boundary(void **state)
{
    for (int i = 0; i < INFINITY_BITS; i++) {
        double next = i + 1 == INFINITY_BITS ? 65536 : definition((uint16_t)(i + 1));
        float middle = (float)((definition((uint16_t)i) + next) / 2);
        uint16_t even = (uint16_t)(i & 1 ? i + 1 : i);
        assert_int_equal(half_from_float(middle), even);
        assert_int_equal(half_from_float(-middle), even | 0x8000);
        assert_int_equal(half_from_float(nextafterf(middle, 0)), i);
        assert_int_equal(half_from_float(nextafterf(middle, INFINITY)), i + 1);
    }
    assert_int_equal(half_from_float(float_of(1)), 0);
    assert_int_equal(half_from_float(3.4e38f), INFINITY_BITS);
    assert_int_equal(half_from_float(float_of(0x7f800001)), 0x7e00);
    assert_int_equal(half_from_float(float_of(0xffc00000)), 0xfe00);
}

static void test_random_floats(void **state)
{
    uint64_t random = testing_seed();
    for (int i = 0; i < 1000000; i++) {
        uint32_t bits = (uint32_t)testing_random(&random);
        if (i & 1) /* most floats are out of a half's range: these are within */
            bits = (bits & 0x80ffffff) | (uint32_t)(0x33 + i / 2 % 0x15) << 24;
        float value = float_of(bits);
        if (!isnan(value) && !isinf(value))
            assert_int_equal(half_from_float(value), nearest(value));
    }
}

/* Every bf16, the middle between it and the next, and the floats on both sides of that. */
static void test_every_bf16(void **state)
{
    for (uint32_t i = 0; i < 0x8000; i++) {
        float value = bf16_to_float((uint16_t)i);
        if (isnan(value)) {
            assert_int_equal(bf16_from_float(value), i | 0x40);
            continue;
        }
        assert_int_equal(bf16_from_float(value), i);
        assert_int_equal(bf16_from_float(-value), i | 0x8000);
        if (isinf(value))
            continue;
        float middle = float_of(i << 16 | 0x8000);
        assert_int_equal(bf16_from_float(middle), i & 1 ? i + 1 : i);
        assert_int_equal(bf16_from_float(nextafterf(middle, 0)), i);
        assert_int_equal(bf16_from_float(nextafterf(middle, INFINITY)), i + 1);
    }
    assert_true(bf16_to_float(0x3fc0) == 1.5f && bf16_to_float(0xc000) == -2);
    assert_int_equal(bf16_from_float(float_of(0x7f800001)), 0x7fc0);
    assert_int_equal(bf16_from_float(3.4e38f), 0x7f80);
}

static void test_f16c_to_floats(void **state)
{
    static uint16_t halves[HALVES];
    static float scalar[HALVES], vector[HALVES];
    if (!half_have_f16c()) {
        print_message("skipped: this processor has no F16C\n");
        skip();
    }
    for (int i = 0; i < HALVES; i++)
        halves[i] = (uint16_t)i;
    half_to_floats_scalar(scalar, halves, HALVES);
    half_to_floats_f16c(vector, halves, HALVES);
    assert_memory_equal(scalar, vector, sizeof scalar);
}

static void test_f16c_from_floats(void **state)
{
    enum { COUNT = 1 << 20 };
    static float values[COUNT];
    static uint16_t scalar[COUNT], vector[COUNT];
    if (!half_have_f16c()) {
        print_message("skipped: this processor has no F16C\n");
        skip();
    }
    uint64_t random = testing_seed();
    for (int i = 0; i < COUNT; i++)
        values[i] = float_of((uint32_t)testing_random(&random));
    /* Around every boundary, ties and NaNs of all payload sizes. */
    for (int i = 0; i < INFINITY_BITS; i++) {
        uint32_t middle = bits_of(half_to_float((uint16_t)i)) + (i < 0x400 ? 0 : 0x1000);
        for (int j = 0; j < 4; j++)
            values[4 * i + j] = float_of(middle + (uint32_t)j - 1);
    }
    for (int i = 0; i < 23; i++)
        values[COUNT - 1 - i] = float_of(0xff800000 | 1u << i);
    half_from_floats_scalar(scalar, values, COUNT);
    half_from_floats_f16c(vector, values, COUNT);
    assert_memory_equal(scalar, vector, sizeof scalar);
}

/* Each half alone, among finite ones and at every place of a vector. */
static void test_all_finite(void **state)
{
    enum { COUNT = 67 };
    uint16_t halves[COUNT];
    (void)state;
    for (int i = 0; i < COUNT; i++)
        halves[i] = (uint16_t)(i % 2 ? 0x7bff : 0xfbff); /* the largest */
    for (int i = 0; i < HALVES; i++) {
        uint16_t *place = &halves[i % COUNT], kept = *place;
        *place = (uint16_t)i;
        float value = half_to_float((uint16_t)i);
        assert_int_equal(half_all_finite(halves, COUNT), isfinite(value) != 0);
        *place = kept;
    }
    assert_true(half_all_finite(halves, 0));
}

/* Every length around the vector's width, and nothing behind the end is touched. */
static void test_lengths(void **state)
{
    for (size_t count = 0; count <= 20; count++) {
        float values[24], back[24];
        uint16_t halves[24];
        for (int i = 0; i < 24; i++) {
            values[i] = 0.5f + (float)i;
            halves[i] = 0xabcd;
            back[i] = -1;
        }
        half_from_floats(halves, values, count);
        half_to_floats(back, halves, count);
        for (size_t i = 0; i < 24; i++) {
            assert_int_equal(halves[i], i < count ? half_from_float(values[i]) : 0xabcd);
            assert_true(back[i] == (i < count ? values[i] : -1));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_half),     cmocka_unit_test(test_every_boundary),
        cmocka_unit_test(test_random_floats),  cmocka_unit_test(test_every_bf16),
        cmocka_unit_test(test_f16c_to_floats), cmocka_unit_test(test_f16c_from_floats),
        cmocka_unit_test(test_lengths),        cmocka_unit_test(test_all_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Colour: against float64, and its very bits. */
#include "loader/colour.h"

#include <math.h>
#include <string.h>

#include "common/hash.h"
#include "loader/resize.h"
#include "proto/draw.h"
#include "tests/unit/loader/pictures.h"

static const float mean[3] = {123.68f, 116.779f, 103.939f}, std[3] = {58.393f, 57.12f, 57.375f};

static struct spec full_spec(void)
{
    struct spec spec = {.seed = 5,
                        .channels = 3,
                        .jitter = SPEC_JITTER_HSV,
                        .jitter_strength = {0.4f, 0.4f, 0.4f},
                        .pca_sigma = 0.1f};
    memcpy(spec.mean, mean, sizeof mean);
    memcpy(spec.std, std, sizeof std);
    return spec;
}

static struct colour_params golden_params(const float factors[3], const float offsets[3])
{
    struct colour_params params = {.channels = 3,
                                   .jitter = true,
                                   .hue = factors[0],
                                   .saturation = factors[1],
                                   .value = factors[2]};
    for (int c = 0; c < 3; c++) {
        params.offset[c] = offsets[c];
        params.shift[c] = offsets[c] - mean[c];
        params.scale[c] = 1 / std[c];
    }
    return params;
}

static void jitter_offset_and_normalisation_follow_float64(void **state)
{
    FILE *file = golden_text("colour.txt");
    int q[3], lines = 0;
    float f[3], o[3], y[3];
    double e[3];
    while (fscanf(file, "%d %d %d %f %f %f %f %f %f %lf %lf %lf", &q[0], &q[1], &q[2], &f[0], &f[1],
                  &f[2], &o[0], &o[1], &o[2], &e[0], &e[1], &e[2]) == 12) {
        struct colour_params params = golden_params(f, o);
        int16_t r = (int16_t)q[0], g = (int16_t)q[1], b = (int16_t)q[2];
        colour_normalise(y, &r, &g, &b, 1, &params);
        for (int c = 0; c < 3; c++)
            if (!(fabs(y[c] - e[c]) * std[c] <= 1e-3)) /* of a level */
                fail_msg("line %d channel %d: %.8g, not %.8g", lines + 1, c, y[c], e[c]);
        lines++;
    }
    fclose(file);
    assert_int_equal(lines, 300);
}

static void ycc_is_jfifs_matrix(void **state)
{
    uint64_t random = testing_seed();
    for (int i = 0; i < 100000; i++) {
        int16_t v[3];
        for (int c = 0; c < 3; c++)
            v[c] = (int16_t)(testing_random(&random) % (RESIZE_ONE + 1));
        double y = v[0], u = v[1] - 16384.0, w = v[2] - 16384.0;
        double expected[3] = {y + 1.402 * w, y - 0.344136 * u - 0.714136 * w, y + 1.772 * u};
        colour_ycc_to_rgb(&v[0], &v[1], &v[2], 1);
        for (int c = 0; c < 3; c++)
            /* Two rounded products, and constants of 15 bits. */
            assert_true(fabs(v[c] - fmin(fmax(expected[c], 0), RESIZE_ONE)) <= 1.6);
    }
}

/* GluonCV's three operations one after another in double, in two orders, on a picture whose values
 * leave room so that nothing is clamped. */
static double bcs_exact(const double pixel[3], double mean_luma, const double f[3], int channel,
                        bool saturation_first)
{
    double v[3];
    memcpy(v, pixel, sizeof v);
    for (int step = 0; step < 2; step++) {
        if ((step == 0) == saturation_first) {
            double luma = 0.299 * v[0] + 0.587 * v[1] + 0.114 * v[2];
            for (int c = 0; c < 3; c++)
                v[c] = f[2] * v[c] + (1 - f[2]) * luma;
            continue;
        }
        for (int c = 0; c < 3; c++)
            v[c] = f[1] * (f[0] * v[c]) + (1 - f[1]) * (f[0] * mean_luma);
    }
    return v[channel];
}

static void bcs_follows_gluoncv(void **state)
{
    enum { COUNT = 300 };
    int16_t plane[3][COUNT], out[3][COUNT];
    uint64_t random = testing_seed();
    struct spec spec = full_spec();
    spec.jitter = SPEC_JITTER_BCS;
    double mean_luma = 0;
    for (int i = 0; i < COUNT; i++) {
        for (int c = 0; c < 3; c++)
            plane[c][i] = (int16_t)(8000 + testing_random(&random) % 4000);
        mean_luma += (0.299 * plane[0][i] + 0.587 * plane[1][i] + 0.114 * plane[2][i]) / COUNT;
    }
    for (uint32_t id = 0; id < 50; id++) {
        memcpy(out, plane, sizeof out);
        colour_bcs(out[0], out[1], out[2], COUNT, &spec, 3, id);
        struct philox_block draws = draw_block((struct draw_key){spec.seed, 3}, DRAW_JITTER, id, 0);
        double f[3];
        for (int k = 0; k < 3; k++)
            f[k] = draw_uniform(draws.word[k], 1 - (double)0.4f, 1 + (double)0.4f);
        for (int i = 0; i < COUNT; i++) {
            const double pixel[3] = {plane[0][i], plane[1][i], plane[2][i]};
            for (int c = 0; c < 3; c++) {
                double a = bcs_exact(pixel, mean_luma, f, c, false);
                assert_true(fabs(a - bcs_exact(pixel, mean_luma, f, c, true)) <= 1e-6);
                /* rounding, and luma's constants of 15 bits */
                assert_true(fabs(out[c][i] - a) <= 1.2);
            }
        }
    }
    /* Black stays black, and nothing leaves the range. */
    memset(out, 0, sizeof out);
    colour_bcs(out[0], out[1], out[2], COUNT, &spec, 0, 0);
    assert_true(out[0][0] == 0 && out[2][COUNT - 1] == 0);
    for (int i = 0; i < COUNT; i++)
        out[0][i] = out[1][i] = (int16_t)(i % 2 ? RESIZE_ONE : 0);
    colour_bcs(out[0], out[1], out[2], COUNT, &spec, 0, 1);
    for (int i = 0; i < COUNT; i++)
        assert_in_range(out[0][i], 0, RESIZE_ONE);
}

static void values_are_clamped(void **state)
{
    int16_t v[] = {-300, -1, 0, 5, RESIZE_ONE, RESIZE_ONE + 1, INT16_MAX, INT16_MIN};
    const int16_t expected[] = {0, 0, 0, 5, RESIZE_ONE, RESIZE_ONE, RESIZE_ONE, 0};
    colour_clamp(v, 8);
    assert_memory_equal(v, expected, sizeof v);
}

static void luma_weighs_the_channels(void **state)
{
    int16_t r[] = {RESIZE_ONE, RESIZE_ONE, 0, 0, 12800},
            g[] = {RESIZE_ONE, 0, RESIZE_ONE, 0, 12800};
    int16_t b[] = {RESIZE_ONE, 0, 0, RESIZE_ONE, 12800};
    const double expected[] = {255, 76.245, 149.685, 29.07, 100};
    colour_luma(r, g, b, 5);
    for (int i = 0; i < 5; i++)
        assert_true(fabs(r[i] / 128.0 - expected[i]) <= 2.0 / 128);
}

static void factors_of_one_change_nothing(void **state)
{
    uint64_t random = testing_seed();
    const float ones[3] = {1, 1, 1}, zeros[3] = {0};
    struct colour_params with = golden_params(ones, zeros), without = with;
    without.jitter = false;
    for (int i = 0; i < 50000; i++) {
        int16_t v[3];
        for (int c = 0; c < 3; c++)
            v[c] = (int16_t)(testing_random(&random) % (RESIZE_ONE + 1));
        float a[3], b[3];
        colour_normalise(a, &v[0], &v[1], &v[2], 1, &with);
        colour_normalise(b, &v[0], &v[1], &v[2], 1, &without);
        for (int c = 0; c < 3; c++)
            assert_true(fabsf(a[c] - b[c]) * std[c] <= 1e-3f);
    }
}

static void bytes_are_the_rounded_levels(void **state)
{
    uint64_t random = testing_seed();
    const float zeros[3] = {0};
    for (int i = 0; i < 20000; i++) {
        float factors[3], level[3];
        int16_t v[3];
        for (int c = 0; c < 3; c++) {
            v[c] = (int16_t)(testing_random(&random) % (RESIZE_ONE + 1));
            factors[c] = (float)(0.6 + 0.8 * testing_unit(&random));
        }
        struct colour_params params = golden_params(factors, zeros);
        for (int c = 0; c < 3; c++) {
            params.shift[c] = 0;
            params.scale[c] = 1;
        }
        uint8_t byte[3];
        colour_normalise(level, &v[0], &v[1], &v[2], 1, &params);
        colour_bytes(byte, &v[0], &v[1], &v[2], 1, &params);
        for (int c = 0; c < 3; c++) {
            assert_true(level[c] >= 0 && level[c] <= 255);
            assert_true(fabsf(byte[c] - level[c]) <= 0.50001f);
        }
    }
}

static void draws_have_their_distribution(void **state)
{
    struct spec spec = full_spec();
    enum { COUNT = 20000 };
    double least = 9, most = 0, sum = 0, squares = 0;
    for (uint32_t id = 0; id < COUNT; id++) {
        struct colour_params params;
        colour_draw(&params, &spec, 2, id);
        least = fmin(least, params.hue);
        most = fmax(most, params.value);
        sum += params.saturation;
        squares += params.offset[0] * params.offset[0];
        for (int c = 0; c < 3; c++) {
            assert_true(params.shift[c] == params.offset[c] - mean[c]);
            assert_true(params.scale[c] == 1 / std[c]);
        }
    }
    assert_true(least >= 0.6 && least < 0.605 && most <= 1.4 && most > 1.395);
    assert_true(fabs(sum / COUNT - 1) <= 6 * 0.2309 / sqrt(COUNT));
    /* Var = 0.1^2 (sum of (eigenvector eigenvalue)^2) for R: (.5675 55.46)^2 + (.7192 4.794)^2 +
       (.4009 1.148)^2 = 1002.7; a variance's estimate is off by sqrt(2 / n). */
    assert_true(fabs(squares / COUNT / 10.027 - 1) <= 6 * sqrt(2.0 / COUNT));
    spec.jitter = SPEC_JITTER_NONE;
    spec.pca_sigma = 0;
    struct colour_params params;
    colour_draw(&params, &spec, 2, 1);
    assert_false(params.jitter);
    assert_true(params.offset[0] == 0 && params.shift[2] == -mean[2]);
}

static void mixing_is_symmetric(void **state)
{
    uint64_t random = testing_seed();
    float a[64], b[64], x[64], y[64], lam = 0.3f;
    for (int i = 0; i < 64; i++) {
        x[i] = a[i] = (float)testing_unit(&random) * 4 - 2;
        y[i] = b[i] = (float)testing_unit(&random) * 4 - 2;
    }
    colour_mix(a, b, lam, 64);
    for (int i = 0; i < 64; i++) {
        assert_true(fabs(a[i] - (0.3 * x[i] + 0.7 * y[i])) <= 1e-6);
        assert_true(fabs(b[i] - (0.3 * y[i] + 0.7 * x[i])) <= 1e-6);
    }
    memcpy(a, x, sizeof a);
    memcpy(b, y, sizeof b);
    colour_mix(a, b, 1, 64);
    assert_memory_equal(a, x, sizeof a);
    assert_memory_equal(b, y, sizeof b);
}

/* The definition itself: a change of these bits is a change of every stream there is. */
static void the_bits_are_these(void **state)
{
    enum { COUNT = 5000 };
    static int16_t v[3][COUNT];
    static float out[COUNT * 3];
    uint64_t random = 1;
    for (int i = 0; i < COUNT * 3; i++)
        v[i % 3][i / 3] = (int16_t)(testing_random(&random) % (i % 7 ? 33000 : 300));
    char text[33];
    colour_ycc_to_rgb(v[0], v[1], v[2], COUNT);
    hash128_to_text(text, hash128_of(v, sizeof v));
    assert_string_equal(text, "81b55ceedcbe1819e4f08bd3307353d6");
    const float factors[3] = {1.25f, 0.75f, 1.125f}, offsets[3] = {2.5f, -1.25f, 0.375f};
    struct colour_params params = golden_params(factors, offsets);
    colour_normalise(out, v[0], v[1], v[2], COUNT, &params);
    hash128_to_text(text, hash128_of(out, sizeof out));
    assert_string_equal(text, "079cda9ce9089e7e4f166e0fe09e9cd0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jitter_offset_and_normalisation_follow_float64),
        cmocka_unit_test(ycc_is_jfifs_matrix),
        cmocka_unit_test(bcs_follows_gluoncv),
        cmocka_unit_test(values_are_clamped),
        cmocka_unit_test(luma_weighs_the_channels),
        cmocka_unit_test(factors_of_one_change_nothing),
        cmocka_unit_test(bytes_are_the_rounded_levels),
        cmocka_unit_test(draws_have_their_distribution),
        cmocka_unit_test(mixing_is_symmetric),
        cmocka_unit_test(the_bits_are_these),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The resize: against float64 (golden pictures, and filters worked out here), its invariants, and
 * its very bits. */
#include "loader/resize_ops.h"
#include "loader/resize_ops.h"

#include <math.h>
#include <string.h>

#include "common/hash.h"
#include "loader/colour.h"
#include "loader/decode.h"
#include "tests/unit/loader/pictures.h"

enum { SIZE_MOST = 64, SIDE_MOST = 3000 };

static uint32_t below(uint64_t *random, uint32_t count)
{
    return (uint32_t)(testing_random(random) % count);
}

static struct crop_axis box_axis(uint32_t begin, uint32_t extent)
{
    return (struct crop_axis){begin, extent, 1, begin, begin + extent, 0, 0};
}

/* ---- tap tables ---- */

struct axis_case {
    struct crop_axis crop;
    uint32_t outputs, factor, factor_max, samples;
};

static struct axis_case random_case(uint64_t *random)
{
    static const uint32_t factors[][2] = {{1, 1}, {1, 2}, {2, 2}, {1, 4}, {2, 3}};
    uint32_t side = 1 + below(random, below(random, 2) ? SIDE_MOST : 40);
    uint32_t begin = below(random, side), extent = 1 + below(random, side - begin);
    const uint32_t *factor = factors[below(random, 5)];
    struct axis_case result = {.crop = box_axis(begin, extent),
                               .outputs = 1 + below(random, SIZE_MOST),
                               .factor = factor[0],
                               .factor_max = factor[1]};
    result.samples = (side * factor[0] + factor[1] - 1) / factor[1];
    if (below(random, 3) == 0) { /* a window in a resized image, as in validation */
        uint32_t resized = result.outputs + below(random, 100);
        result.crop =
            (struct crop_axis){(int64_t)below(random, resized - result.outputs + 1) * side,
                               (int64_t)result.outputs * side,
                               resized,
                               0,
                               side,
                               0,
                               0};
    }
    return result;
}

static int build(struct resize_axis *axis, const struct axis_case *from, bool mirrored)
{
    return resize_axis_build(axis, resize_ops_of(cpu_level()), &from->crop, from->outputs,
                             from->factor, from->factor_max, from->samples, mirrored);
}

/* The filter's weights in double: of every sample of the plane for one output. */
static void exact_weights(double *weights, const struct axis_case *from,
                          const struct resize_axis *axis, uint32_t output)
{
    double unit = (double)from->factor / from->factor_max / (double)from->crop.denominator;
    double scale = (double)from->crop.extent * unit / from->outputs;
    double centre = (double)from->crop.begin * unit + (output + 0.5) * scale;
    double support = scale > 1 ? scale : 1, sum = 0;
    if (centre >= axis->high) /* the centre of a chroma sample that a cut image does not have */
        centre = axis->high - 0x1p-16;
    for (uint32_t i = 0; i < from->samples; i++) {
        double height = support - fabs(i + 0.5 - centre);
        weights[i] = i >= axis->low && i < axis->high && height > 0 ? height : 0;
        sum += weights[i];
    }
    for (uint32_t i = 0; i < from->samples; i++)
        weights[i] /= sum;
}

static void weights_sum_exactly_and_follow_the_filter(void **state)
{
    uint64_t random = testing_seed();
    struct resize_axis axis = {0};
    int wide = 0;
    double exact[SIDE_MOST];
    for (int round = 0; round < 400; round++) {
        struct axis_case from = random_case(&random);
        assert_int_equal(build(&axis, &from, false), 0);
        assert_int_equal(axis.wide, axis.taps > RESIZE_NARROW_TAPS);
        double one = axis.wide ? 65536 : 32768;
        /* Positions are off by at most 2^-16 samples; narrow weights also by their rounding, the
           one in the middle by all of theirs. */
        double tolerance = axis.wide ? 1.5 / one : (axis.taps / 2.0 + 2) / one;
        for (uint32_t output = 0; output < from.outputs; output++) {
            const uint16_t *weights = axis.weights + output;
            uint32_t first = axis.first[output], sum = 0;
            assert_true(first >= axis.low && first + axis.taps <= axis.high);
            exact_weights(exact, &from, &axis, output);
            for (uint32_t i = axis.low; i < axis.high; i++) {
                bool tap = i >= first && i < first + axis.taps;
                uint32_t weight = tap ? weights[(size_t)(i - first) * axis.stride] : 0;
                assert_true(fabs(weight / one - exact[i]) <= tolerance + 0x1p-14);
                sum += weight;
            }
            assert_int_equal(sum, (uint32_t)one);
        }
        wide += axis.wide;
    }
    assert_in_range(wide, 20, 380); /* both kinds were met */
    resize_axis_free(&axis);
}

/* Keys' cubic in double at a distance in units of the filter's scale. */
static double keys(double t)
{
    const double a = -0.5;
    t = fabs(t);
    if (t >= 2)
        return 0;
    return t < 1 ? (a + 2) * t * t * t - (a + 3) * t * t + 1
                 : a * t * t * t - 5 * a * t * t + 8 * a * t - 4 * a;
}

static void cubic_weights_follow_keys(void **state)
{
    uint64_t random = testing_seed();
    struct resize_axis axis = {0};
    double exact[SIDE_MOST];
    for (int round = 0; round < 200; round++) {
        struct axis_case from = random_case(&random);
        assert_int_equal(resize_axis_build_cubic(&axis, &from.crop, from.outputs, from.factor,
                                                 from.factor_max, from.samples, false),
                         0);
        double unit = (double)from.factor / from.factor_max / (double)from.crop.denominator;
        double scale = (double)from.crop.extent * unit / from.outputs;
        for (uint32_t output = 0; output < from.outputs; output++) {
            double centre = (double)from.crop.begin * unit + (output + 0.5) * scale, sum = 0;
            centre = centre >= axis.high ? axis.high - 0x1p-16 : centre;
            for (uint32_t i = axis.low; i < axis.high; i++)
                sum += exact[i] = keys((i + 0.5 - centre) / (scale > 1 ? scale : 1));
            int32_t total = 0;
            for (uint32_t i = axis.low; i < axis.high; i++) {
                uint32_t first = axis.first[output];
                int32_t weight = i >= first && i < first + axis.taps
                                     ? (int16_t)axis.weights[(i - first) * axis.stride + output]
                                     : 0;
                /* its own rounding, or in the middle that of all; positions of 2^-16 */
                assert_true(fabs(weight / 16384.0 - exact[i] / sum) <=
                            (axis.taps / 2.0 + 2) / 16384 + 0x1p-13);
                total += weight;
            }
            assert_int_equal(total, 16384);
        }
    }
    resize_axis_free(&axis);
}

static void a_mirrored_table_is_the_table_mirrored(void **state)
{
    uint64_t random = testing_seed();
    struct resize_axis axis = {0}, mirrored = {0};
    for (int round = 0; round < 200; round++) {
        struct axis_case from = random_case(&random);
        assert_int_equal(build(&axis, &from, false), 0);
        assert_int_equal(build(&mirrored, &from, true), 0);
        assert_int_equal(axis.taps, mirrored.taps);
        for (uint32_t output = 0; output < from.outputs; output++) {
            uint32_t other = from.outputs - 1 - output;
            assert_int_equal(axis.first[output], mirrored.first[other]);
            for (size_t tap = 0; tap < axis.taps; tap++)
                assert_int_equal(axis.weights[tap * axis.stride + output],
                                 mirrored.weights[tap * axis.stride + other]);
        }
    }
    resize_axis_free(&axis);
    resize_axis_free(&mirrored);
}

static void the_largest_image_fits_the_integers(void **state)
{
    struct resize_axis axis = {0};
    static const uint32_t outputs[] = {1, 7, 224, 1024};
    for (size_t i = 0; i < 4; i++) {
        struct crop_axis crop = box_axis(0, DECODE_MAX_SIDE_PX);
        assert_int_equal(resize_axis_build(&axis, &resize_ops_scalar, &crop, outputs[i], 1, 1,
                                           DECODE_MAX_SIDE_PX, false),
                         0);
        for (uint32_t output = 0; output < outputs[i]; output++) {
            uint32_t sum = 0;
            for (uint32_t tap = 0; tap < axis.taps; tap++)
                sum += axis.weights[(size_t)tap * axis.stride + output];
            assert_int_equal(sum, 65536);
        }
        uint8_t *white = malloc(DECODE_MAX_SIDE_PX);
        memset(white, 255, DECODE_MAX_SIDE_PX);
        static int16_t row[RESIZE_BLOCK][1024], most[1024], sums[1024];
        const uint8_t *const source[RESIZE_BLOCK] = {white, white, white, white};
        resize_ops_scalar.rows_x(row[0], source, &axis, NULL);
        const int16_t **rows = malloc(axis.taps * sizeof *rows);
        for (uint32_t tap = 0; tap < axis.taps; tap++)
            rows[tap] = most;
        for (uint32_t output = 0; output < outputs[i]; output++)
            assert_int_equal(row[0][output], RESIZE_ONE);
        for (uint32_t output = 0; output < axis.stride; output++)
            most[output] = RESIZE_ONE + RESIZE_NARROW_TAPS / 2; /* the most that a narrow x gives */
        resize_ops_scalar.row_y(sums, rows, &axis, outputs[i] / 2, axis.stride);
        assert_int_equal(sums[0], RESIZE_ONE + RESIZE_NARROW_TAPS / 2);
        free(white);
        free(rows);
    }
    resize_axis_free(&axis);
}

/* ---- pictures ---- */

struct picture {
    uint8_t *pixels;
    struct planes planes;
};

static struct picture grey_picture(uint32_t width, uint32_t height)
{
    struct picture picture = {
        malloc((size_t)width * height + PLANES_PADDING_BYTES),
        {.colour = PLANES_GREY, .width = width, .height = height, .h_max = 1, .v_max = 1}};
    picture.planes.plane[0] = (struct plane){.pixels = picture.pixels,
                                             .stride = width,
                                             .width = width,
                                             .height = height,
                                             .full_width = width,
                                             .full_height = height,
                                             .h_factor = 1,
                                             .v_factor = 1};
    return picture;
}

static void constants_stay_and_nothing_overflows(void **state)
{
    static const uint8_t levels[] = {0, 1, 127, 128, 254, 255};
    static const uint32_t sides[] = {1, 8, 63, 64, 200, 900, 2900};
    struct resize *resize;
    assert_int_equal(resize_open(&resize, cpu_level()), 0);
    int16_t out[SIZE_MOST * SIZE_MOST], *dst[3] = {out, NULL, NULL};
    for (size_t s = 0; s < sizeof sides / sizeof sides[0]; s++) {
        struct picture picture = grey_picture(sides[s], 70);
        for (size_t l = 0; l < sizeof levels; l++) {
            memset(picture.pixels, levels[l], (size_t)sides[s] * 70);
            struct crop crop = {box_axis(0, sides[s]), box_axis(0, 70), 0};
            assert_int_equal(resize_planes(resize, dst, &picture.planes, &crop, SIZE_MOST), 0);
            for (int i = 0; i < SIZE_MOST * SIZE_MOST; i++)
                /* Half a unit a tap of truncation each way, 32 at most, and the y pass' rounding.
                 */
                assert_true(abs(out[i] - levels[l] * 128) <= 20);
        }
        free(picture.pixels);
    }
    resize_close(resize);
}

/* At its own size a picture comes back as it is, but for the weight of 32767 in the y pass. */
static void the_same_size_is_the_same_picture(void **state)
{
    uint64_t random = testing_seed();
    struct picture picture = grey_picture(SIZE_MOST, SIZE_MOST);
    struct resize *resize;
    assert_int_equal(resize_open(&resize, cpu_level()), 0);
    int16_t out[SIZE_MOST * SIZE_MOST], *dst[3] = {out, NULL, NULL};
    for (int i = 0; i < SIZE_MOST * SIZE_MOST; i++)
        picture.pixels[i] = (uint8_t)testing_random(&random);
    struct crop crop = {box_axis(0, SIZE_MOST), box_axis(0, SIZE_MOST), 0};
    for (crop.flip = 0; crop.flip < 2; crop.flip++) {
        assert_int_equal(resize_planes(resize, dst, &picture.planes, &crop, SIZE_MOST), 0);
        for (int i = 0; i < SIZE_MOST * SIZE_MOST; i++) {
            int x = i % SIZE_MOST, from = crop.flip ? i - x + SIZE_MOST - 1 - x : i;
            int value = picture.pixels[from] * 128;
            assert_int_equal(out[i], (value * 32767 + 0x4000) >> 15);
        }
    }
    free(picture.pixels);
    resize_close(resize);
}

/* A plane of which only the part around the crop was decoded gives what the whole plane gives. */
static void a_part_of_the_plane_is_enough(void **state)
{
    uint64_t random = testing_seed();
    enum { SIDE = 150, X0 = 16, Y0 = 32, PART = 100 };
    struct picture picture = grey_picture(SIDE, SIDE);
    struct resize *resize;
    assert_int_equal(resize_open(&resize, cpu_level()), 0);
    int16_t whole[SIZE_MOST * SIZE_MOST], part[SIZE_MOST * SIZE_MOST];
    for (int i = 0; i < SIDE * SIDE; i++)
        picture.pixels[i] = (uint8_t)testing_random(&random);
    struct crop crop = {box_axis(20, 96), box_axis(32, 90), 1};
    assert_int_equal(resize_planes(resize, (int16_t *[3]){whole}, &picture.planes, &crop, 40), 0);

    uint8_t *cut = malloc(PART * PART + PLANES_PADDING_BYTES); /* no more: the sanitizer looks on */
    for (int y = 0; y < PART; y++)
        memcpy(cut + y * PART, picture.pixels + (Y0 + y) * SIDE + X0, PART);
    struct plane *plane = &picture.planes.plane[0];
    plane->pixels = cut;
    plane->stride = plane->width = plane->height = PART;
    plane->x0 = X0;
    plane->y0 = Y0;
    assert_int_equal(resize_planes(resize, (int16_t *[3]){part}, &picture.planes, &crop, 40), 0);
    assert_memory_equal(whole, part, 40 * 40 * sizeof *part);
    free(cut);
    free(picture.pixels);
    resize_close(resize);
}

static double psnr(const int16_t *got, const int16_t *expected, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        double difference = (got[i] - expected[i]) / 128.0;
        sum += difference * difference;
    }
    return sum == 0 ? INFINITY : 10 * log10(255 * 255 / (sum / (double)count));
}

struct golden_picture {
    char name[64];
    unsigned width, height, x, y, w, h, size;
    double least_db;
};

static void compare_picture(struct resize *resize, struct decoder *decoder,
                            const struct golden_picture *golden)
{
    char result_name[80];
    snprintf(result_name, sizeof result_name, "%s.q7", golden->name);
    struct bytes file = golden_bytes(golden->name), result = golden_bytes(result_name);
    size_t count = (size_t)golden->size * golden->size;
    assert_int_equal(result.count, count * 6);
    struct planes planes;
    assert_int_equal(decode_file(decoder, &planes, file.data, file.count), 0);
    assert_int_equal(planes.width, golden->width);
    assert_int_equal(planes.height, golden->height);

    int16_t plane[3][SIZE_MOST * SIZE_MOST], *dst[3] = {plane[0], plane[1], plane[2]};
    struct crop crop = {box_axis(golden->x, golden->w), box_axis(golden->y, golden->h), 0};
    assert_int_equal(resize_planes(resize, dst, &planes, &crop, golden->size), 0);
    if (planes.colour == PLANES_YCC)
        colour_ycc_to_rgb(dst[0], dst[1], dst[2], count);
    int16_t got[SIZE_MOST * SIZE_MOST * 3], expected[SIZE_MOST * SIZE_MOST * 3];
    for (size_t i = 0; i < count * 3; i++) {
        got[i] = plane[planes.colour == PLANES_GREY ? 0 : i % 3][i / 3];
        expected[i] = (int16_t)(result.data[2 * i] | result.data[2 * i + 1] << 8);
    }
    double db = psnr(got, expected, count * 3);
    if (!(db >= golden->least_db))
        fail_msg("%s: PSNR %.2f dB, not %.0f", golden->name, db, golden->least_db);
    free(file.data);
    free(result.data);
}

static void golden_pictures_come_out_as_in_float64(void **state)
{
    FILE *list = golden_text("images.txt");
    struct resize *resize;
    struct decoder *decoder;
    struct golden_picture golden;
    int lines = 0;
    assert_int_equal(resize_open(&resize, cpu_level()), 0);
    assert_int_equal(decoder_open(&decoder), 0);
    while (fscanf(list, "%63s %u %u %u %u %u %u %u %lf", golden.name, &golden.width, &golden.height,
                  &golden.x, &golden.y, &golden.w, &golden.h, &golden.size,
                  &golden.least_db) == 9) {
        compare_picture(resize, decoder, &golden);
        lines++;
    }
    fclose(list);
    assert_int_equal(lines, 16);
    resize_close(resize);
    decoder_close(decoder);
}

/* The definition itself: a change of these bits is a change of every stream there is. */
static void the_bits_are_these(void **state)
{
    static const struct {
        uint32_t width, height, size;
        const char *hash;
    } cases[] = {
        {300, 200, 64, "a06852faba9dd53a9955d56fe178da20"}, /* narrow both ways */
        {40, 50, 64, "d7e6aa603e248da4ea68e3295aeda77e"},   /* enlarged */
        {2800, 90, 48, "5ce344bba761b243a48ecdf2a5d57df2"}, /* wide x */
        {70, 1700, 33, "932dc981a4ddebec88aec9b4771a454e"}, /* wide y */
    };
    struct resize *resize;
    assert_int_equal(resize_open(&resize, cpu_level()), 0);
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        uint64_t random = 1 + c;
        struct picture picture = grey_picture(cases[c].width, cases[c].height);
        for (size_t i = 0; i < (size_t)cases[c].width * cases[c].height; i++)
            picture.pixels[i] = (uint8_t)testing_random(&random);
        struct crop crop = {box_axis(3, cases[c].width - 5), box_axis(1, cases[c].height - 1), 1};
        int16_t out[SIZE_MOST * SIZE_MOST];
        assert_int_equal(
            resize_planes(resize, (int16_t *[3]){out}, &picture.planes, &crop, cases[c].size), 0);
        char text[33];
        hash128_to_text(text, hash128_of(out, cases[c].size * cases[c].size * sizeof *out));
        assert_string_equal(text, cases[c].hash);
        free(picture.pixels);
    }
    resize_close(resize);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_sum_exactly_and_follow_the_filter),
        cmocka_unit_test(cubic_weights_follow_keys),
        cmocka_unit_test(a_mirrored_table_is_the_table_mirrored),
        cmocka_unit_test(the_largest_image_fits_the_integers),
        cmocka_unit_test(constants_stay_and_nothing_overflows),
        cmocka_unit_test(the_same_size_is_the_same_picture),
        cmocka_unit_test(a_part_of_the_plane_is_enough),
        cmocka_unit_test(golden_pictures_come_out_as_in_float64),
        cmocka_unit_test(the_bits_are_these),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

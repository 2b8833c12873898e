/* SPDX-License-Identifier: Apache-2.0 */
/* Images shrunk and encoded anew: sizes, and that every sample lands where it belongs, in every
 * plane. */
#include "tests/unit/loader/pictures.h"

#include "common/err.h"
#include "loader/decode.h"
#include "loader/jpeg/jpeg_index.h"
#include "tools/image_decoder.h"
#include "tools/image_encoder.h"

static void expect_size(uint32_t width, uint32_t height, struct pack_recode recode,
                        uint32_t wanted_width, uint32_t wanted_height)
{
    image_shrunk_size(&width, &height, &recode);
    assert_int_equal(width, wanted_width);
    assert_int_equal(height, wanted_height);
}

static void test_sizes(void **state)
{
    (void)state;
    expect_size(500, 375, (struct pack_recode){.short_px = 256}, 341, 256);
    expect_size(375, 500, (struct pack_recode){.short_px = 256}, 256, 341);
    expect_size(500, 256, (struct pack_recode){.short_px = 256}, 500, 256);
    expect_size(500, 100, (struct pack_recode){.short_px = 256}, 500, 100);
    expect_size(4288, 2848, (struct pack_recode){.long_px = 500}, 500, 332);
    expect_size(2848, 4288, (struct pack_recode){.long_px = 500}, 332, 500);
    expect_size(65500, 20, (struct pack_recode){.long_px = 100}, 100, 1);
    expect_size(65500, 65500, (struct pack_recode){.short_px = 1}, 1, 1);
    expect_size(333, 77, (struct pack_recode){.quality = 90}, 333, 77);
}

/* A plane's sample at a place of the image (px, sample centres at halves): slopes of its own. */
static double slope_at(int plane, double x, double y, uint32_t width, uint32_t height)
{
    static const double from[3] = {40, 90, 180}, along_x[3] = {150, 80, -110},
                        along_y[3] = {50, -60, 30};
    return from[plane] + along_x[plane] * x / width + along_y[plane] * y / height;
}

static struct planes make_slopes(enum planes_colour colour, uint32_t width, uint32_t height,
                                 uint32_t h_factor, uint32_t v_factor)
{
    struct planes planes = {
        .colour = colour, .width = width, .height = height, .h_max = h_factor, .v_max = v_factor};
    for (int i = 0; i < (colour == PLANES_GREY ? 1 : 3); i++) {
        uint32_t h = i == 0 ? h_factor : 1, v = i == 0 ? v_factor : 1;
        uint32_t columns = (width * h + h_factor - 1) / h_factor;
        uint32_t lines = (height * v + v_factor - 1) / v_factor;
        uint8_t *pixels = calloc(1, (size_t)columns * lines + PLANES_PADDING_BYTES);
        for (uint32_t y = 0; y < lines; y++)
            for (uint32_t x = 0; x < columns; x++)
                pixels[y * columns + x] =
                    (uint8_t)(slope_at(i, (x + 0.5) * h_factor / h, (y + 0.5) * v_factor / v, width,
                                       height) +
                              0.5);
        planes.plane[i] =
            (struct plane){pixels, columns, 0, 0, columns, lines, columns, lines, h, v};
    }
    return planes;
}

/* The file holds the slopes again, but for rounding, the codec, and the edges, where a filter sees
 * one side only. */
static void expect_slopes(struct decoder *decoder, const uint8_t *jpeg, size_t bytes,
                          uint32_t width, uint32_t height, bool rgb)
{
    struct planes got;
    assert_int_equal(decode_file(decoder, &got, jpeg, bytes), 0);
    assert_int_equal(got.width, width);
    assert_int_equal(got.height, height);
    for (int i = 0; i < (got.colour == PLANES_GREY ? 1 : 3); i++) {
        const struct plane *plane = &got.plane[i];
        double step_x = (double)got.h_max / plane->h_factor;
        double step_y = (double)got.v_max / plane->v_factor, worst = 0;
        for (uint32_t y = 2; y + 2 < plane->full_height; y++) {
            for (uint32_t x = 2; x + 2 < plane->full_width; x++) {
                double at_x = (x + 0.5) * step_x, at_y = (y + 0.5) * step_y, v[3];
                for (int c = 0; c < 3; c++)
                    v[c] = slope_at(c, at_x, at_y, width, height);
                double wanted = v[i];
                if (rgb)
                    wanted = i == 0   ? 0.299 * v[0] + 0.587 * v[1] + 0.114 * v[2]
                             : i == 1 ? 128 - 0.168736 * v[0] - 0.331264 * v[1] + 0.5 * v[2]
                                      : 128 + 0.5 * v[0] - 0.418688 * v[1] - 0.081312 * v[2];
                double off = plane->pixels[y * plane->stride + x] - wanted;
                off = off < 0 ? -off : off;
                worst = worst > off ? worst : off;
            }
        }
        if (!(worst <= 3.0))
            fail_msg("plane %d is off by %.2f", i, worst);
    }
}

static void test_every_sample_in_its_place(void **state)
{
    (void)state;
    static const struct {
        enum planes_colour colour;
        uint32_t width, height, h_factor, v_factor;
        struct pack_recode recode;
    } cases[] = {
        {PLANES_YCC, 401, 303, 2, 2, {.short_px = 101, .quality = 100}},
        {PLANES_YCC, 300, 401, 2, 1, {.short_px = 120, .quality = 100}},
        {PLANES_YCC, 301, 200, 1, 1, {.long_px = 222, .quality = 100}},
        {PLANES_YCC, 200, 301, 1, 1, {.quality = 100}},
        {PLANES_YCC, 301, 201, 4, 2, {.quality = 100}},
        {PLANES_GREY, 3000, 2000, 1, 1, {.short_px = 31, .quality = 100}}, /* wide filter */
        {PLANES_GREY, 90, 70, 1, 1, {.quality = 100}},
        {PLANES_RGB, 401, 303, 1, 1, {.short_px = 101, .quality = 100}},
    };
    struct image_encoder *encoder;
    struct decoder *decoder;
    assert_int_equal(image_encoder_open(&encoder), 0);
    assert_int_equal(decoder_open(&decoder), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct planes planes = make_slopes(cases[i].colour, cases[i].width, cases[i].height,
                                           cases[i].h_factor, cases[i].v_factor);
        uint32_t width = cases[i].width, height = cases[i].height, got_width, got_height;
        uint8_t *jpeg;
        size_t bytes;
        image_shrunk_size(&width, &height, &cases[i].recode);
        if (image_encode(encoder, &jpeg, &bytes, &got_width, &got_height, &planes,
                         &cases[i].recode) != 0)
            fail_msg("%s", err_message());
        assert_int_equal(got_width, width);
        assert_int_equal(got_height, height);
        expect_slopes(decoder, jpeg, bytes, width, height, cases[i].colour == PLANES_RGB);
        free(jpeg);
        for (int c = 0; c < 3; c++)
            free((void *)planes.plane[c].pixels);
    }
    image_encoder_close(encoder);
    decoder_close(decoder);
}

/* Whatever the loader decodes becomes a baseline file that takes a side index. */
static void test_every_kind_of_file(void **state)
{
    (void)state;
    static const char *const files[] = {"1x1.jpg",  "3x2.jpg",    "420.jpg",         "422.jpg",
                                        "440.jpg",  "444.jpg",    "alpha.png",       "cmyk.jpg",
                                        "grey.jpg", "grey16.png", "progressive.jpg", "restart.jpg",
                                        "rgb.jpg",  "rgb.png",    "wide.jpg",        "palette.png"};
    void *tools;
    assert_int_equal(image_decoder.open(&tools), 0);
    for (size_t i = 0; i < 2 * (sizeof files / sizeof *files); i++) {
        struct bytes file = golden_bytes(files[i / 2]);
        struct pack_recode recode = {.short_px = i % 2 ? 17 : 0, .quality = 85};
        uint32_t width, height, got_width, got_height;
        uint8_t *jpeg;
        const uint8_t *index;
        size_t bytes, index_bytes;
        assert_int_equal(image_decoder.check(tools, &width, &height, file.data, file.count), 0);
        image_shrunk_size(&width, &height, &recode);
        assert_int_equal(image_decoder.recode(tools, &jpeg, &bytes, &got_width, &got_height,
                                              file.data, file.count, &recode),
                         0);
        assert_int_equal(got_width, width);
        assert_int_equal(got_height, height);
        assert_int_equal(image_decoder.index(tools, &index, &index_bytes, &got_width, &got_height,
                                             jpeg, bytes, 8),
                         0);
        assert_non_null(index);
        free(jpeg);
        assert_int_equal(image_decoder.recode(tools, &jpeg, &bytes, &got_width, &got_height,
                                              file.data, file.count / 2, &recode),
                         ERR_DATA);
        assert_null(jpeg);
        free(file.data);
    }
    image_decoder.close(tools);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_every_sample_in_its_place),
        cmocka_unit_test(test_every_kind_of_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The reference decoder: what it gives for every kind of file, and that it refuses the rest with a
 * reason. */
#include "loader/decode.h"

#include <math.h>
#include <string.h>

#include "common/err.h"
#include "tests/unit/loader/pictures.h"

static struct decoder *decoder;

static int open_decoder(void **state)
{
    return decoder_open(&decoder);
}

static int close_decoder(void **state)
{
    decoder_close(decoder);
    return 0;
}

/* What libjpeg gives to a program that reads rows, in the given colours. */
static struct bytes rows_of(struct bytes file, J_COLOR_SPACE space)
{
    struct jpeg_decompress_struct info;
    struct jpeg_error_mgr errors;
    info.err = jpeg_std_error(&errors);
    jpeg_create_decompress(&info);
    jpeg_mem_src(&info, file.data, file.count);
    jpeg_read_header(&info, TRUE);
    info.out_color_space = space;
    info.dct_method = JDCT_ISLOW;
    info.do_block_smoothing = FALSE;
    jpeg_start_decompress(&info);
    size_t row_bytes = (size_t)info.output_width * (size_t)info.output_components;
    struct bytes rows = {malloc(row_bytes * info.output_height), row_bytes * info.output_height};
    while (info.output_scanline < info.output_height) {
        JSAMPROW row = rows.data + info.output_scanline * row_bytes;
        jpeg_read_scanlines(&info, &row, 1);
    }
    jpeg_finish_decompress(&info);
    jpeg_destroy_decompress(&info);
    return rows;
}

static void assert_full_resolution_planes(const struct planes *planes, const uint8_t *interleaved)
{
    unsigned count = planes->colour == PLANES_GREY ? 1 : 3;
    for (unsigned i = 0; i < count; i++) {
        const struct plane *plane = &planes->plane[i];
        assert_int_equal(plane->full_width, planes->width);
        assert_int_equal(plane->full_height, planes->height);
        for (uint32_t y = 0; y < planes->height; y++)
            for (uint32_t x = 0; x < planes->width; x++)
                assert_int_equal(plane->pixels[y * plane->stride + x],
                                 interleaved[((size_t)y * planes->width + x) * count + i]);
    }
}

static void full_resolution_planes_are_libjpegs_pixels(void **state)
{
    /* Progressive with no more than the DC coefficients, where libjpeg would smooth blocks. */
    static const jpeg_scan_info dc_only[] = {{3, {0, 1, 2}, 0, 0, 0, 0}};
    static const struct picture_options kinds[] = {
        {45, 37, JCS_YCbCr, 1, 1, .scans = dc_only, .scan_count = 1},
        {45, 37, JCS_GRAYSCALE, 1, 1},
        {45, 37, JCS_GRAYSCALE, 2, 2}, /* factors of a single component mean nothing */
        {45, 37, JCS_YCbCr, 1, 1},
        {45, 37, JCS_RGB, 1, 1},
        {16, 8, JCS_YCbCr, 1, 1, .progressive = true},
        {17, 70, JCS_YCbCr, 1, 1, .restart_every = 2},
        {1, 1, JCS_YCbCr, 1, 1},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        struct bytes file = picture_make(kinds[i], i), rows = rows_of(file, kinds[i].stored);
        struct planes planes;
        assert_int_equal(decode_file(decoder, &planes, file.data, file.count), 0);
        assert_int_equal(planes.width, kinds[i].width);
        assert_int_equal(planes.height, kinds[i].height);
        assert_int_equal(planes.colour, kinds[i].stored == JCS_GRAYSCALE ? PLANES_GREY
                                        : kinds[i].stored == JCS_RGB     ? PLANES_RGB
                                                                         : PLANES_YCC);
        assert_full_resolution_planes(&planes, rows.data);
        free(file.data);
        free(rows.data);
    }
}

/* Luma at full resolution, chroma at its own: ceil(side * factor / largest). */
static void subsampled_planes_keep_their_resolution(void **state)
{
    for (int h = 1; h <= 4; h++) {
        for (int v = 1; v <= 2; v++) {
            struct picture_options options = {53, 41, JCS_YCbCr, h, v, .progressive = h == 2};
            struct bytes file = picture_make(options, 5), rows = rows_of(file, JCS_GRAYSCALE);
            struct planes planes;
            assert_int_equal(decode_file(decoder, &planes, file.data, file.count), 0);
            assert_int_equal(planes.h_max, h);
            assert_int_equal(planes.v_max, v);
            assert_int_equal(planes.plane[1].full_width, (53 + h - 1) / h);
            assert_int_equal(planes.plane[2].full_height, (41 + v - 1) / v);
            for (int y = 0; y < 41; y++)
                assert_memory_equal(planes.plane[0].pixels + (size_t)y * planes.plane[0].stride,
                                    rows.data + y * 53, 53);
            free(file.data);
            free(rows.data);
        }
    }
}

static void cmyk_becomes_rgb_whoever_wrote_it(void **state)
{
    for (int kind = 0; kind < 4; kind++) {
        bool adobe = kind != 1;
        struct picture_options options = {
            40, 24, kind < 2 ? JCS_CMYK : JCS_YCCK, kind == 3 ? 2 : 1, 1, .no_adobe = !adobe};
        struct bytes file = picture_make(options, 9), rows = rows_of(file, JCS_CMYK);
        struct planes planes;
        assert_int_equal(decode_file(decoder, &planes, file.data, file.count), 0);
        assert_int_equal(planes.colour, PLANES_RGB);
        for (size_t i = 0; i < 40 * 24; i++) {
            const uint8_t *cmyk = rows.data + 4 * i;
            for (int c = 0; c < 3; c++) {
                double ink = adobe ? 255 - cmyk[c] : cmyk[c],
                       black = adobe ? 255 - cmyk[3] : cmyk[3];
                double expected = floor((255 - ink) * (255 - black) / 255 + 0.5);
                const struct plane *plane = &planes.plane[c];
                assert_int_equal(plane->pixels[i / 40 * plane->stride + i % 40], (int)expected);
            }
        }
        free(file.data);
        free(rows.data);
    }
}

static void assert_refused(const uint8_t *data, size_t bytes, const char *reason)
{
    struct planes planes;
    assert_int_equal(decode_file(decoder, &planes, data, bytes), ERR_DATA);
    if (!strstr(err_message(), reason))
        fail_msg("\"%s\" does not say \"%s\"", err_message(), reason);
}

static void a_file_cut_anywhere_is_refused(void **state)
{
    struct bytes whole[] = {
        picture_make((struct picture_options){40, 40, JCS_YCbCr, 2, 2}, 1),
        picture_make((struct picture_options){40, 40, JCS_YCbCr, 2, 2, .progressive = true}, 1),
        golden_bytes("rgb.png"),
    };
    for (size_t i = 0; i < 3; i++) {
        struct planes planes;
        assert_int_equal(decode_file(decoder, &planes, whole[i].data, whole[i].count), 0);
        for (size_t bytes = 0; bytes < whole[i].count; bytes += bytes < 700 ? 1 : 37) {
            /* Of its very size, so that reading on would be seen by the address sanitizer. */
            uint8_t *cut = malloc(bytes ? bytes : 1);
            memcpy(cut, whole[i].data, bytes);
            assert_int_equal(decode_file(decoder, &planes, cut, bytes), ERR_DATA);
            free(cut);
        }
        assert_refused(whole[i].data, whole[i].count - (i == 2 ? 14 : 1),
                       i == 2 ? "PNG" : "ends early");
        free(whole[i].data);
    }
}

static size_t marker_at(struct bytes file, uint8_t marker)
{
    for (size_t i = 0; i + 1 < file.count; i++)
        if (file.data[i] == 0xff && file.data[i + 1] == marker)
            return i;
    fail_msg("no marker %02x", marker);
    return 0;
}

static void an_end_marker_in_the_middle_is_an_early_end(void **state)
{
    struct bytes file = picture_make((struct picture_options){64, 64, JCS_YCbCr, 1, 1}, 1);
    size_t middle = (marker_at(file, 0xda) + file.count) / 2;
    file.data[middle] = 0xff;
    file.data[middle + 1] = 0xd9;
    assert_refused(file.data, file.count, "ends early");
    free(file.data);
}

static void other_damage_and_trailing_bytes_are_taken(void **state)
{
    struct planes planes;
    struct bytes file =
        picture_make((struct picture_options){64, 64, JCS_YCbCr, 1, 1, .restart_every = 8}, 1);
    /* A restart marker that should not come yet: libjpeg warns and goes on. */
    size_t scan = marker_at(file, 0xda);
    file.data[scan + 40] = 0xff;
    file.data[scan + 41] = 0xd3;
    assert_int_equal(decode_file(decoder, &planes, file.data, file.count), 0);
    free(file.data);

    file = picture_make((struct picture_options){64, 64, JCS_YCbCr, 1, 1}, 1);
    uint8_t *longer = calloc(1, file.count + 100);
    memcpy(longer, file.data, file.count);
    assert_int_equal(decode_file(decoder, &planes, longer, file.count + 100), 0);
    free(longer);
    free(file.data);
}

static void what_is_not_supported_says_so(void **state)
{
    struct picture_options options = {32, 32, JCS_YCbCr, 1, 1};
    struct bytes file = picture_make(options, 1);
    size_t frame = marker_at(file, 0xc0);
    file.data[frame + 4] = 12;
    assert_refused(file.data, file.count, "precision 12");
    file.data[frame + 4] = 8;
    file.data[frame + 1] = 0xc3;
    assert_refused(file.data, file.count, "JPEG: ");
    file.data[frame + 1] = 0xc0;
    file.data[frame + 5] = file.data[frame + 6] = 0;
    assert_refused(file.data, file.count, "JPEG: ");
    memset(file.data + frame + 5, 0xf0, 4);
    assert_refused(file.data, file.count, "too many");
    free(file.data);

    options.arithmetic = true;
    file = picture_make(options, 1);
    assert_refused(file.data, file.count, "arithmetic");
    free(file.data);

    assert_refused((const uint8_t *)"GIF89a..", 8, "begins with 47 49 46 38");
    assert_refused((const uint8_t *)"", 0, "0 bytes");
}

static void a_bomb_of_scans_is_refused(void **state)
{
    enum { SCANS = 150 };
    jpeg_scan_info scans[SCANS];
    /* One DC scan, then the same AC coefficients over and over, refined by no bit: as libjpeg
       itself will not write that, each is its own small band. */
    scans[0] = (jpeg_scan_info){1, {0}, 0, 0, 0, 0};
    int count = 1;
    for (int band = 1; band < 64; band++)
        scans[count++] = (jpeg_scan_info){1, {0}, band, band, 0, 2};
    for (int band = 1; band < 64; band++)
        scans[count++] = (jpeg_scan_info){1, {0}, band, band, 2, 1};
    struct picture_options options = {
        32, 32, JCS_GRAYSCALE, 1, 1, .scans = scans, .scan_count = count};
    struct bytes file = picture_make(options, 1);
    assert_refused(file.data, file.count, "too many scans");
    free(file.data);

    options.scan_count = 64;
    file = picture_make(options, 1);
    struct planes planes;
    assert_int_equal(decode_file(decoder, &planes, file.data, file.count), 0);
    free(file.data);
}

/* Flipped bytes may decode or not; they must not do harm, and the next image is decoded as ever. */
static void damage_does_no_harm(void **state)
{
    static const char *const names[] = {"420.jpg", "progressive.jpg", "cmyk.jpg", "palette.png"};
    uint64_t random = testing_seed();
    int refused = 0;
    for (int round = 0; round < 400; round++) {
        struct bytes file = golden_bytes(names[round % 4]);
        for (int i = 0; i < 4; i++)
            file.data[testing_random(&random) % file.count] = (uint8_t)testing_random(&random);
        struct planes planes;
        int code = decode_file(decoder, &planes, file.data, file.count);
        assert_true(code == 0 || code == ERR_DATA);
        refused += code != 0;
        free(file.data);
    }
    assert_in_range(refused, 1, 399);
    struct bytes file = golden_bytes("444.jpg"), rows = rows_of(file, JCS_YCbCr);
    struct planes planes;
    assert_int_equal(decode_file(decoder, &planes, file.data, file.count), 0);
    assert_full_resolution_planes(&planes, rows.data);
    free(file.data);
    free(rows.data);
}

static void records_must_be_what_they_say(void **state)
{
    struct bytes file = golden_bytes("444.jpg");
    struct store_record record = {.width = 96,
                                  .height = 72,
                                  .encoding = STORE_JPEG,
                                  .channels = 3,
                                  .image = file.data,
                                  .image_bytes = file.count};
    struct crop crop = {{0, 96, 1, 0, 96, 0, 0}, {0, 72, 1, 0, 72, 0, 0}, 0};
    struct planes planes;
    assert_int_equal(decode_record(decoder, &planes, &record, &crop), 0);
    record.height = 71;
    assert_int_equal(decode_record(decoder, &planes, &record, &crop), ERR_DATA);
    free(file.data);

    uint8_t raw[3 * 5 * 4];
    for (size_t i = 0; i < sizeof raw; i++)
        raw[i] = (uint8_t)(i * 3);
    record = (struct store_record){.width = 5,
                                   .height = 4,
                                   .encoding = STORE_RAW,
                                   .channels = 3,
                                   .image = raw,
                                   .image_bytes = sizeof raw};
    assert_int_equal(decode_record(decoder, &planes, &record, &crop), 0);
    assert_int_equal(planes.colour, PLANES_RGB);
    assert_memory_equal(planes.plane[2].pixels, raw + 40, 20);
    record.image_bytes--;
    assert_int_equal(decode_record(decoder, &planes, &record, &crop), ERR_DATA);
    record.image_bytes = 40;
    record.channels = 2;
    assert_int_equal(decode_record(decoder, &planes, &record, &crop), ERR_DATA);
}

static void check_reports_size_and_components(void **state)
{
    static const struct {
        const char *name;
        uint32_t width, height, components;
    } files[] = {{"420.jpg", 83, 61, 3},    {"grey.jpg", 83, 61, 1},  {"cmyk.jpg", 83, 61, 3},
                 {"grey16.png", 83, 61, 1}, {"alpha.png", 83, 61, 3}, {"1x1.jpg", 1, 1, 3}};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        struct bytes file = golden_bytes(files[i].name);
        uint32_t width, height, components;
        assert_int_equal(decode_check(decoder, &width, &height, &components, file.data, file.count),
                         0);
        assert_int_equal(width, files[i].width);
        assert_int_equal(height, files[i].height);
        assert_int_equal(components, files[i].components);
        free(file.data);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(full_resolution_planes_are_libjpegs_pixels),
        cmocka_unit_test(subsampled_planes_keep_their_resolution),
        cmocka_unit_test(cmyk_becomes_rgb_whoever_wrote_it),
        cmocka_unit_test(a_file_cut_anywhere_is_refused),
        cmocka_unit_test(an_end_marker_in_the_middle_is_an_early_end),
        cmocka_unit_test(other_damage_and_trailing_bytes_are_taken),
        cmocka_unit_test(what_is_not_supported_says_so),
        cmocka_unit_test(a_bomb_of_scans_is_refused),
        cmocka_unit_test(damage_does_no_harm),
        cmocka_unit_test(records_must_be_what_they_say),
        cmocka_unit_test(check_reports_size_and_components),
    };
    return cmocka_run_group_tests(tests, open_decoder, close_decoder);
}

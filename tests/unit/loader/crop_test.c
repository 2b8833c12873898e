/* SPDX-License-Identifier: Apache-2.0 */
/* The crop: against golden geometry, and what must hold for any of them. */
#include "loader/crop.h"

#include "tests/unit/loader/pictures.h"

static struct spec training_spec(void)
{
    return (struct spec){.seed = 11,
                         .channels = 3,
                         .crop = SPEC_CROP_RRC,
                         .flip = 1,
                         .size_px = 224,
                         .area_min = 0.08f,
                         .area_max = 1,
                         .aspect_min = 0.75f,
                         .aspect_max = 4.f / 3};
}

static void training_crops_are_the_golden_ones(void **state)
{
    struct spec spec = training_spec();
    FILE *file = golden_text("crops.txt");
    unsigned width, height, id, log_aspect, x, y, w, h, flip;
    int lines = 0;
    while (fscanf(file, "%u %u %u %u %u %u %u %u %u", &width, &height, &id, &log_aspect, &x, &y, &w,
                  &h, &flip) == 9) {
        struct crop crop;
        spec.aspect = log_aspect ? SPEC_ASPECT_LOG : SPEC_ASPECT_UNIFORM;
        crop_draw(&crop, &spec, 3, id, width, height);
        assert_int_equal(crop.x.denominator, 1);
        assert_int_equal(crop.y.denominator, 1);
        assert_int_equal(crop.x.begin, x);
        assert_int_equal(crop.y.begin, y);
        assert_int_equal(crop.x.extent, w);
        assert_int_equal(crop.y.extent, h);
        assert_int_equal(crop.x.low, x);
        assert_int_equal(crop.x.high, x + w);
        assert_int_equal(crop.y.low, y);
        assert_int_equal(crop.y.high, y + h);
        assert_int_equal(crop.flip, flip);
        lines++;
    }
    fclose(file);
    assert_int_equal(lines, 100);
}

static void validation_windows_are_torchvisions(void **state)
{
    FILE *file = golden_text("validation.txt");
    unsigned width, height, size, resize_short, w, h;
    long x, y;
    int lines = 0;
    while (fscanf(file, "%u %u %u %u %u %u %ld %ld", &width, &height, &size, &resize_short, &w, &h,
                  &x, &y) == 8) {
        struct spec spec = {.channels = 3,
                            .crop = SPEC_CROP_NONE,
                            .size_px = (uint16_t)size,
                            .resize_short_px = (uint16_t)resize_short};
        struct crop crop;
        crop_draw(&crop, &spec, 0, 0, width, height);
        assert_int_equal(crop.x.denominator, w);
        assert_int_equal(crop.y.denominator, h);
        assert_int_equal(crop.x.begin, x * (long)width);
        assert_int_equal(crop.y.begin, y * (long)height);
        assert_int_equal(crop.x.extent, size * width);
        assert_int_equal(crop.y.extent, size * height);
        assert_int_equal(crop.x.low, 0);
        assert_int_equal(crop.x.high, width);
        assert_int_equal(crop.y.high, height);
        assert_int_equal(crop.x.zero_before + crop.x.zero_after, 0);
        assert_false(crop.flip);
        lines++;
    }
    fclose(file);
    assert_int_equal(lines, 160);
}

static void any_training_box_lies_within_the_image(void **state)
{
    uint64_t random = testing_seed();
    struct spec spec = training_spec();
    for (int i = 0; i < 20000; i++) {
        uint32_t width = 1 + (uint32_t)(testing_random(&random) % (i % 2 ? 30 : 65500));
        uint32_t height = 1 + (uint32_t)(testing_random(&random) % (i % 3 ? 30 : 2000));
        spec.seed = random;
        spec.aspect_min = i % 5 ? 0.75f : 0.01f;
        spec.aspect_max = i % 5 ? 4.f / 3 : 0.02f;
        struct crop crop;
        crop_draw(&crop, &spec, 1, (uint32_t)i, width, height);
        assert_true(crop.x.low < crop.x.high && crop.x.high <= width);
        assert_true(crop.y.low < crop.y.high && crop.y.high <= height);
    }
}

/* Every one of the (2 p + 1)^2 windows is drawn, and its zeros are where it leaves the image. */
static void padded_windows_move_both_ways(void **state)
{
    struct spec spec = {.seed = testing_seed(),
                        .channels = 3,
                        .crop = SPEC_CROP_PAD,
                        .size_px = 32,
                        .resize_short_px = 32,
                        .pad_px = 4,
                        .flip = 1};
    int seen[9][9] = {{0}}, flips = 0;
    for (uint32_t id = 0; id < 4000; id++) {
        struct crop crop;
        crop_draw(&crop, &spec, 0, id, 64, 64);
        int64_t x = crop.x.begin / 64, y = crop.y.begin / 64;
        assert_in_range(x + 4, 0, 8);
        assert_in_range(y + 4, 0, 8);
        assert_int_equal(crop.x.zero_before, x < 0 ? -x : 0);
        assert_int_equal(crop.x.zero_after, x > 0 ? x : 0);
        assert_int_equal(crop.y.zero_before, y < 0 ? -y : 0);
        assert_int_equal(crop.y.zero_after, y > 0 ? y : 0);
        seen[x + 4][y + 4]++;
        flips += crop.flip;
    }
    for (int i = 0; i < 81; i++)
        assert_true(seen[i / 9][i % 9] > 0);
    assert_in_range(flips, 1800, 2200); /* 2000 +- 6 sigma */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(training_crops_are_the_golden_ones),
        cmocka_unit_test(validation_windows_are_torchvisions),
        cmocka_unit_test(any_training_box_lies_within_the_image),
        cmocka_unit_test(padded_windows_move_both_ways),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

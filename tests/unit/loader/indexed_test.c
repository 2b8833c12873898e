/* SPDX-License-Identifier: Apache-2.0 */
/* The indexed decoder against the reference decoder: every kind of file that it takes, every
 * instruction set level of this machine, whole images and random regions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "common/err.h"
#include "tests/unit/loader/decoders.h"
#include "tests/unit/loader/jpegs.h"

/* Samples of the plane that the region needs lie in what was decoded, and are the reference's. */
static void check_plane(const struct plane *plane, const struct plane *whole,
                        const struct decode_region *region, uint32_t h_max, uint32_t v_max)
{
    uint32_t x0 = region->x0 * plane->h_factor / h_max, y0 = region->y0 * plane->v_factor / v_max;
    uint32_t x1 = (region->x1 * plane->h_factor + h_max - 1) / h_max;
    uint32_t y1 = (region->y1 * plane->v_factor + v_max - 1) / v_max;
    assert_int_equal(plane->full_width, whole->full_width);
    assert_int_equal(plane->full_height, whole->full_height);
    assert_true(plane->x0 <= x0 && x1 <= plane->x0 + plane->width);
    assert_true(plane->y0 <= y0 && y1 <= plane->y0 + plane->height);
    assert_true(plane->x0 + plane->width <= plane->full_width);
    assert_true(plane->y0 + plane->height <= plane->full_height);
    for (uint32_t y = 0; y < plane->height; y++)
        assert_memory_equal(plane->pixels + y * plane->stride,
                            whole->pixels + (plane->y0 + y) * whole->stride + plane->x0,
                            plane->width);
}

static void check_region(struct decode_indexed *decoder, const struct planes *whole,
                         struct jpeg_bytes jpeg, const uint8_t *index, size_t index_bytes,
                         const struct decode_region *region)
{
    struct planes planes;
    int code =
        decode_indexed_region(decoder, &planes, jpeg.data, jpeg.count, index, index_bytes, region);
    if (code)
        fail_msg("[%u, %u) x [%u, %u): %s", region->x0, region->x1, region->y0, region->y1,
                 err_message());
    assert_int_equal(planes.colour, whole->colour);
    assert_int_equal(planes.width, whole->width);
    assert_int_equal(planes.height, whole->height);
    for (int c = 0; c < (planes.colour == PLANES_GREY ? 1 : 3); c++)
        check_plane(&planes.plane[c], &whole->plane[c], region, planes.h_max, planes.v_max);
}

/* Rows [from, to) of a plane that comes in bands, counted from its y0. */
static void check_rows(const struct plane *plane, const struct plane *whole, uint32_t from,
                       uint32_t to)
{
    for (uint32_t y = from; y < to; y++)
        assert_memory_equal(plane->pixels + y % plane->rows_kept * plane->stride,
                            whole->pixels + (plane->y0 + y) * whole->stride + plane->x0,
                            plane->width);
}

/* The same in bands: after each, its rows and those of the band before it. */
static void check_bands(struct decode_indexed *decoder, const struct planes *whole,
                        struct jpeg_bytes jpeg, const uint8_t *index, size_t index_bytes,
                        const struct decode_region *region)
{
    struct planes planes;
    int count = whole->colour == PLANES_GREY ? 1 : 3;
    assert_int_equal(
        decode_indexed_begin(decoder, &planes, jpeg.data, jpeg.count, index, index_bytes, region),
        0);
    while (planes.plane[0].rows_ready < planes.plane[0].height) {
        uint32_t before = planes.plane[0].rows_ready;
        if (decode_indexed_next_band(decoder, &planes))
            fail_msg("%s", err_message());
        assert_true(planes.plane[0].rows_ready > before);
        for (int c = 0; c < count; c++) {
            const struct plane *plane = &planes.plane[c];
            uint32_t ready = plane->rows_ready, band = plane->rows_kept / 2;
            assert_true(band > 0 && ready > 0);
            uint32_t last = (ready - 1) / band * band;
            check_rows(plane, &whole->plane[c], last >= band ? last - band : 0, ready);
        }
    }
    for (int c = 0; c < count; c++)
        assert_int_equal(planes.plane[c].rows_ready, planes.plane[c].height);
    assert_int_equal(decode_indexed_next_band(decoder, &planes), ERR_INTERNAL);
}

static struct decode_region random_region(struct fixture *fixture, const struct planes *whole)
{
    uint32_t x[2] = {below(fixture, whole->width), below(fixture, whole->width)};
    uint32_t y[2] = {below(fixture, whole->height), below(fixture, whole->height)};
    return (struct decode_region){.x0 = x[x[0] > x[1]],
                                  .x1 = x[x[0] <= x[1]] + 1,
                                  .y0 = y[y[0] > y[1]],
                                  .y1 = y[y[0] <= y[1]] + 1};
}

/* The whole image and some regions at every level. */
static void check_image(struct fixture *fixture, struct jpeg_bytes jpeg, uint32_t mcus, int regions)
{
    struct planes whole;
    const uint8_t *index;
    size_t index_bytes;
    enum jpeg_refusal refusal;
    assert_int_equal(decode_file(fixture->reference, &whole, jpeg.data, jpeg.count), 0);
    assert_int_equal(jpeg_index_build(fixture->indexer, &index, &index_bytes, &refusal, jpeg.data,
                                      jpeg.count, mcus),
                     0);
    assert_string_equal(jpeg_refusal_text(refusal), "taken");
    for (int i = 0; i <= regions; i++) {
        struct decode_region region = {0, whole.width, 0, whole.height};
        if (i > 0)
            region = random_region(fixture, &whole);
        for (int level = 0; level < fixture->levels; level++) {
            check_region(fixture->indexed[level], &whole, jpeg, index, index_bytes, &region);
            check_bands(fixture->indexed[level], &whole, jpeg, index, index_bytes, &region);
        }
    }
}

static void check_recipe(struct fixture *fixture, const struct jpeg_recipe *recipe, int regions)
{
    static const uint32_t steps[] = {0, 1, 2, 3, 8, 16, 65535};
    struct jpeg_bytes jpeg = jpegs_make(recipe, &fixture->seed);
    check_image(fixture, jpeg, steps[below(fixture, 7)], regions);
    free(jpeg.data);
}

static const struct sampling {
    int components, h[3], v[3];
} samplings[] = {
    {1, {1}, {1}},
    {1, {2}, {2}},             /* grey with factors that mean nothing */
    {3, {1, 1, 1}, {1, 1, 1}}, /* 4:4:4 */
    {3, {2, 1, 1}, {1, 1, 1}}, /* 4:2:2 */
    {3, {2, 1, 1}, {2, 1, 1}}, /* 4:2:0 */
    {3, {1, 1, 1}, {2, 1, 1}}, /* 4:4:0 */
    {3, {4, 1, 1}, {1, 1, 1}}, /* 4:1:1 */
    {3, {4, 1, 1}, {2, 1, 1}}, /* 4:1:0 */
    {3, {2, 2, 2}, {1, 1, 1}}, /* 4:4:4, with larger MCUs */
    {3, {2, 1, 2}, {2, 2, 1}}, /* all planes different */
    {3, {3, 1, 1}, {1, 1, 1}}, /* thirds */
    {3, {1, 2, 1}, {1, 1, 2}}, /* chroma finer than luma */
};

static struct jpeg_recipe recipe_of(const struct sampling *sampling)
{
    struct jpeg_recipe recipe = {.components = sampling->components, .quality = 90, .noise = 24};
    memcpy(recipe.h, sampling->h, sizeof recipe.h);
    memcpy(recipe.v, sampling->v, sizeof recipe.v);
    return recipe;
}

static void random_details(struct fixture *fixture, struct jpeg_recipe *recipe)
{
    static const int noises[] = {0, 3, 24, 100, 255};
    recipe->quality = 1 + (int)below(fixture, 100);
    recipe->noise = noises[below(fixture, 5)];
    recipe->optimise = below(fixture, 2);
    recipe->restart_mcus = below(fixture, 3) ? 0 : 1 + below(fixture, 9);
}

static void test_every_small_size(void **state)
{
    struct fixture *fixture = *state;
    for (uint32_t size = 1; size <= 40; size++) {
        for (size_t i = 0; i < sizeof samplings / sizeof *samplings; i++) {
            struct jpeg_recipe recipe = recipe_of(&samplings[i]);
            random_details(fixture, &recipe);
            recipe.width = size;
            recipe.height = 1 + below(fixture, 40);
            check_recipe(fixture, &recipe, 5);
        }
    }
}

static void test_samplings_and_regions(void **state)
{
    struct fixture *fixture = *state;
    for (size_t i = 0; i < sizeof samplings / sizeof *samplings; i++) {
        struct jpeg_recipe recipe = recipe_of(&samplings[i]);
        recipe.width = 100 + below(fixture, 200);
        recipe.height = 100 + below(fixture, 150);
        check_recipe(fixture, &recipe, 50);
        random_details(fixture, &recipe);
        check_recipe(fixture, &recipe, 50);
    }
}

static void test_every_quality(void **state)
{
    struct fixture *fixture = *state;
    for (int quality = 1; quality <= 100; quality++) {
        struct jpeg_recipe recipe = recipe_of(&samplings[2 + quality % 4]);
        random_details(fixture, &recipe);
        recipe.quality = quality;
        recipe.width = recipe.height = 64;
        check_recipe(fixture, &recipe, 3);
    }
}

static void test_restart_intervals(void **state)
{
    struct fixture *fixture = *state;
    for (unsigned interval = 1; interval <= 40; interval++) {
        struct jpeg_recipe recipe = recipe_of(&samplings[2 + 2 * (interval & 1)]);
        recipe.restart_mcus = interval;
        recipe.width = 150 + below(fixture, 9);
        recipe.height = 90;
        check_recipe(fixture, &recipe, 12);
    }
}

static void test_rgb_and_long_sides(void **state)
{
    struct fixture *fixture = *state;
    struct jpeg_recipe rgb = {
        .width = 70, .height = 50, .components = 3, .quality = 80, .rgb = true};
    check_recipe(fixture, &rgb, 20);
    struct jpeg_recipe wide = {.width = 65500, .height = 3, .components = 3, .quality = 60};
    check_recipe(fixture, &wide, 4);
    struct jpeg_recipe tall = {.width = 9, .height = 65500, .components = 1, .quality = 60};
    check_recipe(fixture, &tall, 4);
}

/* Sums that saturate at 16 and at 8 bits in both passes. */
static void test_extreme_coefficients(void **state)
{
    struct fixture *fixture = *state;
    static const uint32_t quants[] = {1, 2, 8, 31, 32, 255, 1000, 4095, 8191};
    static const uint32_t fillings[] = {1, 4, 16, 64};
    for (size_t i = 0; i < sizeof quants / sizeof *quants; i++) {
        for (size_t j = 0; j < sizeof fillings / sizeof *fillings; j++) {
            struct jpeg_recipe recipe = {.width = 96, .height = 64, .components = 1, .quality = 50};
            struct jpeg_bytes jpeg =
                jpegs_make_extreme(&recipe, quants[i], 8191, fillings[j], &fixture->seed);
            check_image(fixture, jpeg, 0, 1);
            free(jpeg.data);
        }
    }
}

static enum jpeg_refusal refusal_of(struct fixture *fixture, struct jpeg_bytes jpeg)
{
    const uint8_t *index;
    size_t index_bytes;
    enum jpeg_refusal refusal;
    assert_int_equal(jpeg_index_build(fixture->indexer, &index, &index_bytes, &refusal, jpeg.data,
                                      jpeg.count, 0),
                     0);
    return refusal;
}

static void test_what_is_not_taken(void **state)
{
    struct fixture *fixture = *state;
    static const struct {
        struct jpeg_recipe recipe;
        enum jpeg_refusal refusal;
    } cases[] = {
        {{.components = 3, .progressive = true}, JPEG_PROGRESSIVE},
        {{.components = 3, .arithmetic = true}, JPEG_ARITHMETIC},
        {{.components = 3, .separate_scans = true}, JPEG_SCANS},
        {{.components = 4}, JPEG_COMPONENTS},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct jpeg_recipe recipe = cases[i].recipe;
        recipe.width = recipe.height = 40;
        recipe.quality = 75;
        struct jpeg_bytes jpeg = jpegs_make(&recipe, &fixture->seed);
        assert_int_equal(refusal_of(fixture, jpeg), cases[i].refusal);
        free(jpeg.data);
    }
    struct jpeg_recipe recipe = {.width = 40, .height = 40, .components = 1, .quality = 50};
    struct jpeg_bytes jpeg = jpegs_make_extreme(&recipe, 9000, 9000, 8, &fixture->seed);
    assert_int_equal(refusal_of(fixture, jpeg), JPEG_RANGE);
    free(jpeg.data);
    assert_int_equal(refusal_of(fixture, (struct jpeg_bytes){(uint8_t *)"\x89PNG\r\n", 6}),
                     JPEG_NOT_A_JPEG);
}

/* A file cut anywhere, or with bytes too many before its end marker, gets no index. */
static void test_incomplete_files(void **state)
{
    struct fixture *fixture = *state;
    struct jpeg_recipe recipe = recipe_of(&samplings[4]);
    recipe.width = 60;
    recipe.height = 40;
    for (unsigned interval = 0; interval < 3; interval++) {
        recipe.restart_mcus = interval;
        struct jpeg_bytes jpeg = jpegs_make(&recipe, &fixture->seed);
        for (size_t count = 0; count < jpeg.count; count++) {
            struct jpeg_bytes cut = {malloc(count ? count : 1), count};
            memcpy(cut.data, jpeg.data, count);
            assert_int_not_equal(refusal_of(fixture, cut), JPEG_TAKEN);
            free(cut.data);
        }
        struct jpeg_bytes longer = {malloc(jpeg.count + 1), jpeg.count + 1};
        memcpy(longer.data, jpeg.data, jpeg.count - 2);
        memcpy(longer.data + jpeg.count - 2, "\x55\xff\xd9", 3);
        assert_int_equal(refusal_of(fixture, longer), JPEG_ENTROPY);
        free(longer.data);
        free(jpeg.data);
    }
}

static void test_index_is_small_and_the_same_every_time(void **state)
{
    struct fixture *fixture = *state;
    struct jpeg_recipe recipe = recipe_of(&samplings[2]);
    recipe.width = 500;
    recipe.height = 375;
    recipe.quality = 95;
    struct jpeg_bytes jpeg = jpegs_make(&recipe, &fixture->seed);
    const uint8_t *index;
    size_t bytes, again;
    enum jpeg_refusal refusal;
    assert_int_equal(jpeg_index_build(fixture->indexer, &index, &bytes, &refusal, jpeg.data,
                                      jpeg.count, JPEG_INDEX_DEFAULT_MCUS),
                     0);
    assert_int_equal(refusal, JPEG_TAKEN);
    assert_true(bytes * 100 < jpeg.count * 3);
    uint8_t *copy = malloc(bytes);
    memcpy(copy, index, bytes);
    assert_int_not_equal(refusal_of(fixture, (struct jpeg_bytes){jpeg.data, 100}), JPEG_TAKEN);
    assert_int_equal(jpeg_index_build(fixture->indexer, &index, &again, &refusal, jpeg.data,
                                      jpeg.count, JPEG_INDEX_DEFAULT_MCUS),
                     0);
    assert_int_equal(again, bytes);
    assert_memory_equal(index, copy, bytes);
    free(copy);
    free(jpeg.data);
}

static void test_wrong_arguments(void **state)
{
    struct fixture *fixture = *state;
    struct jpeg_recipe recipe = {.width = 40, .height = 30, .components = 3, .quality = 75};
    struct jpeg_bytes jpeg = jpegs_make(&recipe, &fixture->seed);
    const uint8_t *index;
    size_t bytes;
    enum jpeg_refusal refusal;
    struct planes planes;
    assert_int_equal(
        jpeg_index_build(fixture->indexer, &index, &bytes, &refusal, jpeg.data, jpeg.count, 65536),
        ERR_ARG);
    assert_int_equal(
        jpeg_index_build(fixture->indexer, &index, &bytes, &refusal, jpeg.data, jpeg.count, 4), 0);
    static const struct decode_region none[] = {
        {0, 41, 0, 30}, {0, 40, 0, 31}, {5, 5, 0, 30}, {0, 40, 7, 7}, {9, 8, 0, 30}};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        assert_int_equal(decode_indexed_region(fixture->indexed[0], &planes, jpeg.data, jpeg.count,
                                               index, bytes, &none[i]),
                         ERR_ARG);
    struct decode_region all = {0, 40, 0, 30};
    for (size_t cut = 0; cut < bytes; cut++)
        assert_int_equal(decode_indexed_region(fixture->indexed[0], &planes, jpeg.data, jpeg.count,
                                               index, cut, &all),
                         ERR_DATA);
    free(jpeg.data);
    decode_indexed_close(NULL);
    jpeg_indexer_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_small_size),
        cmocka_unit_test(test_samplings_and_regions),
        cmocka_unit_test(test_every_quality),
        cmocka_unit_test(test_restart_intervals),
        cmocka_unit_test(test_rgb_and_long_sides),
        cmocka_unit_test(test_extreme_coefficients),
        cmocka_unit_test(test_what_is_not_taken),
        cmocka_unit_test(test_incomplete_files),
        cmocka_unit_test(test_index_is_small_and_the_same_every_time),
        cmocka_unit_test(test_wrong_arguments),
    };
    return cmocka_run_group_tests(tests, decoders_open, decoders_close);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Indexes made by a survey against those made symbol by symbol: the same bytes and the same
 * refusals at every level, for every kind of file, sound and damaged; and that surveys do get to
 * the end of ordinary images, the second lane with its share. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "loader/jpeg/jpeg_entropy.h"
#include "loader/jpeg/jpeg_index.h"
#include "loader/jpeg/jpeg_levels.h"
#include "loader/jpeg/jpeg_survey.h"
#include "tests/unit/loader/jpegs.h"

enum { PICTURES = 250, MUTATIONS = 40, MAX_DEQUANTISED = 8191 };

struct fixture {
    struct jpeg_indexer *plain, *surveying;
    int levels;
    uint64_t seed;
};

static int set_up(void **state)
{
    static struct fixture fixture;
    fixture = (struct fixture){.seed = testing_seed(), .levels = (int)cpu_level() + 1};
    if (jpeg_indexer_open(&fixture.plain) || jpeg_indexer_open(&fixture.surveying))
        return -1;
    jpeg_indexer_use(fixture.plain, CPU_SCALAR, true);
    *state = &fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    jpeg_indexer_close(fixture->plain);
    jpeg_indexer_close(fixture->surveying);
    return 0;
}

static uint32_t below(struct fixture *fixture, uint32_t count)
{
    return (uint32_t)(testing_random(&fixture->seed) % count);
}

/* True: taken. */
static bool check(struct fixture *fixture, struct jpeg_bytes jpeg)
{
    static const uint32_t steps[] = {0, 1, 2, 3, 8, 65535};
    uint32_t mcus = steps[below(fixture, 6)];
    const uint8_t *expected, *index;
    size_t expected_bytes, index_bytes;
    enum jpeg_refusal refusal, other;
    assert_int_equal(jpeg_index_build(fixture->plain, &expected, &expected_bytes, &refusal,
                                      jpeg.data, jpeg.count, mcus),
                     0);
    for (int level = 0; level < fixture->levels; level++) {
        jpeg_indexer_use(fixture->surveying, (enum cpu_level)level, false);
        assert_int_equal(jpeg_index_build(fixture->surveying, &index, &index_bytes, &other,
                                          jpeg.data, jpeg.count, mcus),
                         0);
        assert_int_equal(other, refusal);
        if (refusal)
            continue;
        assert_int_equal(index_bytes, expected_bytes);
        assert_memory_equal(index, expected, expected_bytes);
    }
    return refusal == JPEG_TAKEN;
}

/* Changes a copy of exactly its size. True: taken all the same. */
static bool check_damaged(struct fixture *fixture, struct jpeg_bytes jpeg)
{
    uint8_t *room = malloc(2 * jpeg.count);
    assert_non_null(room);
    memcpy(room, jpeg.data, jpeg.count);
    size_t count = testing_mutate(room, jpeg.count, 2 * jpeg.count, &fixture->seed);
    struct jpeg_bytes damaged = {malloc(count ? count : 1), count};
    assert_non_null(damaged.data);
    memcpy(damaged.data, room, count);
    bool taken = check(fixture, damaged);
    free(damaged.data);
    free(room);
    return taken;
}

static struct jpeg_recipe random_recipe(struct fixture *fixture)
{
    static const int factors[][2] = {{1, 1}, {2, 1}, {2, 2}, {1, 2}, {4, 1}};
    static const int noises[] = {0, 3, 24, 100, 255};
    const int *factor = factors[below(fixture, 5)];
    return (struct jpeg_recipe){.width = 1 + below(fixture, 200),
                                .height = 1 + below(fixture, 150),
                                .components = below(fixture, 4) ? 3 : 1,
                                .h = {factor[0]},
                                .v = {factor[1]},
                                .quality = 1 + (int)below(fixture, 100),
                                .optimise = below(fixture, 2),
                                .rgb = below(fixture, 5) == 0,
                                .restart_mcus = below(fixture, 8) ? 0 : 1 + below(fixture, 9),
                                .noise = noises[below(fixture, 5)]};
}

static void test_pictures(void **state)
{
    struct fixture *fixture = *state;
    int taken = 0;
    for (int i = 0; i < PICTURES; i++) {
        struct jpeg_recipe recipe = random_recipe(fixture);
        if (recipe.components == 1)
            recipe.rgb = false;
        struct jpeg_bytes jpeg = jpegs_make(&recipe, &fixture->seed);
        assert_true(check(fixture, jpeg));
        for (int change = 0; change < MUTATIONS; change++)
            taken += check_damaged(fixture, jpeg);
        free(jpeg.data);
    }
    assert_true(taken > 0); /* a change of a quantiser or a coefficient is no damage */
}

/* Long codes, long magnitudes, and coefficients at and beyond what may be. */
static void test_extreme_coefficients(void **state)
{
    struct fixture *fixture = *state;
    static const uint32_t quants[] = {1, 2, 8, 16, 31, 64, 200, 1000, 8191, 8300, 20000};
    static const uint32_t fillings[] = {1, 8, 40, 64};
    static const uint32_t limits[] = {40, 1000, MAX_DEQUANTISED, MAX_DEQUANTISED + 300};
    int taken = 0, refused = 0;
    for (size_t i = 0; i < sizeof quants / sizeof *quants; i++)
        for (size_t j = 0; j < 16; j++) {
            struct jpeg_recipe recipe = {.width = 100, .height = 90, .components = 1, .quality = 9};
            struct jpeg_bytes jpeg = jpegs_make_extreme(&recipe, quants[i], limits[j & 3],
                                                        fillings[j >> 2], &fixture->seed);
            bool fine = check(fixture, jpeg);
            taken += fine;
            refused += !fine;
            check_damaged(fixture, jpeg);
            free(jpeg.data);
        }
    assert_true(taken > 50 && refused > 5);
}

static bool run_survey(struct survey *survey, struct jpeg_bytes jpeg, int level)
{
    static struct jpeg_header header;
    static struct huffman_set tables;
    const struct jpeg_ops *ops = jpeg_ops_of((enum cpu_level)level);
    uint16_t limit[JPEG_MAX_COMPONENTS][64];
    for (int c = 0; c < JPEG_MAX_COMPONENTS; c++)
        for (int i = 0; i < 64; i++)
            limit[c][i] = MAX_DEQUANTISED;
    assert_int_equal(jpeg_header_parse(&header, jpeg.data, jpeg.count), JPEG_TAKEN);
    assert_int_equal(huffman_set_load(&tables, &header), JPEG_TAKEN);
    uint8_t *piece = calloc(1, jpeg.count + ENTROPY_OVERRUN_BYTES);
    assert_non_null(piece);
    size_t used;
    size_t bytes =
        ops->destuff(piece, jpeg.data + header.scan_offset, jpeg.count - header.scan_offset, &used);
    bool done = survey_run(survey, &header, &tables, ops, limit, piece, bytes);
    if (done)
        assert_int_equal((survey->end_bit + 7) / 8, bytes);
    free(piece);
    return done;
}

/* That it gets there by itself, and that the second lane has found its place. */
static void test_surveys_get_to_the_end(void **state)
{
    struct fixture *fixture = *state;
    static struct survey survey;
    for (int i = 0; i < 20; i++) {
        struct jpeg_recipe recipe = {.width = 300 + below(fixture, 200),
                                     .height = 200,
                                     .components = 3,
                                     .h = {1 + (i & 1)},
                                     .v = {1 + (i >> 1 & 1)},
                                     .quality = 70 + i,
                                     .optimise = i >= 10,
                                     .noise = 60};
        struct jpeg_bytes jpeg = jpegs_make(&recipe, &fixture->seed);
        for (int level = 0; level < fixture->levels; level++) {
            assert_true(run_survey(&survey, jpeg, level));
            uint32_t blocks = recipe.width / 8 * (recipe.height / 8);
            assert_true(survey.from_second > blocks / 4);
        }
        free(jpeg.data);
    }
    survey_free(&survey);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pictures),
        cmocka_unit_test(test_extreme_coefficients),
        cmocka_unit_test(test_surveys_get_to_the_end),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The indexed decoder against damage: files and indexes cut, mutated or made up. Nothing may crash
 * (the sanitizers look on), what gets an index decodes as the reference does, and a wrong index is
 * an error, not a crash. Inputs lie in blocks of exactly their size, so that any read beyond is
 * seen. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "common/err.h"
#include "loader/jpeg/jpeg_levels.h"
#include "tests/unit/loader/decoders.h"
#include "tests/unit/loader/jpegs.h"

enum { MUTATIONS = 2500, SUBJECTS = 4 };

static struct jpeg_bytes subjects[SUBJECTS];

static int set_up(void **state)
{
    static const struct jpeg_recipe recipes[SUBJECTS] = {
        {.width = 61, .height = 45, .components = 3, .quality = 85, .noise = 40},
        {.width = 75,
         .height = 52,
         .components = 3,
         .h = {2},
         .v = {2},
         .quality = 50,
         .optimise = true,
         .noise = 80},
        {.width = 70, .height = 40, .components = 3, .h = {2}, .quality = 90, .restart_mcus = 3},
        {.width = 50, .height = 50, .components = 1, .quality = 98, .noise = 255},
    };
    if (decoders_open(state))
        return -1;
    struct fixture *fixture = *state;
    for (int i = 0; i < SUBJECTS; i++)
        subjects[i] = jpegs_make(&recipes[i], &fixture->seed);
    return 0;
}

static int tear_down(void **state)
{
    for (int i = 0; i < SUBJECTS; i++)
        free(subjects[i].data);
    return decoders_close(state);
}

static struct jpeg_bytes copy_of(const uint8_t *data, size_t count)
{
    struct jpeg_bytes copy = {malloc(count ? count : 1), count};
    assert_non_null(copy.data);
    memcpy(copy.data, data, count);
    return copy;
}

/* Some bytes changed, swapped for markers, taken out or cut off behind. */
static struct jpeg_bytes mutate(struct fixture *fixture, const uint8_t *data, size_t count,
                                size_t from)
{
    struct jpeg_bytes copy = copy_of(data, count);
    for (uint32_t changes = 1 + below(fixture, 4); changes > 0; changes--) {
        size_t at = from + below(fixture, (uint32_t)(copy.count - from));
        switch (below(fixture, 6)) {
        case 0:
            copy.data[at] = 0xff;
            break;
        case 1:
            copy.data[at] = (uint8_t)(0xd0 + below(fixture, 10));
            break;
        case 2:
            copy.data[at] ^= (uint8_t)(1u << below(fixture, 8));
            break;
        case 3:
            memmove(copy.data + at, copy.data + at + 1, copy.count - at - 1);
            break;
        default:
            copy.data[at] = (uint8_t)below(fixture, 256);
        }
    }
    if (below(fixture, 8) == 0) {
        struct jpeg_bytes cut =
            copy_of(copy.data, from + below(fixture, (uint32_t)(copy.count - from)));
        free(copy.data);
        copy = cut;
    }
    return copy;
}

static void check_equal(const struct planes *part, const struct planes *whole)
{
    assert_int_equal(part->colour, whole->colour);
    for (int c = 0; c < (part->colour == PLANES_GREY ? 1 : 3); c++) {
        const struct plane *a = &part->plane[c], *b = &whole->plane[c];
        assert_int_equal(a->full_width, b->full_width);
        assert_int_equal(a->full_height, b->full_height);
        for (uint32_t y = 0; y < a->height; y++)
            assert_memory_equal(a->pixels + y * a->stride,
                                b->pixels + (a->y0 + y) * b->stride + a->x0, a->width);
    }
}

/* A file that may be anything: refused, or equal to the reference. True when taken. */
static bool check_file(struct fixture *fixture, struct jpeg_bytes jpeg)
{
    const uint8_t *index;
    size_t index_bytes;
    enum jpeg_refusal refusal;
    struct planes whole, part;
    assert_int_equal(jpeg_index_build(fixture->indexer, &index, &index_bytes, &refusal, jpeg.data,
                                      jpeg.count, below(fixture, 5)),
                     0);
    if (refusal)
        return false;
    assert_int_equal(decode_file(fixture->reference, &whole, jpeg.data, jpeg.count), 0);
    struct decode_region region = {0, whole.width, 0, whole.height};
    for (int level = 0; level < fixture->levels; level++) {
        assert_int_equal(decode_indexed_region(fixture->indexed[level], &part, jpeg.data,
                                               jpeg.count, index, index_bytes, &region),
                         0);
        check_equal(&part, &whole);
    }
    return true;
}

static void test_mutated_files(void **state)
{
    struct fixture *fixture = *state;
    int taken = 0;
    for (int i = 0; i < MUTATIONS; i++) {
        struct jpeg_bytes *subject = &subjects[i % SUBJECTS];
        struct jpeg_bytes jpeg = mutate(fixture, subject->data, subject->count, 0);
        taken += check_file(fixture, jpeg);
        free(jpeg.data);
    }
    assert_true(taken > 0); /* a change of a quantiser or a coefficient is no damage */
}

/* Decodes some regions with whatever index; any outcome but a crash or an unknown code. */
static int try_regions(struct fixture *fixture, struct jpeg_bytes jpeg, struct jpeg_bytes index)
{
    int failed = 0;
    for (int level = 0; level < fixture->levels; level++) {
        struct planes planes;
        uint32_t x = below(fixture, 50), y = below(fixture, 40);
        struct decode_region region = {x, x + 1 + below(fixture, 50 - x), y,
                                       y + 1 + below(fixture, 40 - y)};
        int code = decode_indexed_region(fixture->indexed[level], &planes, jpeg.data, jpeg.count,
                                         index.data, index.count, &region);
        assert_true(code == 0 || code == ERR_DATA || code == ERR_UNSUPPORTED || code == ERR_ARG);
        failed += code != 0;
    }
    return failed;
}

/* After all that, a good image decodes as ever. */
static void check_still_sane(struct fixture *fixture)
{
    for (int i = 0; i < SUBJECTS; i++)
        assert_true(check_file(fixture, subjects[i]));
}

static struct jpeg_bytes index_of(struct fixture *fixture, struct jpeg_bytes jpeg, uint32_t mcus)
{
    const uint8_t *index;
    size_t count;
    enum jpeg_refusal refusal;
    assert_int_equal(
        jpeg_index_build(fixture->indexer, &index, &count, &refusal, jpeg.data, jpeg.count, mcus),
        0);
    assert_int_equal(refusal, JPEG_TAKEN);
    return copy_of(index, count);
}

static void test_mutated_indexes(void **state)
{
    struct fixture *fixture = *state;
    int failed = 0;
    for (int i = 0; i < MUTATIONS; i++) {
        struct jpeg_bytes jpeg = subjects[i % SUBJECTS];
        struct jpeg_bytes good = index_of(fixture, jpeg, below(fixture, 5));
        /* half of them with the header left alone */
        struct jpeg_bytes bad =
            mutate(fixture, good.data, good.count, i & 4 ? JPEG_INDEX_HEADER_BYTES : 0);
        failed += try_regions(fixture, jpeg, bad);
        free(bad.data);
        free(good.data);
    }
    assert_true(failed > MUTATIONS / 4);
    check_still_sane(fixture);
}

/* Entries of nothing but noise behind a true header. */
static void test_random_indexes(void **state)
{
    struct fixture *fixture = *state;
    for (int i = 0; i < MUTATIONS; i++) {
        struct jpeg_bytes jpeg = subjects[i % SUBJECTS];
        struct jpeg_bytes index = index_of(fixture, jpeg, below(fixture, 4));
        for (size_t at = JPEG_INDEX_HEADER_BYTES; at < index.count; at++)
            if (i % 3 == 0 || at % 8 < 2) /* all bits, or positions near the truth */
                index.data[at] = (uint8_t)below(fixture, 256);
        try_regions(fixture, jpeg, index);
        free(index.data);
    }
    check_still_sane(fixture);
}

/* An index that is not of these bytes any more. */
static void test_stale_indexes(void **state)
{
    struct fixture *fixture = *state;
    for (int i = 0; i < MUTATIONS; i++) {
        struct jpeg_bytes *subject = &subjects[i % SUBJECTS];
        struct jpeg_bytes index = index_of(fixture, *subject, below(fixture, 5));
        struct jpeg_bytes jpeg = mutate(fixture, subject->data, subject->count, 0);
        try_regions(fixture, jpeg, index);
        free(jpeg.data);
        free(index.data);
    }
    check_still_sane(fixture);
}

static void test_destuffing_is_the_same_at_every_level(void **state)
{
    struct fixture *fixture = *state;
    enum { MAX = 300, SLACK = 64 };
    for (int i = 0; i < 4 * MUTATIONS; i++) {
        uint8_t source[MAX], expected[MAX + SLACK], got[MAX + SLACK];
        size_t count = below(fixture, MAX + 1), used, used_here;
        uint32_t rarity = 1 + below(fixture, 60);
        for (size_t at = 0; at < count; at++)
            source[at] = (uint8_t)(below(fixture, rarity) ? below(fixture, 254) + 1
                                   : below(fixture, 3)    ? 0xff
                                                          : 0);
        for (size_t at = 1; at < count; at++)
            if (source[at - 1] == 0xff && below(fixture, 20))
                source[at] = 0;
        struct jpeg_bytes exact = copy_of(source, count);
        size_t bytes = destuff_scalar(expected, exact.data, count, &used);
        for (int level = 1; level < fixture->levels; level++) {
            size_t bytes_here =
                jpeg_ops_of((enum cpu_level)level)->destuff(got, exact.data, count, &used_here);
            assert_int_equal(bytes_here, bytes);
            assert_int_equal(used_here, used);
            assert_memory_equal(got, expected, bytes);
        }
        free(exact.data);
    }
}

/* Any coefficients at all, far beyond what files may hold: the levels agree. */
static void test_transforms_are_the_same_at_every_level(void **state)
{
    struct fixture *fixture = *state;
    enum { COUNT = 5 };
    for (int i = 0; i < MUTATIONS; i++) {
        static int16_t tiles[LEVELS][COUNT * ENTROPY_TILE] __attribute__((aligned(64)));
        uint8_t out[LEVELS][2][8 * COUNT * 8];
        uint16_t quant[64];
        uint32_t range = 1u << below(fixture, 17), count = 1 + below(fixture, COUNT);
        for (int k = 0; k < 64; k++)
            quant[k] = (uint16_t)(i & 1 ? below(fixture, 65536) : 1);
        for (uint32_t k = 0; k < count * ENTROPY_TILE; k++)
            tiles[0][k] = (int16_t)(below(fixture, range) - range / 2);
        for (int level = 1; level < fixture->levels; level++)
            memcpy(tiles[level], tiles[0], sizeof tiles[0]);
        memset(out, 0, sizeof out);
        for (int level = 0; level < fixture->levels; level++) {
            jpeg_ops_of((enum cpu_level)level)
                ->idct(tiles[level], count, ENTROPY_TILE, quant, out[level][0],
                       i % 5 ? out[level][1] : NULL, 8, 8 * COUNT);
            assert_memory_equal(out[level], out[0], sizeof out[0]);
            for (uint32_t k = 0; k < count * ENTROPY_TILE; k++)
                assert_int_equal(tiles[level][k], 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mutated_files),
        cmocka_unit_test(test_mutated_indexes),
        cmocka_unit_test(test_random_indexes),
        cmocka_unit_test(test_stale_indexes),
        cmocka_unit_test(test_destuffing_is_the_same_at_every_level),
        cmocka_unit_test(test_transforms_are_the_same_at_every_level),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

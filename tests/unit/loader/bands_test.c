/* SPDX-License-Identifier: Apache-2.0 */
/* Samples whose image comes in bands, straight into the resize: the same as from the reference
 * decoder's whole planes, for every sampling, tall and wide crops, and when a wrong index is only
 * noticed in the middle. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "common/err.h"
#include "loader/crop.h"
#include "loader/jpeg/decode_indexed.h"
#include "loader/jpeg/jpeg_index.h"
#include "loader/render.h"
#include "tests/unit/loader/jpegs.h"

enum { EPOCHS = 6 };

static struct render *by_index, *by_reference;
static struct jpeg_indexer *indexer;
static struct decode_indexed *decoder;
static uint64_t seed;

static int set_up(void **state)
{
    seed = testing_seed();
    return render_open(&by_index, DECODER_INDEXED, cpu_level()) ||
           render_open(&by_reference, DECODER_REFERENCE, cpu_level()) ||
           jpeg_indexer_open(&indexer) || decode_indexed_open(&decoder, cpu_level());
}

static int tear_down(void **state)
{
    render_close(by_index);
    render_close(by_reference);
    jpeg_indexer_close(indexer);
    decode_indexed_close(decoder);
    return 0;
}

static uint32_t below(uint32_t count)
{
    return (uint32_t)(testing_random(&seed) % count);
}

static struct spec spec_of(uint32_t size_px)
{
    return (struct spec){.store = "train",
                         .seed = 5,
                         .order = SPEC_ORDER_SHUFFLED,
                         .channels = 3,
                         .crop = SPEC_CROP_RRC,
                         .flip = 1,
                         .size_px = size_px,
                         .chunk_size = 1,
                         .area_min = 0.02f,
                         .area_max = 1,
                         .aspect_min = 0.2f,
                         .aspect_max = 5,
                         .mean = {1, 1, 1},
                         .std = {1, 1, 1}};
}

/* A JPEG of any sampling and 1 to 900 px a side. */
static struct jpeg_bytes make(uint32_t *width, uint32_t *height)
{
    static const int factors[] = {1, 2, 4, 1, 2};
    struct jpeg_recipe recipe = {.width = 1 + below(below(2) ? 60 : 900),
                                 .height = 1 + below(below(2) ? 60 : 900),
                                 .components = below(6) ? 3 : 1,
                                 .quality = 30 + (int)below(71),
                                 .noise = (int)below(100),
                                 .restart_mcus = below(4) ? 0 : 1 + below(20)};
    if (recipe.components == 3) {
        recipe.h[0] = factors[below(3)];
        recipe.v[0] = factors[recipe.h[0] == 4 ? below(2) : below(3)];
    }
    *width = recipe.width;
    *height = recipe.height;
    return jpegs_make(&recipe, &seed);
}

static struct store_record record_of(struct jpeg_bytes jpeg, uint32_t width, uint32_t height)
{
    enum jpeg_refusal refusal;
    struct store_record record = {.id = below(1000),
                                  .width = width,
                                  .height = height,
                                  .encoding = STORE_JPEG,
                                  .channels = 3,
                                  .image = jpeg.data,
                                  .image_bytes = jpeg.count};
    assert_int_equal(jpeg_index_build(indexer, &record.index, &record.index_bytes, &refusal,
                                      jpeg.data, jpeg.count, below(10)),
                     0);
    assert_string_equal(jpeg_refusal_text(refusal), "taken");
    return record;
}

/* One sample both ways. */
static void check_sample(const struct store_record *record, const struct spec *spec, uint32_t epoch)
{
    if (render_cut(by_index, 0, record, spec, epoch) ||
        render_cut(by_reference, 0, record, spec, epoch))
        fail_msg("%s", err_message());
    const struct colour_source *got = render_source(by_index, 0);
    const struct colour_source *expected = render_source(by_reference, 0);
    size_t bytes = (size_t)spec->size_px * spec->size_px * sizeof(int16_t);
    for (int c = 0; c < 3; c++)
        if (memcmp(got->plane[c], expected->plane[c], bytes) != 0)
            fail_msg("%u x %u px to %u, epoch %u: plane %d differs", record->width, record->height,
                     spec->size_px, epoch, c);
}

static void bands_give_the_whole_images_samples(void **state)
{
    static const uint32_t sizes[] = {1, 8, 33, 96, 224};
    for (int round = 0; round < 120; round++) {
        uint32_t width, height;
        struct jpeg_bytes jpeg = make(&width, &height);
        struct store_record record = record_of(jpeg, width, height);
        for (uint32_t epoch = 0; epoch < EPOCHS; epoch++) {
            struct spec spec = spec_of(sizes[below(5)]);
            check_sample(&record, &spec, epoch);
        }
        free(jpeg.data);
    }
}

/* Whether a band behind the first fails. */
static bool fails_later(const struct store_record *record, const struct spec *spec, uint32_t epoch)
{
    struct crop crop;
    struct planes planes;
    crop_draw(&crop, spec, epoch, record->id, record->width, record->height);
    struct decode_region region = {crop.x.low, crop.x.high, crop.y.low, crop.y.high};
    int code = decode_indexed_begin(decoder, &planes, record->image, record->image_bytes,
                                    record->index, record->index_bytes, &region);
    assert_int_equal(code, 0);
    while (!code && planes.plane[0].rows_ready < planes.plane[0].height)
        code = decode_indexed_next_band(decoder, &planes);
    return code == ERR_DATA && planes.plane[0].rows_ready > 0;
}

static void a_wrong_index_noticed_late_changes_nothing(void **state)
{
    int late = 0;
    for (int round = 0; round < 400; round++) {
        uint32_t width, height;
        struct jpeg_bytes jpeg = make(&width, &height);
        struct store_record record = record_of(jpeg, width, height);
        uint8_t *index = malloc(record.index_bytes);
        assert_non_null(index);
        memcpy(index, record.index, record.index_bytes);
        size_t entries = (record.index_bytes - JPEG_INDEX_HEADER_BYTES) / JPEG_INDEX_ENTRY_BYTES;
        size_t entry = entries / 2 + below((uint32_t)(entries - entries / 2));
        index[JPEG_INDEX_HEADER_BYTES + entry * JPEG_INDEX_ENTRY_BYTES] ^= 1 << below(8);
        record.index = index;
        struct spec spec = spec_of(48);
        if (fails_later(&record, &spec, 0)) {
            check_sample(&record, &spec, 0);
            late++;
        }
        free(index);
        free(jpeg.data);
    }
    assert_true(late > 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bands_give_the_whole_images_samples),
        cmocka_unit_test(a_wrong_index_noticed_late_changes_nothing),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

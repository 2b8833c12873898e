/* SPDX-License-Identifier: Apache-2.0 */
/* Chunks: the right records, each as loader/render.h cuts it out and
 * loader/colour.h defines it, mixed, substituted and masked as
 * the spec says, and the same bytes whoever builds them. */
#include "loader/sample.h"

#include <math.h>
#include <string.h>

#include "common/err.h"
#include "common/half.h"
#include "common/stop.h"
#include "loader/crop.h"
#include "loader/render.h"
#include "proto/order.h"
#include "tests/unit/baseline_spec.h"
#include "tests/unit/loader/stores.h"

enum { SIZE = 16, VALUES = SIZE * SIZE * 3, CHUNK = 4 };

static struct builder *builder;
static struct render *render;

static int open_both(void **state)
{
    return builder_open(&builder, DECODER_AUTO) ||
           render_open(&render, DECODER_REFERENCE, cpu_level());
}

static int close_both(void **state)
{
    builder_close(builder);
    render_close(render);
    return 0;
}

static struct spec training_spec(void)
{
    return baseline_spec(21, SIZE, CHUNK);
}

static struct spec validation_spec(void)
{
    struct spec spec = training_spec();
    spec.seed = 0; /* nothing is drawn */
    spec.order = SPEC_ORDER_IDENTITY;
    spec.damaged_masked = 1;
    spec.crop = SPEC_CROP_NONE;
    spec.flip = 0;
    spec.jitter = SPEC_JITTER_NONE;
    spec.pca_sigma = 0;
    spec.resize_short_px = SIZE + 2;
    spec.area_min = spec.area_max = spec.aspect_min = spec.aspect_max = 0;
    memset(spec.jitter_strength, 0, sizeof spec.jitter_strength);
    return spec;
}

struct built {
    struct chunk_build chunk;
    uint32_t ids[CHUNK];
    uint8_t labels[CHUNK * CHUNK_LABEL_UINT8_BYTES];
    uint16_t pixels[CHUNK][VALUES];
};

static int build_with(struct builder *by, struct built *built, const struct store *store,
                      const struct spec *spec, uint32_t epoch, uint64_t chunk, bool strict)
{
    if (spec_check(spec))
        fail_msg("%s", err_message());
    memset(built, 0x55, sizeof *built);
    built->chunk =
        (struct chunk_build){.labels = built->labels, .pixels = built->pixels, .ids = built->ids};
    return builder_chunk(by, &built->chunk, store, spec, epoch, chunk, strict);
}

static int build(struct built *built, const struct store *store, const struct spec *spec,
                 uint32_t epoch, uint64_t chunk)
{
    return build_with(builder, built, store, spec, epoch, chunk, false);
}

static struct chunk_label label_at(const struct built *built, uint32_t position)
{
    return chunk_label_decode(built->labels + position * CHUNK_LABEL_BYTES);
}

static void render_id(float dst[VALUES], const struct store *store, const struct spec *spec,
                      uint32_t epoch, uint32_t id)
{
    struct store_record record;
    assert_int_equal(store_read(&record, store, id), 0);
    assert_int_equal(render_cut(render, 0, &record, spec, epoch), 0);
    const struct colour_source *source = render_source(render, 0);
    colour_normalise(dst, source->plane[0], source->plane[1], source->plane[2], SIZE * SIZE,
                     source->params);
}

static void samples_are_those_of_the_order(void **state)
{
    struct store *store = make_store(0);
    struct spec spec = training_spec();
    static struct built built;
    for (uint64_t chunk = 0; chunk < 3; chunk++) {
        assert_int_equal(build(&built, store, &spec, 6, chunk), 0);
        assert_int_equal(built.chunk.samples, chunk < 2 ? CHUNK : 3);
        for (uint32_t i = 0; i < built.chunk.samples; i++) {
            uint32_t id = order_at(&spec, 6, (uint32_t)chunk * CHUNK + i, SAMPLES);
            struct chunk_label label = label_at(&built, i);
            float floats[VALUES];
            uint16_t halves[VALUES];
            assert_int_equal(built.ids[i], id);
            assert_int_equal(label.a, label_of(id));
            assert_int_equal(label.b, label.a);
            assert_true(label.lam == 1);
            render_id(floats, store, &spec, 6, id);
            half_from_floats(halves, floats, VALUES);
            assert_memory_equal(built.pixels[i], halves, sizeof halves);
        }
    }
    assert_int_equal(build(&built, store, &spec, 6, 3), ERR_ARG);
    assert_int_equal(build(&built, store, &spec, 6, UINT64_MAX), ERR_ARG);
    store_close(store);
}

static void a_chunk_is_the_same_whoever_builds_it(void **state)
{
    struct store *store = make_store(1 << 2);
    struct spec spec = training_spec();
    spec.mixup_alpha = 0.2f;
    spec.mixup_off_epoch = UINT32_MAX;
    struct builder *other;
    static struct built first[3], again;
    assert_int_equal(builder_open(&other, DECODER_REFERENCE), 0);
    for (uint64_t chunk = 0; chunk < 3; chunk++)
        assert_int_equal(build(&first[chunk], store, &spec, 1, chunk), 0);
    for (int chunk = 2; chunk >= 0; chunk--) {
        assert_int_equal(build_with(other, &again, store, &spec, 1, (uint64_t)chunk, false), 0);
        assert_memory_equal(again.pixels, first[chunk].pixels, sizeof again.pixels);
        assert_memory_equal(again.labels, first[chunk].labels, sizeof again.labels);
        assert_memory_equal(again.ids, first[chunk].ids, sizeof again.ids);
        assert_int_equal(build_with(other, &again, store, &spec, 2, (uint64_t)chunk, false), 0);
        assert_memory_not_equal(again.pixels, first[chunk].pixels, sizeof again.pixels);
    }
    builder_close(other);
    store_close(store);
}

static void partners_are_mixed_with_one_lam(void **state)
{
    struct store *store = make_store(0);
    struct spec spec = training_spec();
    spec.mixup_alpha = 0.4f;
    spec.mixup_off_epoch = UINT32_MAX;
    static struct built built;
    assert_int_equal(build(&built, store, &spec, 2, 2), 0); /* three samples: the middle is alone */
    assert_int_equal(built.chunk.samples, 3);
    float floats[3][VALUES];
    for (uint32_t i = 0; i < 3; i++)
        render_id(floats[i], store, &spec, 2, built.ids[i]);
    for (uint32_t i = 0; i < 3; i++) {
        struct chunk_label label = label_at(&built, i);
        float lam = chunk_lam(&spec, 2, 2, i, 3);
        assert_int_equal(label.a, label_of(built.ids[i]));
        assert_int_equal(label.b, label_of(built.ids[2 - i]));
        assert_true(label.lam == lam);
        for (int v = 0; v < VALUES; v++) {
            float mixed = lam * floats[i][v] + (1 - lam) * floats[2 - i][v];
            assert_int_equal(built.pixels[i][v], half_from_float(i == 1 ? floats[1][v] : mixed));
        }
    }
    assert_true(label_at(&built, 1).lam == 1 && label_at(&built, 0).lam < 1);
    store_close(store);
}

static void a_damaged_record_is_replaced_by_the_next_good_one(void **state)
{
    unsigned damaged = 0x7e; /* 1 to 6: several in a row, so that some search wraps */
    struct store *store = make_store(damaged);
    struct spec spec = training_spec();
    static struct built built;
    uint32_t substituted = 0;
    for (uint64_t chunk = 0; chunk < 3; chunk++) {
        assert_int_equal(build(&built, store, &spec, 0, chunk), 0);
        for (uint32_t i = 0; i < built.chunk.samples; i++) {
            uint32_t at = (uint32_t)chunk * CHUNK + i, id = order_at(&spec, 0, at, SAMPLES);
            while (damaged >> id & 1)
                id = order_at(&spec, 0, ++at % SAMPLES, SAMPLES);
            float floats[VALUES];
            uint16_t halves[VALUES];
            assert_int_equal(built.ids[i], id);
            assert_int_equal(label_at(&built, i).a, label_of(id));
            render_id(floats, store, &spec, 0, id);
            half_from_floats(halves, floats, VALUES);
            assert_memory_equal(built.pixels[i], halves, sizeof halves);
        }
        substituted += built.chunk.substituted;
        assert_int_equal(built.chunk.masked, 0);
    }
    assert_int_equal(substituted, 6);
    store_close(store);
}

static void evaluation_masks_a_damaged_record(void **state)
{
    struct store *store = make_store(1 << 5);
    struct spec spec = validation_spec();
    static struct built built;
    const uint16_t zeros[VALUES] = {0};
    assert_int_equal(build(&built, store, &spec, 0, 1), 0);
    assert_int_equal(built.chunk.masked, 1);
    assert_int_equal(built.chunk.substituted, 0);
    for (uint32_t i = 0; i < CHUNK; i++) {
        struct chunk_label label = label_at(&built, i);
        assert_int_equal(built.ids[i], CHUNK + i);
        assert_int_equal(label.a, i == 1 ? CHUNK_LABEL_MASKED : label_of(CHUNK + i));
        assert_int_equal(label.b, label.a);
        assert_true(label.lam == 1);
        if (i == 1)
            assert_memory_equal(built.pixels[i], zeros, sizeof zeros);
        else
            assert_memory_not_equal(built.pixels[i], zeros, sizeof zeros);
    }
    store_close(store);
}

static void strict_and_hopeless_stores_are_errors(void **state)
{
    struct store *store = make_store(1 << 5);
    struct spec spec = validation_spec();
    static struct built built;
    assert_int_equal(build_with(builder, &built, store, &spec, 0, 0, true), 0);
    assert_int_equal(build_with(builder, &built, store, &spec, 0, 1, true), ERR_DATA);
    assert_non_null(strstr(err_message(), "sample 5"));
    assert_non_null(strstr(err_message(), "n02"));
    assert_non_null(strstr(err_message(), "ends early"));
    store_close(store);

    store = make_store((1 << SAMPLES) - 1);
    spec = training_spec();
    assert_int_equal(build(&built, store, &spec, 0, 0), ERR_DATA);
    store_close(store);
}

/* Each makes other pixels, and the same ones again. */
static void jitter_and_filter_are_the_specs(void **state)
{
    struct store *store = make_store(0);
    static struct built built, again;
    uint64_t sums[3];
    for (int i = 0; i < 3; i++) {
        struct spec spec = training_spec();
        if (i == 1)
            spec.jitter = SPEC_JITTER_BCS;
        if (i == 2)
            spec.interpolation = SPEC_BICUBIC;
        size_t bytes = spec_sample_bytes(&spec) * spec.chunk_size;
        assert_int_equal(build(&built, store, &spec, 0, 0), 0);
        assert_int_equal(build(&again, store, &spec, 0, 0), 0);
        assert_memory_equal(built.pixels, again.pixels, bytes);
        sums[i] = hash64_of(built.pixels, bytes);
    }
    assert_true(sums[0] != sums[1] && sums[0] != sums[2]);
    store_close(store);
}

static void other_channels_are_refused(void **state)
{
    struct store *store = make_store(0);
    static struct built built;
    struct spec spec = validation_spec();
    spec.channels = 1; /* the store has 3 */
    memset(spec.mean + 1, 0, 8);
    memset(spec.std + 1, 0, 8);
    assert_int_equal(build(&built, store, &spec, 0, 0), ERR_ARG);
    store_close(store);
}

/* uint8 sends what fp16 would after the jitter, and the rest of the sum as labels: they differ by
 * the rounding to a level alone, half a level and half a unit of fp16. */
static void uint8_differs_by_its_rounding_alone(void **state)
{
    struct store *store = make_store(0);
    struct spec spec = training_spec();
    static struct built halves, bytes;
    assert_int_equal(build(&halves, store, &spec, 4, 0), 0);
    spec.wire = SPEC_WIRE_UINT8;
    assert_int_equal(build(&bytes, store, &spec, 4, 0), 0);
    assert_int_equal(chunk_label_bytes_of(&spec), CHUNK_LABEL_UINT8_BYTES);
    for (uint32_t i = 0; i < CHUNK; i++) {
        const uint8_t *label = bytes.labels + i * CHUNK_LABEL_UINT8_BYTES;
        float offsets[3];
        memcpy(offsets, label + CHUNK_LABEL_BYTES, sizeof offsets); /* this machine's order */
        assert_int_equal(chunk_label_decode(label).a, label_at(&halves, i).a);
        for (int v = 0; v < VALUES; v++) {
            int c = v % 3;
            double level = ((const uint8_t *)bytes.pixels)[i * VALUES + (uint32_t)v];
            double value = (level + offsets[c] - spec.mean[c]) / spec.std[c];
            assert_true(fabs(value - half_to_float(halves.pixels[i][v])) * spec.std[c] <=
                        0.5 + 255 * 0x1p-11);
        }
    }
    store_close(store);
}

/* The padding of a padded crop is black before normalisation; mirrored with the picture. */
static void padding_is_black(void **state)
{
    struct store *store = make_store(0);
    struct spec spec = validation_spec();
    spec.seed = 3;
    spec.order = SPEC_ORDER_SHUFFLED;
    spec.damaged_masked = 0;
    spec.crop = SPEC_CROP_PAD;
    spec.pad_px = 6;
    spec.flip = 1;
    int black_columns = 0;
    for (uint32_t epoch = 0; epoch < 4; epoch++) {
        for (uint32_t id = 0; id < SAMPLES; id++) {
            struct store_record record;
            struct crop crop;
            float floats[VALUES];
            assert_int_equal(store_read(&record, store, id), 0);
            crop_draw(&crop, &spec, epoch, id, record.width, record.height);
            render_id(floats, store, &spec, epoch, id);
            for (int i = 0; i < SIZE * SIZE; i++) {
                int x = crop.flip ? SIZE - 1 - i % SIZE : i % SIZE, y = i / SIZE;
                bool outside = x < crop.x.zero_before || x >= SIZE - crop.x.zero_after ||
                               y < crop.y.zero_before || y >= SIZE - crop.y.zero_after;
                float black = (0 - spec.mean[1]) * (1 / spec.std[1]);
                if (outside)
                    assert_true(floats[3 * i + 1] == black);
                black_columns += outside && y == SIZE / 2;
            }
        }
    }
    assert_true(black_columns > 20);
    store_close(store);
}

/* It may take hours in a large store. Last: stop_requested() stays true. */
static void the_search_for_a_good_record_can_be_stopped(void **state)
{
    struct store *store = make_store((1 << SAMPLES) - 1);
    struct spec spec = training_spec();
    static struct built built;
    stop_request();
    assert_int_equal(build(&built, store, &spec, 0, 0), ERR_STOPPED);
    store_close(store);
    store = make_store(1 << 5);
    for (uint64_t chunk = 0; chunk < SAMPLES / CHUNK; chunk++)
        assert_int_equal(build(&built, store, &spec, 0, chunk), 0);
    store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(samples_are_those_of_the_order),
        cmocka_unit_test(a_chunk_is_the_same_whoever_builds_it),
        cmocka_unit_test(partners_are_mixed_with_one_lam),
        cmocka_unit_test(a_damaged_record_is_replaced_by_the_next_good_one),
        cmocka_unit_test(evaluation_masks_a_damaged_record),
        cmocka_unit_test(strict_and_hopeless_stores_are_errors),
        cmocka_unit_test(jitter_and_filter_are_the_specs),
        cmocka_unit_test(other_channels_are_refused),
        cmocka_unit_test(uint8_differs_by_its_rounding_alone),
        cmocka_unit_test(padding_is_black),
        cmocka_unit_test(the_search_for_a_good_record_can_be_stopped),
    };
    return cmocka_run_group_tests(tests, open_both, close_both);
}

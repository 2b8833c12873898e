/* SPDX-License-Identifier: Apache-2.0 */
/* The stream over real loaders is the same whoever makes it: receipts of one loader with one
 * worker, of two loaders with three, and of the builder alone agree, for both wire formats. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "common/err.h"
#include "common/half.h"
#include "tests/fault/stream.h"
#include "tests/unit/testing.h"

enum { TRAIN_SAMPLES = 500, VAL_SAMPLES = 101, LOADERS = 2 };

struct place {
    struct stream_data train, val;
    const char *data[3];
    char endpoints[LOADERS][TESTING_PATH_BYTES];
    struct stream_loader loaders[LOADERS];
};

static int open_place(void **state)
{
    static struct place place;
    const char *directory = testing_directory();
    stream_make_data(&place.train, directory, "train", TRAIN_SAMPLES, 1, "class");
    stream_make_data(&place.val, directory, "val", VAL_SAMPLES, 2, "class");
    place.data[0] = place.train.entry;
    place.data[1] = place.val.entry;
    for (int i = 0; i < LOADERS; i++) {
        testing_endpoint(place.endpoints[i], directory);
        stream_start(&place.loaders[i], directory, place.endpoints[i], place.data, i ? 3 : 1, 0);
    }
    for (int i = 0; i < LOADERS; i++)
        stream_wait_ready(&place.loaders[i]);
    *state = &place;
    return 0;
}

static int close_place(void **state)
{
    struct place *place = *state;
    for (int i = 0; place && i < LOADERS; i++)
        if (place->loaders[i].pid && stream_stop(&place->loaders[i]) != 0)
            return -1;
    return 0;
}

/* Two epochs through these loaders. */
static void pull_two(struct hash128 receipts[2], const char *loaders, const struct spec *spec)
{
    struct feed *feed = stream_feed(loaders, 60);
    for (uint32_t epoch = 0; epoch < 2; epoch++) {
        struct feed_range range = stream_range(feed, spec, epoch);
        assert_int_equal(feed_push(feed, &range), 0);
    }
    for (uint32_t epoch = 0; epoch < 2; epoch++) {
        struct feed_range range = stream_range(feed, spec, epoch);
        receipts[epoch] = (struct hash128){0, 0};
        uint64_t samples = stream_pull(feed, feed_range_batches(feed, &range), &receipts[epoch]);
        assert_int_equal(samples, TRAIN_SAMPLES / STREAM_TOTAL_BATCH * STREAM_TOTAL_BATCH);
    }
    struct feed_batch batch;
    assert_int_equal(feed_pop(&batch, feed), ERR_ARG); /* nothing is left */
    feed_close(feed);
}

static void check_receipts(const struct place *place, enum spec_wire wire)
{
    struct spec spec = stream_spec(wire);
    char both[2 * TESTING_PATH_BYTES + 2];
    snprintf(both, sizeof(both), "%s,%s", place->endpoints[0], place->endpoints[1]);
    struct hash128 one[2], two[2];
    pull_two(one, place->endpoints[0], &spec);
    pull_two(two, both, &spec);
    for (uint32_t epoch = 0; epoch < 2; epoch++) {
        stream_assert_equal(one[epoch], two[epoch]);
        stream_assert_equal(one[epoch], stream_offline_receipt(place->train.path, &spec, epoch));
    }
    assert_false(hash128_equal(one[0], one[1]));
}

static void receipts_do_not_depend_on_loaders(void **state)
{
    check_receipts(*state, SPEC_WIRE_FP16);
}

static void receipts_of_the_uint8_wire(void **state)
{
    check_receipts(*state, SPEC_WIRE_UINT8);
}

/* Ranks share a step: their receipts add up to the whole's, whatever the split. */
static void ranks_add_up(void **state)
{
    struct place *place = *state;
    struct spec spec = stream_spec(SPEC_WIRE_FP16);
    struct hash128 sum = {0, 0};
    for (uint32_t rank = 0; rank < 2; rank++) {
        struct feed *feed = stream_feed(place->endpoints[1], 60);
        struct feed_range range = stream_range(feed, &spec, 0);
        range.rank_chunks /= 2;
        range.rank_offset = rank * range.rank_chunks;
        assert_int_equal(feed_push(feed, &range), 0);
        stream_pull(feed, feed_range_batches(feed, &range), &sum);
        feed_close(feed);
    }
    stream_assert_equal(sum, stream_offline_receipt(place->train.path, &spec, 0));
}

/* Evaluation shows each sample once, the last chunk is short, and a batch is in its own order:
 * sample i of the identity order has label i * classes / count. */
static void evaluation_covers_all(void **state)
{
    struct place *place = *state;
    struct feed *feed = stream_feed(place->endpoints[1], 60);
    const struct spec spec = stream_eval_spec();
    const struct feed_range range = {.spec = spec,
                                     .step_count = 7, /* ceil(26 chunks / 4) */
                                     .chunks_per_step = 4,
                                     .rank_chunks = 4,
                                     .micro_batch = 16};
    assert_int_equal(feed_push(feed, &range), 0);
    assert_int_equal(feed_range_batches(feed, &range), 7);
    uint32_t seen = 0;
    for (int i = 0; i < 7; i++) {
        struct feed_batch batch;
        assert_int_equal(feed_pop(&batch, feed), 0);
        assert_int_equal(batch.step, i);
        assert_int_equal(batch.samples, i < 6 ? 16 : VAL_SAMPLES - 96);
        for (uint32_t j = 0; j < batch.samples; j++, seen++) {
            assert_int_equal(batch.labels[j].a, seen * STREAM_CLASSES / VAL_SAMPLES);
            assert_true(batch.labels[j].lam == 1.0f);
        }
        feed_release(feed, &batch);
    }
    assert_int_equal(seen, VAL_SAMPLES);
    feed_close(feed);
}

/* Dropping a plan in the middle leaves nothing of it in the next. */
static void flush_forgets(void **state)
{
    struct place *place = *state;
    struct spec spec = stream_spec(SPEC_WIRE_FP16);
    struct feed *feed = stream_feed(place->endpoints[1], 60);
    struct feed_range range = stream_range(feed, &spec, 3);
    struct hash128 receipt = {0, 0};
    assert_int_equal(feed_push(feed, &range), 0);
    stream_pull(feed, 3, &receipt);
    feed_flush(feed);
    range.epoch = 1;
    receipt = (struct hash128){0, 0};
    assert_int_equal(feed_push(feed, &range), 0);
    stream_pull(feed, feed_range_batches(feed, &range), &receipt);
    stream_assert_equal(receipt, stream_offline_receipt(place->train.path, &spec, 1));
    feed_close(feed);
}

static void synthetic_needs_no_loader(void **state)
{
    (void)state;
    struct feed *feed = stream_feed("synthetic", 1);
    const struct feed_store *store = feed_store(feed, "train");
    assert_non_null(store);
    assert_int_equal(store->sample_count, 1281167);
    struct spec spec = stream_spec(SPEC_WIRE_FP16);
    spec.channels = 3;
    for (int i = 1; i < 3; i++) {
        spec.mean[i] = spec.mean[0];
        spec.std[i] = spec.std[0];
    }
    struct feed_range range = stream_range(feed, &spec, 0);
    assert_int_equal(feed_push(feed, &range), 0);
    struct feed_batch batch;
    assert_int_equal(feed_pop(&batch, feed), 0);
    assert_int_equal(batch.samples, STREAM_MICRO_BATCH);
    const uint16_t *pixels = batch.pixels;
    double sum = 0, squares = 0;
    size_t values = batch.samples * spec_sample_bytes(&spec) / 2;
    for (size_t i = 0; i < values; i++) {
        sum += half_to_float(pixels[i]);
        squares += (double)half_to_float(pixels[i]) * half_to_float(pixels[i]);
    }
    /* Uniform of variance 1 over 12,288 values: the bounds are 5 standard errors. */
    assert_true(sum / (double)values < 0.05 && sum / (double)values > -0.05);
    assert_true(squares / (double)values < 1.05 && squares / (double)values > 0.95);
    for (uint32_t i = 0; i < batch.samples; i++)
        assert_true(batch.labels[i].a < 1000);
    feed_release(feed, &batch);
    feed_close(feed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(receipts_do_not_depend_on_loaders),
        cmocka_unit_test(receipts_of_the_uint8_wire),
        cmocka_unit_test(ranks_add_up),
        cmocka_unit_test(evaluation_covers_all),
        cmocka_unit_test(flush_forgets),
        cmocka_unit_test(synthetic_needs_no_loader),
    };
    return cmocka_run_group_tests(tests, open_place, close_place);
}

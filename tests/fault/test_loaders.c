/* SPDX-License-Identifier: Apache-2.0 */
/* Loaders that die, stop, leave, join or differ: the stream that the trainer sees stays the same,
 * or the loader is refused by name. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/file.h"
#include "tests/fault/stream.h"
#include "tests/unit/testing.h"

enum { SAMPLES = 400, ROOM = 2 * TESTING_PATH_BYTES };

struct place {
    const char *directory;
    struct stream_data train;
    const char *data[2];
};

static int open_place(void **state)
{
    static struct place place;
    place.directory = testing_directory();
    stream_make_data(&place.train, place.directory, "train", SAMPLES, 1, "class");
    place.data[0] = place.train.entry;
    *state = &place;
    return 0;
}

static void start(struct stream_loader *loader, const struct place *place, int credits)
{
    char endpoint[TESTING_PATH_BYTES];
    testing_endpoint(endpoint, place->directory);
    stream_start(loader, place->directory, endpoint, place->data, 1, credits);
    stream_wait_ready(loader);
}

static uint64_t chunks_arrived(const struct feed *feed)
{
    struct feed_counts counts;
    feed_counts(&counts, feed);
    return counts.chunks;
}

static struct feed_counts counts_of(const struct feed *feed)
{
    struct feed_counts counts;
    feed_counts(&counts, feed);
    return counts;
}

/* An epoch under way on two loaders of one credit each, both admitted: `done` micro-batches are
 * pulled, the two ahead are complete, and then loader 0 is stopped and one request is at each. */
struct midway {
    struct stream_loader loaders[2];
    struct feed *feed;
    struct spec spec;
    uint64_t batches, done;
    struct hash128 receipt;
};

static void get_midway(struct midway *midway, const struct place *place)
{
    char both[ROOM];
    for (int i = 0; i < 2; i++)
        start(&midway->loaders[i], place, 1);
    snprintf(both, sizeof(both), "%.500s,%.500s", midway->loaders[0].endpoint,
             midway->loaders[1].endpoint);
    midway->feed = stream_feed(both, 60);
    stream_await(counts_of(midway->feed).loaders == 2, 30);
    midway->spec = stream_spec(SPEC_WIRE_FP16);
    const struct feed_range range = stream_range(midway->feed, &midway->spec, 0);
    midway->batches = feed_range_batches(midway->feed, &range);
    midway->receipt = (struct hash128){0, 0};
    assert_int_equal(feed_push(midway->feed, &range), 0);
    stream_await(counts_of(midway->feed).admitted == 2, 30);
    midway->done = 4;
    stream_pull(midway->feed, midway->done, &midway->receipt);
    uint64_t ahead = (midway->done + 2) * STREAM_MICRO_BATCH / STREAM_CHUNK;
    stream_await(chunks_arrived(midway->feed) == ahead, 30);
    stream_pause(&midway->loaders[0]);
    stream_pull(midway->feed, 1, &midway->receipt);
    midway->done++;
    /* Loader 1 makes all of the next micro-batch but the chunk that is stuck at loader 0, and
     * on a machine slower than its deadline that one too. */
    stream_await(chunks_arrived(midway->feed) >= ahead + STREAM_MICRO_BATCH / STREAM_CHUNK - 1, 30);
}

static void finish(struct midway *midway, const struct place *place)
{
    stream_pull(midway->feed, midway->batches - midway->done, &midway->receipt);
    stream_assert_equal(midway->receipt,
                        stream_offline_receipt(place->train.path, &midway->spec, 0));
    assert_true(counts_of(midway->feed).reasked >= 1);
}

static void killed_in_mid_epoch(void **state)
{
    const struct place *place = *state;
    struct midway midway;
    get_midway(&midway, place);
    stream_capture_begin(place->directory);
    stream_kill(&midway.loaders[0]);
    finish(&midway, place);
    /* The disconnect counts at once: no deadline of 3 s is waited for. */
    char *log = stream_capture_end();
    assert_non_null(strstr(log, "disconnected; what it had is asked for elsewhere"));
    assert_null(strstr(log, "overdue"));
    free(log);
    feed_close(midway.feed);
    assert_int_equal(stream_stop(&midway.loaders[1]), 0);
}

static void stopped_is_overtaken_and_its_answer_dropped(void **state)
{
    struct midway midway;
    get_midway(&midway, *state);
    finish(&midway, *state);
    assert_int_equal(counts_of(midway.feed).duplicates, 0);
    kill(midway.loaders[0].pid, SIGCONT);
    /* Its answer is dropped; on a machine so slow that it was given up before, there is none. */
    stream_await(counts_of(midway.feed).duplicates == 1 || counts_of(midway.feed).lost == 1, 30);
    feed_close(midway.feed);
    for (int i = 0; i < 2; i++)
        assert_int_equal(stream_stop(&midway.loaders[i]), 0);
}

static void leaves_in_mid_epoch(void **state)
{
    struct midway midway;
    get_midway(&midway, *state);
    kill(midway.loaders[0].pid, SIGCONT);
    int64_t start_ns = clock_ns();
    assert_int_equal(stream_stop(&midway.loaders[0]), 0);
    assert_true(clock_ns() - start_ns < INT64_C(5000000000));
    stream_pull(midway.feed, midway.batches - midway.done, &midway.receipt);
    const struct place *place = *state;
    stream_assert_equal(midway.receipt, stream_offline_receipt(place->train.path, &midway.spec, 0));
    feed_close(midway.feed);
    assert_int_equal(stream_stop(&midway.loaders[1]), 0);
}

static void write_list(const char *path, const char *first, const char *second)
{
    char text[ROOM + 64];
    int bytes = snprintf(text, sizeof(text), "# loaders\n%.500s\n%.500s\n", first, second);
    assert_int_equal(file_write_atomic(path, text, (size_t)bytes), 0);
}

/* The list names a loader that starts only now; a second joins, the first goes. */
static void join_and_leave_by_the_list(void **state)
{
    struct place *place = *state;
    struct stream_loader loaders[2];
    char list[TESTING_PATH_BYTES], endpoint[TESTING_PATH_BYTES], watched[TESTING_PATH_BYTES + 1];
    testing_path(list, place->directory, "loaders");
    snprintf(watched, sizeof(watched), "@%s", list);
    testing_endpoint(endpoint, place->directory);
    write_list(list, endpoint, "");
    stream_start(&loaders[0], place->directory, endpoint, place->data, 1, 1);
    struct feed *feed = stream_feed(watched, 60);
    struct spec spec = stream_spec(SPEC_WIRE_FP16);
    const struct feed_range range = stream_range(feed, &spec, 5);
    uint64_t batches = feed_range_batches(feed, &range);
    struct hash128 receipt = {0, 0};
    assert_int_equal(feed_push(feed, &range), 0);
    stream_pull(feed, 3, &receipt);
    start(&loaders[1], place, 1);
    write_list(list, endpoint, loaders[1].endpoint);
    stream_await(counts_of(feed).loaders == 2, 30);
    stream_pull(feed, 3, &receipt);
    write_list(list, "", loaders[1].endpoint);
    stream_await(counts_of(feed).loaders == 1, 30);
    assert_int_equal(stream_stop(&loaders[0]), 0);
    stream_pull(feed, batches - 6, &receipt);
    stream_assert_equal(receipt, stream_offline_receipt(place->train.path, &spec, 5));
    feed_close(feed);
    assert_int_equal(stream_stop(&loaders[1]), 0);
}

/* A loader whose store of the same name, size and classes holds other bytes. */
static void another_store_is_refused(void **state)
{
    struct place *place = *state;
    struct place other = *place;
    struct stream_loader loaders[2];
    char list[TESTING_PATH_BYTES], watched[TESTING_PATH_BYTES + 1];
    stream_make_data(&other.train, testing_directory(), "train", SAMPLES, 2, "class");
    other.data[0] = other.train.entry;
    start(&loaders[0], place, 0);
    start(&loaders[1], &other, 0);
    testing_path(list, place->directory, "refused");
    snprintf(watched, sizeof(watched), "@%s", list);
    write_list(list, loaders[0].endpoint, "");
    struct feed *feed = stream_feed(watched, 60);
    write_list(list, loaders[0].endpoint, loaders[1].endpoint);
    stream_await(counts_of(feed).rejected == 1, 30);
    struct spec spec = stream_spec(SPEC_WIRE_FP16);
    const struct feed_range range = stream_range(feed, &spec, 0);
    struct hash128 receipt = {0, 0};
    assert_int_equal(feed_push(feed, &range), 0);
    stream_pull(feed, feed_range_batches(feed, &range), &receipt);
    stream_assert_equal(receipt, stream_offline_receipt(place->train.path, &spec, 0));
    assert_int_equal(counts_of(feed).loaders, 1);
    feed_close(feed);
    for (int i = 0; i < 2; i++)
        assert_int_equal(stream_stop(&loaders[i]), 0);
}

static void other_class_ids_of_val_are_refused(void **state)
{
    struct place *place = *state;
    struct stream_data val;
    char endpoint[TESTING_PATH_BYTES];
    stream_make_data(&val, place->directory, "val", 50, 3, "other");
    const char *data[] = {place->train.entry, val.entry, NULL};
    struct stream_loader loader;
    testing_endpoint(endpoint, place->directory);
    stream_start(&loader, place->directory, endpoint, data, 1, 0);
    stream_wait_ready(&loader);
    const struct feed_config config = {.loaders = endpoint, .stall_limit_seconds = 30};
    struct feed *feed;
    assert_int_equal(feed_open(&feed, &config), ERR_PEER);
    assert_non_null(strstr(err_message(), "class ids"));
    assert_non_null(strstr(err_message(), endpoint));
    assert_int_equal(stream_stop(&loader), 0);
}

/* Without a loader: the stall limit ends the wait, and within 2 s of a loader being back chunks
 * come again. */
static void all_gone_and_back(void **state)
{
    struct place *place = *state;
    struct stream_loader loader;
    start(&loader, place, 0);
    char endpoint[STREAM_PATH_BYTES];
    strcpy(endpoint, loader.endpoint);
    struct feed *feed = stream_feed(endpoint, 2);
    struct spec spec = stream_spec(SPEC_WIRE_FP16);
    const struct feed_range range = stream_range(feed, &spec, 0);
    uint64_t batches = feed_range_batches(feed, &range), done = 0;
    struct hash128 receipt = {0, 0};
    assert_int_equal(feed_push(feed, &range), 0);
    stream_pull(feed, 2, &receipt);
    done = 2;
    stream_kill(&loader);
    struct feed_batch batch;
    int code;
    while ((code = feed_pop(&batch, feed)) == 0) { /* what had come ahead */
        receipt = hash128_add(receipt, batch.receipt);
        feed_release(feed, &batch);
        done++;
    }
    assert_int_equal(code, ERR_STOPPED);
    assert_true(feed_stalled(feed));
    assert_true(done < batches);
    stream_start(&loader, place->directory, endpoint, place->data, 1, 0);
    stream_wait_ready(&loader);
    int64_t back_ns = clock_ns();
    uint64_t before = chunks_arrived(feed);
    stream_await(chunks_arrived(feed) > before, 30);
    assert_true(clock_ns() - back_ns < INT64_C(2000000000));
    stream_pull(feed, batches - done, &receipt);
    stream_assert_equal(receipt, stream_offline_receipt(place->train.path, &spec, 0));
    feed_close(feed);
    assert_int_equal(stream_stop(&loader), 0);
}

/* Nobody there: said within 5 s; the stall limit is an error before the first loader. */
static void nobody_answers(void **state)
{
    struct place *place = *state;
    char endpoint[TESTING_PATH_BYTES], line[ROOM];
    testing_endpoint(endpoint, place->directory);
    stream_capture_begin(place->directory);
    const struct feed_config config = {.loaders = endpoint, .stall_limit_seconds = 5};
    struct feed *feed;
    int code = feed_open(&feed, &config);
    char *text = stream_capture_end();
    assert_int_equal(code, ERR_PEER);
    assert_non_null(strstr(err_message(), "no loader answered"));
    snprintf(line, sizeof(line), "no loader answers at %s (still trying)", endpoint);
    assert_non_null(strstr(text, line));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_in_mid_epoch),
        cmocka_unit_test(stopped_is_overtaken_and_its_answer_dropped),
        cmocka_unit_test(leaves_in_mid_epoch),
        cmocka_unit_test(join_and_leave_by_the_list),
        cmocka_unit_test(another_store_is_refused),
        cmocka_unit_test(other_class_ids_of_val_are_refused),
        cmocka_unit_test(all_gone_and_back),
        cmocka_unit_test(nobody_answers),
    };
    return cmocka_run_group_tests(tests, open_place, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Loaders that would make another stream are refused with the reason, before or (by the audit)
 * after they serve; a record that ends the loaders which decode it costs few of them, is named and
 * left out. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/err.h"
#include "datasets/store.h"
#include "proto/order.h"
#include "tests/fault/feeds.h"
#include "tests/fault/stream.h"
#include "tests/unit/testing.h"

enum { SAMPLES = 400, LOADERS_MAX = 4, ROOM = LOADERS_MAX * TESTING_PATH_BYTES };

struct place {
    const char *directory;
    struct stream_data train;
    const char *data[2];
};

static struct place place;

static int open_place(void **state)
{
    (void)state;
    place.directory = testing_directory();
    stream_make_data(&place.train, place.directory, "train", SAMPLES, 1, "class");
    place.data[0] = place.train.entry;
    return 0;
}

/* Starts a loader with this fault, or none. */
static void start(struct stream_loader *loader, const char *fault, const char *value)
{
    char endpoint[TESTING_PATH_BYTES];
    testing_endpoint(endpoint, place.directory);
    if (fault)
        setenv(fault, value, 1);
    stream_start(loader, place.directory, endpoint, place.data, 1, 4);
    if (fault)
        unsetenv(fault);
    stream_wait_ready(loader);
}

static void list_of(char list[ROOM], const struct stream_loader *loaders, int count)
{
    size_t at = 0;
    for (int i = 0; i < count; i++)
        at += (size_t)snprintf(list + at, ROOM - at, "%s%.500s", i ? "," : "", loaders[i].endpoint);
}

static const char *poisonous; /* the file of the feeds that are opened; NULL: none */

static struct feed *open_feed(const struct stream_loader *loaders, int count, double audit_share)
{
    char list[ROOM];
    list_of(list, loaders, count);
    const struct feed_config config = {.loaders = list,
                                       .run = "test",
                                       .stall_limit_seconds = 60,
                                       .prefetch_bytes = 1,
                                       .audit_share = audit_share,
                                       .poisonous = poisonous};
    return feeds_open(&config);
}

static void pull_epoch(struct feed *feed, const struct spec *spec, uint32_t epoch)
{
    const struct feed_range range = stream_range(feed, spec, epoch);
    struct hash128 receipt = {0, 0};
    assert_int_equal(feed_push(feed, &range), 0);
    stream_pull(feed, feed_range_batches(feed, &range), &receipt);
    stream_assert_equal(receipt, stream_offline_receipt(place.train.path, spec, epoch));
}

/* The id at a place of the order: every epoch has another. */
static uint32_t id_at(const struct spec *spec, uint32_t epoch, uint32_t position)
{
    return order_at(spec, epoch, position, SAMPLES);
}

/* ---- loaders that differ ---- */

/* The second loader, which has this fault, is refused for this reason; the first serves all. */
static void expect_refusal(const char *fault, const char *value, const char *reason)
{
    struct stream_loader loaders[2];
    start(&loaders[0], NULL, NULL);
    struct feed *feed = open_feed(loaders, 1, 0);
    const struct spec spec = stream_spec(SPEC_WIRE_FP16);
    pull_epoch(feed, &spec, 0); /* the first loader is the measure */
    feed_close(feed);

    start(&loaders[1], fault, value);
    stream_capture_begin(place.directory);
    feed = open_feed(loaders, 1, 0);
    pull_epoch(feed, &spec, 0);
    feed_close(feed);
    /* Together: whoever answers first, the two do not agree, and one is refused. */
    feed = open_feed(loaders, 2, 0);
    const struct feed_range range = stream_range(feed, &spec, 0);
    assert_int_equal(feed_push(feed, &range), 0);
    stream_await(feeds_counts(feed).rejected == 1, 30);
    feed_close(feed);
    char *text = stream_capture_end();
    if (!strstr(text, reason))
        fail_msg("'%s' is not in: %s", reason, text);
    free(text);
    for (int i = 0; i < 2; i++)
        assert_int_equal(stream_stop(&loaders[i]), 0);
}

static void another_self_test_is_refused(void **state)
{
    (void)state;
    expect_refusal("FAULT_HELLO", "1", "its decoders make other pixels");
}

static void one_bit_in_the_decoder_is_refused(void **state)
{
    (void)state;
    expect_refusal("FAULT_BIT", "all", "it makes other bytes");
}

/* The checkpoint's challenge is the measure, though no honest loader is there. */
static void the_checkpoint_remembers(void **state)
{
    (void)state;
    struct stream_loader honest, other;
    struct hash128 challenge;
    const struct spec spec = stream_spec(SPEC_WIRE_FP16);
    start(&honest, NULL, NULL);
    struct feed *feed = open_feed(&honest, 1, 0);
    assert_false(feed_challenge(&challenge, feed, &spec));
    pull_epoch(feed, &spec, 0);
    assert_true(feed_challenge(&challenge, feed, &spec));
    feed_close(feed);

    start(&other, "FAULT_BIT", "all");
    for (int i = 0; i < 2; i++) {
        feed = open_feed(i ? &honest : &other, 1, 0);
        assert_int_equal(feed_expect(feed, &spec, challenge), 0);
        const struct feed_range range = stream_range(feed, &spec, 0);
        assert_int_equal(feed_push(feed, &range), 0);
        struct feed_batch batch;
        int code = feed_pop(&batch, feed);
        assert_int_equal(code, i ? 0 : ERR_PEER);
        if (code)
            assert_non_null(strstr(err_message(), "the checkpoint"));
        else
            feed_release(feed, &batch);
        feed_close(feed);
    }
    assert_int_equal(stream_stop(&honest), 0);
    assert_int_equal(stream_stop(&other), 0);
}

static void a_failed_self_test_does_not_start(void **state)
{
    (void)state;
    char endpoint[TESTING_PATH_BYTES], text[4096];
    testing_endpoint(endpoint, place.directory);
    const char *arguments[] = {"satchel-loader", "--data", place.train.entry,
                               "--bind",         endpoint, NULL};
    setenv("FAULT_SELF_TEST", "1", 1);
    int status = stream_run(arguments, text, sizeof(text));
    unsetenv("FAULT_SELF_TEST");
    assert_int_equal(status, 1);
    assert_non_null(strstr(text, "self-test: the reference decoder"));
}

/* ---- the audit ---- */

static void honest_loaders_pass_the_audit(void **state)
{
    (void)state;
    struct stream_loader loaders[2];
    for (int i = 0; i < 2; i++)
        start(&loaders[i], NULL, NULL);
    struct feed *feed = open_feed(loaders, 2, 1);
    const struct spec spec = stream_spec(SPEC_WIRE_FP16);
    struct feed_range range = stream_range(feed, &spec, 0);
    struct hash128 receipt = {0, 0};
    uint64_t steps = range.step_count;
    for (uint64_t half = 0; half < 2; half++) { /* no more chunks than may wait for an audit */
        range.first_step = half * steps / 2;
        range.step_count = (half + 1) * steps / 2;
        assert_int_equal(feed_push(feed, &range), 0);
        stream_pull(feed, feed_range_batches(feed, &range), &receipt);
        stream_await(feeds_counts(feed).audited == feeds_counts(feed).chunks, 30);
    }
    stream_assert_equal(receipt, stream_offline_receipt(place.train.path, &spec, 0));
    assert_true(feeds_counts(feed).chunks > 0);
    assert_int_equal(feeds_counts(feed).duplicates, 0);
    feed_close(feed);
    for (int i = 0; i < 2; i++)
        assert_int_equal(stream_stop(&loaders[i]), 0);
}

static void a_share_is_audited(void **state)
{
    (void)state;
    struct stream_loader loaders[2];
    const struct spec spec = stream_spec(SPEC_WIRE_FP16);
    for (int i = 0; i < 2; i++)
        start(&loaders[i], NULL, NULL);
    struct feed *feed = open_feed(loaders, 2, 0.2);
    for (uint32_t epoch = 0; epoch < 3; epoch++)
        pull_epoch(feed, &spec, epoch);
    stream_await(10 * feeds_counts(feed).audited >= feeds_counts(feed).chunks, 30);
    assert_true(3 * feeds_counts(feed).audited <= feeds_counts(feed).chunks);
    feed_close(feed);
    for (int i = 0; i < 2; i++)
        assert_int_equal(stream_stop(&loaders[i]), 0);
}

/* A loader with bad memory: one record of its own making differs, not in the challenge. */
static void the_audit_names_both(void **state)
{
    (void)state;
    const struct spec spec = stream_spec(SPEC_WIRE_FP16);
    char id[16];
    struct stream_loader loaders[2];
    snprintf(id, sizeof(id), "%u", id_at(&spec, 0, 40));
    start(&loaders[0], NULL, NULL);
    start(&loaders[1], "FAULT_BIT", id);
    struct feed *feed = open_feed(loaders, 2, 1);
    const struct feed_range range = stream_range(feed, &spec, 0);
    const uint64_t batches = feed_range_batches(feed, &range);
    int code = feed_push(feed, &range);
    /* The audit goes on beside what is pulled, sooner or later. */
    for (uint64_t popped = 0; !code && popped < 50 * batches; popped++) {
        struct feed_batch batch;
        if (popped % batches == 0)
            assert_int_equal(feed_push(feed, &range), 0);
        code = feed_pop(&batch, feed);
        if (!code)
            feed_release(feed, &batch);
    }
    assert_int_equal(code, ERR_DATA);
    assert_non_null(strstr(err_message(), "audit: chunk 10 of epoch 0"));
    for (int i = 0; i < 2; i++)
        assert_non_null(strstr(err_message(), loaders[i].endpoint));
    feed_close(feed);
    for (int i = 0; i < 2; i++)
        assert_int_equal(stream_stop(&loaders[i]), 0);
}

/* ---- poison ---- */

static int count_deaths(struct stream_loader *loaders, int count)
{
    int deaths = 0;
    for (int i = 0; i < count; i++)
        if (waitpid(loaders[i].pid, NULL, WNOHANG) == loaders[i].pid) {
            loaders[i].pid = 0;
            deaths++;
        }
    return deaths;
}

/* Epochs on four loaders of which each dies when it decodes the record, and so many do. */
static void survive(const char *id, int epochs, int deaths)
{
    struct stream_loader loaders[LOADERS_MAX];
    char named[64];
    for (int i = 0; i < LOADERS_MAX; i++)
        start(&loaders[i], "FAULT_KILL", id);
    setenv("FAULT_DAMAGED", id, 1); /* for this process, which makes the receipts to compare with */
    const struct spec spec = stream_spec(SPEC_WIRE_FP16);
    stream_capture_begin(place.directory);
    struct feed *feed = open_feed(loaders, LOADERS_MAX, 0);
    for (int epoch = 0; epoch < epochs; epoch++)
        pull_epoch(feed, &spec, (uint32_t)epoch);
    char *text = stream_capture_end();
    unsetenv("FAULT_DAMAGED");
    assert_int_equal(feeds_counts(feed).poisonous, 1);
    assert_int_equal(feeds_counts(feed).substituted, epochs);
    feed_close(feed);
    assert_int_equal(count_deaths(loaders, LOADERS_MAX), deaths);
    snprintf(named, sizeof(named), "store train: record %s (class class", id);
    if (!strstr(text, named))
        fail_msg("'%s' is not in: %s", named, text);
    free(text);
    for (int i = 0; i < LOADERS_MAX; i++)
        if (loaders[i].pid)
            assert_int_equal(stream_stop(&loaders[i]), 0);
}

static void poison_is_isolated_and_named(void **state)
{
    (void)state;
    const struct spec spec = stream_spec(SPEC_WIRE_FP16);
    char id[16];
    /* In both epochs among the steps, and not in the challenge. */
    uint32_t position = 101;
    snprintf(id, sizeof(id), "%u", id_at(&spec, 0, position));
    survive(id, 2, 2);
}

static void poison_in_the_challenge(void **state)
{
    (void)state;
    const struct spec spec = stream_spec(SPEC_WIRE_FP16);
    char id[16];
    snprintf(id, sizeof(id), "%u", id_at(&spec, 0, 2));
    survive(id, 1, 2);
}

static void append(const char *path, const char *text)
{
    FILE *file = fopen(path, "a");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

/* The process that found out is gone; the next one knows, whatever else is in the file. */
static void poison_is_remembered(void **state)
{
    (void)state;
    const struct spec spec = stream_spec(SPEC_WIRE_FP16);
    char id[16], path[TESTING_PATH_BYTES];
    snprintf(id, sizeof(id), "%u", id_at(&spec, 0, 101));
    poisonous = testing_path(path, place.directory, "poisonous");
    append(path, "train 0123456789abcdef0123456789abcdef 5 of_another_store\nno line\n");
    append(path, "train 0123456789ab"); /* its process was killed */
    survive(id, 1, 2);
    survive(id, 1, 0);
    poisonous = NULL;
}

/* A store that was only removed is served on. What a process of its own cannot open any more is
 * refused; another loader has it. */
static void a_removed_store_ends_no_loader(void **state)
{
    (void)state;
    char path[TESTING_PATH_BYTES], name[TESTING_PATH_BYTES], entry[TESTING_PATH_BYTES + 8];
    char fingerprint[33], line[80];
    struct stream_loader loaders[2];
    struct store *store;
    testing_path(name, place.directory, "removed.lmdb");
    assert_int_equal(link(place.train.path, name), 0);
    snprintf(entry, sizeof(entry), "train=%s", name);
    place.data[0] = entry;
    start(&loaders[0], NULL, NULL);
    place.data[0] = place.train.entry;
    start(&loaders[1], NULL, NULL);
    assert_int_equal(unlink(name), 0);
    assert_int_equal(store_open(&store, place.train.path), 0);
    hash128_to_text(fingerprint, store_meta(store)->fingerprint);
    store_close(store);
    poisonous = testing_path(path, place.directory, "isolated");
    for (uint32_t id = 0; id < SAMPLES; id += 2) {
        snprintf(line, sizeof(line), "train %s %u class\n", fingerprint, id);
        append(path, line);
    }
    const struct spec spec = stream_spec(SPEC_WIRE_FP16);
    struct feed *feed = open_feed(loaders, 2, 0);
    pull_epoch(feed, &spec, 0);
    feed_close(feed);
    poisonous = NULL;
    assert_true(stream_log_has(&loaders[0], "removed.lmdb: No such file"));
    for (int i = 0; i < 2; i++)
        assert_int_equal(stream_stop(&loaders[i]), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(another_self_test_is_refused),
        cmocka_unit_test(one_bit_in_the_decoder_is_refused),
        cmocka_unit_test(the_checkpoint_remembers),
        cmocka_unit_test(a_failed_self_test_does_not_start),
        cmocka_unit_test(honest_loaders_pass_the_audit),
        cmocka_unit_test(a_share_is_audited),
        cmocka_unit_test(the_audit_names_both),
        cmocka_unit_test(poison_is_isolated_and_named),
        cmocka_unit_test(poison_in_the_challenge),
        cmocka_unit_test(poison_is_remembered),
        cmocka_unit_test(a_removed_store_ends_no_loader),
    };
    return cmocka_run_group_tests(tests, open_place, NULL);
}

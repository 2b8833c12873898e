/* SPDX-License-Identifier: Apache-2.0 */
/* Loaders with a valid key that turn against the trainer in the middle of the run: each is cut off
 * and named with what it did, and the run goes on with the honest one beside them and gets every
 * bit. What they do is lies.c's; the last one lets its bytes drip. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/err.h"
#include "proto/keys.h"
#include "tests/fault/feeds.h"
#include "tests/fault/stream.h"
#include "tests/unit/testing.h"

enum { SAMPLES = 256, ROOM = 4096 };

static const struct {
    const char *name, *says;
} LIES[] = {
    {"lam-nan", "lam nan"},
    {"lam-inf", "lam inf"},
    {"lam-negative", "lam -0.25"},
    {"lam-large", "lam 1.25"},
    {"label-range", "of a store with 10 classes"},
    {"label-masked", "masked against the spec"},
    {"pixels-short", "pixels frame of 2047 bytes, not 2048"},
    {"pixels-long", "pixels frame of 2112 bytes, not 2048"},
    {"pixels-none", "pixels frame of 0 bytes, not 2048"},
    {"pixels-nan", "has pixels that are no numbers"},
    {"pixels-inf", "has pixels that are no numbers"},
    {"labels-short", "labels frame of 36 bytes, not 48"},
    {"labels-long", "labels frame of 60 bytes, not 48"},
    {"samples", "3 samples, not 4"},
    {"chunk", "it answered another request than the one it names"},
    {"epoch", "it answered another request than the one it names"},
    {"spec", "it answered another request than the one it names"},
    {"unasked", "it sent a chunk that was not asked for"},
    {"twice", "it sent a chunk that was not asked for"},
    {"frames", "a chunk of 2 frames, not 3"},
    {"kind", "frames that do not belong to it"},
    {"endless", "a message"}, /* without end, or, on a fast day, of too many frames */
};

enum { LIE_COUNT = sizeof(LIES) / sizeof(LIES[0]) };

static struct {
    const char *directory;
    struct stream_data train;
    char keys[TESTING_PATH_BYTES];
    char trainer_key[2 * TESTING_PATH_BYTES], loader_key[2 * TESTING_PATH_BYTES];
    struct stream_loader honest;
} place;

/* All loaders have one key, which the trainer trusts. */
static void start(struct stream_loader *loader, const char *lie)
{
    const char *arguments[] = {place.train.entry, "--secret-key", place.loader_key,
                               "--allow",         place.keys,     NULL};
    if (lie)
        setenv("FAULT_LIE", lie, 1);
    stream_start(loader, place.directory, "tcp://127.0.0.1:*", arguments, 1, 4);
    unsetenv("FAULT_LIE");
}

static int open_place(void **state)
{
    (void)state;
    place.directory = testing_directory();
    stream_make_data(&place.train, place.directory, "train", SAMPLES, 1, "class");
    testing_path(place.keys, place.directory, "keys");
    snprintf(place.trainer_key, sizeof(place.trainer_key), "%s/trainer.key", place.keys);
    snprintf(place.loader_key, sizeof(place.loader_key), "%s/loader.key", place.keys);
    const char *const names[] = {"loader", "trainer"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct key_pair pair;
        if (key_pair_make(&pair) || key_pair_write(&pair, place.keys, names[i]))
            return -1;
    }
    start(&place.honest, NULL);
    stream_wait_ready(&place.honest);
    return 0;
}

static int close_place(void **state)
{
    (void)state;
    return stream_stop(&place.honest);
}

static struct feed *open_feed(const char *loaders)
{
    const struct feed_config config = {.loaders = loaders,
                                       .run = "test",
                                       .stall_limit_seconds = 60,
                                       .prefetch_bytes = 1,
                                       .secret_key = place.trainer_key,
                                       .server_keys = place.keys};
    return feeds_open(&config);
}

/* The line about this loader has these words. */
static void expect_line(const char *log, const char *endpoint, const char *says)
{
    char begin[STREAM_PATH_BYTES + 16];
    snprintf(begin, sizeof(begin), "loader %.500s: ", endpoint);
    for (const char *at = log; (at = strstr(at, begin)); at += strlen(begin)) {
        const char *end = strchr(at, '\n'), *words = strstr(at, says);
        if (words && end && words < end)
            return;
    }
    fail_msg("'%s' is not said of %s in: %s", says, endpoint, log);
}

static void liars_are_cut_off_by_name(void **state)
{
    (void)state;
    struct stream_loader liars[LIE_COUNT];
    char list[ROOM];
    int used = snprintf(list, sizeof(list), "%.100s", place.honest.endpoint);
    for (int i = 0; i < LIE_COUNT; i++)
        start(&liars[i], LIES[i].name);
    for (int i = 0; i < LIE_COUNT; i++) {
        stream_wait_ready(&liars[i]);
        used += snprintf(list + used, sizeof(list) - (size_t)used, ",%.100s", liars[i].endpoint);
    }
    stream_capture_begin(place.directory);
    struct feed *feed = open_feed(list);
    do
        stream_check_epoch(feed, place.train.path);
    while (feeds_counts(feed).rejected < LIE_COUNT);
    stream_check_epoch(feed, place.train.path); /* with the honest one alone */
    struct feed_counts counts = feeds_counts(feed);
    feed_close(feed);
    char *log = stream_capture_end();
    assert_int_equal(counts.rejected, LIE_COUNT);
    for (int i = 0; i < LIE_COUNT; i++) {
        expect_line(log, liars[i].endpoint, LIES[i].says);
        assert_int_equal(stream_stop(&liars[i]), 0);
    }
    free(log);
}

/* ---- bytes that drip ---- */

/* A relay to the loader that lets some chunks through and then a few bytes a second. */
static pid_t start_relay(const char *port, const char *endpoint)
{
    const char *program = getenv("SATCHEL_SLOW_LINK"), *loader_port = strrchr(endpoint, ':') + 1;
    assert_non_null(program);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execl(program, program, port, "127.0.0.1", loader_port, "0", "0.0001", "8000", NULL);
        _exit(127);
    }
    return pid;
}

static void dripping_bytes(void **state)
{
    (void)state;
    struct stream_loader loader;
    char endpoint[STREAM_PATH_BYTES], list[ROOM];
    stream_free_endpoint(endpoint);
    start(&loader, NULL);
    stream_wait_ready(&loader);
    pid_t relay = start_relay(strrchr(endpoint, ':') + 1, loader.endpoint);
    snprintf(list, sizeof(list), "%.500s,%.500s", place.honest.endpoint, endpoint);
    stream_capture_begin(place.directory);
    struct feed *feed = open_feed(list);
    for (int64_t end = stream_deadline(120); feeds_counts(feed).lost == 0;
         stream_check_deadline(end, "the slow connection is given up"))
        stream_check_epoch(feed, place.train.path); /* so that it always has requests */
    assert_true(feeds_counts(feed).reasked > 0);
    stream_check_epoch(feed, place.train.path);
    feed_close(feed);
    char *log = stream_capture_end();
    expect_line(log, endpoint, "with requests overdue; they are asked for elsewhere");
    free(log);
    kill(relay, SIGKILL);
    waitpid(relay, NULL, 0);
    assert_int_equal(stream_stop(&loader), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(liars_are_cut_off_by_name),
        cmocka_unit_test(dripping_bytes),
    };
    return cmocka_run_group_tests(tests, open_place, close_place);
}

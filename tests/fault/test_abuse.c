/* SPDX-License-Identifier: Apache-2.0 */
/* Trainers with a valid key that ask without end, bring ever new specs, or read nothing: the loader
 * stays within its memory, names them and cuts them off, and the trainer beside them gets every
 * bit. So it is when a trainer, or a loader, sends a message that does not end. And a spec for
 * pictures of 60,000 pixels a side. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/err.h"
#include "common/file.h"
#include "proto/keys.h"
#include "proto/sock.h"
#include "proto/spec.h"
#include "tests/fault/stream.h"
#include "tests/unit/testing.h"

enum { SAMPLES = 256, BUFFER_MIB = 128, SLACK_MIB = 200 };

static struct {
    const char *directory;
    struct stream_data train;
    char keys[TESTING_PATH_BYTES];
    struct stream_loader keyed, plain;
} place;

static const char *in_keys(const char *name)
{
    static char paths[4][2 * TESTING_PATH_BYTES];
    static int at;
    at = (at + 1) % 4;
    snprintf(paths[at], sizeof(paths[at]), "%s/%s", place.keys, name);
    return paths[at];
}

static void serve(struct stream_loader *loader, const char *const *arguments)
{
    stream_start(loader, place.directory, "tcp://127.0.0.1:*", arguments, 1, 4);
    stream_wait_ready(loader);
}

/* The keys of all sides lie in one directory, which serves as allow-list and as server keys. */
static int open_place(void **state)
{
    (void)state;
    place.directory = testing_directory();
    stream_make_data(&place.train, place.directory, "train", SAMPLES, 1, "class");
    testing_path(place.keys, place.directory, "keys");
    const char *const names[] = {"loader", "trainer", "bad0", "bad1", "bad2", "bad3"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct key_pair pair;
        if (key_pair_make(&pair) || key_pair_write(&pair, place.keys, names[i]))
            return -1;
    }
    const char *keyed[] = {place.train.entry,     "--buffer-mib", "128",      "--secret-key",
                           in_keys("loader.key"), "--allow",      place.keys, NULL};
    const char *plain[] = {place.train.entry, "--buffer-mib", "128", NULL};
    serve(&place.keyed, keyed);
    serve(&place.plain, plain);
    return 0;
}

static int close_place(void **state)
{
    (void)state;
    return stream_stop(&place.keyed) | stream_stop(&place.plain);
}

/* hostile MODE ENDPOINT SECONDS FIRST [SECOND] */
static pid_t start_hostile(const char *mode, const char *endpoint, const char *seconds,
                           const char *first, const char *second)
{
    const char *program = getenv("SATCHEL_HOSTILE");
    assert_non_null(program);
    const char *arguments[] = {"hostile", mode, endpoint, seconds, first, second, NULL};
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execv(program, (char *const *)arguments);
        _exit(127);
    }
    return pid;
}

static void assert_serves(const struct stream_loader *loader)
{
    bool keyed = loader == &place.keyed;
    const struct feed_config config = {.loaders = loader->endpoint,
                                       .run = "honest",
                                       .stall_limit_seconds = 60,
                                       .prefetch_bytes = 1,
                                       .secret_key = keyed ? in_keys("trainer.key") : NULL,
                                       .server_keys = keyed ? place.keys : NULL};
    struct feed *feed;
    if (feed_open(&feed, &config))
        fail_msg("the honest trainer: %s", err_message());
    stream_check_epoch(feed, place.train.path);
    feed_close(feed);
}

/* The most memory that the loader ever had. A sanitizer's own memory is not the loader's. */
static void assert_within_memory(const struct stream_loader *loader)
{
#ifdef __SANITIZE_ADDRESS__
    (void)loader;
#else
    char path[64], line[256];
    unsigned long kib = 0;
    snprintf(path, sizeof(path), "/proc/%d/status", (int)loader->pid);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while (fgets(line, sizeof(line), file))
        sscanf(line, "VmHWM: %lu", &kib);
    fclose(file);
    assert_in_range(kib, 1, (BUFFER_MIB + SLACK_MIB) * 1024);
#endif
}

/* Serves beside the hostile process until the loader says so of it, or (NULL) until that ends. */
static void outlast(const struct stream_loader *loader, pid_t pid, const char *says)
{
    int status;
    pid_t ended;
    do {
        assert_serves(loader);
        ended = waitpid(pid, &status, WNOHANG);
    } while (ended == 0 && !(says && stream_log_has(loader, says)));
    if (says)
        stream_await(stream_log_has(loader, says), 30);
    if (ended == 0) {
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
    }
    assert_serves(loader);
    assert_within_memory(loader);
}

static void abuse(const char *mode, const char *key, const char *says)
{
    outlast(&place.keyed,
            start_hostile(mode, place.keyed.endpoint, says ? "60" : "2", in_keys(key),
                          in_keys("loader.pub")),
            says);
}

static void asking_without_end(void **state)
{
    (void)state;
    abuse("requests", "bad0.key", "cut off (credits): more requests at once than advertised");
}

static void ever_new_specs(void **state)
{
    (void)state;
    abuse("specs", "bad1.key", "cut off (limit): more specs than a trainer has");
}

static void reading_nothing(void **state)
{
    (void)state;
    abuse("deaf", "bad2.key", NULL); /* it is cut off after a minute, which no test waits for */
}

static void a_message_without_end(void **state)
{
    (void)state;
    outlast(&place.plain, start_hostile("endless", place.plain.endpoint, "60", "0", NULL),
            "it sends a message without end");
}

/* A loader that does so beside an honest one. */
static void a_loader_without_end(void **state)
{
    (void)state;
    char endpoint[STREAM_PATH_BYTES], both[2 * STREAM_PATH_BYTES + 2];
    stream_free_endpoint(endpoint);
    snprintf(both, sizeof(both), "%s,%s", place.plain.endpoint, endpoint);
    pid_t pid = start_hostile("endless-loader", endpoint, "60", "0", NULL);
    const struct feed_config config = {.loaders = both, .stall_limit_seconds = 60};
    struct feed *feed;
    struct feed_counts counts;
    assert_int_equal(feed_open(&feed, &config), 0);
    do { /* epoch by epoch, until it was found out */
        stream_check_epoch(feed, place.train.path);
        feed_counts(&counts, feed);
    } while (counts.rejected == 0);
    feed_close(feed);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void pictures_too_large(void **state)
{
    (void)state;
    struct spec spec = stream_spec(SPEC_WIRE_FP16);
    uint8_t encoded[SPEC_ENCODED_BYTES];
    spec.size_px = 60000;
    spec.resize_short_px = 60000;
    spec_encode(encoded, &spec);
    assert_int_equal(spec_decode(&spec, encoded, sizeof(encoded)), ERR_PEER);
    assert_non_null(strstr(err_message(), "size_px"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(asking_without_end),   cmocka_unit_test(ever_new_specs),
        cmocka_unit_test(reading_nothing),      cmocka_unit_test(a_message_without_end),
        cmocka_unit_test(a_loader_without_end), cmocka_unit_test(pictures_too_large),
    };
    return cmocka_run_group_tests(tests, open_place, close_place);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* A loader that cannot start says why in one line, names the thing, and ends with the right status.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "common/err.h"
#include "common/file.h"
#include "tests/fault/stream.h"
#include "tests/unit/testing.h"

struct place {
    const char *directory;
    struct stream_data train;
    char endpoint[TESTING_PATH_BYTES];
};

static int open_place(void **state)
{
    static struct place place;
    place.directory = testing_directory();
    stream_make_data(&place.train, place.directory, "train", 20, 1, "class");
    testing_endpoint(place.endpoint, place.directory);
    *state = &place;
    return 0;
}

/* The loader with --data DATA --bind ENDPOINT EXTRA ends with this status, and its last line holds
 * both texts. */
static void expect(int status, const char *data, const char *endpoint, const char *extra,
                   const char *first, const char *second)
{
    const char *arguments[] = {"satchel-loader", "--data", data, "--bind", endpoint, extra, NULL};
    char text[4096];
    int got = stream_run(arguments, text, sizeof(text));
    size_t length = strlen(text);
    assert_true(length > 0 && text[length - 1] == '\n');
    text[length - 1] = 0;
    const char *last = strrchr(text, '\n');
    last = last ? last + 1 : text;
    if (got != status || !strstr(last, first) || !strstr(last, second))
        fail_msg("status %d, not %d, or not '%s' and '%s' in: %s", got, status, first, second,
                 text);
}

static void bad_data(void **state)
{
    struct place *place = *state;
    char text[TESTING_PATH_BYTES], data[TESTING_PATH_BYTES + 8];
    testing_path(text, place->directory, "text.lmdb");
    assert_int_equal(file_write_atomic(text, "not a store\n", 12), 0);
    snprintf(data, sizeof(data), "train=%s", text);
    expect(1, data, place->endpoint, NULL, text, "");
    expect(1, "train=/nowhere/train.lmdb", place->endpoint, NULL, "/nowhere/train.lmdb", "");
}

static void bad_arguments(void **state)
{
    struct place *place = *state;
    expect(2, "train", place->endpoint, NULL, "NAME=FILE", "");
    expect(2, "tr in=x", place->endpoint, NULL, "tr in=x", "");
    expect(2, place->train.entry, "udp://127.0.0.1:1", NULL, "udp://127.0.0.1:1", "ipc://");
    expect(2, place->train.entry, "tcp://127.0.0.1", NULL, "tcp://127.0.0.1", "");
    expect(2, place->train.entry, "tcp://127.0.0.1:99999", NULL, "port", "");
    expect(2, place->train.entry, "tcp://*:5555", NULL, "--insecure", "tcp://*:5555");
    expect(2, place->train.entry, "tcp://0.0.0.0:5555", NULL, "--insecure", "");
    expect(2, place->train.entry, place->endpoint, "--no-such-option", "--no-such-option", "");
}

static void endpoint_in_use(void **state)
{
    struct place *place = *state;
    const char *data[] = {place->train.entry, NULL};
    struct stream_loader ipc, tcp;
    stream_start(&ipc, place->directory, place->endpoint, data, 1, 0);
    stream_start(&tcp, place->directory, "tcp://127.0.0.1:*", data, 1, 0);
    stream_wait_ready(&ipc);
    stream_wait_ready(&tcp);
    expect(1, place->train.entry, place->endpoint, NULL, place->endpoint,
           "another program uses it");
    uint8_t *resolved; /* the ready file names the port that * became */
    size_t bytes;
    assert_int_equal(file_read(&resolved, &bytes, tcp.ready, 1000), 0);
    char line[1100];
    snprintf(line, sizeof(line), "listening on %s\n", (char *)resolved);
    assert_true(stream_log_has(&tcp, line));
    expect(1, place->train.entry, (char *)resolved, NULL, (char *)resolved,
           "another program uses it");
    free(resolved);
    assert_int_equal(stream_stop(&ipc), 0);
    assert_int_equal(stream_stop(&tcp), 0);
}

static void feed_arguments(void **state)
{
    (void)state;
    static const struct {
        const char *loaders;
        int code;
        const char *text;
    } cases[] = {
        {NULL, ERR_ARG, "no loader"},
        {"", ERR_ARG, "no loader"},
        {",", ERR_ARG, "no loader"},
        {"tcp://*:1", ERR_ARG, "name the host"},
        {"localhost:5555", ERR_ARG, "localhost:5555"},
        {"ipc:///a,ipc:///a", ERR_ARG, "twice"},
        {"@/nowhere/list", ERR_IO, "/nowhere/list"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct feed_config config = {.loaders = cases[i].loaders, .stall_limit_seconds = 1};
        struct feed *feed;
        assert_int_equal(feed_open(&feed, &config), cases[i].code);
        assert_non_null(strstr(err_message(), cases[i].text));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_data),
        cmocka_unit_test(bad_arguments),
        cmocka_unit_test(endpoint_in_use),
        cmocka_unit_test(feed_arguments),
    };
    return cmocka_run_group_tests(tests, open_place, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Keys: whoever lacks the right one gets no byte of any chunk, and both sides say why. With the
 * right ones the stream is the plain one, to the bit. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/err.h"
#include "common/file.h"
#include "proto/keys.h"
#include "proto/sock.h"
#include "proto/zap.h"
#include "tests/fault/stream.h"
#include "tests/unit/testing.h"

enum { SAMPLES = 128, TRUSTED = 5 };

static struct {
    const char *directory;
    struct stream_data train;
    char keys[TESTING_PATH_BYTES];
} place;

static int open_place(void **state)
{
    (void)state;
    place.directory = testing_directory();
    stream_make_data(&place.train, place.directory, "train", SAMPLES, 1, "class");
    testing_path(place.keys, place.directory, "keys");
    const char *const names[] = {"loader", "trainer", "stranger", "other"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct key_pair pair;
        if (key_pair_make(&pair) || key_pair_write(&pair, place.keys, names[i]))
            return -1;
    }
    return 0;
}

/* ---- directories of public keys ---- */

static void copy_key(const char *directory, const char *name, const char *as)
{
    char from[2 * TESTING_PATH_BYTES], to[2 * TESTING_PATH_BYTES];
    uint8_t *text;
    size_t bytes;
    snprintf(from, sizeof(from), "%s/%s.pub", place.keys, name);
    snprintf(to, sizeof(to), "%s/%s.pub", directory, as);
    assert_int_equal(file_read(&text, &bytes, from, 1000), 0);
    assert_int_equal(file_write_atomic(to, text, bytes), 0);
    free(text);
}

/* A new directory with the public key of this name; NULL: with none. */
static void make_directory(char path[TESTING_PATH_BYTES], const char *name)
{
    static int number;
    snprintf(path, TESTING_PATH_BYTES, "%s/directory%d", place.directory, number++);
    assert_int_equal(mkdir(path, 0700), 0);
    if (name)
        copy_key(path, name, name);
}

static const char *secret(const char *name)
{
    static char paths[4][2 * TESTING_PATH_BYTES];
    static int at;
    at = (at + 1) % 4;
    snprintf(paths[at], sizeof(paths[at]), "%s/%s.key", place.keys, name);
    return paths[at];
}

/* ---- a loader ---- */

struct served {
    struct stream_loader loader;
    char metrics[TESTING_PATH_BYTES];
};

/* allow NULL: plain text. */
static void serve(struct served *served, const char *allow)
{
    static int number;
    char name[32];
    snprintf(name, sizeof(name), "metrics%d", number++);
    testing_path(served->metrics, place.directory, name);
    const char *data[] = {
        place.train.entry, "--metrics-file", served->metrics, allow ? "--secret-key" : NULL,
        secret("loader"),  "--allow",        allow,           NULL};
    stream_start(&served->loader, place.directory, "tcp://127.0.0.1:*", data, 1, 0);
    stream_wait_ready(&served->loader);
}

/* Makes a list that allows one key or none, and one of server keys that knows one; serves. */
static void serve_pair(struct served *served, char allow[TESTING_PATH_BYTES],
                       char servers[TESTING_PATH_BYTES], const char *allowed, const char *known)
{
    make_directory(allow, allowed);
    make_directory(servers, known);
    serve(served, allow);
}

static unsigned long long sent_bytes(const struct served *served)
{
    uint8_t *text;
    size_t bytes;
    assert_int_equal(file_read(&text, &bytes, served->metrics, 1 << 16), 0);
    const char *line = strstr((const char *)text, "\nsatchel_loader_sent_bytes_total ");
    unsigned long long count = 0;
    assert_non_null(line);
    assert_int_equal(sscanf(line, " satchel_loader_sent_bytes_total %llu", &count), 1);
    free(text);
    return count;
}

/* Stops it; it has sent something or nothing, and its log says so. */
static void end(struct served *served, bool sent, const char *says)
{
    assert_int_equal(stream_stop(&served->loader), 0);
    if (sent != (sent_bytes(served) > 0))
        fail_msg("%llu bytes of chunks went out", sent_bytes(served));
    if (says && !stream_log_has(&served->loader, says))
        fail_msg("the loader did not say: %s", says);
}

/* ---- a trainer ---- */

static int try_feed(struct feed **feed, const char *endpoint, const char *key, const char *servers)
{
    const struct feed_config config = {.loaders = endpoint,
                                       .run = "test",
                                       .stall_limit_seconds = 30,
                                       .prefetch_bytes = 1,
                                       .secret_key = key,
                                       .server_keys = servers};
    return feed_open(feed, &config);
}

static void expect_refusal(const char *endpoint, const char *key, const char *servers,
                           const char *says)
{
    struct feed *feed;
    int code = try_feed(&feed, endpoint, key, servers);
    if (code != ERR_PEER || !strstr(err_message(), says) || !strstr(err_message(), endpoint))
        fail_msg("code %d, not '%s': %s", code, says, err_message());
}

static void expect_stream(const char *endpoint, const char *key, const char *servers)
{
    struct feed *feed;
    if (try_feed(&feed, endpoint, key, servers))
        fail_msg("not let in: %s", err_message());
    stream_check_epoch(feed, place.train.path);
    feed_close(feed);
}

/* ---- the table ---- */

static void the_right_keys(void **state)
{
    (void)state;
    struct served served;
    char allow[TESTING_PATH_BYTES], servers[TESTING_PATH_BYTES];
    serve_pair(&served, allow, servers, "trainer", "loader");
    expect_stream(served.loader.endpoint, secret("trainer"), servers);
    end(&served, true, "with key trainer at 127.0.0.1");
}

static void the_right_key_among_others(void **state)
{
    (void)state;
    struct served served;
    char allow[TESTING_PATH_BYTES], servers[TESTING_PATH_BYTES], name[32];
    make_directory(allow, "trainer");
    make_directory(servers, NULL);
    for (int i = 0; i < TRUSTED; i++) {
        struct key_pair pair;
        snprintf(name, sizeof(name), "trusted%d", i);
        assert_int_equal(key_pair_make(&pair), 0);
        assert_int_equal(key_pair_write(&pair, place.keys, name), 0);
        copy_key(servers, name, name);
    }
    copy_key(servers, "loader", "zz-the-last");
    serve(&served, allow);
    expect_stream(served.loader.endpoint, secret("trainer"), servers);
    /* A file named after the host pins: now no other key will do. */
    copy_key(servers, "other", "127.0.0.1");
    expect_refusal(served.loader.endpoint, secret("trainer"), servers, "127.0.0.1.pub");
    copy_key(servers, "loader",
             strrchr(served.loader.endpoint, '/') + 1); /* HOST:PORT is nearer still */
    expect_stream(served.loader.endpoint, secret("trainer"), servers);
    end(&served, true, NULL);
}

static void no_key(void **state)
{
    (void)state;
    struct served served;
    char allow[TESTING_PATH_BYTES];
    make_directory(allow, "trainer");
    serve(&served, allow);
    expect_refusal(served.loader.endpoint, NULL, NULL, "it wants keys");
    stream_await(stream_log_has(&served.loader, "turned away a connection"), 30);
    end(&served, false, NULL);
}

static void keys_against_plain(void **state)
{
    (void)state;
    struct served served;
    char servers[TESTING_PATH_BYTES];
    make_directory(servers, "loader");
    serve(&served, NULL);
    expect_refusal(served.loader.endpoint, secret("trainer"), servers, "it does not use keys");
    stream_await(stream_log_has(&served.loader, "turned away a connection"), 30);
    end(&served, false, NULL);
}

static void wrong_trainer_key(void **state)
{
    (void)state;
    struct served served;
    char allow[TESTING_PATH_BYTES], servers[TESTING_PATH_BYTES];
    serve_pair(&served, allow, servers, "trainer", "loader");
    expect_refusal(served.loader.endpoint, secret("stranger"), servers,
                   "does not allow this trainer's key");
    char text[KEY_TEXT_BYTES], line[200];
    struct key_pair stranger;
    assert_int_equal(key_pair_read(&stranger, secret("stranger")), 0);
    key_to_text(text, &stranger.public_key);
    assert_non_null(strstr(err_message(), text) ? text : NULL);
    snprintf(line, sizeof(line), "its key %s is not on the allow-list", text);
    end(&served, false, line);
}

static void wrong_loader_key(void **state)
{
    (void)state;
    struct served served;
    char allow[TESTING_PATH_BYTES], servers[TESTING_PATH_BYTES];
    serve_pair(&served, allow, servers, "trainer", "other");
    expect_refusal(served.loader.endpoint, secret("trainer"), servers, "none of the 1 keys");
    stream_await(stream_log_has(&served.loader, "it takes this loader for one with another key"),
                 30);
    end(&served, false, NULL);
}

static void nobody_is_allowed(void **state)
{
    (void)state;
    struct served served;
    char allow[TESTING_PATH_BYTES], servers[TESTING_PATH_BYTES];
    serve_pair(&served, allow, servers, NULL, "loader");
    assert_true(stream_log_has(&served.loader, "holds no key"));
    expect_refusal(served.loader.endpoint, secret("trainer"), servers,
                   "does not allow this trainer's key");
    /* Once a key is there and the list is read again, its owner is let in. */
    copy_key(allow, "trainer", "trainer");
    assert_int_equal(kill(served.loader.pid, SIGHUP), 0);
    stream_await(stream_log_has(&served.loader, "1 trainer key is allowed"), 30);
    expect_stream(served.loader.endpoint, secret("trainer"), servers);
    end(&served, true, NULL);
}

static void revoked_while_it_pulls(void **state)
{
    (void)state;
    struct served served;
    char allow[TESTING_PATH_BYTES], servers[TESTING_PATH_BYTES], path[2 * TESTING_PATH_BYTES];
    make_directory(allow, "trainer");
    copy_key(allow, "other", "other");
    make_directory(servers, "loader");
    serve(&served, allow);
    struct feed *feed, *beside;
    assert_int_equal(try_feed(&feed, served.loader.endpoint, secret("trainer"), servers), 0);
    assert_int_equal(try_feed(&beside, served.loader.endpoint, secret("other"), servers), 0);
    struct spec spec = stream_spec(SPEC_WIRE_FP16);
    const struct feed_range range = stream_range(feed, &spec, 0);
    struct hash128 receipt = {0, 0};
    assert_int_equal(feed_push(feed, &range), 0);
    stream_pull(feed, 1, &receipt);
    snprintf(path, sizeof(path), "%s/trainer.pub", allow);
    assert_int_equal(unlink(path), 0);
    snprintf(path, sizeof(path), "%s/broken.pub", allow); /* must not keep the old list alive */
    assert_int_equal(file_write_atomic(path, "?", 1), 0);
    assert_int_equal(kill(served.loader.pid, SIGHUP), 0);
    stream_await(stream_log_has(&served.loader, "taken off the allow-list"), 30);
    assert_true(stream_log_has(&served.loader, "broken.pub"));
    struct feed_batch batch;
    int code;
    do { /* what had arrived before is still there */
        assert_int_equal(feed_push(feed, &range), 0);
        while ((code = feed_pop(&batch, feed)) == 0)
            feed_release(feed, &batch);
    } while (code == ERR_ARG);
    assert_int_equal(code, ERR_PEER);
    assert_non_null(strstr(err_message(), "taken off the allow-list"));
    feed_close(feed);
    expect_refusal(served.loader.endpoint, secret("trainer"), servers,
                   "does not allow this trainer's key");
    /* Its neighbour never noticed. */
    receipt = (struct hash128){0, 0};
    assert_int_equal(feed_push(beside, &range), 0);
    stream_pull(beside, feed_range_batches(beside, &range), &receipt);
    stream_assert_equal(receipt, stream_offline_receipt(place.train.path, &spec, 0));
    feed_close(beside);
    end(&served, true, NULL);
}

/* ---- what does not even start ---- */

/* A loader with these keys ends with this status and says so. */
static void expect_no_start(const char *key, const char *allow, int status, const char *says)
{
    const char *arguments[] = {"satchel-loader",
                               "--data",
                               place.train.entry,
                               "--bind",
                               "tcp://0.0.0.0:*",
                               NULL,
                               NULL,
                               NULL,
                               NULL,
                               NULL};
    int count = 5;
    if (key) {
        arguments[count++] = "--secret-key";
        arguments[count++] = key;
    }
    if (allow) {
        arguments[count++] = "--allow";
        arguments[count++] = allow;
    }
    char text[4096];
    int got = stream_run(arguments, text, sizeof(text));
    if (got != status || !strstr(text, says))
        fail_msg("status %d, not %d, or not '%s' in: %s", got, status, says, text);
}

static void expect_no_feed(const char *key, const char *servers, int code, const char *says)
{
    struct feed *feed;
    int got = try_feed(&feed, "ipc:///nowhere", key, servers);
    if (got != code || !strstr(err_message(), says))
        fail_msg("code %d, not %d, or not '%s' in: %s", got, code, says, err_message());
}

static void bad_key_files(void **state)
{
    (void)state;
    char good[TESTING_PATH_BYTES], empty[TESTING_PATH_BYTES], bad[TESTING_PATH_BYTES];
    char open_key[TESTING_PATH_BYTES], garbage[TESTING_PATH_BYTES], path[2 * TESTING_PATH_BYTES];
    uint8_t *text;
    size_t bytes;
    make_directory(good, "loader");
    make_directory(empty, NULL);
    make_directory(bad, "loader");
    snprintf(path, sizeof(path), "%s/bad.pub", bad);
    assert_int_equal(file_write_atomic(path, "no key", 6), 0);
    testing_path(open_key, place.directory, "open.key");
    assert_int_equal(file_read(&text, &bytes, secret("loader"), 1000), 0);
    assert_int_equal(file_write_atomic(open_key, text, bytes), 0);
    free(text);
    assert_int_equal(chmod(open_key, 0644), 0);
    testing_path(garbage, place.directory, "garbage.key");
    assert_int_equal(file_write_atomic(garbage, "garbage", 7), 0);
    assert_int_equal(chmod(garbage, 0600), 0);

    expect_no_start(open_key, good, 1, "open.key' has mode 0644");
    expect_no_start(garbage, good, 1, "garbage.key' is no key file");
    expect_no_start("/nowhere.key", good, 1, "/nowhere.key");
    expect_no_start(secret("loader"), "/nowhere", 1, "/nowhere");
    expect_no_start(secret("loader"), bad, 1, "bad.pub");
    expect_no_start(secret("loader"), NULL, 2, "--allow DIR");
    expect_no_start(NULL, good, 2, "--secret-key FILE");
    expect_no_start(NULL, NULL, 2, "--insecure");

    expect_no_feed(open_key, good, ERR_DATA, "open.key' has mode 0644");
    expect_no_feed(garbage, good, ERR_DATA, "garbage.key' is no key file");
    expect_no_feed("/nowhere.key", good, ERR_IO, "/nowhere.key");
    expect_no_feed(secret("trainer"), "/nowhere", ERR_IO, "/nowhere");
    expect_no_feed(secret("trainer"), bad, ERR_DATA, "bad.pub");
    expect_no_feed(secret("trainer"), empty, ERR_DATA, "there is no key");
    expect_no_feed(secret("trainer"), NULL, ERR_ARG, "--server-keys DIR");
    expect_no_feed(NULL, good, ERR_ARG, "--secret-key FILE");
}

/* ZeroMQ would let everybody in. */
static void no_handler_no_socket(void **state)
{
    (void)state;
    struct sock_context *context;
    struct sock *sock;
    struct key_pair pair;
    struct key_list nobody = {0};
    struct zap *zap;
    assert_int_equal(key_pair_make(&pair), 0);
    assert_int_equal(sock_context_open(&context, 1), 0);
    assert_int_equal(sock_bind(&sock, context, "tcp://127.0.0.1:*", 4, &pair), ERR_INTERNAL);
    assert_int_equal(zap_open(&zap, context, &nobody), 0);
    assert_int_equal(sock_bind(&sock, context, "tcp://127.0.0.1:*", 4, &pair), 0);
    sock_close(sock, 0);
    zap_close(zap);
    assert_int_equal(sock_bind(&sock, context, "tcp://127.0.0.1:*", 4, &pair), ERR_INTERNAL);
    sock_context_close(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_right_keys),
        cmocka_unit_test(the_right_key_among_others),
        cmocka_unit_test(no_key),
        cmocka_unit_test(keys_against_plain),
        cmocka_unit_test(wrong_trainer_key),
        cmocka_unit_test(wrong_loader_key),
        cmocka_unit_test(nobody_is_allowed),
        cmocka_unit_test(revoked_while_it_pulls),
        cmocka_unit_test(bad_key_files),
        cmocka_unit_test(no_handler_no_socket),
    };
    return cmocka_run_group_tests(tests, open_place, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* A store that is touched under a loader that serves it: the loader names it and ends with status
 * 1, and what the trainer gets in the whole epoch is right to the last bit. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/err.h"
#include "common/file.h"
#include "tests/fault/stream.h"
#include "tests/unit/testing.h"

/* LARGE_PX: records that are worth a read of their own. */
enum { SAMPLES = 400, LARGE_PX = 144, ROOM = 2 * TESTING_PATH_BYTES };

static void start(struct stream_loader *loader, const char *directory, const char *store,
                  const char *page_cache_mib)
{
    char endpoint[TESTING_PATH_BYTES], data[TESTING_PATH_BYTES + 8];
    const char *stores[] = {
        data, "--page-cache-mib", page_cache_mib, "--metrics-file", "/no/such/folder", NULL};
    snprintf(data, sizeof(data), "train=%.500s", store);
    testing_endpoint(endpoint, directory);
    stream_start(loader, directory, endpoint, stores, 2, 2);
    stream_wait_ready(loader);
}

static void cut(const char *path)
{
    assert_int_equal(truncate(path, 8192), 0);
}

/* Another store's bytes in the same file, as cp leaves them. */
static void overwrite(const char *path)
{
    char other[TESTING_PATH_BYTES];
    uint8_t *data;
    size_t bytes;
    stream_make_store(testing_path(other, testing_directory(), "o.lmdb"), SAMPLES, 2, "class");
    assert_int_equal(file_read(&data, &bytes, other, 64 << 20), 0);
    FILE *file = fopen(path, "r+");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
    free(data);
}

static void replace(const char *path)
{
    char other[TESTING_PATH_BYTES + 8];
    snprintf(other, sizeof(other), "%s.new", path);
    stream_make_store(other, SAMPLES, 2, "class");
    assert_int_equal(rename(other, path), 0);
}

/* Half an epoch from two loaders, each with a store of its own but equal; then one is touched. */
static void touch_in_mid_epoch(void (*touch)(const char *path), uint32_t size_px,
                               const char *page_cache_mib)
{
    const char *directory = testing_directory();
    char stores[2][TESTING_PATH_BYTES], both[ROOM];
    struct stream_loader loaders[2];
    for (int i = 0; i < 2; i++) {
        testing_path(stores[i], directory, i ? "b.lmdb" : "a.lmdb");
        stream_make_store_of(stores[i], SAMPLES, size_px, 1, "class");
        start(&loaders[i], directory, stores[i], i ? "-1" : page_cache_mib);
    }
    snprintf(both, sizeof(both), "%.500s,%.500s", loaders[0].endpoint, loaders[1].endpoint);
    struct feed *feed = stream_feed(both, 60);
    struct spec spec = stream_spec(SPEC_WIRE_FP16);
    const struct feed_range range = stream_range(feed, &spec, 0);
    uint64_t batches = feed_range_batches(feed, &range);
    struct hash128 receipt = {0, 0};
    assert_int_equal(feed_push(feed, &range), 0);
    stream_pull(feed, batches / 2, &receipt);
    touch(stores[0]);
    stream_pull(feed, batches - batches / 2, &receipt);
    stream_assert_equal(receipt, stream_offline_receipt(stores[1], &spec, 0));
    int status = 0;
    stream_await(waitpid(loaders[0].pid, &status, WNOHANG) == loaders[0].pid, 30);
    if (WIFSIGNALED(status))
        fail_msg("signal %d", WTERMSIG(status));
    assert_int_equal(WEXITSTATUS(status), 1);
    assert_true(stream_log_has(&loaders[0], stores[0]));
    assert_true(stream_log_has(&loaders[0], "while in use")); /* not that there are no metrics */
    feed_close(feed);
    assert_int_equal(stream_stop(&loaders[1]), 0);
}

static void cut_store(void **state)
{
    (void)state;
    touch_in_mid_epoch(cut, STREAM_SIZE_PX, "-1");
}

static void overwritten_store(void **state)
{
    (void)state;
    touch_in_mid_epoch(overwrite, STREAM_SIZE_PX, "-1");
}

static void replaced_store(void **state)
{
    (void)state;
    touch_in_mid_epoch(replace, STREAM_SIZE_PX, "-1");
}

/* The same where records are read past the page cache. */
static void cut_large(void **state)
{
    (void)state;
    touch_in_mid_epoch(cut, LARGE_PX, "0");
}

static void overwritten_large(void **state)
{
    (void)state;
    touch_in_mid_epoch(overwrite, LARGE_PX, "0");
}

/* Of a store larger than what the page cache may hold, every bit is served as of any other. */
static void beyond_the_page_cache(void **state)
{
    (void)state;
    const char *directory = testing_directory();
    char store[TESTING_PATH_BYTES];
    stream_make_store_of(testing_path(store, directory, "a.lmdb"), SAMPLES, LARGE_PX, 1, "class");
    for (int mib = 0; mib <= 12; mib += 4) { /* the store has nearly 10 */
        char text[8];
        struct stream_loader loader;
        snprintf(text, sizeof text, "%d", mib);
        start(&loader, directory, store, text);
        assert_int_equal(stream_log_has(&loader, "is read past it"), mib < 12);
        struct feed *feed = stream_feed(loader.endpoint, 60);
        stream_check_epoch(feed, store);
        feed_close(feed);
        assert_int_equal(stream_stop(&loader), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cut_store),         cmocka_unit_test(overwritten_store),
        cmocka_unit_test(replaced_store),    cmocka_unit_test(cut_large),
        cmocka_unit_test(overwritten_large), cmocka_unit_test(beyond_the_page_cache),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

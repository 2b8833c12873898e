/* SPDX-License-Identifier: Apache-2.0 */
/* Windows: what is read past the page cache is what the map has, whatever the list, the sizes of
 * the records and the part that the page cache keeps; and damage is named as it is there. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "common/err.h"
#include "datasets/ahead.h"
#include "datasets/fault.h"
#include "datasets/store_parts.h"
#include "tests/unit/testing.h"

enum { SAMPLES = 120, IMAGE_BYTES_MAX = 3 << 19, LIST_MAX = 300, WINDOWS = 3 };

/* Small ones, some around the least size that is read directly, and some larger than a window. */
static size_t size_of(uint32_t i)
{
    uint64_t state = i + 1;
    uint64_t any = testing_random(&state);
    switch (i % 6) {
    case 0:
        return 1 + any % 1000;
    case 1:
        return 16384 - 300 + any % 600;
    case 2:
        return i % 5 ? 300000 : IMAGE_BYTES_MAX - any % 4096;
    default:
        return 1 + any % 200000;
    }
}

static void make_store(const char *path)
{
    static uint8_t image[IMAGE_BYTES_MAX];
    struct store_writer *writer;
    uint64_t state = 3;
    assert_int_equal(store_writer_open(&writer, path, 7), 0);
    for (uint32_t i = 0; i < SAMPLES; i++) {
        for (size_t b = 0; b < sizeof image; b += 64)
            image[b] = (uint8_t)testing_random(&state);
        const struct store_sample sample = {.label = 0,
                                            .width = 1 + i,
                                            .height = 1,
                                            .channels = 3,
                                            .encoding = STORE_JPEG,
                                            .image = image,
                                            .image_bytes = size_of(i)};
        assert_int_equal(store_writer_add(writer, &sample), 0);
    }
    const char *const class_ids[] = {"n01"};
    const struct store_meta meta = {
        .class_count = 1, .class_ids = class_ids, .channels = 3, .encoding = STORE_JPEG};
    assert_int_equal(store_writer_publish(writer, &meta, NULL), 0);
}

/* A store of which nothing but `cached` bytes goes through the page cache. Where the file system
 * has no such reads, everything below still holds. */
static struct store *open_limited(const char *path, uint64_t cached)
{
    struct store *store;
    assert_int_equal(store_open(&store, path), 0);
    int code = store_limit_cache(store, cached);
    assert_true(code == 0 || code == ERR_IO);
    assert_int_equal(store_direct_fd(store) >= 0, code == 0);
    return store;
}

static void check(struct ahead *ahead, const struct store *store, uint32_t id)
{
    struct store_record got, wanted;
    assert_int_equal(ahead_read(&got, ahead, id), 0);
    assert_int_equal(store_read(&wanted, store, id), 0);
    assert_int_equal(got.id, id);
    assert_int_equal(got.width, wanted.width);
    assert_int_equal(got.image_bytes, wanted.image_bytes);
    assert_memory_equal(got.image, wanted.image, wanted.image_bytes + STORE_PADDING_BYTES);
    if (got.image_bytes >= 4096)
        assert_int_equal((uintptr_t)got.image % 64, 0);
}

static void test_equal(void **state)
{
    (void)state;
    char path[TESTING_PATH_BYTES];
    uint64_t seed = testing_seed();
    struct aheads *aheads;
    make_store(testing_path(path, testing_directory(), "a.lmdb"));
    assert_int_equal(aheads_open(&aheads, WINDOWS), 0);
    for (int round = 0; round < 60; round++) {
        uint64_t cached = round % 3 ? testing_random(&seed) % 12000000 : 0;
        struct store *store = open_limited(path, cached);
        struct ahead *ahead = ahead_take(aheads);
        uint32_t ids[LIST_MAX];
        size_t count = testing_random(&seed) % LIST_MAX, read = testing_random(&seed) % LIST_MAX;
        for (size_t i = 0; i < count; i++)
            ids[i] = (uint32_t)(testing_random(&seed) % SAMPLES);
        ahead_begin(ahead, store, ids, count);
        for (size_t i = 0; i < count && i < read; i++) {
            if (testing_random(&seed) % 20 == 0) /* one that stands in for another */
                check(ahead, store, (uint32_t)(testing_random(&seed) % SAMPLES));
            check(ahead, store, ids[i]);
        }
        ahead_give(ahead); /* with reads under way, often */
        store_close(store);
    }
    assert_int_equal(aheads_free(aheads), WINDOWS);
    aheads_close(aheads);
}

/* What the page cache does not keep is indeed not read through the map. */
static void test_direct(void **state)
{
    (void)state;
    char path[TESTING_PATH_BYTES];
    make_store(testing_path(path, testing_directory(), "a.lmdb"));
    struct store *store = open_limited(path, 4000000);
    unsigned direct = 0;
    for (uint32_t id = 0; id < SAMPLES && store_direct_fd(store) >= 0; id++) {
        struct store_place place;
        assert_int_equal(store_locate(&place, store, id), 0);
        assert_int_equal(place.direct, place.offset >= 4000000 && place.bytes >= 16384);
        direct += place.direct;
    }
    assert_true(store_direct_fd(store) < 0 || direct > SAMPLES / 4);
    store_close(store);
}

static void test_windows(void **state)
{
    (void)state;
    struct aheads *aheads;
    struct ahead *taken[WINDOWS];
    assert_int_equal(aheads_open(&aheads, WINDOWS), 0);
    for (unsigned i = 0; i < WINDOWS; i++) {
        assert_int_equal(aheads_free(aheads), WINDOWS - i);
        assert_non_null(taken[i] = ahead_take(aheads));
    }
    assert_null(ahead_take(aheads));
    ahead_give(NULL);
    char path[TESTING_PATH_BYTES];
    struct store_record record;
    make_store(testing_path(path, testing_directory(), "a.lmdb"));
    struct store *store = open_limited(path, 0);
    const uint32_t ids[] = {3, SAMPLES, 4, UINT32_MAX, 5};
    ahead_begin(taken[0], store, ids, 5);
    check(taken[0], store, 3);
    assert_int_equal(ahead_read(&record, taken[0], SAMPLES), ERR_ARG);
    check(taken[0], store, 4);
    assert_int_equal(ahead_read(&record, taken[0], UINT32_MAX), ERR_ARG);
    check(taken[0], store, 5);
    check(taken[0], store, 6); /* behind the list's end */
    for (unsigned i = 0; i < WINDOWS; i++)
        ahead_give(taken[i]);
    store_close(store);
    aheads_close(aheads);
}

static uint64_t place_of(const struct store *store, uint32_t id)
{
    struct store_place place;
    assert_int_equal(store_locate(&place, store, id), 0);
    return place.offset;
}

static void test_damage(void **state)
{
    (void)state;
    enum { BENT = 63 };
    char path[TESTING_PATH_BYTES], byte;
    struct aheads *aheads;
    make_store(testing_path(path, testing_directory(), "a.lmdb"));
    struct store *store = open_limited(path, 0);
    off_t at = (off_t)(place_of(store, BENT) + 1000);
    assert_true(size_of(BENT) > 16384);
    store_close(store);
    int fd = open(path, O_RDWR);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 1;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
    store = open_limited(path, 0);
    assert_int_equal(aheads_open(&aheads, 1), 0);
    struct ahead *ahead = ahead_take(aheads);
    const uint32_t ids[] = {BENT - 1, BENT, BENT + 1};
    struct store_record record;
    ahead_begin(ahead, store, ids, 3);
    check(ahead, store, BENT - 1);
    assert_int_equal(ahead_read(&record, ahead, BENT), ERR_DATA);
    assert_non_null(strstr(err_message(), path));
    assert_non_null(strstr(err_message(), "record 63 (class n01): checksum"));
    check(ahead, store, BENT + 1);
    ahead_give(ahead);
    aheads_close(aheads);
    store_close(store);
}

/* A store that is cut while its records are read ends the process by name. */
static void test_cut(void **state)
{
    (void)state;
    char path[TESTING_PATH_BYTES], text[1024] = "";
    int pipes[2], status;
    make_store(testing_path(path, testing_directory(), "a.lmdb"));
    assert_int_equal(pipe(pipes), 0);
    pid_t child = fork();
    if (child == 0) {
        struct aheads *aheads;
        struct store_record record;
        uint32_t ids[SAMPLES];
        dup2(pipes[1], STDERR_FILENO);
        fault_install();
        struct store *store = open_limited(path, 0);
        for (uint32_t i = 0; i < SAMPLES; i++)
            ids[i] = i;
        if (aheads_open(&aheads, 1) != 0 || truncate(path, (off_t)place_of(store, 70)) != 0)
            _exit(90);
        struct ahead *ahead = ahead_take(aheads);
        ahead_begin(ahead, store, ids, SAMPLES);
        for (uint32_t i = 0; i < SAMPLES; i++)
            if (ahead_read(&record, ahead, i) != 0)
                _exit(91);
        _exit(92);
    }
    close(pipes[1]);
    FILE *report = fdopen(pipes[0], "r");
    assert_non_null(report);
    size_t bytes = fread(text, 1, sizeof text - 1, report); /* the handler writes it in parts */
    text[bytes] = '\0';
    fclose(report);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1);
    assert_non_null(strstr(text, path));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal),   cmocka_unit_test(test_direct),
        cmocka_unit_test(test_windows), cmocka_unit_test(test_damage),
        cmocka_unit_test(test_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The store: what was written comes back from any thread; whatever is damaged is refused by name
 * and never takes the program down. */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "common/bytes.h"
#include "common/err.h"
#include "datasets/fault.h"
#include "datasets/file_system.h"
#include "datasets/record.h"
#include "datasets/store.h"
#include "tests/unit/testing.h"

enum { CLASSES = 3, SAMPLES = 400, IMAGE_BYTES_MAX = 20000 };

static const char *const class_ids[CLASSES] = {"n01", "n02", "n03"};
static const char *const class_names[CLASSES] = {"tench", "", "h\xc3\xa9ron"};

/* Sample i's image: its size and bytes follow from i alone. */
static size_t image_of(uint8_t *dst, uint32_t i)
{
    uint64_t state = i + 1;
    size_t bytes = 1 + testing_random(&state) % (i % 2 ? IMAGE_BYTES_MAX : 500);
    for (size_t b = 0; b < bytes; b++)
        dst[b] = (uint8_t)testing_random(&state);
    return bytes;
}

static uint32_t label_of(uint32_t i)
{
    return i * CLASSES / SAMPLES;
}

static struct store_meta meta_of(void)
{
    return (struct store_meta){.class_count = CLASSES,
                               .class_ids = class_ids,
                               .class_names = class_names,
                               .channels = 3,
                               .encoding = STORE_JPEG,
                               .split = "train",
                               .packed_by = "test"};
}

static void add_samples(struct store_writer *writer, uint32_t count)
{
    uint8_t image[IMAGE_BYTES_MAX], index[30] = {7, 8, 9};
    for (uint32_t i = 0; i < count; i++) {
        struct store_sample sample = {.label = label_of(i),
                                      .width = 100 + i,
                                      .height = 65535 - i,
                                      .channels = 3,
                                      .encoding = STORE_JPEG,
                                      .image = image,
                                      .image_bytes = image_of(image, i),
                                      .index = i % 3 ? NULL : index,
                                      .index_bytes = i % 3 ? 0 : sizeof index};
        assert_int_equal(store_writer_add(writer, &sample), 0);
    }
}

static struct hash128 write_store(const char *path, uint64_t tag)
{
    struct store_writer *writer;
    struct store_meta meta = meta_of();
    struct hash128 fingerprint;
    assert_int_equal(store_writer_open(&writer, path, tag), 0);
    add_samples(writer, SAMPLES);
    assert_int_equal(store_writer_publish(writer, &meta, &fingerprint), 0);
    return fingerprint;
}

static void check_sample(const struct store *store, uint32_t i)
{
    uint8_t image[IMAGE_BYTES_MAX];
    struct store_record record;
    size_t bytes = image_of(image, i);
    assert_int_equal(store_read(&record, store, i), 0);
    assert_int_equal(record.id, i);
    assert_int_equal(record.label, label_of(i));
    assert_int_equal(record.width, 100 + i);
    assert_int_equal(record.height, 65535 - i);
    assert_int_equal(record.channels, 3);
    assert_int_equal(record.encoding, STORE_JPEG);
    assert_int_equal(record.image_bytes, bytes);
    assert_memory_equal(record.image, image, bytes);
    assert_int_equal(record.index_bytes, i % 3 ? 0 : 30);
    assert_true(i % 3 ? record.index == NULL : record.index[2] == 9);
    const volatile uint8_t *behind = record.image + bytes + record.index_bytes;
    for (int b = 0; b < STORE_PADDING_BYTES; b++)
        assert_int_equal(behind[b], 0);
}

static void test_round_trip(void **state)
{
    (void)state;
    char path[TESTING_PATH_BYTES], alias[TESTING_PATH_BYTES];
    const char *directory = testing_directory();
    testing_path(path, directory, "a.lmdb");
    testing_path(alias, directory, "b.lmdb");
    struct hash128 fingerprint = write_store(path, 5);
    struct store *store, *same;
    assert_int_equal(store_open(&store, path), 0);
    assert_int_equal(symlink(path, alias), 0);
    assert_int_equal(store_open(&same, alias), 0);
    assert_ptr_equal(store, same);
    store_close(same);
    const struct store_meta *meta = store_meta(store);
    assert_int_equal(meta->sample_count, SAMPLES);
    assert_int_equal(meta->class_count, CLASSES);
    assert_int_equal(meta->indexed, (SAMPLES + 2) / 3);
    assert_true(hash128_equal(meta->fingerprint, fingerprint));
    assert_string_equal(meta->class_ids[2], "n03");
    assert_string_equal(meta->class_names[2], "h\xc3\xa9ron");
    assert_string_equal(meta->split, "train");
    assert_string_equal(meta->packed_by, "test");
    uint32_t ids[] = {0, 7, SAMPLES - 1, SAMPLES, UINT32_MAX};
    store_announce(store, ids, 5);
    for (uint32_t i = 0; i < SAMPLES; i++)
        check_sample(store, i);
    struct store_record record;
    assert_int_equal(store_read(&record, store, SAMPLES), ERR_ARG);
    assert_int_equal(store_read(&record, store, UINT32_MAX), ERR_ARG);
    store_close(store);
    assert_int_equal(access(alias, F_OK), 0);
    strcat(path, ".partial");
    assert_int_equal(access(path, F_OK), -1);
}

/* The definition in store.h, written out once more. */
static void test_fingerprint(void **state)
{
    (void)state;
    char path[TESTING_PATH_BYTES];
    testing_path(path, testing_directory(), "a.lmdb");
    struct hash128 fingerprint = write_store(path, 1);
    struct hash_stream *stream = hash_stream_open();
    const uint8_t head[] = {SAMPLES & 255, SAMPLES >> 8, 0, 0, CLASSES, 0, 0, 0};
    hash_stream_add(stream, head, sizeof head);
    for (int i = 0; i < CLASSES; i++) {
        hash_stream_add(stream, (const uint8_t[]){3, 0, 0, 0}, 4);
        hash_stream_add(stream, class_ids[i], 3);
    }
    for (uint32_t i = 0; i < SAMPLES; i++) {
        uint8_t image[IMAGE_BYTES_MAX], digest[16];
        hash128_to_bytes(digest, hash128_of(image, image_of(image, i)));
        hash_stream_add(stream, (const uint8_t[]){(uint8_t)label_of(i), 0, 0, 0, STORE_JPEG}, 5);
        hash_stream_add(stream, digest, 16);
    }
    assert_true(hash128_equal(fingerprint, hash_stream_end(stream)));
    hash_stream_close(stream);
}

struct reader {
    pthread_t thread;
    const struct store *store;
    uint64_t seed;
    int wrong;
};

static void *read_many(void *argument)
{
    struct reader *reader = argument;
    uint8_t image[IMAGE_BYTES_MAX];
    for (int i = 0; i < 2000; i++) {
        uint32_t id = (uint32_t)(testing_random(&reader->seed) % SAMPLES);
        struct store_record record;
        size_t bytes = image_of(image, id);
        reader->wrong += store_read(&record, reader->store, id) != 0 ||
                         record.image_bytes != bytes || memcmp(record.image, image, bytes) != 0;
    }
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    enum { THREADS = 8 };
    char path[TESTING_PATH_BYTES];
    struct reader readers[THREADS];
    struct store *store;
    write_store(testing_path(path, testing_directory(), "a.lmdb"), 1);
    assert_int_equal(store_open(&store, path), 0);
    for (int i = 0; i < THREADS; i++) {
        readers[i] = (struct reader){.store = store, .seed = testing_seed() + (uint64_t)i};
        assert_int_equal(pthread_create(&readers[i].thread, NULL, read_many, &readers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(readers[i].thread, NULL);
        assert_int_equal(readers[i].wrong, 0);
    }
    store_close(store);
}

static uint8_t *slurp(const char *path, size_t *bytes)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    struct stat status;
    fstat(fileno(file), &status);
    uint8_t *data = malloc((size_t)status.st_size);
    assert_int_equal(fread(data, 1, (size_t)status.st_size, file), status.st_size);
    fclose(file);
    *bytes = (size_t)status.st_size;
    return data;
}

static void spew(const char *path, const void *data, size_t bytes)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    fclose(file);
}

static void expect_refused(const char *path, int code, const char *word)
{
    struct store *store;
    int got = store_open(&store, path);
    if (got != code || !strstr(err_message(), word) || !strstr(err_message(), path))
        fail_msg("code %d, message: %s", got, err_message());
}

static void test_refuses_at_open(void **state)
{
    (void)state;
    const char *directory = testing_directory();
    char path[TESTING_PATH_BYTES], bad[TESTING_PATH_BYTES];
    size_t bytes;
    write_store(testing_path(path, directory, "a.lmdb"), 1);
    uint8_t *data = slurp(path, &bytes);
    testing_path(bad, directory, "bad.lmdb");
    expect_refused(bad, ERR_IO, "No such file");
    expect_refused(directory, ERR_IO, "not a regular file");
    spew(bad, "hello\n", 6);
    expect_refused(bad, ERR_DATA, "not a Satchel store");
    spew(bad, "", 0);
    expect_refused(bad, ERR_DATA, "empty");
    for (size_t cut = bytes - 1; cut > 8192; cut = cut / 2) {
        spew(bad, data, cut);
        expect_refused(bad, ERR_DATA, "truncated");
    }
    spew(bad, data, 5000);
    expect_refused(bad, ERR_DATA, "truncated");
    size_t page_bytes = bytes_get(data + 40, 4);
    for (int page = 0; page < 2; page++) /* meta pages; LMDB takes the newer one's page size */
        for (int size = 0; size < 3; size++) {
            uint8_t *field = data + page * page_bytes + 40;
            bytes_put(field, (const uint32_t[]){0, 1 << 20, 1U << 31}[size], 4);
            spew(bad, data, bytes);
            expect_refused(bad, ERR_DATA, "page size");
            bytes_put(field, page_bytes, 4);
        }
    free(data);
}

static void test_incomplete(void **state)
{
    (void)state;
    const char *directory = testing_directory();
    char path[TESTING_PATH_BYTES], partial[TESTING_PATH_BYTES], copy[TESTING_PATH_BYTES];
    struct store_writer *writer, *second;
    testing_path(path, directory, "a.lmdb");
    testing_path(partial, directory, "a.lmdb.partial");
    testing_path(copy, directory, "copy.lmdb");
    assert_int_equal(store_writer_open(&writer, path, 0), 0);
    assert_int_equal(store_writer_open(&second, path, 0), ERR_ARG);
    assert_non_null(strstr(err_message(), "--resume"));
    struct store_progress progress;
    assert_int_equal(store_writer_resume(&second, &progress, path, 0), ERR_IO);
    assert_non_null(strstr(err_message(), "another program"));
    static uint8_t image[1 << 20];
    struct store_sample sample = {0, 10, 10, 3, STORE_JPEG, image, sizeof image, NULL, 0};
    for (int i = 0; i < 40; i++) /* more than a batch, so that something is on disk */
        assert_int_equal(store_writer_add(writer, &sample), 0);
    size_t bytes;
    uint8_t *data = slurp(partial, &bytes);
    spew(copy, data, bytes);
    free(data);
    expect_refused(copy, ERR_DATA, "incomplete");
    store_writer_discard(writer);
    assert_int_equal(access(partial, F_OK), -1);
}

static void test_writer_refuses(void **state)
{
    (void)state;
    char path[TESTING_PATH_BYTES];
    struct store_writer *writer;
    write_store(testing_path(path, testing_directory(), "a.lmdb"), 1);
    assert_int_equal(store_writer_open(&writer, path, 0), ERR_ARG);
    assert_non_null(strstr(err_message(), "exists"));
    testing_path(path, testing_directory(), "a.lmdb.partial");
    assert_int_equal(store_writer_open(&writer, path, 0), ERR_ARG);
    assert_non_null(strstr(err_message(), "unfinished"));
    testing_path(path, testing_directory(), "no/such.lmdb");
    assert_int_equal(store_writer_open(&writer, path, 0), ERR_IO);
    testing_path(path, testing_directory(), "b.lmdb");
    assert_int_equal(store_writer_open(&writer, path, 0), 0);
    uint8_t byte = 1;
    struct store_sample good = {1, 1, 1, 1, STORE_RAW, &byte, 1, NULL, 0}, bad = good;
    bad.height = 2;
    assert_int_equal(store_writer_add(writer, &bad), ERR_ARG);
    bad = good, bad.width = 65536;
    assert_int_equal(store_writer_add(writer, &bad), ERR_ARG);
    bad = good, bad.image_bytes = 0;
    assert_int_equal(store_writer_add(writer, &bad), ERR_ARG);
    bad = good, bad.encoding = STORE_JPEG, bad.image_bytes = 64 << 20;
    assert_int_equal(store_writer_add(writer, &bad), ERR_ARG);
    assert_non_null(strstr(err_message(), "64 MiB"));
    assert_int_equal(store_writer_add(writer, &good), 0);
    bad = good, bad.label = 0;
    assert_int_equal(store_writer_add(writer, &bad), ERR_ARG);
    bad = good, bad.encoding = STORE_JPEG;
    assert_int_equal(store_writer_add(writer, &bad), ERR_ARG);
    struct store_meta meta = meta_of();
    assert_int_equal(store_writer_publish(writer, &meta, NULL), ERR_ARG); /* encoding differs */
    store_writer_discard(writer);
    strcat(path, ".partial");
    assert_int_equal(access(path, F_OK), -1);
}

/* The largest record: written, read, and one byte more refused. */
static void test_largest(void **state)
{
    (void)state;
    char path[TESTING_PATH_BYTES];
    struct store_writer *writer;
    struct store *store;
    struct store_record record;
    size_t most = STORE_RECORD_BYTES_MAX - RECORD_HEADER_BYTES - STORE_PADDING_BYTES;
    uint8_t *image = calloc(1, most + 1);
    image[most - 1] = 42;
    struct store_sample sample = {0, 10, 10, 3, STORE_JPEG, image, most + 1, NULL, 0};
    struct store_meta meta = meta_of();
    testing_path(path, testing_directory(), "a.lmdb");
    assert_int_equal(store_writer_open(&writer, path, 0), 0);
    assert_int_equal(store_writer_add(writer, &sample), ERR_ARG);
    sample.image_bytes = most;
    assert_int_equal(store_writer_add(writer, &sample), 0);
    assert_int_equal(store_writer_publish(writer, &meta, NULL), 0);
    assert_int_equal(store_open(&store, path), 0);
    assert_int_equal(store_read(&record, store, 0), 0);
    assert_int_equal(record.image_bytes, most);
    assert_int_equal(record.image[most - 1], 42);
    store_close(store);
    free(image);
}

/* A record of another store in this one's place, as a mixed-up restore leaves it. */
static void test_foreign_record(void **state)
{
    (void)state;
    uint8_t image[] = "an image", bytes[256];
    struct store_sample sample = {2, 10, 20, 3, STORE_JPEG, image, sizeof image, NULL, 0};
    struct store_record record;
    size_t size = record_bytes(&sample);
    record_encode(bytes, &sample, 9, 77);
    assert_null(record_decode(&record, bytes, size, 9, 77));
    assert_int_equal(record.height, 20);
    assert_non_null(strstr(record_decode(&record, bytes, size, 9, 78), "another store"));
    assert_non_null(strstr(record_decode(&record, bytes, size, 8, 77), "another id"));
    for (size_t cut = 0; cut < size; cut++)
        assert_non_null(record_decode(&record, bytes, cut, 9, 77));
    for (size_t bit = 0; bit < 8 * size; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_non_null(record_decode(&record, bytes, size, 9, 77));
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

/* Flips bytes anywhere in the file, and in every other round in LMDB's tree. Each record then reads
 * as what was written or is refused; the worst end is the fault handler's exit with status 1, in a
 * child. */
static int read_damaged(const char *path)
{
    fault_install();
    struct store *store;
    if (store_open(&store, path) != 0)
        return 1;
    int damaged = 0;
    for (uint32_t i = 0; i < store_meta(store)->sample_count; i++) {
        uint8_t image[IMAGE_BYTES_MAX];
        struct store_record record;
        if (store_read(&record, store, i) != 0) {
            damaged++;
            continue;
        }
        size_t bytes = image_of(image, i);
        if (record.image_bytes != bytes || memcmp(record.image, image, bytes) != 0)
            return 99;
    }
    store_close(store);
    return damaged ? 2 : 0;
}

/* Branch, leaf and meta pages: page number, two zero bytes, flags (docs/format.md). */
static bool is_tree_page(const uint8_t *page, size_t number)
{
    uint64_t own;
    memcpy(&own, page, sizeof own);
    return own == number && (page[10] == 1 || page[10] == 2 || page[10] == 8);
}

static void test_damage_anywhere(void **state)
{
    (void)state;
    enum { ROUNDS = 200, PAGE_BYTES = 4096 };
    const char *directory = testing_directory();
    char path[TESTING_PATH_BYTES], bad[TESTING_PATH_BYTES];
    size_t bytes;
    uint64_t seed = testing_seed();
    write_store(testing_path(path, directory, "a.lmdb"), 1);
    uint8_t *data = slurp(path, &bytes);
    testing_path(bad, directory, "bad.lmdb");
    size_t tree_pages[64], tree_count = 0;
    for (size_t page = 0; page < bytes && tree_count < 64; page += PAGE_BYTES) {
        if (is_tree_page(data + page, page / PAGE_BYTES))
            tree_pages[tree_count++] = page;
    }
    assert_in_range(tree_count, 3, 63);
    int ends[4] = {0};
    for (int round = 0; round < ROUNDS; round++) {
        uint8_t *copy = malloc(bytes);
        memcpy(copy, data, bytes);
        for (int flips = round % 3 ? 1 : 30; flips > 0; flips--) {
            size_t at = testing_random(&seed) % bytes;
            if (round % 2)
                at = tree_pages[testing_random(&seed) % tree_count] + at % PAGE_BYTES;
            copy[at] = (uint8_t)testing_random(&seed);
        }
        spew(bad, copy, bytes);
        free(copy);
        pid_t child = fork();
        if (child == 0) {
            int null = open("/dev/null", O_WRONLY);
            dup2(null, STDERR_FILENO);
            signal(SIGSEGV, SIG_DFL); /* cmocka's would run the other tests in the child */
            signal(SIGBUS, SIG_DFL);
            _exit(read_damaged(bad));
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status));
        assert_in_range(WEXITSTATUS(status), 0, 2);
        ends[WEXITSTATUS(status)]++;
    }
    assert_true(ends[2] > 0); /* most damage hits records */
    free(data);
}

/* The file is cut while it is mapped. */
static void test_cut_while_open(void **state)
{
    (void)state;
    char path[TESTING_PATH_BYTES], text[1024] = {0};
    int pipes[2];
    write_store(testing_path(path, testing_directory(), "a.lmdb"), 1);
    assert_int_equal(pipe(pipes), 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(pipes[1], STDERR_FILENO);
        fault_install();
        struct store *store;
        struct store_record record;
        if (store_open(&store, path) != 0 || truncate(path, 16384) != 0)
            _exit(50);
        for (uint32_t i = 0; i < SAMPLES; i++)
            store_read(&record, store, i);
        _exit(51);
    }
    close(pipes[1]);
    int status;
    assert_true(read(pipes[0], text, sizeof text - 1) > 0);
    for (ssize_t got = 1, used = (ssize_t)strlen(text); got > 0; used += got)
        got = read(pipes[0], text + used, sizeof text - 1 - (size_t)used);
    close(pipes[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1);
    assert_non_null(strstr(text, path));
    assert_non_null(strstr(text, "cut"));
}

static void test_network_file_systems(void **state)
{
    (void)state;
    char path[TESTING_PATH_BYTES];
    assert_string_equal(file_system_name(0x6969), "NFS");
    assert_string_equal(file_system_name(0xfe534d42), "SMB2");
    assert_null(file_system_name(0xef53));     /* ext4 */
    assert_null(file_system_name(0x01021994)); /* tmpfs */
    /* A file that is not there is where its directory is. */
    const char *directory = file_system_network(testing_directory());
    assert_ptr_equal(file_system_network(testing_path(path, testing_directory(), "no")), directory);
}

static void test_unchanged(void **state)
{
    (void)state;
    char path[TESTING_PATH_BYTES], other[TESTING_PATH_BYTES];
    const char *directory = testing_directory();
    struct store *store;
    write_store(testing_path(path, directory, "a.lmdb"), 1);
    assert_int_equal(store_open(&store, path), 0);
    assert_int_equal(store_check_unchanged(store, true), 0);
    write_store(testing_path(other, directory, "b.lmdb"), 1);
    assert_int_equal(rename(other, path), 0);
    assert_int_equal(store_check_unchanged(store, false), 0);
    assert_int_equal(store_check_unchanged(store, true), ERR_IO);
    assert_non_null(strstr(err_message(), "replaced"));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(store_check_unchanged(store, true), 0);
    store_close(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_fingerprint),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_refuses_at_open),
        cmocka_unit_test(test_incomplete),
        cmocka_unit_test(test_writer_refuses),
        cmocka_unit_test(test_largest),
        cmocka_unit_test(test_foreign_record),
        cmocka_unit_test(test_damage_anywhere),
        cmocka_unit_test(test_cut_while_open),
        cmocka_unit_test(test_network_file_systems),
        cmocka_unit_test(test_unchanged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

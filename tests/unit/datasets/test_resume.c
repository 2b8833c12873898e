/* SPDX-License-Identifier: Apache-2.0 */
/* Packing that was killed, stopped or ran out of room goes on and ends with the same fingerprint;
 * what it leaves meanwhile is no store. Usage: test_resume PACK INSPECT LOADER [KILLS] */
#include "tests/unit/datasets/programs.h"

#include <sched.h>
#include <signal.h>
#include <sys/resource.h>

#include "common/err.h"
#include "datasets/store.h"

enum {
    FILES = 64, /* in each class */
    FILE_BYTES = 1 << 20,
    KILLS = 4,
    LIMIT_BYTES = 70 << 20, /* what a full disk leaves: two batches of 32 MiB fit */
};

static const char *pack_program, *inspect_program, *loader_program;
static int kills = KILLS;
static char folders[TESTING_PATH_BYTES];

/* A small picture with much behind its end, under many names: files that are large and quick. */
static void make_large_files(void)
{
    struct bytes picture = input_picture(0, 1);
    uint8_t *data = calloc(1, FILE_BYTES);
    char path[TESTING_PATH_BYTES], first[TESTING_PATH_BYTES], name[32];
    memcpy(data, picture.data, picture.count);
    strcpy(folders, testing_directory());
    for (int c = 0; c < 2; c++) {
        char folder[TESTING_PATH_BYTES];
        testing_path(folder, folders, c ? "b" : "a");
        assert_int_equal(mkdir(folder, 0777), 0);
        for (int f = 0; f < FILES; f++) {
            snprintf(name, sizeof name, "%02d", f);
            if (c + f == 0) {
                write_file(folder, name, data, FILE_BYTES);
                testing_path(first, folder, name);
            } else {
                assert_int_equal(link(first, testing_path(path, folder, name)), 0);
            }
        }
    }
    free(data);
    free(picture.data);
}

static pid_t start_packing(const char *out, int64_t limit_bytes)
{
    pid_t child = fork();
    if (child != 0)
        return child;
    int null = open("/dev/null", O_WRONLY);
    dup2(null, 1);
    dup2(null, 2);
    struct rlimit limit = {(rlim_t)limit_bytes, (rlim_t)limit_bytes};
    signal(SIGXFSZ, SIG_IGN);
    if (limit_bytes)
        setrlimit(RLIMIT_FSIZE, &limit);
    execl(pack_program, pack_program, "--source", "folder", folders, "--out", out, "--jobs", "2",
          "--resume", NULL);
    _exit(127);
}

static int64_t bytes_of(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 ? (int64_t)status.st_size : 0;
}

/* Waits until the file has so many bytes or the child ended; true: it runs on. */
static bool wait_for_bytes(pid_t child, const char *path, int64_t bytes, int *status)
{
    while (bytes_of(path) < bytes) {
        if (waitpid(child, status, WNOHANG) == child)
            return false;
        sched_yield();
    }
    return true;
}

static void fingerprint_of(char dst[33], const char *out)
{
    struct run *got = run(inspect_program, out, "--check", "--json", NULL);
    if (got->status != 0)
        fail_msg("%s", got->err);
    cJSON *json = json_of(got);
    strcpy(dst, cJSON_GetObjectItem(json, "fingerprint")->valuestring);
    assert_true(number_of(json, "samples") == 2 * FILES);
    cJSON_Delete(json);
}

static void reference(char fingerprint[33])
{
    char out[TESTING_PATH_BYTES];
    testing_path(out, testing_directory(), "a.lmdb");
    assert_int_equal(run(pack_program, "--source", "folder", folders, "--out", out, NULL)->status,
                     0);
    fingerprint_of(fingerprint, out);
    unlink(out);
}

static void test_killed(void **state)
{
    (void)state;
    char wanted[33], got[33], out[TESTING_PATH_BYTES], partial[TESTING_PATH_BYTES];
    uint64_t seed = testing_seed();
    int status, done = 0;
    const char *directory = testing_directory();
    reference(wanted);
    testing_path(out, directory, "a.lmdb");
    testing_path(partial, directory, "a.lmdb.partial");
    for (int ended = 0; done < kills || !ended;) {
        pid_t child = start_packing(out, 0);
        int64_t most = 2LL * FILES * FILE_BYTES;
        int64_t bytes = (int64_t)(testing_random(&seed) % (uint64_t)most);
        ended = !wait_for_bytes(child, partial, bytes, &status);
        if (!ended && done < kills) {
            kill(child, SIGKILL);
            assert_int_equal(waitpid(child, &status, 0), child);
            done++;
            if (WIFSIGNALED(status)) {
                if (access(out, F_OK) != 0) /* else it was killed behind its last step */
                    expect_no_store(inspect_program, loader_program, out);
                continue;
            }
            ended = 1;
        } else if (!ended) {
            assert_int_equal(waitpid(child, &status, 0), child);
            ended = 1;
        }
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
        fingerprint_of(got, out);
        assert_string_equal(got, wanted);
        if (done < kills)
            unlink(out);
    }
    fprintf(stderr, "%d kills\n", done);
}

/* Killed behind its last commit: all is in the file, but nothing has synced or renamed it. */
static void test_killed_before_rename(void **state)
{
    (void)state;
    char wanted[33], got[33], out[TESTING_PATH_BYTES], partial[TESTING_PATH_BYTES];
    const char *directory = testing_directory();
    testing_path(out, directory, "a.lmdb");
    testing_path(partial, directory, "a.lmdb.partial");
    assert_int_equal(run(pack_program, "--source", "folder", folders, "--out", out, NULL)->status,
                     0);
    fingerprint_of(wanted, out);
    assert_int_equal(rename(out, partial), 0);
    expect_no_store(inspect_program, loader_program, out);
    assert_int_equal(
        run(pack_program, "--source", "folder", folders, "--out", out, "--resume", NULL)->status,
        0);
    fingerprint_of(got, out);
    assert_string_equal(got, wanted);
    assert_int_equal(count_names(directory), 1);
}

static void test_stopped_and_full(void **state)
{
    (void)state;
    char wanted[33], got[33], out[TESTING_PATH_BYTES], partial[TESTING_PATH_BYTES];
    const char *directory = testing_directory();
    int status;
    reference(wanted);
    testing_path(out, directory, "a.lmdb");
    testing_path(partial, directory, "a.lmdb.partial");
    pid_t child = start_packing(out, LIMIT_BYTES);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1);
    expect_no_store(inspect_program, loader_program, out);
    assert_true(bytes_of(partial) > 32 << 20);
    expect(run(pack_program, "--source", "folder", folders, "--out", out, NULL), 2, "--resume");
    expect(run(pack_program, "--source", "folder", folders, "--out", out, "--resume", "--index",
               "-1", NULL),
           2, "other options");
    child = start_packing(out, 0);
    if (wait_for_bytes(child, partial, 100 << 20, &status)) {
        kill(child, SIGTERM);
        assert_int_equal(waitpid(child, &status, 0), child);
    }
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) != 0) { /* else it was faster than the signal */
        assert_int_equal(WEXITSTATUS(status), 3);
        expect_no_store(inspect_program, loader_program, out);
    }
    struct run *last =
        run(pack_program, "--source", "folder", folders, "--out", out, "--resume", "--json", NULL);
    assert_int_equal(last->status, 0);
    fingerprint_of(got, out);
    assert_string_equal(got, wanted);
    assert_int_equal(count_names(directory), 1);
    /* Once more is no work and no harm; other input is another store. */
    last =
        run(pack_program, "--source", "folder", folders, "--out", out, "--resume", "--json", NULL);
    assert_int_equal(last->status, 0);
    assert_non_null(strstr(last->out, wanted));
    expect(run(pack_program, "--source", "folder", folders, "--out", out, "--resume", "--index",
               "-1", NULL),
           2, "other options");
}

/* A partial file that a crash of the machine damaged. */
static void test_damaged_partial(void **state)
{
    (void)state;
    char out[TESTING_PATH_BYTES], partial[TESTING_PATH_BYTES];
    const char *directory = testing_directory();
    int status;
    uint64_t seed = testing_seed();
    testing_path(out, directory, "a.lmdb");
    testing_path(partial, directory, "a.lmdb.partial");
    pid_t child = start_packing(out, LIMIT_BYTES);
    assert_int_equal(waitpid(child, &status, 0), child);
    int64_t bytes = bytes_of(partial);
    for (int round = 0; round < 6; round++) {
        int file = open(partial, O_RDWR);
        uint8_t byte;
        off_t at = round < 2 ? 16 + 4096 * round : (off_t)(testing_random(&seed) % (64 << 20));
        assert_int_equal(pread(file, &byte, 1, at), 1);
        uint8_t bent = byte ^ 0x55;
        assert_int_equal(pwrite(file, &bent, 1, at), 1);
        struct run *got =
            run(pack_program, "--source", "folder", folders, "--out", out, "--resume", NULL);
        if (got->status == 0) { /* a byte that nothing needs: half of the meta pages are old */
            unlink(out);
            child = start_packing(out, LIMIT_BYTES);
            assert_int_equal(waitpid(child, &status, 0), child);
        } else {
            assert_int_equal(got->status, 1);
            if (!strstr(got->err, "a.lmdb.partial"))
                fail_msg("%s", got->err);
            assert_int_equal(access(out, F_OK), -1);
            assert_int_equal(pwrite(file, &byte, 1, at), 1);
        }
        close(file);
    }
    assert_true(bytes > 0);
}

static struct store_sample sample_of(uint8_t image[100], uint32_t i)
{
    memset(image, (int)i, 100);
    return (struct store_sample){.label = i / 50,
                                 .width = 10,
                                 .height = 10,
                                 .channels = 1,
                                 .encoding = STORE_RAW,
                                 .image = image,
                                 .image_bytes = 100};
}

/* Small records, of which many share a page, and places that were left out. */
static void test_writer(void **state)
{
    (void)state;
    enum { SAMPLES = 100 };
    static const char *const ids[] = {"a", "b"};
    struct store_meta meta = {
        .class_count = 2, .class_ids = ids, .channels = 1, .encoding = STORE_RAW};
    struct hash128 whole, parts;
    struct store_progress progress;
    uint8_t image[100];
    const char *directory = testing_directory();
    char path[TESTING_PATH_BYTES];
    struct store_writer *writer;
    assert_int_equal(store_writer_open(&writer, testing_path(path, directory, "a.lmdb"), 7), 0);
    for (uint32_t i = 0; i < SAMPLES; i++) {
        struct store_sample sample = sample_of(image, i);
        assert_int_equal(store_writer_add(writer, &sample), 0);
    }
    assert_int_equal(store_writer_publish(writer, &meta, &whole), 0);
    testing_path(path, directory, "b.lmdb");
    for (uint32_t i = 0, place = 0; i < SAMPLES;) {
        assert_int_equal(store_writer_resume(&writer, &progress, path, 7), 0);
        assert_int_equal(progress.count, i);
        assert_int_equal(progress.next, place);
        assert_int_equal(progress.skipped_count, place - i);
        for (uint32_t n = 0; n < 7 && i < SAMPLES; n++) {
            struct store_sample sample = sample_of(image, i++);
            assert_int_equal(store_writer_add(writer, &sample), 0);
            assert_int_equal(store_writer_note(writer, place++, false), 0);
            if (n == 3)
                assert_int_equal(store_writer_note(writer, place++, true), 0);
        }
        if (i < SAMPLES)
            assert_int_equal(store_writer_keep(writer), i);
    }
    assert_int_equal(store_writer_publish(writer, &meta, &parts), 0);
    assert_true(hash128_equal(whole, parts));
    struct store *store;
    struct store_record record;
    assert_int_equal(store_open(&store, path), 0);
    for (uint32_t i = 0; i < SAMPLES; i++) {
        assert_int_equal(store_read(&record, store, i), 0);
        assert_int_equal(record.image[99], i);
    }
    store_close(store);
    /* Nothing written, nothing left. */
    assert_int_equal(store_writer_resume(&writer, &progress, testing_path(path, directory, "c"), 7),
                     0);
    assert_int_equal(store_writer_keep(writer), 0);
    assert_int_equal(count_names(directory), 2);
}

/* What cannot be made to last is not published, and nothing is lost of it. */
static void test_directory_not_synced(void **state)
{
    (void)state;
    static const char *const ids[] = {"a"};
    struct store_meta meta = {
        .class_count = 1, .class_ids = ids, .channels = 1, .encoding = STORE_RAW};
    const char *directory = testing_directory();
    char path[TESTING_PATH_BYTES];
    uint8_t image[100];
    struct store_writer *writer;
    struct store_progress progress;
    struct store_sample sample = sample_of(image, 0);
    struct rlimit before, none;
    assert_int_equal(store_writer_open(&writer, testing_path(path, directory, "a"), 7), 0);
    assert_int_equal(store_writer_add(writer, &sample), 0);
    assert_int_equal(store_writer_note(writer, 0, false), 0);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = (struct rlimit){0, before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0); /* it cannot be opened */
    int code = store_writer_publish(writer, &meta, NULL);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(code, ERR_IO);
    assert_non_null(strstr(err_message(), "sync the directory"));
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(store_writer_keep(writer), 1);
    assert_int_equal(store_writer_resume(&writer, &progress, path, 7), 0);
    assert_int_equal(progress.count, 1);
    assert_int_equal(store_writer_publish(writer, &meta, NULL), 0);
    assert_int_equal(count_names(directory), 1);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_writer),           cmocka_unit_test(test_directory_not_synced),
        cmocka_unit_test(test_killed),           cmocka_unit_test(test_killed_before_rename),
        cmocka_unit_test(test_stopped_and_full), cmocka_unit_test(test_damaged_partial),
    };
    if (argc < 4)
        return 2;
    pack_program = argv[1];
    inspect_program = argv[2];
    loader_program = argv[3];
    if (argc > 4)
        kills = atoi(argv[4]);
    make_large_files();
    return cmocka_run_group_tests(tests, NULL, NULL);
}

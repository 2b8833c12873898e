/* SPDX-License-Identifier: Apache-2.0 */
/* Files whole or not at all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/err.h"
#include "common/file.h"
#include "tests/unit/testing.h"

static int entries(const char *directory)
{
    int count = 0;
    DIR *stream = opendir(directory);
    assert_non_null(stream);
    for (struct dirent *entry; (entry = readdir(stream));)
        count += entry->d_name[0] != '.' || strlen(entry->d_name) > 2;
    closedir(stream);
    return count;
}

static void assert_content(const char *path, const char *content)
{
    uint8_t *data;
    size_t bytes;
    assert_int_equal(file_read(&data, &bytes, path, 1 << 20), 0);
    assert_int_equal(bytes, strlen(content));
    assert_memory_equal(data, content, bytes + 1); /* the NUL as well */
    free(data);
}

static void test_write_replaces(void **state)
{
    char path[TESTING_PATH_BYTES];
    const char *directory = testing_directory();
    testing_path(path, directory, "a");
    assert_int_equal(file_write_atomic(path, "first", 5), 0);
    assert_content(path, "first");
    assert_int_equal(file_write_atomic(path, "", 0), 0);
    assert_content(path, "");
    assert_int_equal(file_write_passing(path, "second", 6), 0);
    assert_content(path, "second");
    assert_int_equal(entries(directory), 1);
}

static void test_mode_follows_the_umask(void **state)
{
    char path[TESTING_PATH_BYTES];
    struct stat status;
    testing_path(path, testing_directory(), "a");
    mode_t before = umask(027);
    assert_int_equal(file_write_atomic(path, "x", 1), 0);
    umask(before);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0640);
}

static void test_discard_keeps_the_old(void **state)
{
    char path[TESTING_PATH_BYTES];
    struct file_atomic *file;
    const char *directory = testing_directory();
    testing_path(path, directory, "a");
    assert_int_equal(file_write_atomic(path, "old", 3), 0);
    assert_int_equal(file_atomic_open(&file, path), 0);
    fputs("new", file_atomic_stream(file));
    assert_content(path, "old");
    file_atomic_discard(file);
    file_atomic_discard(NULL);
    assert_content(path, "old");
    assert_int_equal(entries(directory), 1);
    assert_int_equal(file_atomic_open(&file, path), 0);
    fputs("new", file_atomic_stream(file));
    assert_int_equal(file_atomic_commit(file), 0);
    assert_content(path, "new");
}

static void test_killed_writer_keeps_the_old(void **state)
{
    char path[TESTING_PATH_BYTES];
    int status;
    testing_path(path, testing_directory(), "a");
    assert_int_equal(file_write_atomic(path, "old", 3), 0);
    pid_t child = fork();
    if (child == 0) {
        struct file_atomic *file;
        if (file_atomic_open(&file, path) == 0) {
            fputs("half of it", file_atomic_stream(file));
            fflush(file_atomic_stream(file));
            raise(SIGKILL);
        }
        _exit(1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_content(path, "old");
    /* What it left behind is in nobody's way. */
    assert_int_equal(file_write_atomic(path, "new", 3), 0);
    assert_content(path, "new");
}

/* A full disk, as a limit on the size of files. */
static void test_failed_write_keeps_the_old(void **state)
{
    char path[TESTING_PATH_BYTES];
    struct rlimit limit;
    static uint8_t data[100000];
    const char *directory = testing_directory();
    testing_path(path, directory, "a");
    assert_int_equal(file_write_atomic(path, "old", 3), 0);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    struct rlimit small = {.rlim_cur = 50000, .rlim_max = limit.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    int code = file_write_atomic(path, data, sizeof data);
    setrlimit(RLIMIT_FSIZE, &limit);
    assert_int_equal(code, ERR_IO);
    assert_non_null(strstr(err_message(), path));
    assert_content(path, "old");
    assert_int_equal(entries(directory), 1);
}

/* Also when it is not the commit that finds it. */
static void test_full_disk_is_called_so(void **state)
{
    char path[TESTING_PATH_BYTES];
    struct rlimit limit;
    static uint8_t data[100000];
    struct file_atomic *file;
    testing_path(path, testing_directory(), "a");
    assert_int_equal(file_atomic_open(&file, path), 0);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    struct rlimit small = {.rlim_cur = 50000, .rlim_max = limit.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    fwrite(data, 1, sizeof data, file_atomic_stream(file));
    int code = file_atomic_commit(file);
    setrlimit(RLIMIT_FSIZE, &limit);
    assert_int_equal(code, ERR_IO);
    assert_non_null(strstr(err_message(), strerror(EFBIG)));
}

/* A write that failed in the middle is not forgotten when the disk has room again. */
static void test_failed_stream_is_not_published(void **state)
{
    char path[TESTING_PATH_BYTES];
    struct rlimit limit;
    static uint8_t data[100000];
    struct file_atomic *file;
    testing_path(path, testing_directory(), "a");
    assert_int_equal(file_write_atomic(path, "old", 3), 0);
    assert_int_equal(file_atomic_open(&file, path), 0);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    struct rlimit small = {.rlim_cur = 50000, .rlim_max = limit.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    size_t written = fwrite(data, 1, sizeof data, file_atomic_stream(file));
    setrlimit(RLIMIT_FSIZE, &limit);
    assert_true(written < sizeof data);
    fputs("more", file_atomic_stream(file));
    assert_int_equal(file_atomic_commit(file), ERR_IO);
    assert_content(path, "old");
}

static void test_refusals(void **state)
{
    char path[TESTING_PATH_BYTES];
    uint8_t *data;
    size_t bytes;
    const char *directory = testing_directory();
    assert_int_equal(file_write_atomic(directory, "x", 1), ERR_IO);
    assert_int_equal(file_write_atomic("/dev/null", "x", 1), ERR_IO);
    assert_int_equal(file_write_atomic(testing_path(path, directory, "no/a"), "x", 1), ERR_IO);
    assert_int_equal(file_read(&data, &bytes, directory, 100), ERR_IO);
    assert_null(data);
    assert_int_equal(file_read(&data, &bytes, testing_path(path, directory, "no"), 100), ERR_IO);
    assert_non_null(strstr(err_message(), path));
    assert_int_equal(mkfifo(testing_path(path, directory, "pipe"), 0600), 0);
    assert_int_equal(file_read(&data, &bytes, path, 100), ERR_IO); /* and does not wait */
    testing_path(path, directory, "a");
    assert_int_equal(file_write_atomic(path, "12345", 5), 0);
    assert_int_equal(file_read(&data, &bytes, path, 4), ERR_IO);
    assert_int_equal(bytes, 0);
    assert_int_equal(file_read(&data, &bytes, path, 5), 0);
    free(data);
}

static void test_make_directory(void **state)
{
    char path[TESTING_PATH_BYTES];
    struct stat status;
    const char *directory = testing_directory();
    testing_path(path, directory, "a//b/c/");
    assert_int_equal(file_make_directory(path), 0);
    assert_int_equal(file_make_directory(path), 0);
    assert_int_equal(stat(path, &status), 0);
    assert_true(S_ISDIR(status.st_mode));
    assert_int_equal(file_sync_directory_of(path), 0);
    assert_int_equal(file_sync_directory_of("relative"), 0);
    assert_int_equal(file_write_atomic(testing_path(path, directory, "f"), "x", 1), 0);
    assert_int_equal(file_make_directory(path), ERR_IO);
    assert_int_equal(file_make_directory(testing_path(path, directory, "f/g")), ERR_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_write_replaces),
        cmocka_unit_test(test_mode_follows_the_umask),
        cmocka_unit_test(test_discard_keeps_the_old),
        cmocka_unit_test(test_killed_writer_keeps_the_old),
        cmocka_unit_test(test_failed_write_keeps_the_old),
        cmocka_unit_test(test_full_disk_is_called_so),
        cmocka_unit_test(test_failed_stream_is_not_published),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_make_directory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The log through a socket that keeps the borders between write(2)s. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"

static int reading_end;

/* The next write to stderr, with a final NUL; "" when there is none. */
static const char *next_write(void)
{
    static char text[16384];
    ssize_t bytes = recv(reading_end, text, sizeof text - 1, MSG_DONTWAIT);
    text[bytes > 0 ? bytes : 0] = '\0';
    return text;
}

static int saved_stderr;

static int catch_stderr(void **state)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) != 0)
        return -1;
    saved_stderr = dup(STDERR_FILENO);
    dup2(ends[1], STDERR_FILENO);
    close(ends[1]);
    reading_end = ends[0];
    log_open("satchel-test");
    return 0;
}

static int release_stderr(void **state)
{
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    close(reading_end);
    return 0;
}

static void test_lines(void **state)
{
    log_info("%d images", 12);
    assert_string_equal(next_write(), "satchel-test: 12 images\n");
    log_warn("slow");
    assert_string_equal(next_write(), "satchel-test: warning: slow\n");
    log_error("cannot");
    assert_string_equal(next_write(), "satchel-test: error: cannot\n");
    assert_string_equal(next_write(), "");
}

static void test_verbose(void **state)
{
    log_verbose("unseen");
    assert_string_equal(next_write(), "");
    log_set_verbose(true);
    log_verbose("seen");
    assert_string_equal(next_write(), "satchel-test: seen\n");
    log_set_verbose(false);
    log_verbose("unseen");
    assert_string_equal(next_write(), "");
}

static void test_names_cannot_forge(void **state)
{
    log_info("file '%s'", "a\nsatchel-test: error: b\r\033[2J\x7f\t\x01");
    assert_string_equal(next_write(),
                        "satchel-test: file 'a\\x0asatchel-test: error: b\\x0d\\x1b[2J"
                        "\\x7f\\x09\\x01'\n");
    /* UTF-8 stays, but for its C1 controls (here: CSI). */
    log_info("%s", "\xc3\xa9\xc2\x9b\xe2\x82\xac");
    assert_string_equal(next_write(), "satchel-test: \xc3\xa9\\xc2\\x9b\xe2\x82\xac\n");
}

static void test_long_lines_are_cut(void **state)
{
    char text[10000];
    memset(text, '\n', sizeof text - 1); /* each takes four bytes */
    text[sizeof text - 1] = '\0';
    log_info("%s", text);
    const char *line = next_write();
    size_t length = strlen(line);
    assert_true(length > 2047 && length < 16000);
    assert_string_equal(line + length - 4, "...\n");
    assert_string_equal(next_write(), "");
}

static void test_progress_line_is_erased(void **state)
{
    log_draw("packing 10%", false);
    assert_string_equal(next_write(), "\r\033[Kpacking 10%");
    log_info("a line");
    assert_string_equal(next_write(), "\r\033[Ksatchel-test: a line\n");
    log_info("another");
    assert_string_equal(next_write(), "satchel-test: another\n");
    log_draw("packing\n20%", true);
    assert_string_equal(next_write(), "\r\033[Kpacking\\x0a20%\n");
}

static void test_escape_fits(void **state)
{
    char dst[8];
    assert_int_equal(log_escape(dst, sizeof dst, "ab\ncd"), 6);
    assert_string_equal(dst, "ab\\x0a");
    assert_int_equal(log_escape(dst, 5, "abcdefgh"), 1);
    assert_string_equal(dst, "a");
}

enum { THREADS = 4, LINES = 100 };

static void *write_lines(void *letter)
{
    for (int i = 0; i < LINES; i++)
        log_info("%c%c%c%c %03d", *(char *)letter, *(char *)letter, *(char *)letter,
                 *(char *)letter, i);
    return NULL;
}

static void test_threads_do_not_mix(void **state)
{
    pthread_t threads[THREADS];
    char letters[THREADS] = {'a', 'b', 'c', 'd'};
    int next[THREADS] = {0};
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_lines, &letters[i]), 0);
    for (int i = 0; i < THREADS * LINES; i++) {
        char text[256];
        ssize_t bytes = recv(reading_end, text, sizeof text - 1, 0);
        assert_true(bytes > 0);
        text[bytes] = '\0';
        char want[256], letter = text[strlen("satchel-test: ")];
        assert_in_range(letter, 'a', 'd');
        snprintf(want, sizeof want, "satchel-test: %c%c%c%c %03d\n", letter, letter, letter, letter,
                 next[letter - 'a']++);
        assert_string_equal(text, want);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_lines, catch_stderr, release_stderr),
        cmocka_unit_test_setup_teardown(test_verbose, catch_stderr, release_stderr),
        cmocka_unit_test_setup_teardown(test_names_cannot_forge, catch_stderr, release_stderr),
        cmocka_unit_test_setup_teardown(test_long_lines_are_cut, catch_stderr, release_stderr),
        cmocka_unit_test_setup_teardown(test_progress_line_is_erased, catch_stderr, release_stderr),
        cmocka_unit_test_setup_teardown(test_escape_fits, catch_stderr, release_stderr),
        cmocka_unit_test_setup_teardown(test_threads_do_not_mix, catch_stderr, release_stderr),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The progress line on a pseudo-terminal and on a pipe. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <pty.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/progress.h"

static int reading_end, saved_stderr;
static char text[65536];

static void take_stderr(int writing)
{
    saved_stderr = dup(STDERR_FILENO);
    dup2(writing, STDERR_FILENO);
    close(writing);
    fcntl(reading_end, F_SETFL, O_NONBLOCK);
    log_open("satchel-test");
}

static int on_terminal(void **state)
{
    int writing;
    struct winsize size = {.ws_row = 24, .ws_col = 60};
    if (openpty(&reading_end, &writing, NULL, NULL, &size) != 0)
        return -1;
    take_stderr(writing);
    return 0;
}

static int on_pipe(void **state)
{
    int ends[2];
    if (pipe(ends) != 0)
        return -1;
    reading_end = ends[0];
    take_stderr(ends[1]);
    return 0;
}

static int restore(void **state)
{
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    close(reading_end);
    return 0;
}

/* All that was written so far. */
static const char *written(void)
{
    size_t used = 0;
    for (ssize_t bytes; used < sizeof text - 1; used += (size_t)bytes) {
        bytes = read(reading_end, text + used, sizeof text - 1 - used);
        if (bytes <= 0)
            break;
    }
    text[used] = '\0';
    return text;
}

static int occurrences(const char *all, const char *part)
{
    int count = 0;
    for (const char *at = all; (at = strstr(at, part)); at++)
        count++;
    return count;
}

static void test_terminal_is_redrawn(void **state)
{
    struct progress *progress = progress_open("packing", 1234567, "images");
    assert_non_null(progress);
    double start = clock_seconds();
    uint64_t done = 0;
    while (clock_seconds() - start < 0.35)
        progress_update(progress, ++done, "2 bad");
    const char *drawn = written();
    int draws = occurrences(drawn, "\r\033[Kpacking ");
    assert_in_range(draws, 1, 4); /* at most ten a second, however often it is called */
    assert_int_equal(occurrences(drawn, "\n"), 0);
    assert_non_null(strstr(drawn, "/1,234,567 images, "));
    assert_non_null(strstr(drawn, "/s, ETA 0:"));
    log_info("in between");
    assert_non_null(strstr(written(), "\r\033[Ksatchel-test: in between\r\n"));
    progress_update(progress, 1234567, "3 bad");
    progress_close(progress);
    const char *last = written();
    assert_non_null(strstr(last, "packing 1,234,567/1,234,567 images, "));
    assert_non_null(strstr(last, "/s, in 0:00:00"));
    assert_string_equal(last + strlen(last) - 2, "\r\n");
}

/* Longer than the 60 columns, it would wrap. */
static void test_terminal_width(void **state)
{
    struct progress *progress = progress_open("a title that is long enough already", 10, "images");
    progress_update(progress, 10, "and a detail that does not fit on the line any more");
    progress_close(progress);
    const char *drawn = written();
    assert_int_equal(strlen(drawn), strlen("\r\033[K") + 59 + strlen("\r\n"));
}

static void test_pipe_gets_plain_lines(void **state)
{
    struct progress *progress = progress_open("reading", 0, "steps");
    progress_resume(progress, 1000);
    for (uint64_t i = 1000; i <= 1500; i++)
        progress_update(progress, i, NULL);
    assert_string_equal(written(), ""); /* the first line comes after seconds */
    progress_close(progress);
    const char *line = written();
    assert_int_equal(strncmp(line, "satchel-test: reading 1,500 steps, ", 35), 0);
    assert_int_equal(occurrences(line, "\033"), 0);
    assert_int_equal(occurrences(line, "\n"), 1);
    assert_non_null(strstr(line, "/s, in 0:00:00\n"));
}

static void test_null_is_accepted(void **state)
{
    progress_resume(NULL, 1);
    progress_update(NULL, 1, "x");
    progress_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_terminal_is_redrawn, on_terminal, restore),
        cmocka_unit_test_setup_teardown(test_terminal_width, on_terminal, restore),
        cmocka_unit_test_setup_teardown(test_pipe_gets_plain_lines, on_pipe, restore),
        cmocka_unit_test(test_null_is_accepted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

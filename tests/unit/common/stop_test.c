/* SPDX-License-Identifier: Apache-2.0 */
/* Signals, each in a child of its own: the flag lasts for a process's life. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/stop.h"

/* The exit status of body in a child; 1000 + signal when one killed it. */
static int status_of(int (*body)(void))
{
    int status;
    pid_t child = fork();
    if (child == 0)
        _exit(body());
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static int readable(void)
{
    struct pollfd entry = {.fd = stop_fd(), .events = POLLIN};
    return poll(&entry, 1, 0) == 1 && (entry.revents & POLLIN);
}

/* Each step returns its own number where it fails. */
static int stops_on(int number, bool with_usr1)
{
    stop_install(with_usr1);
    if (stop_requested() || stop_signal() != 0 || readable())
        return 1;
    raise(number);
    if (!stop_requested() || stop_signal() != number)
        return 2;
    return readable() && readable() ? 0 : 3;
}

static int on_term(void)
{
    return stops_on(SIGTERM, false);
}

static int on_int(void)
{
    return stops_on(SIGINT, false);
}

static int on_usr1(void)
{
    return stops_on(SIGUSR1, true);
}

static int on_usr1_unasked(void)
{
    return stops_on(SIGUSR1, false);
}

static int second_int(void)
{
    stop_install(false);
    raise(SIGINT);
    raise(SIGINT);
    return 0;
}

static int term_then_int(void)
{
    stop_install(false);
    raise(SIGTERM);
    raise(SIGTERM);
    raise(SIGINT);
    return stop_requested() ? 0 : 1;
}

static int from_inside(void)
{
    stop_request(); /* before there is a descriptor */
    return stop_requested() && stop_signal() == 0 && readable() ? 0 : 1;
}

static int broken_pipe(void)
{
    int ends[2];
    stop_install(false);
    if (pipe(ends) != 0)
        return 1;
    close(ends[0]);
    return write(ends[1], "x", 1) == -1 && !stop_requested() ? 0 : 2;
}

static void test_signals(void **state)
{
    assert_int_equal(status_of(on_term), 0);
    assert_int_equal(status_of(on_int), 0);
    assert_int_equal(status_of(on_usr1), 0);
    assert_int_equal(status_of(on_usr1_unasked), 1000 + SIGUSR1);
}

static void test_second_interrupt_ends(void **state)
{
    assert_int_equal(status_of(second_int), 130);
    assert_int_equal(status_of(term_then_int), 0);
}

static void test_request_and_pipe(void **state)
{
    assert_int_equal(status_of(from_inside), 0);
    assert_int_equal(status_of(broken_pipe), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_signals),
        cmocka_unit_test(test_second_interrupt_ends),
        cmocka_unit_test(test_request_and_pipe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

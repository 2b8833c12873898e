/* SPDX-License-Identifier: Apache-2.0 */
/* Messages: wrapping, cutting, one per thread, exit statuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <string.h>

#include "common/err.h"

static void test_set_and_wrap(void **state)
{
    assert_int_equal(err_set(ERR_IO, "cannot read '%s'", "a.lmdb"), ERR_IO);
    assert_string_equal(err_message(), "cannot read 'a.lmdb'");
    assert_int_equal(err_wrap(ERR_DATA, "store %d", 3), ERR_DATA);
    assert_string_equal(err_message(), "store 3: cannot read 'a.lmdb'");
    /* The message may be its own argument. */
    err_set(ERR_IO, "%s again", err_message());
    assert_string_equal(err_message(), "store 3: cannot read 'a.lmdb' again");
}

static void test_long_messages_are_cut(void **state)
{
    char text[3000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    err_set(ERR_IO, "%s", text);
    assert_int_equal(strlen(err_message()), 1023);
    err_wrap(ERR_IO, "context");
    assert_int_equal(strlen(err_message()), 1023);
    assert_int_equal(strncmp(err_message(), "context: xxx", 12), 0);
    err_wrap(ERR_IO, "%s", text);
    assert_int_equal(strlen(err_message()), 1023);
}

static void *set_elsewhere(void *unused)
{
    err_set(ERR_PEER, "of another thread");
    return NULL;
}

static void test_threads_have_their_own(void **state)
{
    pthread_t thread;
    err_set(ERR_IO, "mine");
    assert_int_equal(pthread_create(&thread, NULL, set_elsewhere, NULL), 0);
    pthread_join(thread, NULL);
    assert_string_equal(err_message(), "mine");
}

static void test_exit_status(void **state)
{
    assert_int_equal(err_exit_status(ERR_OK), 0);
    assert_int_equal(err_exit_status(ERR_ARG), 2);
    assert_int_equal(err_exit_status(ERR_STOPPED), 3);
    for (int code = ERR_INTERNAL; code <= ERR_IO; code++)
        assert_int_equal(err_exit_status(code), 1);
    assert_int_equal(err_exit_status(-1), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set_and_wrap),
        cmocka_unit_test(test_long_messages_are_cut),
        cmocka_unit_test(test_threads_have_their_own),
        cmocka_unit_test(test_exit_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The clocks move, each at its own pace. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <poll.h>

#include "common/clock.h"

static void test_clocks(void **state)
{
    int64_t wall = clock_ns(), cpu = clock_cpu_ns();
    volatile double sum = 0;
    while (clock_cpu_ns() - cpu < 20000000) {
        for (int i = 1; i < 1000; i++)
            sum += 1.0 / i;
    }
    assert_true(sum >= 0);
    assert_true(clock_ns() - wall >= 15000000); /* one thread: no more than the wall's */
    cpu = clock_cpu_ns();
    wall = clock_ns();
    poll(NULL, 0, 30);
    assert_true(clock_ns() - wall >= 29000000);
    assert_true(clock_cpu_ns() - cpu < 25000000);
    double seconds = clock_seconds() - (double)clock_ns() * 1e-9;
    assert_true(seconds > -0.5 && seconds <= 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_clocks)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

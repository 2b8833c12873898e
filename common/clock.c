/* SPDX-License-Identifier: Apache-2.0 */
/* Clocks for measuring: nothing here ever reaches the stream. */
#include "common/clock.h"

#include <time.h>

static int64_t nanoseconds(clockid_t id)
{
    struct timespec now = {0};
    clock_gettime(id, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t clock_ns(void)
{
    return nanoseconds(CLOCK_MONOTONIC);
}

double clock_seconds(void)
{
    return (double)clock_ns() * 1e-9;
}

int64_t clock_cpu_ns(void)
{
    return nanoseconds(CLOCK_PROCESS_CPUTIME_ID);
}

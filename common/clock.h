/* SPDX-License-Identifier: Apache-2.0 */
/* Time that only goes forward, for rates, deadlines and waits. */
#ifndef COMMON_CLOCK_H
#define COMMON_CLOCK_H

#include <stdint.h>

int64_t clock_ns(void);     /* CLOCK_MONOTONIC */
double clock_seconds(void); /* the same in seconds */
int64_t clock_cpu_ns(void); /* processor time of the whole process */

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Log lines that a stranger can cause: a few a minute, and then how many were left out. */
#ifndef COMMON_LOG_LIMIT_H
#define COMMON_LOG_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

enum { LOG_LIMIT_LINES = 10 }; /* a minute */

struct log_limit {     /* zeros: nothing was said yet. Owner: one thread */
    int64_t window_ns; /* when this minute began */
    unsigned said, left_out;
};

/* True when one more line may be written now. What was left out in the minute before is said first:
 * "N more lines like this were left out: WHAT". */
bool log_limit_passes(struct log_limit *limit, const char *what);

#endif

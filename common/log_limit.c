/* SPDX-License-Identifier: Apache-2.0 */
/* A quota of log lines. */
#include "common/log_limit.h"

#include "common/clock.h"
#include "common/log.h"

#define WINDOW_NS INT64_C(60000000000)

bool log_limit_passes(struct log_limit *limit, const char *what)
{
    int64_t now = clock_ns();
    if (limit->window_ns == 0 || now - limit->window_ns > WINDOW_NS) {
        if (limit->left_out > 0)
            log_warn("%u more lines like this were left out: %s", limit->left_out, what);
        *limit = (struct log_limit){.window_ns = now};
    }
    if (limit->said < LOG_LIMIT_LINES) {
        limit->said++;
        return true;
    }
    limit->left_out++;
    return false;
}

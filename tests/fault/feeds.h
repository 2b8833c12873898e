/* SPDX-License-Identifier: Apache-2.0 */
/* Feeds as the tests use them: whatever fails ends the test. */
#ifndef TESTS_FAULT_FEEDS_H
#define TESTS_FAULT_FEEDS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "common/err.h"
#include "trainer/feed.h"

static inline struct feed *feeds_open(const struct feed_config *config)
{
    struct feed *feed;
    if (feed_open(&feed, config))
        fail_msg("feed_open: %s", err_message());
    return feed;
}

static inline struct feed_counts feeds_counts(const struct feed *feed)
{
    struct feed_counts counts;
    feed_counts(&counts, feed);
    return counts;
}

#endif

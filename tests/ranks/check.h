/* SPDX-License-Identifier: Apache-2.0 */
/* Checks of a test that runs in several processes: each says what failed on which rank, counts it
 * and goes on, so that no rank waits for another. Where they stand, comm is the rank's, and
 * failures an int. */
#ifndef TESTS_RANKS_CHECK_H
#define TESTS_RANKS_CHECK_H

#include "common/err.h"
#include "common/log.h"

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            failures++;                                                                            \
            log_error("rank %d: %s (line %d): %s", comm->rank, #condition, __LINE__,               \
                      err_message());                                                              \
        }                                                                                          \
    } while (0)

#endif

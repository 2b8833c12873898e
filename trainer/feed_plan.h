/* SPDX-License-Identifier: Apache-2.0 */
/* Cuts a feed's range into micro-batches: pure arithmetic. */
#ifndef TRAINER_FEED_PLAN_H
#define TRAINER_FEED_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "trainer/feed.h"

struct feed_plan {
    struct feed_range range;
    uint32_t sample_count; /* of the store */
    uint64_t step;         /* of the next micro-batch */
    uint32_t batch;        /* within the step */
};

struct feed_plan_batch {
    uint64_t step, first_chunk;
    uint32_t chunks;  /* at least 1 */
    uint32_t samples; /* over all chunks */
};

/* Checks that the numbers of a range fit each other. ERR_ARG. */
int feed_plan_check(const struct feed_range *range);

void feed_plan_begin(struct feed_plan *plan, const struct feed_range *range, uint32_t sample_count);

/* The next micro-batch that has any chunk; false at the end of the range. */
bool feed_plan_next(struct feed_plan_batch *batch, struct feed_plan *plan);

/* How many micro-batches feed_plan_next would still give. */
uint64_t feed_plan_batches(const struct feed_plan *plan);

#endif

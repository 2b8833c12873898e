/* SPDX-License-Identifier: Apache-2.0 */
/* Accuracy over the validation store, each sample exactly once. */
#ifndef TRAINER_EVALUATE_H
#define TRAINER_EVALUATE_H

#include "trainer/feed.h"
#include "trainer/metrics.h"
#include "trainer/predictions.h"
#include "trainer/session.h"

/* The range of the feed that evaluate_run takes, this rank's share of it. The epoch shapes nothing;
 * it tells ranges apart that are queued at the same time. */
struct feed_range evaluate_range(const struct session *session, uint64_t epoch);

/* Runs the range, which must be the oldest one queued at the feed. eval->epoch is
 * given, the rest is the sum over all ranks;
 * predictions (NULL: not wanted) gets what this rank saw.
 * eval->samples counts what was judged: masked samples are not. ERR_STOPPED as feed_pop; ERR_DATA
 * when nothing could be judged. */
int evaluate_run(struct metrics_eval *eval, struct predictions *predictions,
                 struct session *session);

#endif

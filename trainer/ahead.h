/* SPDX-License-Identifier: Apache-2.0 */
/* What the feed is to fetch, a few ranges ahead of the training: the rest of this epoch, its
 * evaluation, the next epoch; so that loaders do not rest while the trainer evaluates or writes a
 * checkpoint. */
#ifndef TRAINER_AHEAD_H
#define TRAINER_AHEAD_H

#include <stdbool.h>
#include <stdint.h>

#include "trainer/session.h"

struct ahead {
    const struct session *session;
    uint64_t end_step;                /* of the run */
    uint64_t start_epoch, start_step; /* where this process begins: epoch, step within it */
    uint64_t epoch;                   /* of the range that is pushed next */
    bool eval;                        /* it is the epoch's evaluation */
    int queued;                       /* pushed and not yet taken */
};

void ahead_init(struct ahead *ahead, const struct session *session, uint64_t end_step,
                uint64_t epoch, uint64_t step_in_epoch);

/* Steps of this epoch that belong to the run; fewer than an epoch's where --max-steps cuts it. */
uint64_t ahead_epoch_steps(const struct ahead *ahead, uint64_t epoch);

/* Whether the run has this epoch: steps to make, or steps that were made and not yet judged. */
bool ahead_has_epoch(const struct ahead *ahead, uint64_t epoch);

/* Queues ranges until enough are. */
int ahead_push(struct ahead *ahead);

/* The oldest range has been taken to its end. */
void ahead_taken(struct ahead *ahead);

#endif

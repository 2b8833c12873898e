/* SPDX-License-Identifier: Apache-2.0 */
/* Training steps: the global batch in micro-batches, their gradients summed in the fixed tree and
 * over the ranks, one update.
 *
 * Where the backend runs whole steps (step_run of trainer/backend.h), one is under way while the
 * next is prepared, and its result is known when the next was queued. Elsewhere each step's result
 * is known at once. */
#ifndef TRAINER_STEP_H
#define TRAINER_STEP_H

#include <stdbool.h>

#include "common/hash.h"
#include "trainer/scaler.h"
#include "trainer/session.h"

struct step_result {
    bool known;             /* else nothing below is set */
    double loss;            /* mean over the global batch, without weight decay */
    double top1;            /* percent of the training images as they came, mixed or not */
    bool finite;            /* loss and gradients; when not, the update was left out */
    struct hash128 receipt; /* this rank's part of the step's chunks */
    double seconds;         /* of the step */
    double wait_seconds;    /* of them: waiting for data */
    double teacher_seconds; /* of them: the teacher's */
};

/* A step that is under way, and micro-batches that the backend may still read. */
struct step_queue {
    struct session *session;
    bool under_way;
    struct step_result pending; /* what is known of it */
    double begin_s;             /* when it was begun */
    double told_s;              /* when the last result was */
    struct feed_batch held[FEED_HELD_MAX];
    int held_count, held_before; /* of them: those of steps before the one that is put together */
};

void step_init(struct step_queue *steps, struct session *session);

struct step_rates { /* learning rates */
    double lr;
    double head_lr; /* of the classifier; 0: lr */
};

/* Queues the step with this number (from 0 over the whole run): takes its micro-batches from the
 * feed, moves the average of the weights behind it. scaler: as it stands behind the last step whose
 * result is known. *result is of the step before, or of this one, or of none yet. On failure, and
 * so on a stop, weights, momentum and running statistics are as they were before this step. Errors:
 * as feed_pop, and those of the backend. */
int step_run(struct step_result *result, struct step_queue *steps, uint64_t number,
             const struct step_rates *rates, const struct scaler *scaler);

/* The result of the step that is under way, if there is one; waits for it. */
int step_finish(struct step_result *result, struct step_queue *steps);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* One training step: the global batch in micro-batches, their gradients summed in the fixed tree
 * and over the ranks, one update. */
#ifndef TRAINER_STEP_H
#define TRAINER_STEP_H

#include <stdbool.h>

#include "common/hash.h"
#include "trainer/session.h"

struct step_result {
    double loss;            /* mean over the global batch, without weight decay */
    double top1;            /* percent of the training images as they came, mixed or not */
    bool finite;            /* loss and gradients; when not, the update was left out */
    struct hash128 receipt; /* this rank's part of the step's chunks */
    double seconds;         /* of the step */
    double wait_seconds;    /* of them: waiting for data */
    double teacher_seconds; /* of them: the teacher's */
};

/* Takes the step's micro-batches from the feed. On failure, and so on a stop, weights, momentum and
 * running statistics are as they were before. Errors: as feed_pop, and those of the backend. */
int step_run(struct step_result *result, struct session *session, double lr, double loss_scale);

#endif

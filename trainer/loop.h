/* SPDX-License-Identifier: Apache-2.0 */
/* The training loop: from where a run stands to its end, or to a request to stop. */
#ifndef TRAINER_LOOP_H
#define TRAINER_LOOP_H

#include "trainer/checkpoint.h"
#include "trainer/metrics.h"
#include "trainer/rundir.h"
#include "trainer/saver.h"
#include "trainer/session.h"

/* Trains. start: where the run stands (weights and momentum are in the state already); at the end
 * it says where it stands then. Its recipe and backend go into every checkpoint.
 * last: the last evaluation; samples 0 when there was none.
 *
 * metrics and saver are rank 0's; NULL on the others.
 *
 * ERR_STOPPED: a signal, or the stall limit after at least one step: the checkpoint is written.
 * ERR_IO: the end, or where it was stopped, could not be saved.
 * ERR_DATA: the loss is not finite any more: the last checkpoint is left as it is. */
int loop_run(struct metrics_eval *last, struct session *session, const struct rundir *dir,
             struct metrics *metrics, struct saver *saver, struct checkpoint *start);

#endif

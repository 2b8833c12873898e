/* SPDX-License-Identifier: Apache-2.0 */
/* metrics.jsonl of a run: one JSON object a line, appended with one write each. A disk that is full
 * or fails is a warning: lines stay in memory and are written once it works again, in order and
 * each once. One thread writes lines; any thread may sync.
 *
 *   {"event":"step","step","epoch","loss","lr","images_per_second","wait_share"}
 *   a step with a teacher has "teacher_share" too
 *   {"event":"eval","epoch","top1","top5","loss","samples"}   percent
 *   with --ema-decay an eval has "ema_top1","ema_top5","ema_loss" too
 *   {"event":"epoch","epoch","receipt","seconds"}
 *   {"event":"done","epochs","top1"}                          top1 null: no evaluation
 *
 * step counts all steps of the run from 0. Numbers that are not finite are null. */
#ifndef TRAINER_METRICS_H
#define TRAINER_METRICS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/hash.h"
#include "trainer/events.h"

struct metrics;

struct metrics_step {
    uint64_t step, epoch;
    double loss, lr, images_per_second;
    double wait_share;    /* of the step's time, waiting for data */
    double teacher_share; /* of the step's time, the teacher's; 0: no teacher, not written */
};

struct metrics_eval {
    uint64_t epoch;
    double top1, top5; /* percent */
    double loss;
    uint64_t samples;
    bool has_ema; /* the same of the weights' moving average */
    double ema_top1, ema_top5, ema_loss;
};

/* Opens for appending. What stands there already is first cut down to what a run at this position
 * has behind it: steps below step, evaluations and epochs below epoch, no "done", no torn line; so
 * that each line is there once after a resume. (0, 0) begins afresh. ERR_IO. */
int metrics_open(struct metrics **out, const char *path, uint64_t step, uint64_t epoch);

int metrics_write_step(struct metrics *metrics, const struct metrics_step *step);
int metrics_write_eval(struct metrics *metrics, const struct metrics_eval *eval);
/* Scalars of steps and evaluations go to TensorBoard's file as well, of steps every `every`-th; the
 * caller closes events after metrics. */
void metrics_mirror(struct metrics *metrics, struct events *events, uint64_t every);

/* seconds: of the epoch in this process (after a resume, of the rest). */
int metrics_write_epoch(struct metrics *metrics, uint64_t epoch, struct hash128 receipt,
                        double seconds);
/* top1 negative: no evaluation was made. */
int metrics_write_done(struct metrics *metrics, uint64_t epochs, double top1);

/* Brings all lines so far to the disk: before a checkpoint that has them behind it. ERR_IO: not all
 * are there; try again later. */
int metrics_sync(struct metrics *metrics);
void metrics_close(struct metrics *metrics); /* accepts NULL */

#endif

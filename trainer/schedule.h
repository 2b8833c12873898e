/* SPDX-License-Identifier: Apache-2.0 */
/* The learning rate of every step: warm-up, then step decay or cosine. It follows the planned
 * epochs, however early a run is stopped. */
#ifndef TRAINER_SCHEDULE_H
#define TRAINER_SCHEDULE_H

#include <stdbool.h>
#include <stdint.h>

struct schedule {
    double lr; /* at the end of the warm-up */
    bool cosine;
    uint64_t warmup_steps; /* 0: none */
    uint64_t total_steps;  /* of all planned epochs, warm-up included */
};

/* step counts from 0 over the whole run. With W = warmup_steps, T = total_steps - W:
 *
 *   step < W   lr (step + 1) / W. The paper (section 3.1) counts batches 1..m and gives batch i the
 *              rate i eta / m: the first step moves, the last of the warm-up has the full rate.
 *
 *   cosine     lr/2 (1 + cos(t pi / T)), t = step - W (section 5.1, t from 0): the first step
 *              behind the warm-up has the full rate, the last one is a little above zero.
 *
 *   step       lr divided by 10 at 1/4, 1/2 and 3/4 of total_steps, warm-up included (epochs 30, 60
 *              and 90 of 120, section 2.1).
 *
 * Steps past the end have the last step's rate. */
double schedule_lr(const struct schedule *schedule, uint64_t step);

#endif

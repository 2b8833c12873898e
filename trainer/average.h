/* SPDX-License-Identifier: Apache-2.0 */
/* The exponential moving average of a run's weights and running statistics, judged beside the plain
 * ones; off unless --ema-decay is given. */
#ifndef TRAINER_AVERAGE_H
#define TRAINER_AVERAGE_H

#include "trainer/backend.h"
#include "trainer/weights.h"

struct average {
    struct weights weights;  /* state NULL: off */
    struct program *program; /* its evaluation; NULL: none */
    double decay;
};

/* Opens the average's state, for net's input size, and the program of its evaluation (config NULL:
 * none). decay 0: does nothing. */
int average_open(struct average *average, double decay, const struct net *net,
                 const struct backend_ops *ops, struct backend *backend,
                 const struct program_config *config);
void average_close(struct average *average); /* accepts a zeroed one */

/* Begins with these weights. */
int average_begin(struct average *average, const struct weights *weights);

/* Moves after update `step` (from 0) by the decay, or by (1 + step) / (10 + step) while that is
 * less, so that the first values are soon forgotten (TensorFlow's ExponentialMovingAverage). */
int average_move(struct average *average, const struct weights *weights, uint64_t step);

#endif

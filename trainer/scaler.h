/* SPDX-License-Identifier: Apache-2.0 */
/* The loss scale of low-precision training (paper section 3.1; Micikevicius et al. 2018): the loss
 * is multiplied by it so that small gradients survive fp16, gradients are divided by it before the
 * update, and a step with a gradient that is not finite is left out. */
#ifndef TRAINER_SCALER_H
#define TRAINER_SCALER_H

#include <stdbool.h>
#include <stdint.h>

#include "trainer/backend.h"

enum {
    SCALER_START = 65536, /* 2^16, as PyTorch's GradScaler */
    SCALER_GROWTH_STEPS = 2000,
    SCALER_BAD_STEPS = 100, /* in a row: a scale will not help any more */
};

struct scaler {
    double scale;
    bool dynamic;
    uint32_t good_steps; /* since the scale last changed */
    uint32_t bad_steps;  /* in a row */
};

/* text: "dynamic" or a positive number. fp32 and bf16 have the range of the loss itself: 1.
 * ERR_ARG. */
int scaler_init(struct scaler *scaler, const char *text, enum precision precision);

/* Behind scaler_init: goes on as a checkpoint has it. A scale that this run does not move stays
 * what its own --loss-scale and precision make it, whatever the run had before. */
void scaler_resume(struct scaler *scaler, double scale, uint64_t good_steps, uint64_t bad_steps);

/* After each step. A dynamic scale halves when the gradients were not finite (down to 1) and
 * doubles after SCALER_GROWTH_STEPS good steps (up to 2^24). Returns false when leaving out steps
 * does not help any more: not finite at scale 1 (so always in fp32), or SCALER_BAD_STEPS times in a
 * row. */
bool scaler_step(struct scaler *scaler, bool finite);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* The frozen network that a run distils from (paper section 5.3): it sees the student's own input,
 * on the same device, and its logits enter the loss. */
#ifndef TRAINER_TEACHER_H
#define TRAINER_TEACHER_H

#include "proto/recipe.h"
#include "trainer/backend.h"

struct teacher { /* all NULL: none */
    struct net *net;
    struct state *state;
    struct program *program;
    const struct backend_ops *ops;
    double seen_s; /* program_seconds that were asked for already */
};

/* Opens --teacher for students like `student` (whose size, channels and classes it must have),
 * which run as config says; does nothing when the recipe names none. Sets config's teacher and the
 * loss's temperature and weights. ERR_IO, ERR_DATA: the file; ERR_ARG: it does not fit. */
int teacher_open(struct teacher *teacher, struct program_config *config,
                 const struct recipe *recipe, const struct net *student,
                 const struct backend_ops *ops, struct backend *backend);
void teacher_close(struct teacher *teacher); /* accepts a zeroed one */

/* Seconds that it took since the last call. Where the backend does not measure them: its share of
 * the multiply-adds of a step (a training pass counts as three forward ones) of step_seconds. */
double teacher_seconds(struct teacher *teacher, const struct net *student, double step_seconds);

#endif

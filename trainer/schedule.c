/* SPDX-License-Identifier: Apache-2.0 */
/* The learning rate of every step. */
#include "trainer/schedule.h"

#include <math.h>

static double cosine_lr(const struct schedule *schedule, uint64_t step)
{
    double t = (double)(step - schedule->warmup_steps);
    double total = (double)(schedule->total_steps - schedule->warmup_steps);
    return 0.5 * (1 + cos(t * M_PI / total)) * schedule->lr;
}

/* step >= k/4 of the total, without a fraction: 4 step >= k total. */
static double step_lr(const struct schedule *schedule, uint64_t step)
{
    static const double divisors[] = {1, 10, 100, 1000};
    int decays = 0;
    while (decays < 3 && 4 * step >= (uint64_t)(decays + 1) * schedule->total_steps)
        decays++;
    return schedule->lr / divisors[decays];
}

double schedule_lr(const struct schedule *schedule, uint64_t step)
{
    if (schedule->total_steps > 0 && step >= schedule->total_steps)
        step = schedule->total_steps - 1;
    if (step < schedule->warmup_steps)
        return schedule->lr * (double)(step + 1) / (double)schedule->warmup_steps;
    return schedule->cosine ? cosine_lr(schedule, step) : step_lr(schedule, step);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Nesterov's update, plainly: what the fast backends are compared with. */
#include <math.h>

#include "trainer/ref/ops.h"

bool update_ref_finite(const real *values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!isfinite(values[i]))
            return false;
    return true;
}

void update_ref_nag(real *w, real *v, const real *gradient, size_t count,
                    const struct update_ref *update)
{
    for (size_t i = 0; i < count; i++) {
        real g = update->grad_scale * gradient[i] + update->decay * w[i];
        v[i] = update->momentum * v[i] + g;
        w[i] -= update->lr * (g + update->momentum * v[i]);
    }
}

void update_ref_average(real *average, const real *values, size_t count, double decay)
{
    const real share = (real)(1 - decay);
    for (size_t i = 0; i < count; i++)
        average[i] += share * (values[i] - average[i]);
}

void update_ref_running(real *running, const real *sum, size_t count, double micro_batches)
{
    for (size_t i = 0; i < count; i++) {
        double moved = running[i] + (double)NET_BN_MOMENTUM * (sum[i] / micro_batches - running[i]);
        running[i] = (real)moved;
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Nesterov's update of all weights, on threads; the formula is in trainer/ref/update.c. */
#include <math.h>

#include "trainer/checks.h"
#include "trainer/dnnl/dnnl.h"

enum { WORTH_THREADS = 1 << 14 }; /* elements */

static bool is_finite(const float *values, size_t count, int threads)
{
    int bad = 0;
#pragma omp parallel for simd num_threads(threads) reduction(+ : bad) schedule(static)
    for (size_t i = 0; i < count; i++)
        bad += !(fabsf(values[i]) <= 3.402823466e38f);
    return bad == 0;
}

static void nag(float *restrict w, float *restrict v, const float *restrict gradient, size_t count,
                const struct update *update, float lr, float decay, int threads)
{
    const float momentum = (float)update->momentum;
    const float grad_scale = (float)update->grad_scale;
#pragma omp parallel for simd num_threads(threads) schedule(static) if (count >= WORTH_THREADS)
    for (size_t i = 0; i < count; i++) {
        float g = grad_scale * gradient[i] + decay * w[i];
        v[i] = momentum * v[i] + g;
        w[i] -= lr * (g + momentum * v[i]);
    }
}

static void running(float *values, const float *sum, size_t count, double micro_batches)
{
    for (size_t i = 0; i < count; i++)
        values[i] =
            (float)(values[i] + (double)NET_BN_MOMENTUM * (sum[i] / micro_batches - values[i]));
}

int update_dnnl(struct state *state, int slot, const struct update *update)
{
    int code = checks_slot(slot, state->slot_total);
    if (code)
        return code;
    int threads = state->backend->threads;
    state->updated_slot = slot;
    state->updated_finite =
        is_finite(state->slots + (size_t)slot * state->slot_count, state->metrics_at, threads);
    if (!state->updated_finite && update->skip_nonfinite)
        return 0;
    for (int i = 0; i < state->net->tensor_count; i++) {
        const struct tensor *tensor = &state->net->tensors[i];
        const float *sum = state_slot(state, slot, i);
        float decay = net_decayed(tensor, update->no_bias_decay) ? (float)update->weight_decay : 0;
        double lr = tensor->head && update->head_lr > 0 ? update->head_lr : update->lr;
        if (sum && tensor->trained)
            nag(state_values(state, i), state->momentum + state->value_at[i], sum, tensor->count,
                update, (float)lr, decay, threads);
        else if (sum)
            running(state_values(state, i), sum, tensor->count, update->micro_batches);
    }
    state->version++;
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The moving average of a run's weights. */
#include "trainer/average.h"

#include <stdlib.h>

#include "common/err.h"

int average_open(struct average *average, double decay, const struct net *net,
                 const struct backend_ops *ops, struct backend *backend,
                 const struct program_config *config)
{
    *average = (struct average){.decay = decay};
    if (!(decay > 0))
        return 0;
    average->weights = (struct weights){.ops = ops, .net = net};
    int code = ops->state_open(&average->weights.state, backend, net, 1);
    if (!code && config)
        code = ops->program_open(&average->program, average->weights.state, config);
    return code;
}

void average_close(struct average *average)
{
    if (average->program)
        average->weights.ops->program_close(average->program);
    if (average->weights.state)
        average->weights.ops->state_close(average->weights.state);
    *average = (struct average){0};
}

int average_begin(struct average *average, const struct weights *weights)
{
    return average->weights.state ? weights_copy(&average->weights, weights) : 0;
}

/* Where the backend has no operation for it. */
static int move_on_host(const struct weights *average, const struct weights *weights, double decay)
{
    size_t largest = weights_largest(weights->net);
    float *mine = malloc(largest * sizeof *mine), *its = malloc(largest * sizeof *its);
    int code = mine && its ? 0 : err_set(ERR_NOMEM, "no memory for the average of the weights");
    for (int i = 0; i < weights->net->tensor_count && !code; i++) {
        code = average->ops->state_get(mine, average->state, STATE_WEIGHT, i);
        if (!code)
            code = weights->ops->state_get(its, weights->state, STATE_WEIGHT, i);
        for (size_t k = 0; k < weights->net->tensors[i].count && !code; k++)
            mine[k] += (float)(1 - decay) * (its[k] - mine[k]);
        if (!code)
            code = average->ops->state_set(average->state, STATE_WEIGHT, i, mine);
    }
    free(mine);
    free(its);
    return code;
}

int average_move(struct average *average, const struct weights *weights, uint64_t step)
{
    if (!average->weights.state)
        return 0;
    double early = (1.0 + (double)step) / (10.0 + (double)step);
    double decay = early < average->decay ? early : average->decay;
    if (!weights->ops->state_average)
        return move_on_host(&average->weights, weights, decay);
    return weights->ops->state_average(average->weights.state, weights->state, decay);
}

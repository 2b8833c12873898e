/* SPDX-License-Identifier: Apache-2.0 */
/* Weights, momentum, statistics and gradient slots, all in canonical layouts. */
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "trainer/buckets.h"
#include "trainer/checks.h"
#include "trainer/ref/ops.h"
#include "trainer/ref/ref.h"

static void place(struct state *state, int tensor)
{
    if (!state->net->tensors[tensor].trained)
        return;
    state->slot_at[tensor] = state->slot_count;
    state->slot_count += state->net->tensors[tensor].count;
}

static void place_statistic(struct state *state, int tensor)
{
    state->slot_at[tensor] = state->slot_count;
    state->slot_count += state->net->tensors[tensor].count;
}

/* Gradients in the order that the backward produces them, BN statistics, metrics. */
static void lay_out(struct state *state)
{
    const struct net *net = state->net;
    size_t at = 0;
    for (int i = 0; i < net->tensor_count; i++) {
        state->value_at[i] = at;
        state->slot_at[i] = NOWHERE;
        at += net->tensors[i].count;
    }
    for (int i = net->node_count - 1; i >= 0; i--) {
        const struct node *node = &net->nodes[i];
        if (node->kind == NODE_CONV) {
            place(state, node->gamma);
            place(state, node->beta);
        }
        if (node->kind == NODE_FC)
            place(state, node->bias);
        if (node->weight >= 0)
            place(state, node->weight);
    }
    for (int i = 0; i < net->node_count; i++) {
        const struct node *node = &net->nodes[i];
        if (node->kind == NODE_CONV && !net_bn_frozen(net, node)) {
            place_statistic(state, node->running_mean);
            place_statistic(state, node->running_var);
        }
    }
    state->metrics_at = state->slot_count;
    state->slot_count += METRICS;
}

int state_ref_open(struct state **out, struct backend *backend, const struct net *net, int slots)
{
    *out = NULL;
    struct state *state = calloc(1, sizeof *state);
    if (!state)
        return err_set(ERR_NOMEM, "no memory for the weights");
    state->backend = backend;
    state->slot_total = slots;
    state->updated_slot = -1;
    int code = net_copy(&state->net, net);
    if (code)
        goto fail;
    code = err_set(ERR_NOMEM, "no memory for the weights of %s", net->model);
    size_t tensors = (size_t)net->tensor_count, values = 0;
    for (size_t i = 0; i < tensors; i++)
        values += net->tensors[i].count;
    state->value_at = calloc(tensors, sizeof *state->value_at);
    state->slot_at = calloc(tensors, sizeof *state->slot_at);
    state->bucket_ends = calloc(tensors + 1, sizeof *state->bucket_ends);
    state->values = calloc(values, sizeof *state->values);
    state->momentum = calloc(values, sizeof *state->momentum);
    if (!state->value_at || !state->slot_at || !state->bucket_ends || !state->values ||
        !state->momentum)
        goto fail;
    lay_out(state);
    /* One more than asked for, so that a state without slots is not a special case. */
    state->slots = calloc(((size_t)slots + 1) * state->slot_count, sizeof *state->slots);
    if (!state->slots)
        goto fail;
    *out = state;
    return 0;
fail:
    state_ref_close(state);
    return code;
}

void state_ref_close(struct state *state)
{
    if (!state)
        return;
    net_close(state->net);
    free(state->value_at);
    free(state->slot_at);
    free(state->bucket_ends);
    free(state->values);
    free(state->momentum);
    free(state->slots);
    free(state);
}

/* Where the values of a kind are; NULL with the error set when the tensor has none. */
static real *kind_of_values(struct state *state, enum state_kind kind, int tensor)
{
    if (checks_tensor(state->net, kind, tensor))
        return NULL;
    return kind == STATE_WEIGHT ? state_values(state, tensor)
                                : state->momentum + state->value_at[tensor];
}

int state_ref_set(struct state *state, enum state_kind kind, int tensor, const float *src)
{
    real *dst = kind_of_values(state, kind, tensor);
    if (!dst)
        return ERR_ARG;
    for (size_t i = 0; i < state->net->tensors[tensor].count; i++)
        dst[i] = src[i];
    return 0;
}

int state_ref_get(float *dst, struct state *state, enum state_kind kind, int tensor)
{
    const real *src = kind_of_values(state, kind, tensor);
    if (!src)
        return ERR_ARG;
    for (size_t i = 0; i < state->net->tensors[tensor].count; i++)
        dst[i] = (float)src[i];
    return 0;
}

int state_ref_split(struct state *state, size_t bucket_bytes)
{
    if (state->bucket_total)
        return 0;
    const struct net *net = state->net;
    size_t *ends = malloc(((size_t)net->tensor_count + 1) * sizeof *ends);
    if (!ends)
        return err_set(ERR_NOMEM, "no memory for the gradients' buckets");
    size_t count = 0;
    for (int i = 0; i < net->tensor_count; i++)
        if (state->slot_at[i] != NOWHERE)
            ends[count++] = state->slot_at[i] + net->tensors[i].count;
    ends[count++] = state->slot_count; /* metrics */
    state->bucket_total = buckets_cut(state->bucket_ends, ends, count, bucket_bytes);
    free(ends);
    return 0;
}

int state_ref_slot_get(float *dst, struct state *state, int slot, int tensor)
{
    if (checks_slot(slot, state->slot_total))
        return ERR_ARG;
    if (tensor < 0 || tensor >= state->net->tensor_count || state->slot_at[tensor] == NOWHERE)
        return err_set(ERR_ARG, "tensor %d of %s has no gradient", tensor, state->net->model);
    const real *src = state_slot(state, slot, tensor);
    for (size_t i = 0; i < state->net->tensors[tensor].count; i++)
        dst[i] = (float)src[i];
    return 0;
}

int state_ref_buckets(const struct state *state)
{
    return state->bucket_total;
}

struct bucket state_ref_bucket(struct state *state, int slot, int bucket)
{
    size_t begin = bucket ? state->bucket_ends[bucket - 1] : 0;
    return (struct bucket){.data = state->slots + (size_t)slot * state->slot_count + begin,
                           .count = state->bucket_ends[bucket] - begin};
}

static void add_bucket(struct state *state, int dst, int src, int bucket)
{
    struct bucket to = state_ref_bucket(state, dst, bucket);
    const real *from = state_ref_bucket(state, src, bucket).data;
    real *sum = to.data;
    for (size_t i = 0; i < to.count; i++)
        sum[i] += from[i];
}

int state_ref_slot_add(struct state *state, int dst, int src, int bucket)
{
    if (checks_slot(dst, state->slot_total) || checks_slot(src, state->slot_total) ||
        checks_bucket(bucket, state->bucket_total))
        return ERR_ARG;
    int first = bucket == BUCKETS_ALL ? 0 : bucket;
    int end = bucket == BUCKETS_ALL ? state->bucket_total : bucket + 1;
    for (int b = first; b < end; b++)
        add_bucket(state, dst, src, b);
    return 0;
}

static void update_tensor(struct state *state, int slot, int tensor, const struct update *update)
{
    const struct tensor *what = &state->net->tensors[tensor];
    const real *sum = state_slot(state, slot, tensor);
    if (!sum)
        return;
    real *values = state_values(state, tensor);
    if (!what->trained) {
        update_ref_running(values, sum, what->count, update->micro_batches);
        return;
    }
    bool decayed = net_decayed(what, update->no_bias_decay);
    double lr = what->head && update->head_lr > 0 ? update->head_lr : update->lr;
    const struct update_ref step = {.lr = (real)lr,
                                    .momentum = (real)update->momentum,
                                    .decay = (real)(decayed ? update->weight_decay : 0),
                                    .grad_scale = (real)update->grad_scale};
    update_ref_nag(values, state->momentum + state->value_at[tensor], sum, what->count, &step);
}

int state_ref_update(struct state *state, int slot, const struct update *update)
{
    if (checks_slot(slot, state->slot_total))
        return ERR_ARG;
    const real *all = state->slots + (size_t)slot * state->slot_count;
    state->updated_slot = slot;
    state->updated_finite = update_ref_finite(all, state->metrics_at);
    if (!state->updated_finite && update->skip_nonfinite)
        return 0;
    for (int i = 0; i < state->net->tensor_count; i++)
        update_tensor(state, slot, i, update);
    return 0;
}

int state_ref_average(struct state *average, struct state *state, double decay)
{
    size_t count = 0;
    for (int i = 0; i < state->net->tensor_count; i++)
        count += state->net->tensors[i].count;
    update_ref_average(average->values, state->values, count, decay);
    average->version++;
    return 0;
}

int state_ref_metrics(struct batch_metrics *metrics, struct state *state, int slot)
{
    if (checks_slot(slot, state->slot_total))
        return ERR_ARG;
    const real *from = state_slot_metrics(state, slot);
    *metrics =
        (struct batch_metrics){.loss = from[0],
                               .top1 = from[1],
                               .top5 = from[2],
                               .samples = from[3],
                               .finite = slot != state->updated_slot || state->updated_finite};
    return 0;
}

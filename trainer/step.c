/* SPDX-License-Identifier: Apache-2.0 */
/* One training step. */
#include "trainer/step.h"

#include <math.h>

#include "common/clock.h"
#include "trainer/accumulate.h"

/* Micro-batches that the backend may still read. */
struct held {
    struct feed_batch batches[FEED_HELD_MAX];
    int count;
};

static int release_held(struct held *held, struct session *session)
{
    if (held->count == 0)
        return 0;
    int code = session->ops->synchronise(session->backend);
    for (int i = 0; i < held->count; i++)
        feed_release(session->feed, &held->batches[i]);
    held->count = 0;
    return code;
}

/* The next micro-batch, which stays in held. */
static int fetch(struct feed_batch **fetched, struct held *held, struct session *session)
{
    int depth = feed_depth(session->feed);
    if (held->count == (depth < FEED_HELD_MAX ? depth : FEED_HELD_MAX)) {
        int code = release_held(held, session);
        if (code)
            return code;
    }
    *fetched = &held->batches[held->count];
    int code = feed_pop(*fetched, session->feed);
    held->count += !code;
    return code;
}

static int add_slots(struct session *session, const struct accumulate_step *plan, int bucket)
{
    int code = 0;
    for (int i = 0; i < plan->adds && !code; i++)
        code = session->ops->slot_add(session->state, plan->add_dst[i], plan->add_src[i], bucket);
    return code;
}

/* The last micro-batch of a step: each bucket that it completes is added up through the tree and
 * given to the ranks, while the backward goes on. */
struct completion {
    struct session *session;
    struct accumulate_step plan;
    int code;
};

static void complete_bucket(void *user, int bucket)
{
    struct completion *completion = user;
    struct session *session = completion->session;
    if (!completion->code)
        completion->code = add_slots(session, &completion->plan, bucket);
    if (completion->code)
        return;
    struct bucket sum = session->ops->slot_bucket(session->state, 0, bucket);
    completion->code = session->comm->ops->reduce_begin(session->comm, &sum);
}

/* Runs micro-batch i of the step into its slot of the tree. Behind the last one slot 0 has the sum
 * over all ranks. No rank begins with its last one when another has none. */
static int run_micro_batch(struct step_result *result, struct held *held, struct session *session,
                           int i, double loss_factor)
{
    struct completion completion = {.session = session};
    struct feed_batch *fetched = NULL;
    bool last = i == session->micro_batches - 1;
    accumulate_plan(&completion.plan, i, session->micro_batches);
    int code = fetch(&fetched, held, session);
    if (last)
        code = comm_agree(session->comm, code);
    if (code)
        return code;
    result->wait_seconds += fetched->wait_seconds;
    result->receipt = hash128_add(result->receipt, fetched->receipt);
    struct batch batch = {fetched->pixels, fetched->labels, fetched->offsets,
                          (int)fetched->samples};
    code = session->ops->run(session->train_program, &batch, completion.plan.slot, loss_factor,
                             last ? complete_bucket : NULL, &completion);
    if (!code && !last)
        return add_slots(session, &completion.plan, BUCKETS_ALL);
    int failure = last ? session->comm->ops->reduce_end(session->comm) : 0;
    code = code ? code : completion.code;
    return code ? code : failure;
}

static int update(struct session *session, double lr, double loss_scale)
{
    const struct recipe *recipe = &session->options->recipe;
    struct update update = {
        .lr = lr,
        .head_lr = lr * recipe->head_lr / recipe->lr,
        .momentum = recipe->momentum,
        .weight_decay = recipe->weight_decay,
        .no_bias_decay = recipe->no_bias_decay,
        .grad_scale = 1 / loss_scale,
        .micro_batches = (double)(session->micro_batches * session->comm->size),
        .skip_nonfinite = true,
    };
    return session->ops->update(session->state, 0, &update);
}

static int measure(struct step_result *result, struct session *session)
{
    struct batch_metrics sums;
    int code = session->ops->metrics(&sums, session->state, 0);
    if (code)
        return code;
    result->loss = sums.loss / sums.samples;
    result->top1 = 100 * sums.top1 / sums.samples;
    result->finite = sums.finite && isfinite(result->loss);
    return 0;
}

int step_run(struct step_result *result, struct session *session, double lr, double loss_scale)
{
    struct held held = {.count = 0};
    double start_s = clock_seconds();
    double loss_factor = loss_scale / (double)session->options->recipe.total_batch;
    int code = 0;
    *result = (struct step_result){0};
    for (int i = 0; i < session->micro_batches && !code; i++) {
        code = run_micro_batch(result, &held, session, i, loss_factor);
        if (code && i < session->micro_batches - 1) /* the others ask at their last one */
            code = comm_agree(session->comm, code);
    }
    if (!code)
        code = update(session, lr, loss_scale);
    if (!code)
        code = measure(result, session);
    int released = release_held(&held, session);
    result->seconds = clock_seconds() - start_s;
    result->teacher_seconds = teacher_seconds(&session->teacher, session->net, result->seconds);
    return code ? code : released;
}

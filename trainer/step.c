/* SPDX-License-Identifier: Apache-2.0 */
/* Training steps. */
#include "trainer/step.h"

#include <math.h>
#include <string.h>

#include "common/clock.h"
#include "trainer/accumulate.h"

void step_init(struct step_queue *steps, struct session *session)
{
    *steps = (struct step_queue){.session = session, .told_s = clock_seconds()};
}

/* --- micro-batches ---------------------------------------------------------------------------- */

static void release_oldest(struct step_queue *steps, int count)
{
    for (int i = 0; i < count; i++)
        feed_release(steps->session->feed, &steps->held[i]);
    steps->held_count -= count;
    memmove(steps->held, steps->held + count, (size_t)steps->held_count * sizeof *steps->held);
    steps->held_before = steps->held_before > count ? steps->held_before - count : 0;
}

static int release_all(struct step_queue *steps)
{
    if (steps->held_count == 0)
        return 0;
    int code = steps->session->ops->inputs_read(steps->session->train_program);
    release_oldest(steps, steps->held_count);
    return code;
}

/* The next micro-batch, which stays in held. */
static int fetch(struct batch *batch, struct step_result *result, struct step_queue *steps)
{
    int depth = feed_depth(steps->session->feed);
    if (steps->held_count == (depth < FEED_HELD_MAX ? depth : FEED_HELD_MAX)) {
        int code = release_all(steps);
        if (code)
            return code;
    }
    struct feed_batch *fetched = &steps->held[steps->held_count];
    int code = feed_pop(fetched, steps->session->feed);
    if (code)
        return code;
    steps->held_count++;
    result->wait_seconds += fetched->wait_seconds;
    result->receipt = hash128_add(result->receipt, fetched->receipt);
    *batch =
        (struct batch){fetched->pixels, fetched->labels, fetched->offsets, (int)fetched->samples};
    return 0;
}

/* --- what is done with them ------------------------------------------------------------------- */

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
    completion->code = comm_reduce_begin(session->comm, &sum);
}

static bool is_last(const struct session *session, int i)
{
    return i == session->micro_batches - 1;
}

/* Runs micro-batch i of the step into its slot of the tree. Behind the last one slot 0 has the sum
 * over all ranks. */
static int run_micro_batch(struct session *session, const struct batch *batch, int i,
                           double loss_factor)
{
    struct completion completion = {.session = session};
    bool last = is_last(session, i);
    accumulate_plan(&completion.plan, i, session->micro_batches);
    int code = session->ops->run(session->train_program, batch, completion.plan.slot, loss_factor,
                                 last ? complete_bucket : NULL, &completion);
    if (!code && !last)
        return add_slots(session, &completion.plan, BUCKETS_ALL);
    int failure = last ? comm_reduce_end(session->comm) : 0;
    code = code ? code : completion.code;
    return code ? code : failure;
}

static void measure(struct step_result *result, const struct batch_metrics *sums)
{
    result->loss = sums->loss / sums->samples;
    result->top1 = 100 * sums->top1 / sums->samples;
    result->finite = sums->finite && isfinite(result->loss);
    result->known = true;
}

static int move_average(struct session *session, uint64_t number)
{
    const struct weights weights = session_weights(session);
    return average_move(&session->average, &weights, number);
}

/* The result is complete: it took from the last one's end to now. */
static void close_result(struct step_result *result, struct step_queue *steps, double begin_s)
{
    double now_s = clock_seconds();
    struct session *session = steps->session;
    result->seconds = now_s - fmax(begin_s, steps->told_s);
    result->wait_seconds = fmin(result->wait_seconds, result->seconds);
    result->teacher_seconds = teacher_seconds(&session->teacher, session->net, result->seconds);
    steps->told_s = now_s;
}

/* --- one step at once ------------------------------------------------------------------------- */

static int step_at_once(struct step_result *result, struct step_queue *steps,
                        const struct step_values *values, uint64_t number)
{
    struct session *session = steps->session;
    struct batch_metrics sums;
    double scale = values->loss_scale[0];
    struct update update = values->update;
    int code = 0;
    update.grad_scale = 1 / scale;
    for (int i = 0; i < session->micro_batches && !code; i++) {
        struct batch batch;
        code = fetch(&batch, result, steps);
        if (is_last(session, i)) /* no rank begins with it when another has none */
            code = comm_agree(session->comm, code);
        if (!code)
            code = run_micro_batch(session, &batch, i, scale * values->loss_share);
        if (code && !is_last(session, i)) /* the others ask at their last one */
            code = comm_agree(session->comm, code);
    }
    if (!code)
        code = session->ops->update(session->state, 0, &update);
    if (!code)
        code = session->ops->metrics(&sums, session->state, 0);
    if (!code)
        measure(result, &sums);
    if (!code && result->finite)
        code = move_average(session, number);
    int released = release_all(steps);
    return code ? code : released;
}

/* --- steps that are queued -------------------------------------------------------------------- */

static int queue_step(void *user)
{
    struct session *session = user;
    int code = 0;
    for (int i = 0; i < session->micro_batches && !code; i++)
        code = run_micro_batch(session, NULL, i, 0);
    return code ? code : session->ops->update(session->state, 0, NULL);
}

static int queue_ahead(struct step_result *pending, struct step_queue *steps,
                       const struct step_values *values, uint64_t number)
{
    struct session *session = steps->session;
    int code = 0;
    for (int i = 0; i < session->micro_batches && !code; i++) {
        struct batch batch;
        code = fetch(&batch, pending, steps);
        if (!code)
            code = session->ops->step_load(session->train_program, i, &batch);
        if (code || is_last(session, i)) /* no rank begins when another has not all */
            code = comm_agree(session->comm, code);
    }
    if (!code)
        code = session->ops->step_run(session->train_program, values, queue_step, session);
    return code ? code : move_average(session, number);
}

/* Waits for the step that is under way. A sum over ranks of which one is gone is none. */
static int finish(struct step_result *result, struct step_queue *steps)
{
    struct session *session = steps->session;
    struct batch_metrics sums;
    *result = (struct step_result){0};
    if (!steps->under_way)
        return 0;
    int code = session->ops->step_wait(&sums, session->train_program);
    if (!code)
        code = comm_reduce_check(session->comm);
    steps->under_way = false;
    if (code)
        return code;
    *result = steps->pending;
    measure(result, &sums);
    close_result(result, steps, steps->begin_s);
    release_oldest(steps, steps->held_before);
    return 0;
}

int step_finish(struct step_result *result, struct step_queue *steps)
{
    steps->held_before = steps->held_count;
    return finish(result, steps);
}

/* --- either way ------------------------------------------------------------------------------- */

static struct step_values values_of(const struct step_queue *steps, const struct step_rates *rates,
                                    const struct scaler *scaler)
{
    const struct session *session = steps->session;
    const struct recipe *recipe = &session->options->recipe;
    struct scaler good = *scaler, bad = *scaler;
    if (steps->under_way) { /* it ends in one of these */
        scaler_step(&good, true);
        scaler_step(&bad, false);
    }
    return (struct step_values){
        .loss_scale = {good.scale, bad.scale},
        .loss_share = 1 / (double)recipe->total_batch,
        .update =
            {
                .lr = rates->lr,
                .head_lr = rates->head_lr,
                .momentum = recipe->momentum,
                .weight_decay = recipe->weight_decay,
                .no_bias_decay = recipe->no_bias_decay,
                .micro_batches = (double)(session->micro_batches * session->comm->size),
                .skip_nonfinite = true,
            },
    };
}

int step_run(struct step_result *result, struct step_queue *steps, uint64_t number,
             const struct step_rates *rates, const struct scaler *scaler)
{
    const struct step_values values = values_of(steps, rates, scaler);
    double begin_s = clock_seconds();
    struct step_result mine = {0};
    *result = mine;
    steps->held_before = steps->held_count;
    if (!steps->session->ops->step_run) {
        int code = step_at_once(&mine, steps, &values, number);
        if (!code)
            close_result(&mine, steps, begin_s);
        *result = mine;
        return code;
    }
    int code = queue_ahead(&mine, steps, &values, number);
    if (code)
        return code;
    code = finish(result, steps);
    steps->pending = mine;
    steps->begin_s = begin_s;
    steps->under_way = true;
    return code;
}

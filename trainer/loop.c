/* SPDX-License-Identifier: Apache-2.0 */
/* The training loop.
 *
 * The feed is always a few ranges ahead: the rest of this epoch, its evaluation, the next epoch, so
 * that loaders do not rest while the trainer evaluates or writes a checkpoint. */
#include "trainer/loop.h"

#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/log.h"
#include "common/progress.h"
#include "common/stop.h"
#include "trainer/accumulate.h"
#include "trainer/evaluate.h"
#include "trainer/schedule.h"

enum { RANGES_AHEAD = 3, DETAIL_BYTES = 200, MESSAGE_BYTES = 1024 };

static const double smoothing = 0.05; /* weight of the newest step in the progress line */

/* What is shown of the last steps. */
struct shown {
    double loss, top1, wait_share; /* exponential averages */
    bool any;
};

struct loop {
    struct session *session;
    const struct recipe *recipe;
    const struct rundir *dir;
    struct metrics *metrics;
    struct progress *progress;
    struct checkpoint *at; /* where the run stands; receipt is this rank's part */
    struct metrics_eval *last;
    struct schedule schedule;
    struct scaler scaler;
    struct shown shown;
    uint64_t end_step; /* of the run: the epochs' steps, or --max-steps */
    double epoch_start_s;

    /* The range that is pushed next. */
    uint64_t ahead_epoch;
    bool ahead_eval;
    int queued; /* ranges pushed and not yet taken */

    struct feed_batch held[FEED_HELD_MAX]; /* the backend may still read them */
    int held_count;
};

/* --- what the feed fetches ----------------------------------------------------------------- */

/* Steps of this epoch that belong to the run. */
static uint64_t epoch_steps(const struct loop *loop, uint64_t epoch)
{
    uint64_t steps = loop->session->steps_per_epoch, first = epoch * steps;
    uint64_t left = loop->end_step > first ? loop->end_step - first : 0;
    return left < steps ? left : steps;
}

static struct feed_range train_range(const struct loop *loop, uint64_t epoch, uint64_t first_step)
{
    const struct session *session = loop->session;
    uint32_t chunks = (uint32_t)loop->recipe->total_batch / session->train_spec.chunk_size;
    uint32_t share = chunks / (uint32_t)session->comm->size;
    return (struct feed_range){
        .spec = session->train_spec,
        .epoch = (uint32_t)epoch,
        .first_step = first_step,
        .step_count = epoch_steps(loop, epoch),
        .chunks_per_step = chunks,
        .rank_offset = share * (uint32_t)session->comm->rank,
        .rank_chunks = share,
        .micro_batch = (uint32_t)loop->recipe->micro_batch,
    };
}

static int push_train(struct loop *loop)
{
    uint64_t first = loop->ahead_epoch == loop->at->epoch ? loop->at->step_in_epoch : 0;
    if (first >= epoch_steps(loop, loop->ahead_epoch))
        return 0;
    struct feed_range range = train_range(loop, loop->ahead_epoch, first);
    int code = feed_push(loop->session->feed, &range);
    loop->queued += !code;
    return code;
}

static int push_eval(struct loop *loop)
{
    if (!loop->session->val)
        return 0;
    struct feed_range range = evaluate_range(loop->session, loop->ahead_epoch);
    int code = feed_push(loop->session->feed, &range);
    loop->queued += !code;
    return code;
}

/* An epoch of the run: it has steps to make, or steps that were made and not yet judged. */
static bool has_epoch(const struct loop *loop, uint64_t epoch)
{
    return epoch_steps(loop, epoch) > 0 ||
           (epoch == loop->at->epoch && loop->at->step_in_epoch > 0);
}

static int push_ahead(struct loop *loop)
{
    int code = 0;
    while (!code && loop->queued < RANGES_AHEAD && has_epoch(loop, loop->ahead_epoch)) {
        code = loop->ahead_eval ? push_eval(loop) : push_train(loop);
        loop->ahead_epoch += loop->ahead_eval;
        loop->ahead_eval = !loop->ahead_eval;
    }
    return code;
}

/* --- one step -------------------------------------------------------------------------------- */

/* Gives back what the backend has read. */
static int release_held(struct loop *loop)
{
    struct session *session = loop->session;
    if (loop->held_count == 0)
        return 0;
    int code = session->ops->synchronise(session->backend);
    for (int i = 0; i < loop->held_count; i++)
        feed_release(session->feed, &loop->held[i]);
    loop->held_count = 0;
    return code;
}

static int add_slots(struct session *session, const struct accumulate_step *plan)
{
    int code = 0;
    for (int i = 0; i < plan->adds && !code; i++)
        code = session->ops->slot_add(session->state, plan->add_dst[i], plan->add_src[i]);
    return code;
}

/* Micro-batch i of the step, into its slot of the tree. */
static int run_micro_batch(struct loop *loop, int i, struct hash128 *receipt, double *wait_s)
{
    struct session *session = loop->session;
    struct accumulate_step plan;
    accumulate_plan(&plan, i, session->micro_batches);
    int depth = feed_depth(session->feed);
    if (loop->held_count == (depth < FEED_HELD_MAX ? depth : FEED_HELD_MAX)) {
        int code = release_held(loop);
        if (code)
            return code;
    }
    struct feed_batch *fetched = &loop->held[loop->held_count];
    int code = feed_pop(fetched, session->feed);
    if (code)
        return code;
    loop->held_count++;
    *wait_s += fetched->wait_seconds;
    *receipt = hash128_add(*receipt, fetched->receipt);
    struct batch batch = {fetched->pixels, fetched->labels, (int)fetched->samples};
    double loss_factor = loop->scaler.scale / (double)loop->recipe->total_batch;
    code = session->ops->run(session->train_program, &batch, plan.slot, loss_factor, NULL, NULL);
    return code ? code : add_slots(session, &plan);
}

/* Sums slot 0 over the ranks. */
static int reduce_slot(struct session *session)
{
    struct comm *comm = session->comm;
    int code = 0;
    int buckets = comm->size > 1 ? session->ops->slot_buckets(session->state) : 0;
    for (int i = 0; i < buckets && !code; i++) {
        struct bucket bucket = session->ops->slot_bucket(session->state, 0, i);
        code = comm->ops->sum_floats(comm, bucket.data, bucket.count);
    }
    return code;
}

static int update(struct loop *loop, double lr)
{
    const struct recipe *recipe = loop->recipe;
    struct session *session = loop->session;
    struct update update = {
        .lr = lr,
        .momentum = recipe->momentum,
        .weight_decay = recipe->weight_decay,
        .no_bias_decay = recipe->no_bias_decay,
        .grad_scale = 1 / loop->scaler.scale,
        .micro_batches = (double)(session->micro_batches * session->comm->size),
        .skip_nonfinite = true,
    };
    return session->ops->update(session->state, 0, &update);
}

static int check_finite(struct loop *loop, const struct batch_metrics *metrics, double loss)
{
    bool finite = metrics->finite && isfinite(loss);
    if (scaler_step(&loop->scaler, finite))
        return 0;
    return err_set(
        ERR_DATA,
        "the loss or a gradient is not finite at step %" PRIu64 " (epoch %" PRIu64
        ", loss %g): lower --lr or lengthen --warmup-epochs; the last checkpoint in '%s' "
        "is from before",
        loop->at->step, loop->at->epoch, loss, loop->dir->path);
}

static void average(double *mean, double value, bool any)
{
    *mean = any ? *mean + smoothing * (value - *mean) : value;
}

static void show(struct loop *loop, const struct metrics_step *step, double top1)
{
    char detail[DETAIL_BYTES];
    struct shown *shown = &loop->shown;
    average(&shown->loss, step->loss, shown->any);
    average(&shown->top1, top1, shown->any);
    average(&shown->wait_share, step->wait_share, shown->any);
    shown->any = true;
    snprintf(detail, sizeof detail,
             "epoch %" PRIu64 "/%lld, step %" PRIu64 "/%" PRIu64
             ", loss %.4f, top-1 %.1f %%, lr %.3g, waiting %.0f %%",
             step->epoch + 1, (long long)loop->recipe->epochs, loop->at->step_in_epoch,
             loop->session->steps_per_epoch, shown->loss, shown->top1, step->lr,
             100 * shown->wait_share);
    progress_update(loop->progress, loop->at->step * (uint64_t)loop->recipe->total_batch, detail);
}

/* After the update: what the step was, on disk and on the progress line. */
static int record_step(struct loop *loop, double lr, double start_s, double wait_s)
{
    struct batch_metrics sums;
    struct session *session = loop->session;
    int code = session->ops->metrics(&sums, session->state, 0);
    if (code)
        return code;
    double seconds = clock_seconds() - start_s;
    struct metrics_step step = {
        .step = loop->at->step,
        .epoch = loop->at->epoch,
        .loss = sums.loss / sums.samples,
        .lr = lr,
        .images_per_second = (double)loop->recipe->total_batch / seconds,
        .wait_share = wait_s / seconds,
    };
    code = check_finite(loop, &sums, step.loss);
    if (!code && loop->metrics)
        code = metrics_write_step(loop->metrics, &step);
    if (code)
        return code;
    loop->at->step++;
    loop->at->step_in_epoch++;
    show(loop, &step, 100 * sums.top1 / sums.samples);
    return 0;
}

/* A step that is not finished leaves nothing behind: position and receipt move at its end. */
static int train_step(struct loop *loop)
{
    struct hash128 receipt = loop->at->receipt;
    double start_s = clock_seconds(), wait_s = 0;
    double lr = schedule_lr(&loop->schedule, loop->at->step);
    int code = 0;
    for (int i = 0; i < loop->session->micro_batches && !code; i++)
        code = run_micro_batch(loop, i, &receipt, &wait_s);
    if (!code)
        code = reduce_slot(loop->session);
    if (!code)
        code = update(loop, lr);
    if (!code)
        code = record_step(loop, lr, start_s, wait_s);
    int released = release_held(loop);
    if (!code)
        loop->at->receipt = receipt;
    return code ? code : released;
}

/* --- checkpoints ------------------------------------------------------------------------------ */

/* Over the ranks, in 32-bit pieces so that carries are not lost. */
static int sum_receipt(struct hash128 *receipt, struct comm *comm)
{
    uint64_t pieces[4] = {receipt->low & UINT32_MAX, receipt->low >> 32, receipt->high & UINT32_MAX,
                          receipt->high >> 32};
    int code = comm->ops->sum_integers(comm, pieces, 4);
    for (int i = 0; i < 3; i++) {
        pieces[i + 1] += pieces[i] >> 32;
        pieces[i] &= UINT32_MAX;
    }
    receipt->low = pieces[1] << 32 | pieces[0];
    receipt->high = pieces[3] << 32 | pieces[2];
    return code;
}

static int save(struct loop *loop, bool best)
{
    struct session *session = loop->session;
    struct weights weights = session_weights(session);
    struct checkpoint checkpoint = *loop->at;
    checkpoint.loss_scale = loop->scaler.scale;
    checkpoint.loss_scale_good_steps = loop->scaler.good_steps;
    int code = sum_receipt(&checkpoint.receipt, session->comm);
    if (code || session->comm->rank != 0)
        return code;
    code = metrics_sync(loop->metrics);
    if (!code && best)
        code = checkpoint_save(loop->dir->best, &checkpoint, &weights);
    return code ? code : checkpoint_save(loop->dir->last, &checkpoint, &weights);
}

static bool save_is_due(const struct loop *loop)
{
    uint64_t every = (uint64_t)loop->session->options->run.save_every;
    return every > 0 && loop->at->step % every == 0 &&
           loop->at->step_in_epoch < epoch_steps(loop, loop->at->epoch);
}

/* --- one epoch ----------------------------------------------------------------------------------
 */

/* All ranks stop when one was asked to. */
static int check_stop(struct loop *loop)
{
    uint64_t stop = stop_requested();
    struct comm *comm = loop->session->comm;
    int code = comm->ops->sum_integers(comm, &stop, 1);
    return code ? code : stop ? ERR_STOPPED : 0;
}

static int train_epoch(struct loop *loop)
{
    uint64_t steps = epoch_steps(loop, loop->at->epoch);
    bool any = loop->at->step_in_epoch < steps;
    int code = 0;
    while (!code && loop->at->step_in_epoch < steps) {
        code = check_stop(loop);
        if (!code)
            code = train_step(loop);
        if (!code && save_is_due(loop))
            code = save(loop, false);
    }
    loop->queued -= any && !code;
    return code;
}

/* Judges the epoch; *best: it is the best so far. */
static int evaluate_epoch(struct loop *loop, bool *best)
{
    struct metrics_eval eval = {.epoch = loop->at->epoch};
    *best = false;
    if (!loop->session->val)
        return 0;
    int code = evaluate_run(&eval, loop->session);
    if (code)
        return code;
    loop->queued--;
    *loop->last = eval;
    loop->at->top1 = eval.top1;
    *best = eval.top1 > loop->at->best_top1;
    if (*best)
        loop->at->best_top1 = eval.top1;
    log_info("epoch %" PRIu64 ": top-1 %.2f %%, top-5 %.2f %%, loss %.4f over %" PRIu64 " samples",
             eval.epoch, eval.top1, eval.top5, eval.loss, eval.samples);
    return loop->metrics ? metrics_write_eval(loop->metrics, &eval) : 0;
}

/* Behind the last step of a whole epoch: the stream's receipt, and on to the next. */
static int close_epoch(struct loop *loop)
{
    struct checkpoint *at = loop->at;
    struct hash128 receipt = at->receipt;
    double seconds = clock_seconds() - loop->epoch_start_s;
    int code = sum_receipt(&receipt, loop->session->comm);
    if (!code && loop->metrics)
        code = metrics_write_epoch(loop->metrics, at->epoch, receipt, seconds);
    if (code)
        return code;
    char text[33];
    hash128_to_text(text, receipt);
    log_info("epoch %" PRIu64 ": %.1f s, receipt %s", at->epoch, seconds, text);
    at->epoch++;
    at->step_in_epoch = 0;
    at->receipt = (struct hash128){0};
    return 0;
}

static int run_epoch(struct loop *loop)
{
    bool best;
    loop->epoch_start_s = clock_seconds();
    int code = push_ahead(loop);
    if (!code)
        code = train_epoch(loop);
    if (!code)
        code = push_ahead(loop);
    if (!code)
        code = evaluate_epoch(loop, &best);
    if (!code && loop->at->step_in_epoch == loop->session->steps_per_epoch)
        code = close_epoch(loop);
    if (code)
        return code;
    loop->at->finished = loop->at->step >= loop->end_step;
    if (loop->at->finished && loop->metrics)
        code = metrics_write_done(loop->metrics, loop->at->epoch, loop->at->top1);
    return code ? code : save(loop, best);
}

/* --- the run ------------------------------------------------------------------------------------
 */

/* The feed said why; what was reached is kept. */
static int stop_run(struct loop *loop, int reason)
{
    char message[MESSAGE_BYTES], cause[MESSAGE_BYTES / 2];
    bool stalled = reason == ERR_STOPPED && feed_stalled(loop->session->feed);
    snprintf(message, sizeof message, "%s", err_message());
    if (loop->at->step == 0 && (stalled || reason == ERR_PEER))
        return err_set(ERR_PEER, "%s; no step was made", message);
    int code = save(loop, false);
    if (code)
        return code;
    if (reason != ERR_STOPPED)
        return err_set(reason, "%s", message);
    if (stalled)
        snprintf(cause, sizeof cause, "the stall limit (%.*s)", MESSAGE_BYTES / 4, message);
    else
        snprintf(cause, sizeof cause, "%s", stop_signal() ? strsignal(stop_signal()) : "a request");
    return err_set(ERR_STOPPED,
                   "stopped by %s at step %" PRIu64 " (epoch %" PRIu64
                   "); --resume --out '%s' goes on from there",
                   cause, loop->at->step, loop->at->epoch, loop->dir->path);
}

static void init_loop(struct loop *loop)
{
    const struct session *session = loop->session;
    const struct recipe *recipe = loop->recipe;
    uint64_t steps = session->steps_per_epoch;
    uint64_t max_steps = (uint64_t)session->options->run.max_steps;
    loop->schedule = (struct schedule){
        .lr = recipe->lr,
        .cosine = strcmp(recipe->schedule, "cosine") == 0,
        .warmup_steps = (uint64_t)recipe->warmup_epochs * steps,
        .total_steps = (uint64_t)recipe->epochs * steps,
    };
    loop->end_step = loop->schedule.total_steps;
    if (max_steps > 0 && max_steps < loop->end_step)
        loop->end_step = max_steps;
    loop->ahead_epoch = loop->at->epoch;
    uint64_t batch = (uint64_t)recipe->total_batch;
    loop->progress = progress_open("training", loop->end_step * batch, "images");
    progress_resume(loop->progress, loop->at->step * batch);
}

/* A checkpoint of this run stands at a step of its schedule. */
static int check_position(const struct loop *loop)
{
    uint64_t steps = loop->session->steps_per_epoch;
    const struct checkpoint *at = loop->at;
    if (at->epoch <= (uint64_t)loop->recipe->epochs && at->step_in_epoch <= steps &&
        at->step == at->epoch * steps + at->step_in_epoch)
        return 0;
    return err_set(ERR_DATA,
                   "'%s': step %" PRIu64 " is not step %" PRIu64 " of epoch %" PRIu64
                   " with %" PRIu64 " steps an epoch",
                   loop->dir->last, at->step, at->step_in_epoch, at->epoch, steps);
}

int loop_run(struct metrics_eval *last, struct session *session, const struct rundir *dir,
             struct metrics *metrics, struct checkpoint *start)
{
    struct loop loop = {
        .session = session,
        .recipe = &session->options->recipe,
        .dir = dir,
        .metrics = metrics,
        .at = start,
        .last = last,
    };
    *last = (struct metrics_eval){0};
    int code = scaler_init(&loop.scaler, loop.recipe->loss_scale, session->options->precision);
    if (!code)
        code = check_position(&loop);
    if (code)
        return code;
    if (start->step > 0) {
        loop.scaler.scale = start->loss_scale;
        loop.scaler.good_steps = (uint32_t)start->loss_scale_good_steps;
    }
    start->finished = false;
    init_loop(&loop);
    while (!code && !start->finished && has_epoch(&loop, start->epoch))
        code = run_epoch(&loop);
    if (!code && !start->finished) { /* stopped behind an epoch that now is the last one */
        start->finished = true;
        code = metrics ? metrics_write_done(metrics, start->epoch, start->top1) : 0;
        code = code ? code : save(&loop, false);
    }
    progress_close(loop.progress);
    feed_flush(session->feed);
    return code == ERR_STOPPED || code == ERR_PEER ? stop_run(&loop, code) : code;
}

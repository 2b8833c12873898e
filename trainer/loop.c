/* SPDX-License-Identifier: Apache-2.0 */
/* The training loop. */
#include "trainer/loop.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/log.h"
#include "common/progress.h"
#include "common/stop.h"
#include "trainer/ahead.h"
#include "trainer/evaluate.h"
#include "trainer/schedule.h"
#include "trainer/step.h"

enum { DETAIL_BYTES = 200, MESSAGE_BYTES = 1024 };

static const double smoothing = 0.05; /* weight of the newest step in the progress line */

static const double waiting_hint = 0.1; /* share of the time from which more loaders pay */

/* What is shown of the last steps. */
struct shown {
    double loss, top1, wait_share, teacher_share; /* exponential averages */
    bool any;
};

struct loop {
    struct session *session;
    const struct recipe *recipe;
    const struct rundir *dir;
    struct metrics *metrics;
    struct saver *saver;
    struct predictions *predictions; /* of the last evaluation; NULL: there is none */
    struct progress *progress;
    struct checkpoint saved; /* what the saver was given last; receipt is all ranks' */
    struct checkpoint *at;   /* where the run stands; receipt is this rank's part */
    struct metrics_eval *last;
    struct schedule schedule;
    struct scaler scaler;
    struct shown shown;
    uint64_t end_step; /* of the run: the epochs' steps, or --max-steps */
    double epoch_start_s;
    double epoch_step_s, epoch_wait_s; /* of its steps in this process; waiting for data */
    struct ahead ahead;
    struct step_queue steps;
};

/* All ranks have the same sums: they end together, so that the checkpoint that rank 0 is writing
 * gets done. */
static int check_finite(struct loop *loop, const struct step_result *result)
{
    double scale = loop->scaler.scale;
    bool goes_on = scaler_step(&loop->scaler, result->finite);
    if (goes_on && !result->finite)
        log_info("step %" PRIu64 " is left out: a gradient is not finite at a loss scale of %g, "
                 "the next is %g",
                 loop->at->step, scale, loop->scaler.scale);
    if (goes_on)
        return 0;
    int code =
        err_set(ERR_DATA,
                "the loss or a gradient is not finite at step %" PRIu64 " (epoch %" PRIu64
                ", loss %g): lower --lr or lengthen --warmup-epochs, and start afresh; checkpoints "
                "in '%s' are from before",
                loop->at->step, loop->at->epoch, result->loss, loop->dir->path);
    return comm_agree(loop->session->comm, code);
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
    average(&shown->teacher_share, step->teacher_share, shown->any);
    shown->any = true;
    int used = snprintf(detail, sizeof detail,
                        "epoch %" PRIu64 "/%lld, step %" PRIu64 "/%" PRIu64
                        ", loss %.4f, top-1 %.1f %%, lr %.3g, waiting %.0f %%",
                        step->epoch + 1, (long long)loop->recipe->epochs, loop->at->step_in_epoch,
                        loop->session->steps_per_epoch, shown->loss, shown->top1, step->lr,
                        100 * shown->wait_share);
    if (loop->session->teacher.program)
        snprintf(detail + used, sizeof detail - (size_t)used, ", teacher %.0f %%",
                 100 * shown->teacher_share);
    progress_update(loop->progress, loop->at->step * (uint64_t)loop->recipe->total_batch, detail);
}

/* The result of the step at which the run stands. A step that is not finished leaves nothing
 * behind: position and receipt move at its end. */
static int take_result(struct loop *loop, const struct step_result *result)
{
    struct checkpoint *at = loop->at;
    int code = result->known ? check_finite(loop, result) : 0;
    if (code || !result->known)
        return code;
    struct metrics_step line = {
        .step = at->step,
        .epoch = at->epoch,
        .loss = result->loss,
        .lr = schedule_lr(&loop->schedule, at->step),
        .images_per_second = (double)loop->recipe->total_batch / result->seconds,
        .wait_share = result->wait_seconds / result->seconds,
        .teacher_share = result->teacher_seconds / result->seconds,
    };
    if (loop->metrics)
        code = metrics_write_step(loop->metrics, &line);
    if (code)
        return code;
    loop->epoch_step_s += result->seconds;
    loop->epoch_wait_s += result->wait_seconds;
    at->step++;
    at->step_in_epoch++;
    at->receipt = hash128_add(at->receipt, result->receipt);
    show(loop, &line, result->top1);
    return 0;
}

/* Steps that were queued, the one under way included. */
static uint64_t queued_step(const struct loop *loop)
{
    return loop->at->step + loop->steps.under_way;
}

/* The classifier's rate follows the same schedule, also where the others have none. */
static struct step_rates rates_of(const struct loop *loop, uint64_t number)
{
    const struct recipe *recipe = loop->recipe;
    struct schedule own = loop->schedule;
    own.lr = recipe->head_lr;
    double lr = schedule_lr(&loop->schedule, number);
    return (struct step_rates){.lr = lr,
                               .head_lr = recipe->lr > 0 ? lr * recipe->head_lr / recipe->lr
                                                         : schedule_lr(&own, number)};
}

static int train_step(struct loop *loop)
{
    struct step_result result;
    uint64_t number = queued_step(loop);
    const struct step_rates rates = rates_of(loop, number);
    int code = step_run(&result, &loop->steps, number, &rates, &loop->scaler);
    return code ? code : take_result(loop, &result);
}

/* Waits for the step that is under way. */
static int finish_steps(struct loop *loop)
{
    struct step_result result;
    int code = step_finish(&result, &loop->steps);
    return code ? code : take_result(loop, &result);
}

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

/* Hands the state over to be written; training goes on at once. */
static int save(struct loop *loop, bool best)
{
    struct checkpoint *saved = &loop->saved;
    *saved = *loop->at;
    saved->has_challenge =
        feed_challenge(&saved->challenge, loop->session->feed, &loop->session->train_spec);
    saved->loss_scale = loop->scaler.scale;
    saved->loss_scale_good_steps = loop->scaler.good_steps;
    saved->loss_scale_bad_steps = loop->scaler.bad_steps;
    int code = sum_receipt(&saved->receipt, loop->session->comm);
    if (code || !loop->saver)
        return code;
    return saver_save(loop->saver, saved, best, best ? loop->predictions : NULL);
}

/* The process is about to end: what save was given last has to be on the disk. If it is not, it is
 * tried once more. */
static int await_saved(struct loop *loop)
{
    int code = loop->saver ? saver_wait(loop->saver) : 0;
    if (code) {
        code = saver_save(loop->saver, &loop->saved, false, NULL);
        code = code ? code : saver_wait(loop->saver);
    }
    return code;
}

static bool ranks_are_due(const struct loop *loop)
{
    uint64_t every = (uint64_t)loop->session->options->run.check_ranks;
    return loop->session->comm->size > 1 && every > 0 && queued_step(loop) % every == 0;
}

/* A rank whose memory or device fails is found before its error has travelled far; all end together
 * then. */
static int check_ranks(const struct loop *loop)
{
    struct weights weights = session_weights(loop->session);
    struct comm *comm = loop->session->comm;
    struct hash128 hash;
    char what[DETAIL_BYTES];
    snprintf(what, sizeof what, "the weights behind step %" PRIu64, loop->at->step);
    int code = weights_hash(&hash, &weights);
    return code ? code : comm_agree(comm, comm_compare_hash(comm, hash, what));
}

/* How much of the ranks' talk was free. */
static void show_ranks(const struct loop *loop)
{
    struct comm *comm = loop->session->comm;
    struct comm_stats stats;
    comm->ops->reduce_stats(&stats, comm);
    if (comm->size > 1 && stats.busy_seconds > 0)
        log_info("%d ranks: %.0f MB of gradients summed in %.2f s, %.0f %% of it hidden behind the "
                 "backward",
                 comm->size, (double)stats.bytes / 1e6, stats.busy_seconds,
                 100 * fmax(0, 1 - stats.wait_seconds / stats.busy_seconds));
}

static bool save_is_due(const struct loop *loop)
{
    uint64_t every = (uint64_t)loop->session->options->run.save_every;
    return every > 0 && queued_step(loop) % every == 0 &&
           loop->at->step_in_epoch + loop->steps.under_way <
               ahead_epoch_steps(&loop->ahead, loop->at->epoch);
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

/* What looks at the weights between two steps. */
static int pause_steps(struct loop *loop)
{
    bool ranks = ranks_are_due(loop), saves = save_is_due(loop);
    int code = ranks || saves ? finish_steps(loop) : 0;
    if (!code && ranks)
        code = check_ranks(loop);
    return code || !saves ? code : save(loop, false);
}

static int train_epoch(struct loop *loop)
{
    uint64_t steps = ahead_epoch_steps(&loop->ahead, loop->at->epoch);
    bool any = loop->at->step_in_epoch < steps;
    int code = 0;
    while (!code && loop->at->step_in_epoch + loop->steps.under_way < steps) {
        code = check_stop(loop);
        if (!code)
            code = train_step(loop);
        if (!code)
            code = pause_steps(loop);
    }
    if (!code)
        code = finish_steps(loop);
    if (any && !code)
        ahead_taken(&loop->ahead);
    return code;
}

/* Judges the epoch; *best: it is the best so far. */
static int evaluate_epoch(struct loop *loop, bool *best)
{
    struct metrics_eval eval = {.epoch = loop->at->epoch};
    *best = false;
    if (!loop->session->val)
        return 0;
    predictions_reset(loop->predictions, eval.epoch);
    int code = evaluate_run(&eval, loop->predictions, loop->session);
    if (code)
        return code;
    ahead_taken(&loop->ahead);
    *loop->last = eval;
    loop->at->top1 = eval.top1;
    *best = eval.top1 > loop->at->best_top1;
    if (*best) {
        loop->at->best_top1 = eval.top1;
        code = predictions_gather(loop->predictions, loop->session->comm);
    }
    if (code)
        return code;
    log_info("epoch %" PRIu64 ": top-1 %.2f %%, top-5 %.2f %%, loss %.4f over %" PRIu64 " samples",
             eval.epoch, eval.top1, eval.top5, eval.loss, eval.samples);
    if (eval.has_ema)
        log_info("epoch %" PRIu64
                 ": average of the weights: top-1 %.2f %%, top-5 %.2f %%, loss %.4f",
                 eval.epoch, eval.ema_top1, eval.ema_top5, eval.ema_loss);
    return loop->metrics ? metrics_write_eval(loop->metrics, &eval) : 0;
}

/* What a person can do about it. */
static void show_waiting(struct loop *loop)
{
    double share = loop->epoch_step_s > 0 ? loop->epoch_wait_s / loop->epoch_step_s : 0;
    if (share >= waiting_hint)
        log_info("%.0f %% of the epoch's steps was waiting for data: more loaders, or more workers "
                 "in them, would make it faster",
                 100 * share);
    loop->epoch_step_s = loop->epoch_wait_s = 0;
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
    show_waiting(loop);
    at->epoch++;
    at->step_in_epoch = 0;
    at->receipt = (struct hash128){0};
    return 0;
}

static int run_epoch(struct loop *loop)
{
    bool best;
    loop->epoch_start_s = clock_seconds();
    int code = ahead_push(&loop->ahead);
    if (!code)
        code = train_epoch(loop);
    if (!code)
        code = ahead_push(&loop->ahead);
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
    struct comm *comm = loop->session->comm;
    uint64_t stalled = reason == ERR_STOPPED && feed_stalled(loop->session->feed);
    snprintf(message, sizeof message, "%s", err_message());
    int code = finish_steps(loop);
    if (!code)
        code = comm->ops->sum_integers(comm, &stalled, 1);
    if (code)
        return code;
    if (loop->at->step == 0 && (stalled || reason == ERR_PEER))
        return err_set(ERR_PEER, "%s; no step was made", message);
    code = save(loop, false);
    if (!code)
        code = await_saved(loop);
    if (code)
        return err_wrap(code,
                        "stopped at step %" PRIu64 ", but that could not be saved; --resume "
                        "goes on from the newest checkpoint there is",
                        loop->at->step);
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

static void show_saves(struct loop *loop)
{
    struct saver_counts counts;
    if (!loop->saver)
        return;
    saver_counts(&counts, loop->saver);
    uint64_t saved = counts.saves - counts.failed - counts.left_out;
    log_info("%" PRIu64 " checkpoint%s in '%s'; training stood still for %.3f s for them; %" PRIu64
             " left out for newer ones, %" PRIu64 " failed",
             saved, log_plural(saved), loop->dir->path, counts.held_seconds, counts.left_out,
             counts.failed);
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
    ahead_init(&loop->ahead, session, loop->end_step, loop->at->epoch, loop->at->step_in_epoch);
    uint64_t batch = (uint64_t)recipe->total_batch;
    loop->progress = progress_open("training", loop->end_step * batch, "images");
    progress_resume(loop->progress, loop->at->step * batch);
}

static int open_predictions(struct loop *loop)
{
    const struct feed_store *val = loop->session->val;
    if (!val)
        return 0;
    int code = predictions_open(&loop->predictions, val->sample_count, val->class_count);
    if (!code)
        loop->predictions->val_fingerprint = val->fingerprint;
    return code;
}

int loop_run(struct metrics_eval *last, struct session *session, const struct rundir *dir,
             struct metrics *metrics, struct saver *saver, struct checkpoint *start)
{
    struct loop loop = {
        .session = session,
        .recipe = &session->options->recipe,
        .dir = dir,
        .metrics = metrics,
        .saver = saver,
        .at = start,
        .last = last,
    };
    *last = (struct metrics_eval){0};
    step_init(&loop.steps, session);
    int code = scaler_init(&loop.scaler, loop.recipe->loss_scale, session->options->precision);
    if (!code)
        code = open_predictions(&loop);
    if (code)
        return code;
    if (start->step > 0)
        scaler_resume(&loop.scaler, start->loss_scale, start->loss_scale_good_steps,
                      start->loss_scale_bad_steps);
    start->finished = false;
    init_loop(&loop);
    while (!code && !start->finished && ahead_has_epoch(&loop.ahead, start->epoch))
        code = run_epoch(&loop);
    if (!code && !start->finished) { /* stopped behind an epoch that now is the last one */
        start->finished = true;
        code = metrics ? metrics_write_done(metrics, start->epoch, start->top1) : 0;
        code = code ? code : save(&loop, false);
    }
    if (!code && (code = await_saved(&loop)))
        err_wrap(code, "the run came to its end, but that could not be saved");
    progress_close(loop.progress);
    show_ranks(&loop);
    feed_flush(session->feed);
    predictions_close(loop.predictions);
    if (code == ERR_STOPPED || code == ERR_PEER)
        code = stop_run(&loop, code);
    show_saves(&loop);
    return code;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* satchel-trainer: trains, goes on, or evaluates. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/file.h"
#include "common/log.h"
#include "common/stop.h"
#include "trainer/evaluate.h"
#include "trainer/loop.h"
#include "trainer/openmp.h"

/* One call of the program. */
struct job {
    struct options options;
    struct rundir dir;
    struct safetensors *file; /* the checkpoint that is gone on from */
    struct checkpoint at;
    char *recipe_text;
    struct session session;
    struct metrics_eval last;
};

/* Nothing is left to do when the run came to its end and is not asked to go further. */
static bool is_done(const struct job *job)
{
    uint64_t max_steps = (uint64_t)job->options.run.max_steps;
    return job->at.finished && (job->at.epoch >= (uint64_t)job->options.recipe.epochs ||
                                (max_steps > 0 && job->at.step >= max_steps));
}

static int open_checkpoint(struct job *job)
{
    int code = safetensors_open(&job->file, job->dir.last);
    if (!code)
        code = checkpoint_read(&job->at, job->file, job->dir.last);
    if (!code && !job->options.run.eval_only)
        code = options_check_resume(&job->options, job->at.recipe, job->dir.last);
    return code;
}

static int open_directory(struct job *job)
{
    const struct run_options *run = &job->options.run;
    int code = run->eval_only ? rundir_look(&job->dir, run->out)
                              : rundir_open(&job->dir, run->out, run->resume);
    return code || !job->dir.has_checkpoint ? code : open_checkpoint(job);
}

/* A run goes on with the data that it was begun with. */
static int check_fingerprint(const struct feed_store *store, struct hash128 then, const char *path)
{
    char now_text[33], then_text[33];
    if (hash128_equal(store->fingerprint, then))
        return 0;
    hash128_to_text(now_text, store->fingerprint);
    hash128_to_text(then_text, then);
    return err_set(ERR_PEER,
                   "the loaders' store '%s' has the fingerprint %s, the run of '%s' was begun "
                   "with %s: start them with that store",
                   store->name, now_text, path, then_text);
}

static int go_on(struct job *job)
{
    struct session *session = &job->session;
    struct weights weights = session_weights(session);
    const char *backend = session->ops->describe(session->backend);
    int code = check_fingerprint(session->train, job->at.train_fingerprint, job->dir.last);
    if (!code && job->at.has_val && session->val)
        code = check_fingerprint(session->val, job->at.val_fingerprint, job->dir.last);
    if (!code)
        code = checkpoint_load(&weights, job->file, job->dir.last);
    if (code)
        return code;
    log_info("going on from '%s': epoch %" PRIu64 ", step %" PRIu64, job->dir.last, job->at.epoch,
             job->at.step);
    if (strcmp(backend, job->at.backend) != 0)
        log_warn("the run was on '%s' and is now on '%s': its last bits may differ",
                 job->at.backend, backend);
    return 0;
}

/* Weights of --init; a classifier for other classes keeps its initial values. */
static int load_init(const struct weights *weights, const char *path, bool head_may_differ)
{
    struct safetensors *file;
    bool head_kept = false;
    int code = safetensors_open(&file, path);
    if (code)
        return err_wrap(code, "--init");
    code = weights_load(weights, file, path, STATE_WEIGHT, "", head_may_differ ? &head_kept : NULL);
    safetensors_close(file);
    if (code)
        return err_wrap(code, "--init");
    log_info("weights from '%s'%s", path,
             head_kept ? "; its classifier is for another number of classes and begins afresh"
                       : "");
    return 0;
}

static int begin(struct job *job)
{
    struct weights weights = session_weights(&job->session);
    const struct recipe *recipe = &job->options.recipe;
    int code = weights_init(&weights, recipe->init_scheme, recipe->zero_gamma, recipe->seed);
    if (!code && recipe->init)
        code = load_init(&weights, recipe->init, true);
    job->at = (struct checkpoint){.top1 = -1, .best_top1 = -1};
    return code;
}

/* What every checkpoint of this run says of what it runs on. */
static int record_setting(struct job *job)
{
    const struct session *session = &job->session;
    job->recipe_text = options_recipe_text(&job->options);
    if (!job->recipe_text)
        return err_set(ERR_NOMEM, "out of memory for the recipe");
    job->at.recipe = job->recipe_text;
    job->at.backend = session->ops->describe(session->backend);
    job->at.train_fingerprint = session->train->fingerprint;
    job->at.has_val = session->val != NULL;
    if (session->val)
        job->at.val_fingerprint = session->val->fingerprint;
    return file_write_atomic(job->dir.recipe, job->recipe_text, strlen(job->recipe_text));
}

static int train(struct job *job)
{
    struct metrics *metrics = NULL;
    int code = job->dir.has_checkpoint ? go_on(job) : begin(job);
    if (!code)
        code = record_setting(job);
    if (!code)
        code = metrics_open(&metrics, job->dir.metrics, job->at.step, job->at.epoch);
    if (!code)
        code = loop_run(&job->last, &job->session, &job->dir, metrics, &job->at);
    metrics_close(metrics);
    if (!code)
        log_info("done: %" PRIu64 " epochs, %" PRIu64 " steps, in '%s'", job->at.epoch,
                 job->at.step, job->dir.path);
    return code;
}

static int evaluate(struct job *job)
{
    struct session *session = &job->session;
    struct weights weights = session_weights(session);
    int code = job->dir.has_checkpoint
                   ? weights_load(&weights, job->file, job->dir.last, STATE_WEIGHT, "", NULL)
                   : load_init(&weights, job->options.recipe.init, false);
    struct feed_range range = evaluate_range(session, 0);
    if (!code)
        code = feed_push(session->feed, &range);
    return code ? code : evaluate_run(&job->last, session);
}

static void print_result(const struct job *job)
{
    const struct metrics_eval *last = &job->last;
    if (last->samples == 0)
        return;
    printf("top-1 %.2f %%, top-5 %.2f %%, loss %.4f over %" PRIu64 " samples\n", last->top1,
           last->top5, last->loss, last->samples);
    if (job->options.program.json_wanted)
        printf("{\"top1\":%.17g,\"top5\":%.17g,\"loss\":%.17g,\"samples\":%" PRIu64 "}\n",
               last->top1, last->top5, last->loss, last->samples);
}

static int run(struct job *job)
{
    const struct run_options *options = &job->options.run;
    int code = 0;
    if (!options->eval_only || options->resume)
        code = open_directory(job);
    if (code)
        return code;
    if (!options->eval_only && is_done(job)) {
        log_info("the run in '%s' is finished: %" PRIu64 " epochs, %" PRIu64 " steps",
                 job->dir.path, job->at.epoch, job->at.step);
        return 0;
    }
    options_print(&job->options);
    code = session_open(&job->session, &job->options);
    if (code)
        return job->session.stalled && job->at.step > 0 ? err_set(ERR_STOPPED, "%s", err_message())
                                                        : code;
    code = options->eval_only ? evaluate(job) : train(job);
    if (!code)
        print_result(job);
    return code;
}

static void close_job(struct job *job)
{
    session_close(&job->session);
    safetensors_close(job->file);
    rundir_close(&job->dir);
    free(job->recipe_text);
    options_release(&job->options);
}

int main(int argc, char **argv)
{
    openmp_limit_spinning(argv);
    static struct job job = {.dir = {.lock = -1}};
    log_open("satchel-trainer");
    stop_install(true);
    int code = options_parse(&job.options, argc, argv);
    if (!code && !job.options.program.finished)
        code = run(&job);
    if (!code && fflush(stdout) != 0)
        code = err_set(ERR_IO, "cannot write to standard output");
    if (code == ERR_STOPPED)
        log_info("%s", err_message());
    else if (code)
        log_error("%s", err_message());
    close_job(&job);
    return err_exit_status(code);
}

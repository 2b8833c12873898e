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
#include "trainer/resume.h"

/* One call of the program. */
struct job {
    struct options options;
    struct comm *comm;
    char name[32]; /* in front of every line of the log */
    struct rundir dir;
    struct resume resume; /* the checkpoint that is gone on from */
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
    int code = resume_open(&job->resume, &job->dir);
    job->at = job->resume.at;
    if (!code && !job->options.run.eval_only)
        code = options_check_resume(&job->options, job->at.recipe, job->resume.path);
    return code;
}

/* Rank 0 takes the directory; the others only read its checkpoint. */
static int find_directory(struct job *job)
{
    const struct run_options *run = &job->options.run;
    bool first = job->comm->rank == 0;
    int code = 0;
    if (run->eval_only)
        return comm_agree(job->comm, rundir_look(&job->dir, run->out));
    if (first)
        code = rundir_open(&job->dir, run->out, run->resume);
    code = comm_agree(job->comm, code);
    uint64_t has_checkpoint = job->dir.has_checkpoint;
    if (!code)
        code = job->comm->ops->broadcast(job->comm, &has_checkpoint, sizeof has_checkpoint);
    if (!code && !first)
        code = rundir_follow(&job->dir, run->out, has_checkpoint);
    return code;
}

static int open_directory(struct job *job)
{
    int code = find_directory(job);
    if (!code && job->dir.has_checkpoint)
        code = open_checkpoint(job);
    return job->comm->agreed ? code : comm_agree(job->comm, code);
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

/* Bits are promised on the same library build, precision, threads and instruction set alone. */
static void compare_setting(const struct job *job)
{
    const struct session *session = &job->session;
    const char *backend = session->ops->describe(session->backend);
    const char *version = safetensors_metadata(job->resume.file, "satchel");
    if (strcmp(backend, job->at.backend) != 0)
        log_warn("the run was on '%s' and is now on '%s': its last bits may differ",
                 job->at.backend, backend);
    if (version && strcmp(version, SATCHEL_VERSION) != 0)
        log_warn("the run was on version %.40s and is now on %s: its last bits may differ", version,
                 SATCHEL_VERSION);
}

/* Where the checkpoint stands has to be a place of this run's schedule; --allow-change may have
 * changed that. */
static int check_position(const struct job *job)
{
    const struct checkpoint *at = &job->at;
    uint64_t steps = job->session.steps_per_epoch;
    if (at->epoch > (uint64_t)job->options.recipe.epochs)
        return err_set(ERR_ARG,
                       "'%s' has %" PRIu64 " epochs behind it, more than --epochs %" PRId64,
                       job->resume.path, at->epoch, job->options.recipe.epochs);
    if (at->step_in_epoch <= steps && at->step == at->epoch * steps + at->step_in_epoch)
        return 0;
    return err_set(ERR_ARG,
                   "'%s' stands at step %" PRIu64 ", which is step %" PRIu64 " of epoch %" PRIu64
                   " of another schedule: with this --total-batch an epoch has %" PRIu64 " steps",
                   job->resume.path, at->step, at->step_in_epoch, at->epoch, steps);
}

/* Whether the run kept an average of the weights so far. */
static bool has_average(const struct safetensors *file, const struct checkpoint_part *part)
{
    char name[128];
    snprintf(name, sizeof name, "%s%s", part->prefix, part->weights.net->tensors[0].name);
    return safetensors_find(file, name) != NULL;
}

/* An average that is kept from now on (--allow-change ema-decay) begins with the weights; the
 * momentum of what was frozen so far (--allow-change freeze) begins at zero. */
static int load_parts(struct job *job)
{
    struct session *session = &job->session;
    struct checkpoint_part parts[CHECKPOINT_PARTS_MAX];
    struct net *moving; /* the tensors that have a momentum in the file */
    int count = session_parts(parts, session);
    int code = net_copy(&moving, session->net);
    if (code)
        return code;
    net_freeze(moving, job->options.frozen_then);
    for (int i = 0; i < count; i++)
        if (parts[i].kind == STATE_MOMENTUM)
            parts[i].weights.net = moving;
    bool begins =
        session->average.weights.state != NULL && !has_average(job->resume.file, &parts[count - 1]);
    code = checkpoint_load(parts, count - begins, job->resume.file, job->resume.path);
    net_close(moving);
    return code || !begins ? code : average_begin(&session->average, &parts[0].weights);
}

static int go_on(struct job *job)
{
    struct session *session = &job->session;
    const char *path = job->resume.path;
    int code = check_fingerprint(session->train, job->at.train_fingerprint, path);
    if (!code)
        code = check_position(job);
    if (!code && job->at.has_val && session->val)
        code = check_fingerprint(session->val, job->at.val_fingerprint, path);
    if (!code && job->at.has_challenge && !job->options.stream_changed)
        code = feed_expect(session->feed, &session->train_spec, job->at.challenge);
    if (!code)
        code = load_parts(job);
    if (code)
        return code;
    if (job->comm->rank != 0) /* the checkpoint has the sum of all ranks' parts */
        job->at.receipt = (struct hash128){0};
    log_info("going on from '%s': epoch %" PRIu64 ", step %" PRIu64, path, job->at.epoch,
             job->at.step);
    compare_setting(job);
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
    if (!code)
        code = average_begin(&job->session.average, &weights);
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
    if (job->comm->rank != 0)
        return 0;
    return file_write_atomic(job->dir.recipe, job->recipe_text, strlen(job->recipe_text));
}

/* The model that this rank begins with is rank 0's. */
static int check_start(struct job *job)
{
    struct weights weights = session_weights(&job->session);
    struct hash128 hash;
    if (job->comm->size == 1)
        return 0;
    int code = weights_hash(&hash, &weights);
    return code ? code : comm_compare_hash(job->comm, hash, "the initial weights");
}

static int open_events(struct events **events, struct job *job, struct metrics *metrics)
{
    enum { POINTS_AN_EPOCH = 100 };
    int code = events_open(events, job->dir.path, job->at.step);
    if (!code)
        metrics_mirror(metrics, *events, job->session.steps_per_epoch / POINTS_AN_EPOCH);
    return code;
}

static int open_saver(struct saver **saver, struct job *job, struct metrics *metrics)
{
    struct checkpoint_part parts[CHECKPOINT_PARTS_MAX];
    struct saver_config config = {
        .dir = &job->dir,
        .metrics = metrics,
        .parts = parts,
        .part_count = session_parts(parts, &job->session),
        .keep = (int)job->options.run.keep,
        .has_last = job->resume.is_last,
        .last_step = job->at.step,
    };
    return saver_open(saver, &config);
}

static int train(struct job *job)
{
    struct metrics *metrics = NULL;
    struct events *events = NULL;
    struct saver *saver = NULL;
    int code = job->dir.has_checkpoint ? go_on(job) : begin(job);
    if (!code)
        code = record_setting(job);
    if (!code && job->comm->rank == 0)
        code = metrics_open(&metrics, job->dir.metrics, job->at.step, job->at.epoch);
    if (!code && job->comm->rank == 0)
        code = open_events(&events, job, metrics);
    if (!code && job->comm->rank == 0)
        code = open_saver(&saver, job, metrics);
    code = comm_agree(job->comm, code);
    if (!code)
        code = check_start(job);
    if (!code)
        code = loop_run(&job->last, &job->session, &job->dir, metrics, saver, &job->at);
    saver_close(saver);
    metrics_close(metrics);
    events_close(events);
    if (!code)
        log_info("done: %" PRIu64 " epoch%s, %" PRIu64 " step%s, in '%s'", job->at.epoch,
                 log_plural(job->at.epoch), job->at.step, log_plural(job->at.step), job->dir.path);
    return code;
}

static int evaluate(struct job *job)
{
    struct session *session = &job->session;
    struct weights weights = session_weights(session);
    int code = job->dir.has_checkpoint ? weights_load(&weights, job->resume.file, job->resume.path,
                                                      STATE_WEIGHT, "", NULL)
                                       : load_init(&weights, job->options.recipe.init, false);
    struct feed_range range = evaluate_range(session, 0);
    if (!code)
        code = feed_push(session->feed, &range);
    code = comm_agree(job->comm, code);
    return code ? code : evaluate_run(&job->last, NULL, session);
}

static void print_result(const struct job *job)
{
    const struct metrics_eval *last = &job->last;
    bool json = job->options.program.json_wanted;
    if (job->comm->rank != 0)
        return;
    if (last->samples == 0) { /* nothing was evaluated */
        if (json)
            printf("{\"samples\":0}\n");
        return;
    }
    printf("top-1 %.2f %%, top-5 %.2f %%, loss %.4f over %" PRIu64 " samples\n", last->top1,
           last->top5, last->loss, last->samples);
    if (json)
        printf("{\"top1\":%.17g,\"top5\":%.17g,\"loss\":%.17g,\"samples\":%" PRIu64 "}\n",
               last->top1, last->top5, last->loss, last->samples);
}

/* All ranks run the same program on the same recipe and data, and meet at the same steps. */
static int compare_ranks(struct job *job)
{
    char *lines = NULL, *recipe = options_recipe_text(&job->options);
    const struct run_options *run = &job->options.run;
    if (!recipe ||
        asprintf(&lines, "satchel %s\nmax-steps = %lld\nsave-every = %lld\ncheck-ranks = %lld\n%s",
                 SATCHEL_VERSION, (long long)run->max_steps, (long long)run->save_every,
                 (long long)run->check_ranks, recipe) < 0) {
        free(recipe);
        return err_set(ERR_NOMEM, "out of memory for the recipe");
    }
    int code = comm_agree(job->comm, comm_compare(job->comm, lines));
    free(lines);
    free(recipe);
    return code;
}

static int compare_data(struct job *job)
{
    char lines[200], train[33] = "none", val[33] = "none";
    const struct session *session = &job->session;
    if (session->train)
        hash128_to_text(train, session->train->fingerprint);
    if (session->val)
        hash128_to_text(val, session->val->fingerprint);
    snprintf(lines, sizeof lines, "the loaders' store train = %s\nthe loaders' store val = %s\n",
             train, val);
    return comm_agree(job->comm, comm_compare(job->comm, lines));
}

static int join_ranks(struct job *job)
{
    int code = comm_open(&job->comm);
    if (code)
        return code;
    if (job->comm->size > 1)
        log_info("%d ranks, %d on this host", job->comm->size, job->comm->local_size);
    return compare_ranks(job);
}

/* What only this rank knows of ends all ranks at once: they would wait for it. */
static void abort_ranks(struct job *job, int code)
{
    if (code && code != ERR_STOPPED && job->comm && job->comm->size > 1 && !job->comm->agreed)
        job->comm->ops->abort(job->comm, err_exit_status(code));
}

/* When a rank reached --stall-limit, a run that has made steps can be resumed. */
static int explain_stall(struct job *job, int reason)
{
    uint64_t stalled = job->session.stalled;
    int code = job->comm->ops->sum_integers(job->comm, &stalled, 1);
    if (code)
        return code;
    return stalled && job->at.step > 0 ? err_set(ERR_STOPPED, "%s", err_message()) : reason;
}

static int run(struct job *job)
{
    const struct run_options *options = &job->options.run;
    int code = join_ranks(job);
    if (!code && (!options->eval_only || options->resume))
        code = open_directory(job);
    if (code)
        return code;
    if (!options->eval_only && is_done(job)) {
        log_info("the run in '%s' is finished: %" PRIu64 " epoch%s, %" PRIu64 " step%s",
                 job->dir.path, job->at.epoch, log_plural(job->at.epoch), job->at.step,
                 log_plural(job->at.step));
        print_result(job);
        return 0;
    }
    if (job->comm->rank == 0)
        options_print(&job->options);
    code = session_open(&job->session, &job->options, job->comm, job->dir.poisonous);
    if (!job->comm->agreed)
        code = comm_agree(job->comm, code);
    if (code)
        return explain_stall(job, code);
    code = compare_data(job);
    if (code)
        return code;
    code = options->eval_only ? evaluate(job) : train(job);
    if (!code)
        print_result(job);
    return code;
}

static void close_job(struct job *job)
{
    session_close(&job->session);
    resume_close(&job->resume);
    rundir_close(&job->dir);
    free(job->recipe_text);
    options_release(&job->options);
}

/* All ranks warn and complain, only the first one tells how it goes. */
static void open_log(struct job *job)
{
    int rank = comm_launched_rank();
    snprintf(job->name, sizeof job->name, "satchel-trainer");
    if (rank > 0)
        snprintf(job->name, sizeof job->name, "satchel-trainer[%d]", rank);
    log_open(job->name);
    log_set_quiet(rank > 0);
}

int main(int argc, char **argv)
{
    openmp_limit_spinning(argv);
    static struct job job = {.dir = {.lock = -1}};
    open_log(&job);
    stop_install(true);
    int code = options_parse(&job.options, argc, argv);
    if (!code && !job.options.program.finished)
        code = run(&job);
    code = code ? code : opt_flush(&job.options.program);
    if (code == ERR_STOPPED)
        log_info("%s", err_message());
    else if (code && !(job.comm && job.comm->silent))
        log_error("%s", err_message());
    int status = err_exit_status(code);
    abort_ranks(&job, code);
    close_job(&job);
    if (job.comm) /* last: what sums on devices belongs to the session */
        job.comm->ops->close(job.comm);
    return status;
}

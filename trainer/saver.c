/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshots go round: training fills one while the thread writes another. */
#include "trainer/saver.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/file.h"
#include "common/log.h"

enum {
    MESSAGE_BYTES = 1024,
    SNAPSHOTS = 4, /* one being written, one owed, a best and the newest waiting */
};

/* A snapshot on its way. */
struct job {
    struct snapshot *snapshot; /* NULL: no job */
    struct predictions *predictions;
    bool best;
};

struct saver {
    const struct rundir *dir;
    struct metrics *metrics;
    int keep;
    struct checkpoint_part parts[CHECKPOINT_PARTS_MAX];
    int part_count;
    pthread_t thread;
    bool started;
    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t changed;
    struct job waiting[SNAPSHOTS]; /* oldest first */
    int waiting_count;
    struct job writing;
    struct snapshot *unused[SNAPSHOTS];
    int unused_count, snapshot_count; /* snapshot_count: of all that were opened */
    bool ending;
    int code; /* of the newest save that was tried */
    char message[MESSAGE_BYTES];
    struct saver_counts counts;
    /* The thread's own: */
    uint64_t last_step; /* of last.safetensors */
    bool has_last, warned_links;
    struct job owed; /* the best so far, which could not be written */
};

/* --- the thread: files --- */

/* The newest checkpoint so far gets a name of its own before the next takes its place. It is there
 * under one name or the other whatever happens, so that a failure costs no more than an older one.
 */
static void keep_last(struct saver *saver, uint64_t next_step)
{
    if (saver->keep < 2 || !saver->has_last || saver->last_step == next_step)
        return;
    char *path = rundir_step_path(saver->dir, saver->last_step);
    int code = path ? file_link(path, saver->dir->last) : ERR_NOMEM;
    free(path);
    if (code && !(code == ERR_UNSUPPORTED && saver->warned_links))
        log_warn("%s; the checkpoint before the newest is not kept", err_message());
    saver->warned_links |= code == ERR_UNSUPPORTED;
}

/* Those behind the newest one that a run went back from are not counted: they are not its past. */
static void drop_oldest(const struct saver *saver)
{
    uint64_t *steps;
    size_t count;
    int left = saver->keep - 1;
    if (rundir_kept(&steps, &count, saver->dir)) {
        log_warn("%s", err_message());
        return;
    }
    for (size_t i = 0; i < count; i++) {
        if (steps[i] >= saver->last_step || left-- > 0)
            continue;
        char *path = rundir_step_path(saver->dir, steps[i]);
        if (path && unlink(path) != 0)
            log_warn("cannot remove '%s': %s", path, strerror(errno));
        free(path);
    }
    free(steps);
}

/* A save that failed may have come as far as the file's new name. */
static void look_at_last(struct saver *saver)
{
    struct safetensors *file;
    struct checkpoint found;
    int code = safetensors_open(&file, saver->dir->last);
    if (!code)
        code = checkpoint_read(&found, file, saver->dir->last);
    saver->has_last = !code;
    if (!code)
        saver->last_step = found.step;
    safetensors_close(file);
}

static void release(struct saver *saver, struct job *job)
{
    if (!job->snapshot)
        return;
    predictions_close(job->predictions);
    pthread_mutex_lock(&saver->mutex);
    saver->unused[saver->unused_count++] = job->snapshot;
    pthread_mutex_unlock(&saver->mutex);
    *job = (struct job){NULL};
}

/* The predictions first: they belong to the best checkpoint that is there, or to one that a run
 * which goes on from last will make again. */
static int write_best(const struct saver *saver, const struct job *job)
{
    int code =
        job->predictions ? predictions_write(job->predictions, saver->dir->best_predictions) : 0;
    return code ? code : snapshot_write(job->snapshot, saver->dir->best);
}

/* best before last: a run that goes on from last may take for granted that best is as good as last
 * says. */
static int write_files(struct saver *saver, const struct job *job)
{
    const struct rundir *dir = saver->dir;
    int code = metrics_sync(saver->metrics);
    if (!code && job->best)
        code = write_best(saver, job);
    else if (!code && saver->owed.snapshot)
        code = write_best(saver, &saver->owed);
    if (code)
        return code;
    release(saver, &saver->owed);
    uint64_t step = snapshot_step(job->snapshot);
    keep_last(saver, step);
    if (!job->best || file_link(dir->last, dir->best))
        code = snapshot_write(job->snapshot, dir->last);
    if (code)
        return code;
    saver->last_step = step;
    saver->has_last = true;
    drop_oldest(saver);
    return 0;
}

static void on_failure(struct saver *saver, const struct job *job)
{
    char newest[64] = "there is no checkpoint yet";
    pthread_mutex_lock(&saver->mutex);
    snprintf(saver->message, sizeof saver->message, "%s", err_message());
    pthread_mutex_unlock(&saver->mutex);
    look_at_last(saver);
    if (saver->has_last)
        snprintf(newest, sizeof newest, "the newest one is of step %" PRIu64, saver->last_step);
    log_warn("the checkpoint of step %" PRIu64 " was not saved: %s; training goes on (%s)",
             snapshot_step(job->snapshot), saver->message, newest);
}

/* A best one that failed is kept for the next time: no later one takes its place. */
static void give_back(struct saver *saver, int code)
{
    struct job job = saver->writing;
    if (code && job.best) {
        release(saver, &saver->owed);
        saver->owed = job;
    } else {
        release(saver, &job);
    }
}

/* Under the mutex. */
static struct job take_waiting(struct saver *saver, int index)
{
    struct job job = saver->waiting[index];
    saver->waiting_count--;
    for (int i = index; i < saver->waiting_count; i++)
        saver->waiting[i] = saver->waiting[i + 1];
    return job;
}

static void *write_jobs(void *argument)
{
    struct saver *saver = argument;
    pthread_mutex_lock(&saver->mutex);
    for (;;) {
        while (saver->waiting_count == 0 && !saver->ending)
            pthread_cond_wait(&saver->changed, &saver->mutex);
        if (saver->waiting_count == 0)
            break;
        saver->writing = take_waiting(saver, 0);
        pthread_mutex_unlock(&saver->mutex);
        int code = write_files(saver, &saver->writing);
        if (code)
            on_failure(saver, &saver->writing);
        give_back(saver, code);
        pthread_mutex_lock(&saver->mutex);
        saver->code = code;
        saver->counts.failed += code != 0;
        saver->writing = (struct job){NULL};
        pthread_cond_broadcast(&saver->changed);
    }
    pthread_mutex_unlock(&saver->mutex);
    return NULL;
}

/* --- training's side --- */

/* A run whose disk fills up after a night is better warned before it. */
static void check_room(const struct saver *saver)
{
    struct statvfs status;
    double needed = (double)snapshot_bytes(saver->unused[0]) * (saver->keep + 2);
    if (statvfs(saver->dir->path, &status) != 0)
        return;
    double room = (double)status.f_bavail * (double)status.f_frsize;
    if (room < needed)
        log_warn("'%s' has room for %.0f MB; the run's checkpoints take about %.0f MB",
                 saver->dir->path, room / 1e6, needed / 1e6);
}

static int start(struct saver *saver)
{
    pthread_mutex_init(&saver->mutex, NULL);
    pthread_cond_init(&saver->changed, NULL);
    saver->started = pthread_create(&saver->thread, NULL, write_jobs, saver) == 0;
    return saver->started ? 0 : err_set(ERR_NOMEM, "cannot start the thread that saves");
}

int saver_open(struct saver **out, const struct saver_config *config)
{
    *out = NULL;
    struct saver *saver = calloc(1, sizeof *saver);
    if (!saver)
        return err_set(ERR_NOMEM, "out of memory for saving");
    saver->dir = config->dir;
    saver->metrics = config->metrics;
    saver->keep = config->keep;
    saver->has_last = config->has_last;
    saver->last_step = config->last_step;
    memcpy(saver->parts, config->parts, (size_t)config->part_count * sizeof *config->parts);
    saver->part_count = config->part_count;
    int code = snapshot_open(&saver->unused[0], config->parts, config->part_count);
    if (!code) {
        saver->unused_count = saver->snapshot_count = 1;
        check_room(saver);
        code = start(saver);
    }
    if (code) {
        saver_close(saver);
        return code;
    }
    *out = saver;
    return 0;
}

void saver_close(struct saver *saver)
{
    if (!saver)
        return;
    if (saver->started) {
        pthread_mutex_lock(&saver->mutex);
        saver->ending = true;
        pthread_cond_broadcast(&saver->changed);
        pthread_mutex_unlock(&saver->mutex);
        pthread_join(saver->thread, NULL);
        pthread_cond_destroy(&saver->changed);
        pthread_mutex_destroy(&saver->mutex);
    }
    for (int i = 0; i < saver->unused_count; i++)
        snapshot_close(saver->unused[i]);
    snapshot_close(saver->owed.snapshot);
    predictions_close(saver->owed.predictions);
    free(saver);
}

/* Which of the waiting saves gives way to a new one: the oldest that is not the best so far. */
static int least_wanted(const struct saver *saver)
{
    for (int i = 0; i < saver->waiting_count; i++)
        if (!saver->waiting[i].best)
            return i;
    return 0;
}

/* A snapshot to fill: an unused one, a new one, or that of a save which is left out for it; where
 * memory is out, the one that is being written now, once it is. */
static int take_unused(struct snapshot **snapshot, struct saver *saver)
{
    int code = 0;
    pthread_mutex_lock(&saver->mutex);
    saver->counts.saves++;
    if (saver->unused_count == 0 && saver->snapshot_count < SNAPSHOTS) {
        code = snapshot_open(&saver->unused[0], saver->parts, saver->part_count);
        saver->unused_count += !code;
        saver->snapshot_count += !code;
    }
    while (saver->unused_count == 0 && saver->waiting_count == 0 && saver->writing.snapshot)
        pthread_cond_wait(&saver->changed, &saver->mutex);
    if (saver->unused_count > 0) {
        *snapshot = saver->unused[--saver->unused_count];
        code = 0;
    } else if (saver->waiting_count > 0) {
        struct job job = take_waiting(saver, least_wanted(saver));
        predictions_close(job.predictions);
        *snapshot = job.snapshot;
        saver->counts.left_out++;
        code = 0;
    }
    pthread_mutex_unlock(&saver->mutex);
    return code;
}

/* code: the job could not be made. */
static void hand_over(struct saver *saver, const struct job *job, int code)
{
    pthread_mutex_lock(&saver->mutex);
    if (code)
        saver->unused[saver->unused_count++] = job->snapshot;
    else
        saver->waiting[saver->waiting_count++] = *job;
    pthread_cond_broadcast(&saver->changed);
    pthread_mutex_unlock(&saver->mutex);
}

int saver_save(struct saver *saver, const struct checkpoint *checkpoint, bool best,
               const struct predictions *predictions)
{
    double start_s = clock_seconds();
    struct job job = {.best = best};
    int code = take_unused(&job.snapshot, saver);
    if (code)
        return code;
    code = snapshot_take(job.snapshot, checkpoint);
    if (!code && predictions)
        code = predictions_copy(&job.predictions, predictions);
    hand_over(saver, &job, code);
    saver->counts.held_seconds += clock_seconds() - start_s; /* this thread's alone */
    return code;
}

int saver_wait(struct saver *saver)
{
    pthread_mutex_lock(&saver->mutex);
    while (saver->waiting_count > 0 || saver->writing.snapshot)
        pthread_cond_wait(&saver->changed, &saver->mutex);
    int code = saver->code ? err_set(saver->code, "%s", saver->message) : 0;
    pthread_mutex_unlock(&saver->mutex);
    return code;
}

void saver_counts(struct saver_counts *counts, struct saver *saver)
{
    pthread_mutex_lock(&saver->mutex);
    *counts = saver->counts;
    pthread_mutex_unlock(&saver->mutex);
}

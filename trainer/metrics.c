/* SPDX-License-Identifier: Apache-2.0 */
/* metrics.jsonl of a run. */
#include "trainer/metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "common/err.h"
#include "common/file.h"
#include "common/log.h"

/* Bytes stay in memory until a sync has brought them to the disk, so that after a full disk or an
 * error of it everything can be written again, in its place. */
struct metrics {
    int fd;
    char *path;
    pthread_mutex_t mutex; /* guards what follows: lines and syncs come from two threads */
    char *bytes;           /* [count], of the file from synced on */
    size_t count, room;
    size_t written; /* of them, given to the system */
    uint64_t synced;
    bool failing; /* said already */

    /* Of the thread that writes lines: */
    struct events *events; /* NULL: none */
    uint64_t every, next_step;
};

static bool below(const cJSON *line, const char *key, uint64_t limit)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(line, key);
    return cJSON_IsNumber(value) && value->valuedouble < (double)limit;
}

/* Whether a run that stands at (step, epoch) has this line behind it. */
static bool is_behind(const char *text, uint64_t step, uint64_t epoch)
{
    cJSON *line = cJSON_Parse(text);
    const char *event = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(line, "event"));
    bool keep = false;
    if (event && strcmp(event, "step") == 0)
        keep = below(line, "step", step);
    else if (event && (strcmp(event, "eval") == 0 || strcmp(event, "epoch") == 0))
        keep = below(line, "epoch", epoch);
    cJSON_Delete(line);
    return keep;
}

static int copy_lines(FILE *dst, FILE *src, const char *path, uint64_t step, uint64_t epoch)
{
    char *line = NULL;
    size_t room = 0;
    ssize_t bytes;
    while ((bytes = getline(&line, &room, src)) > 0)
        if (line[bytes - 1] == '\n' && is_behind(line, step, epoch))
            fwrite(line, 1, (size_t)bytes, dst);
    free(line);
    return ferror(src) ? err_set(ERR_IO, "cannot read '%s': %s", path, strerror(errno)) : 0;
}

static int cut_back(const char *path, uint64_t step, uint64_t epoch)
{
    FILE *src = fopen(path, "r");
    if (!src)
        return errno == ENOENT ? 0 : err_set(ERR_IO, "cannot read '%s': %s", path, strerror(errno));
    struct file_atomic *file;
    int code = file_atomic_open(&file, path);
    if (!code) {
        code = copy_lines(file_atomic_stream(file), src, path, step, epoch);
        if (code)
            file_atomic_discard(file);
        else
            code = file_atomic_commit(file);
    }
    fclose(src);
    return code;
}

int metrics_open(struct metrics **out, const char *path, uint64_t step, uint64_t epoch)
{
    *out = NULL;
    int code = cut_back(path, step, epoch);
    if (code)
        return code;
    struct metrics *metrics = calloc(1, sizeof *metrics);
    if (!metrics || !(metrics->path = strdup(path))) {
        free(metrics);
        return err_set(ERR_NOMEM, "out of memory for '%s'", path);
    }
    pthread_mutex_init(&metrics->mutex, NULL);
    metrics->fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    off_t end = metrics->fd < 0 ? -1 : lseek(metrics->fd, 0, SEEK_END);
    if (end < 0)
        code = err_set(ERR_IO, "cannot write '%s': %s", path, strerror(errno));
    else
        code = file_sync_directory_of(path);
    if (code) {
        metrics_close(metrics);
        return code;
    }
    metrics->synced = (uint64_t)end;
    metrics->next_step = step;
    *out = metrics;
    return 0;
}

void metrics_close(struct metrics *metrics)
{
    if (!metrics)
        return;
    if (metrics->fd >= 0)
        close(metrics->fd);
    pthread_mutex_destroy(&metrics->mutex);
    free(metrics->bytes);
    free(metrics->path);
    free(metrics);
}

/* Gives the system what it has not got yet. Under the mutex. */
static int write_pending(struct metrics *metrics)
{
    while (metrics->written < metrics->count) {
        ssize_t done =
            pwrite(metrics->fd, metrics->bytes + metrics->written,
                   metrics->count - metrics->written, (off_t)(metrics->synced + metrics->written));
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return err_set(ERR_IO, "cannot write '%s': %s", metrics->path, strerror(errno));
        metrics->written += (size_t)done;
    }
    return 0;
}

/* What the system could not sync it may have forgotten: all of it is written again next time. */
int metrics_sync(struct metrics *metrics)
{
    pthread_mutex_lock(&metrics->mutex);
    int code = write_pending(metrics);
    size_t bytes = metrics->written;
    pthread_mutex_unlock(&metrics->mutex);
    if (code)
        return code;
    if (fdatasync(metrics->fd) != 0 && errno != EINVAL && errno != EROFS)
        code = err_set(ERR_IO, "cannot write '%s': %s", metrics->path, strerror(errno));
    pthread_mutex_lock(&metrics->mutex);
    if (code) {
        metrics->written = 0;
    } else if (bytes > 0) {
        memmove(metrics->bytes, metrics->bytes + bytes, metrics->count - bytes);
        metrics->count -= bytes;
        metrics->written -= bytes;
        metrics->synced += bytes;
    }
    pthread_mutex_unlock(&metrics->mutex);
    return code;
}

static int keep_bytes(struct metrics *metrics, const char *text, size_t bytes)
{
    if (metrics->count + bytes > metrics->room) {
        size_t room = 2 * (metrics->count + bytes);
        char *larger = realloc(metrics->bytes, room);
        if (!larger)
            return err_set(ERR_NOMEM, "out of memory for a line of '%s'", metrics->path);
        metrics->bytes = larger;
        metrics->room = room;
    }
    memcpy(metrics->bytes + metrics->count, text, bytes);
    metrics->count += bytes;
    return 0;
}

/* A line that the disk does not take is no reason to end a training: it waits for a better time. */
static int append(struct metrics *metrics, const char *text, size_t bytes)
{
    pthread_mutex_lock(&metrics->mutex);
    int code = keep_bytes(metrics, text, bytes);
    bool failed = !code && write_pending(metrics);
    if (failed && !metrics->failing)
        log_warn("%s; training goes on, and the lines are kept in memory until they can be written",
                 err_message());
    else if (!code && !failed && metrics->failing)
        log_info("'%s' is written again; no line was lost", metrics->path);
    metrics->failing = failed;
    pthread_mutex_unlock(&metrics->mutex);
    return code;
}

void metrics_mirror(struct metrics *metrics, struct events *events, uint64_t every)
{
    metrics->events = events;
    metrics->every = every > 0 ? every : 1;
}

static void mirror_step(struct metrics *metrics, const struct metrics_step *step)
{
    const struct events_scalar scalars[] = {
        {"train/loss", step->loss},
        {"train/lr", step->lr},
        {"speed/images_per_second", step->images_per_second},
        {"speed/waiting_percent", 100 * step->wait_share},
    };
    metrics->next_step = step->step + 1;
    if (metrics->events && step->step % metrics->every == 0)
        events_write(metrics->events, step->step, scalars, 4);
}

/* At the step that would come next. */
static void mirror_eval(struct metrics *metrics, const struct metrics_eval *eval)
{
    const struct events_scalar scalars[] = {
        {"validation/top1", eval->top1},         {"validation/top5", eval->top5},
        {"validation/loss", eval->loss},         {"validation/ema_top1", eval->ema_top1},
        {"validation/ema_top5", eval->ema_top5}, {"validation/ema_loss", eval->ema_loss},
    };
    events_write(metrics->events, metrics->next_step, scalars, eval->has_ema ? 6 : 3);
}

/* A line that begins with the event; NULL when memory is out. */
static cJSON *begin_line(const char *event)
{
    cJSON *line = cJSON_CreateObject();
    cJSON_AddStringToObject(line, "event", event);
    return line;
}

/* Writes the line and frees it. All of its members must have been added. */
static int end_line(struct metrics *metrics, cJSON *line, int members)
{
    char *text = cJSON_GetArraySize(line) == members ? cJSON_PrintUnformatted(line) : NULL;
    cJSON_Delete(line);
    if (!text)
        return err_set(ERR_NOMEM, "out of memory for a line of '%s'", metrics->path);
    size_t bytes = strlen(text);
    text[bytes] =
        '\n'; /* in place of the NUL: one write a line, so that a reader sees whole ones */
    int code = append(metrics, text, bytes + 1);
    cJSON_free(text);
    return code;
}

int metrics_write_step(struct metrics *metrics, const struct metrics_step *step)
{
    cJSON *line = begin_line("step");
    mirror_step(metrics, step);
    cJSON_AddNumberToObject(line, "step", (double)step->step);
    cJSON_AddNumberToObject(line, "epoch", (double)step->epoch);
    cJSON_AddNumberToObject(line, "loss", step->loss);
    cJSON_AddNumberToObject(line, "lr", step->lr);
    cJSON_AddNumberToObject(line, "images_per_second", step->images_per_second);
    cJSON_AddNumberToObject(line, "wait_share", step->wait_share);
    if (step->teacher_share > 0)
        cJSON_AddNumberToObject(line, "teacher_share", step->teacher_share);
    return end_line(metrics, line, step->teacher_share > 0 ? 8 : 7);
}

int metrics_write_eval(struct metrics *metrics, const struct metrics_eval *eval)
{
    cJSON *line = begin_line("eval");
    mirror_eval(metrics, eval);
    cJSON_AddNumberToObject(line, "epoch", (double)eval->epoch);
    cJSON_AddNumberToObject(line, "top1", eval->top1);
    cJSON_AddNumberToObject(line, "top5", eval->top5);
    cJSON_AddNumberToObject(line, "loss", eval->loss);
    cJSON_AddNumberToObject(line, "samples", (double)eval->samples);
    if (eval->has_ema) {
        cJSON_AddNumberToObject(line, "ema_top1", eval->ema_top1);
        cJSON_AddNumberToObject(line, "ema_top5", eval->ema_top5);
        cJSON_AddNumberToObject(line, "ema_loss", eval->ema_loss);
    }
    return end_line(metrics, line, eval->has_ema ? 9 : 6);
}

int metrics_write_epoch(struct metrics *metrics, uint64_t epoch, struct hash128 receipt,
                        double seconds)
{
    char text[33];
    hash128_to_text(text, receipt);
    cJSON *line = begin_line("epoch");
    cJSON_AddNumberToObject(line, "epoch", (double)epoch);
    cJSON_AddStringToObject(line, "receipt", text);
    cJSON_AddNumberToObject(line, "seconds", seconds);
    return end_line(metrics, line, 4);
}

int metrics_write_done(struct metrics *metrics, uint64_t epochs, double top1)
{
    cJSON *line = begin_line("done");
    cJSON_AddNumberToObject(line, "epochs", (double)epochs);
    if (top1 >= 0)
        cJSON_AddNumberToObject(line, "top1", top1);
    else
        cJSON_AddNullToObject(line, "top1");
    return end_line(metrics, line, 3);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* metrics.jsonl of a run. */
#include "trainer/metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "common/err.h"
#include "common/file.h"

struct metrics {
    int fd;
    char *path;
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
    metrics->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (metrics->fd < 0) {
        code = err_set(ERR_IO, "cannot write '%s': %s", path, strerror(errno));
        metrics_close(metrics);
        return code;
    }
    *out = metrics;
    return 0;
}

void metrics_close(struct metrics *metrics)
{
    if (!metrics)
        return;
    if (metrics->fd >= 0)
        close(metrics->fd);
    free(metrics->path);
    free(metrics);
}

int metrics_sync(struct metrics *metrics)
{
    if (fdatasync(metrics->fd) != 0 && errno != EINVAL && errno != EROFS)
        return err_set(ERR_IO, "cannot write '%s': %s", metrics->path, strerror(errno));
    return 0;
}

static int write_all(const struct metrics *metrics, const char *text, size_t bytes)
{
    while (bytes > 0) {
        ssize_t done = write(metrics->fd, text, bytes);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return err_set(ERR_IO, "cannot write '%s': %s", metrics->path, strerror(errno));
        text += done;
        bytes -= (size_t)done;
    }
    return 0;
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
    text[bytes] = '\n'; /* in place of the NUL: one write a line, so that none is torn */
    int code = write_all(metrics, text, bytes + 1);
    cJSON_free(text);
    return code;
}

int metrics_write_step(struct metrics *metrics, const struct metrics_step *step)
{
    cJSON *line = begin_line("step");
    cJSON_AddNumberToObject(line, "step", (double)step->step);
    cJSON_AddNumberToObject(line, "epoch", (double)step->epoch);
    cJSON_AddNumberToObject(line, "loss", step->loss);
    cJSON_AddNumberToObject(line, "lr", step->lr);
    cJSON_AddNumberToObject(line, "images_per_second", step->images_per_second);
    cJSON_AddNumberToObject(line, "wait_share", step->wait_share);
    return end_line(metrics, line, 7);
}

int metrics_write_eval(struct metrics *metrics, const struct metrics_eval *eval)
{
    cJSON *line = begin_line("eval");
    cJSON_AddNumberToObject(line, "epoch", (double)eval->epoch);
    cJSON_AddNumberToObject(line, "top1", eval->top1);
    cJSON_AddNumberToObject(line, "top5", eval->top5);
    cJSON_AddNumberToObject(line, "loss", eval->loss);
    cJSON_AddNumberToObject(line, "samples", (double)eval->samples);
    return end_line(metrics, line, 6);
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

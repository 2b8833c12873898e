/* SPDX-License-Identifier: Apache-2.0 */
/* Reads recipe.ini, metrics.jsonl and best.predictions. */
#include "tools/report/run.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "common/err.h"
#include "common/file.h"

/* A line of metrics.jsonl with numbers by name; NaN when missing or null. */
static double number(const cJSON *line, const char *key)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(line, key);
    return cJSON_IsNumber(value) ? value->valuedouble : NAN;
}

static int add_point(struct series *series, double x, double y)
{
    if (series->count == series->room) {
        size_t room = series->room ? 2 * series->room : 1024;
        double *xs = realloc(series->x, room * sizeof *xs);
        if (xs)
            series->x = xs;
        double *ys = realloc(series->y, room * sizeof *ys);
        if (ys)
            series->y = ys;
        if (!xs || !ys)
            return err_set(ERR_NOMEM, "out of memory for a curve");
        series->room = room;
    }
    series->x[series->count] = x;
    series->y[series->count++] = y;
    return 0;
}

/* A value that is not finite is a hole in the curve. */
static int add_finite(struct series *series, double x, double y)
{
    return isfinite(x) && isfinite(y) ? add_point(series, x, y) : 0;
}

static int add_step(struct run *run, const cJSON *line)
{
    double step = number(line, "step"), rate = number(line, "images_per_second");
    int code = add_finite(&run->loss, step, number(line, "loss"));
    if (!code)
        code = add_finite(&run->lr, step, number(line, "lr"));
    if (!code)
        code = add_finite(&run->rate, step, rate);
    if (!code)
        code = add_finite(&run->wait, step, 100 * number(line, "wait_share"));
    if (number(line, "epoch") == 1 && run->steps_per_epoch == 0)
        run->steps_per_epoch = step;
    if (rate > 0)
        run->seconds += (double)run->recipe.total_batch / rate;
    return code;
}

static int add_eval(struct run *run, const cJSON *line)
{
    double x = number(line, "epoch") + 1; /* at the epoch's end */
    int code = add_finite(&run->top1, x, number(line, "top1"));
    if (!code)
        code = add_finite(&run->top5, x, number(line, "top5"));
    if (!code)
        code = add_finite(&run->ema_top1, x, number(line, "ema_top1"));
    return code ? code : add_finite(&run->eval_loss, x, number(line, "loss"));
}

static int add_epoch(struct run *run, const cJSON *line)
{
    const char *receipt = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(line, "receipt"));
    if (run->epoch_count == run->epoch_room) {
        size_t room = run->epoch_room ? 2 * run->epoch_room : 128;
        struct run_epoch *epochs = realloc(run->epochs, room * sizeof *epochs);
        if (!epochs)
            return err_set(ERR_NOMEM, "out of memory for the epochs of '%s'", run->path);
        run->epochs = epochs;
        run->epoch_room = room;
    }
    struct run_epoch *epoch = &run->epochs[run->epoch_count++];
    epoch->seconds = number(line, "seconds");
    snprintf(epoch->receipt, sizeof epoch->receipt, "%s", receipt ? receipt : "");
    return 0;
}

static int add_line(struct run *run, const char *text, const char *path, int index)
{
    cJSON *line = cJSON_Parse(text);
    const char *event = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(line, "event"));
    int code = 0;
    if (!event)
        code = err_set(ERR_DATA, "'%s', line %d: no line of a run's metrics", path, index);
    else if (strcmp(event, "step") == 0)
        code = add_step(run, line);
    else if (strcmp(event, "eval") == 0)
        code = add_eval(run, line);
    else if (strcmp(event, "epoch") == 0)
        code = add_epoch(run, line);
    else if (strcmp(event, "done") == 0)
        run->done = true;
    cJSON_Delete(line);
    return code;
}

/* Steps become epochs once it is known how many make one; less than one epoch: by what is there. */
static void scale_steps(struct run *run)
{
    struct series *const by_step[] = {&run->loss, &run->lr, &run->rate, &run->wait};
    if (run->steps_per_epoch == 0 && run->lr.count > 0)
        run->steps_per_epoch = run->lr.x[run->lr.count - 1] + 1;
    for (size_t i = 0; i < ARRAY_COUNT(by_step); i++)
        for (size_t j = 0; j < by_step[i]->count; j++)
            by_step[i]->x[j] = (by_step[i]->x[j] + 1) / run->steps_per_epoch;
}

/* A line that is still being written has no end and is left alone. */
static int read_metrics(struct run *run, const char *path)
{
    char *line = NULL;
    size_t room = 0;
    ssize_t bytes;
    int index = 0, fd;
    uint64_t size;
    int code = file_open_regular(&fd, &size, path);
    if (code)
        return code;
    FILE *file = fdopen(fd, "r");
    if (!file) {
        close(fd);
        return err_set(ERR_NOMEM, "out of memory for '%s'", path);
    }
    while (!code && (bytes = getline(&line, &room, file)) > 0)
        if (line[bytes - 1] == '\n')
            code = add_line(run, line, path, ++index);
    if (!code && ferror(file))
        code = err_set(ERR_IO, "cannot read '%s': %s", path, strerror(errno));
    free(line);
    fclose(file);
    if (!code && run->lr.count == 0)
        code = err_set(ERR_DATA, "'%s' has no step yet: nothing to report", path);
    if (!code)
        scale_steps(run);
    return code;
}

static int read_recipe(struct run *run, const char *path)
{
    struct opt_section section = recipe_section(&run->recipe);
    run->memory = opt_memory_open();
    int code =
        run->memory ? opt_defaults(&section) : err_set(ERR_NOMEM, "out of memory for '%s'", path);
    return code ? code : opt_read_ini(&section, run->memory, path, recipe_foreign_keys());
}

/* Runs without an evaluation have none. */
static int read_predictions(struct run *run, const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 ? predictions_read(&run->predictions, path) : 0;
}

static int read_files(struct run *run)
{
    static int (*const readers[])(struct run * run, const char *path) = {read_recipe, read_metrics,
                                                                         read_predictions};
    static const char *const names[] = {"recipe.ini", "metrics.jsonl", "best.predictions"};
    int code = 0;
    for (size_t i = 0; i < ARRAY_COUNT(readers) && !code; i++) {
        char *path;
        if (asprintf(&path, "%s/%s", run->path, names[i]) < 0)
            return err_set(ERR_NOMEM, "out of memory for '%s'", run->path);
        code = readers[i](run, path);
        if (code && i == 0)
            code = err_wrap(code, "'%s' is not the directory of a run", run->path);
        free(path);
    }
    return code;
}

int run_open(struct run *run, const char *path)
{
    *run = (struct run){.path = strdup(path)};
    if (!run->path)
        return err_set(ERR_NOMEM, "out of memory for '%s'", path);
    for (size_t end = strlen(run->path); end > 1 && run->path[end - 1] == '/'; end--)
        run->path[end - 1] = '\0';
    const char *slash = strrchr(run->path, '/');
    run->name = slash && slash[1] ? slash + 1 : run->path;
    int code = read_files(run);
    if (code)
        run_close(run);
    return code;
}

static void close_series(struct series *series)
{
    free(series->x);
    free(series->y);
}

void run_close(struct run *run)
{
    struct series *const all[] = {&run->loss,      &run->lr,   &run->rate, &run->wait,
                                  &run->eval_loss, &run->top1, &run->top5, &run->ema_top1};
    for (size_t i = 0; i < ARRAY_COUNT(all); i++)
        close_series(all[i]);
    predictions_close(run->predictions);
    opt_memory_close(run->memory);
    free(run->epochs);
    free(run->path);
    *run = (struct run){.path = NULL};
}

size_t series_best(const struct series *series)
{
    size_t best = 0;
    for (size_t i = 1; i < series->count; i++)
        if (series->y[i] > series->y[best])
            best = i;
    return best;
}

static int ascending(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

double series_median(const struct series *series)
{
    double *sorted = series->count ? malloc(series->count * sizeof *sorted) : NULL;
    if (!sorted)
        return 0;
    memcpy(sorted, series->y, series->count * sizeof *sorted);
    qsort(sorted, series->count, sizeof *sorted, ascending);
    double median = sorted[series->count / 2];
    free(sorted);
    return median;
}

double series_mean(const struct series *series)
{
    double sum = 0;
    for (size_t i = 0; i < series->count; i++)
        sum += series->y[i];
    return series->count ? sum / (double)series->count : 0;
}

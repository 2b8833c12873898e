/* SPDX-License-Identifier: Apache-2.0 */
/* The progress line: its text, its pace, and how fast the work goes. */
#include "common/progress.h"

#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"

enum { LINE_BYTES = 512, DETAIL_BYTES = 256, NUMBER_BYTES = 32 };

static const double redraw_s = 0.1, line_s = 5.0;
static const double smooth_s = 5.0; /* time constant of the rate's exponential average */
static const double sample_s = 0.1; /* shorter spans give a noisy rate */

struct progress {
    char *title, *unit;
    char detail[DETAIL_BYTES];
    uint64_t total, done;
    uint64_t first; /* done before this process began */
    bool terminal;
    double start_s, drawn_s; /* drawn_s: when a line was last written */
    double sampled_s;        /* the last point of the rate */
    uint64_t sampled_done;
    double rate; /* per second, smoothed; 0 until the first sample */
};

struct progress *progress_open(const char *title, uint64_t total, const char *unit)
{
    struct progress *progress = calloc(1, sizeof *progress);
    if (!progress)
        return NULL;
    progress->title = strdup(title);
    progress->unit = strdup(unit);
    if (!progress->title || !progress->unit) {
        free(progress->title);
        free(progress->unit);
        free(progress);
        return NULL;
    }
    progress->total = total;
    progress->terminal = isatty(STDERR_FILENO);
    progress->start_s = progress->drawn_s = progress->sampled_s = clock_seconds();
    return progress;
}

/* 1234567 -> "1,234,567". */
static const char *grouped(char dst[NUMBER_BYTES], uint64_t value)
{
    char digits[NUMBER_BYTES];
    int count = snprintf(digits, sizeof digits, "%" PRIu64, value), used = 0;
    for (int i = 0; i < count; i++) {
        if (i > 0 && (count - i) % 3 == 0)
            dst[used++] = ',';
        dst[used++] = digits[i];
    }
    dst[used] = '\0';
    return dst;
}

/* h:mm:ss */
static const char *duration(char dst[NUMBER_BYTES], double seconds)
{
    if (!(seconds < 3.6e9)) /* a million hours: not a forecast any more */
        return "unknown";
    uint64_t whole = (uint64_t)(seconds + 0.5);
    snprintf(dst, NUMBER_BYTES, "%" PRIu64 ":%02u:%02u", whole / 3600, (unsigned)(whole / 60 % 60),
             (unsigned)(whole % 60));
    return dst;
}

/* Three significant digits below a hundred, whole numbers above. */
static const char *rate_text(char dst[NUMBER_BYTES], double rate)
{
    if (rate >= 99.5)
        return grouped(dst, (uint64_t)(rate + 0.5));
    snprintf(dst, NUMBER_BYTES, rate >= 9.95 ? "%.1f" : "%.2f", rate);
    return dst;
}

static void sample_rate(struct progress *progress, double now_s)
{
    double span_s = now_s - progress->sampled_s;
    if (span_s < sample_s)
        return;
    uint64_t before = progress->sampled_done;
    double moved = progress->done > before ? (double)(progress->done - before) : 0;
    double rate = moved / span_s;
    double weight = progress->rate > 0 ? 1 - exp(-span_s / smooth_s) : 1;
    progress->rate += weight * (rate - progress->rate);
    progress->sampled_s = now_s;
    progress->sampled_done = progress->done;
}

/* Longer than the terminal is wide, the line would wrap and could not be erased. */
static void fit_terminal(char *line)
{
    struct winsize size = {0};
    size_t columns = 80;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1)
        columns = size.ws_col;
    if (strlen(line) >= columns)
        line[columns - 1] = '\0';
}

static void draw(struct progress *progress, double now_s, bool last)
{
    char line[LINE_BYTES], done[NUMBER_BYTES], total[NUMBER_BYTES], rate[NUMBER_BYTES];
    char time[NUMBER_BYTES];
    double seconds = now_s - progress->start_s;
    double worked =
        progress->done > progress->first ? (double)(progress->done - progress->first) : 0;
    double mean = seconds > 0 ? worked / seconds : 0;
    int used = snprintf(line, sizeof line, "%s %s", progress->title, grouped(done, progress->done));
    bool known = progress->total > 0 && used > 0 && used < LINE_BYTES;
    if (known)
        used += snprintf(line + used, sizeof line - (size_t)used, "/%s",
                         grouped(total, progress->total));
    if (used < 0 || used >= LINE_BYTES)
        used = LINE_BYTES - 1;
    double left = progress->total > progress->done ? (double)(progress->total - progress->done) : 0;
    const char *label = last ? "in" : known ? "ETA" : "for";
    double shown_s = last || !known ? seconds : left > 0 ? left / progress->rate : 0;
    snprintf(line + used, sizeof line - (size_t)used, " %s, %s/s, %s %s%s%s", progress->unit,
             rate_text(rate, last ? mean : progress->rate), label, duration(time, shown_s),
             progress->detail[0] ? ", " : "", progress->detail);
    progress->drawn_s = now_s;
    if (progress->terminal) {
        fit_terminal(line);
        log_draw(line, last);
    } else {
        log_info("%s", line);
    }
}

void progress_resume(struct progress *progress, uint64_t done)
{
    if (!progress)
        return;
    progress->first = progress->sampled_done = progress->done = done;
}

void progress_update(struct progress *progress, uint64_t done, const char *detail)
{
    if (!progress)
        return;
    progress->done = done;
    snprintf(progress->detail, sizeof progress->detail, "%s", detail ? detail : "");
    double now_s = clock_seconds();
    sample_rate(progress, now_s);
    if (now_s - progress->drawn_s < (progress->terminal ? redraw_s : line_s))
        return;
    draw(progress, now_s, false);
}

void progress_close(struct progress *progress)
{
    if (!progress)
        return;
    draw(progress, clock_seconds(), true);
    free(progress->title);
    free(progress->unit);
    free(progress);
}

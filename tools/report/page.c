/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/report/page.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools/report/chart.h"

extern const char report_css[], report_js[];

enum { NUMBER_BYTES = 48 };
static const double waiting_hint_percent = 10;

/* --- head and numbers --- */

/* 3 h 5 min */
static const char *duration(char dst[NUMBER_BYTES], double seconds)
{
    if (seconds >= 48 * 3600.0)
        snprintf(dst, NUMBER_BYTES, "%.1f days", seconds / 86400);
    else if (seconds >= 3600)
        snprintf(dst, NUMBER_BYTES, "%.0f h %.0f min", floor(seconds / 3600),
                 floor(fmod(seconds, 3600) / 60));
    else if (seconds >= 60)
        snprintf(dst, NUMBER_BYTES, "%.0f min %.0f s", floor(seconds / 60), fmod(seconds, 60));
    else
        snprintf(dst, NUMBER_BYTES, "%.1f s", seconds);
    return dst;
}

/* 12,345 */
static const char *grouped(char dst[NUMBER_BYTES], double value)
{
    char digits[NUMBER_BYTES];
    int count = snprintf(digits, sizeof digits, "%.0f", value), used = 0;
    for (int i = 0; i < count && used < NUMBER_BYTES - 2; i++) {
        if (i > 0 && (count - i) % 3 == 0)
            dst[used++] = ',';
        dst[used++] = digits[i];
    }
    dst[used] = '\0';
    return dst;
}

static const char *rate_text(char dst[NUMBER_BYTES], double rate)
{
    if (rate >= 100)
        return grouped(dst, rate);
    snprintf(dst, NUMBER_BYTES, "%.3g", rate);
    return dst;
}

static double run_end(const struct run *run)
{
    return run->lr.x[run->lr.count - 1];
}

static void write_head(FILE *stream, const char *title)
{
    /* The policy forbids what the page does not do anyway: to load anything. */
    fputs("<!DOCTYPE html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'/>\n"
          "<meta name='viewport' content='width=device-width, initial-scale=1'/>\n"
          "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; "
          "style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:\"/>\n<title>",
          stream);
    html_text(stream, title);
    fprintf(stream, "</title>\n<style>\n%s</style>\n</head>\n<body>\n<main>\n", report_css);
}

static void write_tile(FILE *stream, const char *value, const char *label)
{
    fprintf(stream, "<li class='card'><b>%s</b><span>", value);
    html_text(stream, label);
    fputs("</span></li>\n", stream);
}

static void write_top1_tiles(FILE *stream, const struct run *run)
{
    char value[NUMBER_BYTES], label[NUMBER_BYTES];
    if (run->top1.count == 0)
        return;
    size_t best = series_best(&run->top1), last = run->top1.count - 1;
    snprintf(value, sizeof value, "%.2f %%", run->top1.y[best]);
    snprintf(label, sizeof label, "best top-1, after epoch %.0f", run->top1.x[best] - 1);
    write_tile(stream, value, label);
    snprintf(value, sizeof value, "%.2f %%", run->top1.y[last]);
    snprintf(label, sizeof label, "top-1, after epoch %.0f", run->top1.x[last] - 1);
    if (last != best)
        write_tile(stream, value, label);
    snprintf(value, sizeof value, "%.2f %%", run->top5.y[best]);
    if (run->top5.count > best)
        write_tile(stream, value, "top-5, at the best");
}

static void write_tiles(FILE *stream, const struct run *run)
{
    char value[NUMBER_BYTES], label[2 * NUMBER_BYTES], steps[NUMBER_BYTES];
    fputs("<ul class='tiles'>\n", stream);
    write_top1_tiles(stream, run);
    snprintf(value, sizeof value, "%.3g / %lld", run_end(run), (long long)run->recipe.epochs);
    snprintf(label, sizeof label, "epochs, %s steps%s", grouped(steps, (double)run->lr.count),
             run->done ? "" : ", not finished");
    write_tile(stream, value, label);
    write_tile(stream, rate_text(value, series_median(&run->rate)), "images a second, median step");
    snprintf(value, sizeof value, "%.1f %%", series_mean(&run->wait));
    write_tile(stream, value, "of the time waiting for data");
    write_tile(stream, duration(value, run->seconds), "in training steps");
    fputs("</ul>\n", stream);
}

static void write_cell(FILE *stream, const char *format, double value, bool known)
{
    char text[NUMBER_BYTES] = "–";
    if (known)
        snprintf(text, sizeof text, format, value);
    fprintf(stream, "<td class='n'>%s</td>", text);
}

static void write_run_row(FILE *stream, const struct run *run, int colour)
{
    char value[NUMBER_BYTES];
    size_t best = run->top1.count ? series_best(&run->top1) : 0;
    fprintf(stream, "<tr class='c%d'><th><i class='swatch'></i>", colour);
    html_text(stream, run->name);
    fputs("</th><td>", stream);
    html_text(stream, run->recipe.model);
    fputs("</td>", stream);
    write_cell(stream, "%.2f %%", run->top1.count ? run->top1.y[best] : 0, run->top1.count > 0);
    write_cell(stream, "%.0f", run->top1.count ? run->top1.x[best] - 1 : 0, run->top1.count > 0);
    write_cell(stream, "%.2f %%", run->top1.count ? run->top1.y[run->top1.count - 1] : 0,
               run->top1.count > 0);
    fprintf(stream, "<td class='n'>%.3g / %lld%s</td>", run_end(run), (long long)run->recipe.epochs,
            run->done ? "" : " …");
    fprintf(stream, "<td class='n'>%s</td>", rate_text(value, series_median(&run->rate)));
    write_cell(stream, "%.1f %%", series_mean(&run->wait), true);
    fprintf(stream, "<td class='n'>%s</td></tr>\n", duration(value, run->seconds));
}

static void write_run_table(FILE *stream, const struct run *runs, size_t count)
{
    fputs("<h2>Runs</h2>\n<div class='card scroll'><table><thead><tr><th>run</th><th>model</th>"
          "<th class='n'>best top-1</th><th class='n'>after epoch</th><th class='n'>last top-1</th>"
          "<th class='n'>epochs</th><th class='n'>images/s</th><th class='n'>waiting</th>"
          "<th class='n'>time in steps</th></tr></thead><tbody>\n",
          stream);
    for (size_t i = 0; i < count; i++)
        write_run_row(stream, &runs[i], (int)(i % RUN_COLOURS));
    fputs("</tbody></table></div>\n", stream);
}

/* What a person can do about it. */
static void write_hint(FILE *stream, const struct run *run)
{
    double wait = series_mean(&run->wait);
    if (wait < waiting_hint_percent)
        return;
    fprintf(
        stream,
        "<div class='card hint'><p>%.0f %% of the time was spent waiting for data: more loaders, "
        "or more workers in them, would make the training faster.</p></div>\n",
        wait);
}

static void write_summary(FILE *stream, const struct run *run)
{
    const struct recipe *recipe = &run->recipe;
    char text[512];
    snprintf(text, sizeof text,
             "%s, %lld px, batches of %lld, %s schedule from %.4g over %lld epochs", recipe->model,
             (long long)recipe->size, (long long)recipe->total_batch, recipe->schedule,
             recipe_lr(recipe), (long long)recipe->epochs);
    fputs("<p>", stream);
    html_text(stream, text);
    fputs("</p>\n", stream);
}

/* --- charts --- */

/* How one quantity of every run is drawn. Alone, a run's quantities have colours; beside others,
 * runs have. */
struct drawing {
    const char *label;
    int colour;
    bool second, marked; /* second: dashed, and named behind the run's name */
};

static void add_all(struct chart *chart, const struct run *runs, size_t count, size_t offset,
                    struct drawing drawing)
{
    for (size_t i = 0; i < count; i++) {
        const char *base = (const char *)&runs[i];
        struct chart_line line = {
            .series = (const struct series *)(base + offset),
            .label = count == 1 ? drawing.label : runs[i].name,
            .suffix = count > 1 && drawing.second ? drawing.label : NULL,
            .colour = count == 1 ? drawing.colour : (int)(i % RUN_COLOURS),
            .second = drawing.second,
            .marked = drawing.marked,
            .band = count == 1,
        };
        chart_add(chart, &line);
    }
}

#define SERIES(name) offsetof(struct run, name)

static int write_charts(FILE *stream, const struct run *runs, size_t count)
{
    struct chart charts[] = {
        {.title = "Loss", .note = "training per step, validation per epoch", .unit = ""},
        {.title = "Accuracy", .note = "validation, percent of samples", .unit = " %"},
        {.title = "Learning rate",
         .note = "as the schedule gave it",
         .unit = "",
         .narrow = true,
         .from_zero = true},
        {.title = "Throughput",
         .note = "images a second, whole steps",
         .unit = " images/s",
         .narrow = true,
         .from_zero = true},
        {.title = "Waiting for data",
         .note = "percent of a step's time",
         .unit = " %",
         .narrow = true,
         .from_zero = true,
         .least_top = 10},
    };
    double x_end = 0;
    int code = 0;
    for (size_t i = 0; i < count; i++)
        x_end = fmax(x_end, run_end(&runs[i]));
    add_all(&charts[0], runs, count, SERIES(loss), (struct drawing){"training"});
    add_all(&charts[0], runs, count, SERIES(eval_loss),
            (struct drawing){"validation", 1, true, true});
    add_all(&charts[1], runs, count, SERIES(top1), (struct drawing){"top-1", 0, false, true});
    add_all(&charts[1], runs, count, SERIES(ema_top1),
            (struct drawing){"top-1 of the average", 2, true, true});
    add_all(&charts[1], runs, count, SERIES(top5), (struct drawing){"top-5", 1, true, false});
    add_all(&charts[2], runs, count, SERIES(lr), (struct drawing){"learning rate"});
    add_all(&charts[3], runs, count, SERIES(rate), (struct drawing){"images/s"});
    add_all(&charts[4], runs, count, SERIES(wait), (struct drawing){"waiting"});
    if (count > 1) {
        charts[0].note = "training per step (means), validation per epoch dashed";
        charts[1].note = "validation, percent of samples; top-5 dashed";
    }
    fputs("<h2>Curves</h2>\n<div class='charts'>\n", stream);
    for (size_t i = 0; i < ARRAY_COUNT(charts) && !code; i++)
        code = chart_write(stream, &charts[i], x_end);
    fputs("</div>\n", stream);
    return code;
}

int page_begin(FILE *stream, const struct run *runs, size_t count, const char *title)
{
    write_head(stream, title);
    fputs("<header><h1>", stream);
    html_text(stream, title);
    fputs("</h1>\n", stream);
    if (count == 1)
        write_summary(stream, &runs[0]);
    fputs("</header>\n", stream);
    if (count == 1) {
        write_tiles(stream, &runs[0]);
        write_hint(stream, &runs[0]);
    } else {
        write_run_table(stream, runs, count);
    }
    return write_charts(stream, runs, count);
}

/* --- recipes and epochs --- */

/* The value as text; "" when not given. Never NULL. */
static char *value_text(const struct opt *option, const struct recipe *recipe)
{
    char *text = opt_value_text(option, recipe);
    return text ? text : strdup("");
}

static void write_keys(FILE *stream, const struct run *run)
{
    struct recipe copy = run->recipe, plain;
    struct opt_section section = recipe_section(&copy), defaults = recipe_section(&plain);
    if (opt_defaults(&defaults))
        return;
    fputs("<h2>Recipe</h2>\n<div class='card'><p>Bold: not the default, which is the paper's "
          "baseline.</p><dl class='keys'>\n",
          stream);
    for (size_t i = 0; i < section.count; i++) {
        char *value = value_text(&section.options[i], &copy);
        char *fallback = value_text(&section.options[i], &plain);
        if (value && fallback && *value) {
            bool changed = strcmp(value, fallback) != 0;
            fprintf(stream, "<div><dt>%s</dt><dd>%s", section.options[i].name,
                    changed ? "<b class='changed'>" : "");
            html_text(stream, value);
            fprintf(stream, "%s</dd></div>\n", changed ? "</b>" : "");
        }
        free(value);
        free(fallback);
    }
    fputs("</dl></div>\n", stream);
}

static bool differs(const struct opt *option, const struct run *runs, size_t count)
{
    char *first = value_text(option, &runs[0].recipe);
    bool different = false;
    for (size_t i = 1; i < count && !different; i++) {
        char *other = value_text(option, &runs[i].recipe);
        different = first && other && strcmp(first, other) != 0;
        free(other);
    }
    free(first);
    return different;
}

static void write_key_rows(FILE *stream, const struct opt_section *section, const struct run *runs,
                           size_t count, bool different)
{
    for (size_t i = 0; i < section->count; i++) {
        const struct opt *option = &section->options[i];
        if (differs(option, runs, count) != different)
            continue;
        fprintf(stream, "<tr%s><th>%s</th>", different ? " class='changed'" : "", option->name);
        for (size_t r = 0; r < count; r++) {
            char *value = value_text(option, &runs[r].recipe);
            fputs("<td>", stream);
            html_text(stream, value ? value : "");
            fputs("</td>", stream);
            free(value);
        }
        fputs("</tr>\n", stream);
    }
}

static void write_key_head(FILE *stream, const struct run *runs, size_t count)
{
    fputs("<div class='scroll'><table><thead><tr><th>key</th>", stream);
    for (size_t i = 0; i < count; i++) {
        fprintf(stream, "<th class='c%d'><i class='swatch'></i>", (int)(i % RUN_COLOURS));
        html_text(stream, runs[i].name);
        fputs("</th>", stream);
    }
    fputs("</tr></thead><tbody>\n", stream);
}

static void write_key_tables(FILE *stream, const struct run *runs, size_t count)
{
    struct recipe copy = runs[0].recipe;
    struct opt_section section = recipe_section(&copy);
    fputs("<h2>What differs in the recipes</h2>\n<div class='card'>", stream);
    write_key_head(stream, runs, count);
    write_key_rows(stream, &section, runs, count, true);
    fputs("</tbody></table></div>\n<details><summary>Keys that are the same</summary>\n", stream);
    write_key_head(stream, runs, count);
    write_key_rows(stream, &section, runs, count, false);
    fputs("</tbody></table></div></details></div>\n", stream);
}

static void write_epoch_row(FILE *stream, const struct run *run, size_t epoch)
{
    char value[NUMBER_BYTES];
    bool judged = epoch < run->top1.count && run->top1.x[epoch] == (double)(epoch + 1);
    fprintf(stream, "<tr><td class='n'>%zu</td>", epoch);
    write_cell(stream, "%.2f", judged ? run->top1.y[epoch] : 0, judged);
    write_cell(stream, "%.2f", judged && epoch < run->top5.count ? run->top5.y[epoch] : 0, judged);
    write_cell(stream, "%.4f", judged && epoch < run->eval_loss.count ? run->eval_loss.y[epoch] : 0,
               judged);
    fprintf(stream, "<td class='n'>%s</td><td><code>", duration(value, run->epochs[epoch].seconds));
    html_text(stream, run->epochs[epoch].receipt);
    fputs("</code></td></tr>\n", stream);
}

static void write_epochs(FILE *stream, const struct run *run)
{
    if (run->epoch_count == 0)
        return;
    fputs(
        "<h2>Epochs</h2>\n<div class='card'><p>A receipt is a hash over every label and pixel that "
        "was trained on: equal receipts, equal streams.</p><details><summary>",
        stream);
    fprintf(stream, "%zu epochs", run->epoch_count);
    fputs("</summary><div class='scroll'><table><thead><tr><th class='n'>epoch</th>"
          "<th class='n'>top-1 %</th><th class='n'>top-5 %</th><th class='n'>loss</th>"
          "<th class='n'>time</th><th>receipt</th></tr></thead><tbody>\n",
          stream);
    for (size_t i = 0; i < run->epoch_count; i++)
        write_epoch_row(stream, run, i);
    fputs("</tbody></table></div></details></div>\n", stream);
}

void page_recipes(FILE *stream, const struct run *runs, size_t count)
{
    if (count == 1) {
        write_keys(stream, &runs[0]);
        write_epochs(stream, &runs[0]);
    } else {
        write_key_tables(stream, runs, count);
    }
}

void page_end(FILE *stream)
{
    fprintf(stream,
            "<footer>Written by satchel-report %s from recipe.ini, metrics.jsonl and "
            "best.predictions. Epochs count from 0; what belongs to a whole epoch stands at its "
            "end.</footer>\n"
            "</main>\n<script>\n%s</script>\n</body>\n</html>\n",
            SATCHEL_VERSION, report_js);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* satchel-report: how one run went, or several side by side, as a page that a browser opens from
 * the disk. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/file.h"
#include "common/log.h"
#include "common/opt.h"
#include "datasets/fault.h"
#include "tools/report/confusion.h"
#include "tools/report/page.h"

struct values {
    const char *out, *data, *title;
};

static const struct opt options[] = {
    {"out", OPT_STRING, offsetof(struct values, out), .fallback = "report.html",
     .value_name = "FILE.html", .help = "where to write the page"},
    {"data", OPT_STRING, offsetof(struct values, data), .value_name = "FILE.lmdb",
     .help = "the validation store, for the confused classes with their names and pictures"},
    {"title", OPT_STRING, offsetof(struct values, title), .value_name = "TEXT",
     .help = "heading of the page; otherwise the run's name"},
};

struct report {
    struct run *runs; /* [count] */
    size_t count;
    struct store *store; /* NULL: no pictures */
    char title[256];
};

/* Runs of one name in several directories are told apart by their paths. */
static void tell_apart(struct report *report)
{
    bool equal = false;
    for (size_t i = 0; i < report->count; i++)
        for (size_t j = 0; j < i; j++)
            equal |= strcmp(report->runs[i].name, report->runs[j].name) == 0;
    for (size_t i = 0; equal && i < report->count; i++)
        report->runs[i].name = report->runs[i].path;
}

static int open_runs(struct report *report, const struct opt_program *program)
{
    size_t count = (size_t)program->positional_count;
    report->runs = calloc(count, sizeof *report->runs);
    int code = report->runs ? 0 : err_set(ERR_NOMEM, "out of memory for %zu runs", count);
    for (; report->count < count && !code; report->count += !code)
        code = run_open(&report->runs[report->count], program->positional[report->count]);
    tell_apart(report);
    return code;
}

static int open_store(struct report *report, const char *path)
{
    int code = path ? store_open(&report->store, path) : 0;
    for (size_t i = 0; report->store && i < report->count && !code; i++) {
        const struct run *run = &report->runs[i];
        if (run->predictions)
            code = confusion_check(run, report->store);
        else
            log_warn("the run '%s' has no evaluation yet: nothing to show of what it confuses",
                     run->path);
    }
    return code;
}

static void set_title(struct report *report, const char *title)
{
    if (title)
        snprintf(report->title, sizeof report->title, "%s", title);
    else if (report->count == 1)
        snprintf(report->title, sizeof report->title, "Run %s", report->runs[0].name);
    else
        snprintf(report->title, sizeof report->title, "%zu runs side by side", report->count);
}

static int write_page(FILE *stream, const struct report *report)
{
    int code = page_begin(stream, report->runs, report->count, report->title);
    for (size_t i = 0; report->store && i < report->count && !code; i++)
        if (report->runs[i].predictions)
            code = confusion_write(stream, &report->runs[i], report->store);
    if (code)
        return code;
    page_recipes(stream, report->runs, report->count);
    page_end(stream);
    return 0;
}

static int write_report(const struct report *report, const char *path)
{
    struct file_atomic *file;
    int code = file_atomic_open(&file, path);
    if (code)
        return code;
    code = write_page(file_atomic_stream(file), report);
    if (!code)
        return file_atomic_commit(file);
    file_atomic_discard(file);
    return code;
}

/* Neither what the page is made of nor what the run goes on from may be replaced by it. */
static int check_out(const char *out, const struct opt_program *program, const char *store)
{
    static const char *const names[] = {"recipe.ini", "metrics.jsonl", "best.predictions",
                                        "best.safetensors", "last.safetensors"};
    int code = file_check_output(out, store, "the store");
    for (int i = 0; i < program->positional_count; i++)
        for (size_t j = 0; j < ARRAY_COUNT(names) && !code; j++) {
            char path[PATH_MAX];
            snprintf(path, sizeof path, "%s/%s", program->positional[i], names[j]);
            code = file_check_output(out, path, "a file of the run");
        }
    return code;
}

static int run(struct report *report, const struct opt_program *program,
               const struct values *values)
{
    int code = check_out(values->out, program, values->data);
    if (!code)
        code = open_runs(report, program);
    if (!code)
        code = open_store(report, values->data);
    if (code)
        return code;
    set_title(report, values->title);
    code = write_report(report, values->out);
    if (!code)
        printf("%s\n", values->out);
    return code;
}

int main(int argc, char **argv)
{
    struct values values;
    struct report report = {NULL};
    struct opt_section sections[] = {{"Report", options, ARRAY_COUNT(options), &values, false}};
    struct opt_program program = {
        .name = "satchel-report",
        .usage = "RUNDIR... [--out FILE.html] [--data VAL.lmdb] [OPTIONS]",
        .summary = "Writes one page about a run, or about several side by side: curves, recipe, "
                   "receipts, and what is confused. It needs no network.",
        .sections = sections,
        .section_count = ARRAY_COUNT(sections),
        .min_positional = 1,
        .max_positional = -1,
    };
    log_open(program.name);
    fault_install();
    int code = opt_parse(&program, argc, argv);
    if (!code && !program.finished)
        code = run(&report, &program, &values);
    if (code)
        log_error("%s", err_message());
    for (size_t i = 0; i < report.count; i++)
        run_close(&report.runs[i]);
    free(report.runs);
    store_close(report.store);
    opt_release(&program);
    return err_exit_status(code);
}

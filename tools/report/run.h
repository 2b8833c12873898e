/* SPDX-License-Identifier: Apache-2.0 */
/* What satchel-report knows of a run: its directory, read. */
#ifndef TOOLS_REPORT_RUN_H
#define TOOLS_REPORT_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/opt.h"
#include "proto/recipe.h"
#include "trainer/predictions.h"

struct series { /* points in order of x, in epochs from the run's start */
    double *x, *y;
    size_t count, room;
};

struct run_epoch {
    double seconds;
    char receipt[33];
};

struct run {
    char *path;
    const char *name; /* last part of path */
    struct recipe recipe;
    struct opt_memory *memory;          /* of recipe's strings */
    struct series loss, lr, rate, wait; /* a point a step; rate in images/s, wait in percent */
    struct series eval_loss, top1, top5, ema_top1; /* a point an evaluation; percent */
    struct run_epoch *epochs;                      /* [epoch_count], whole ones */
    size_t epoch_count, epoch_room;
    double steps_per_epoch, seconds; /* seconds: of all steps */
    bool done;
    struct predictions *predictions; /* NULL: none */
};

/* ERR_IO, ERR_DATA: no run, nothing trained yet, or lines that are none. */
int run_open(struct run *run, const char *path);
void run_close(struct run *run); /* accepts a zeroed one */

/* Index of the largest y; count must not be 0. */
size_t series_best(const struct series *series);
double series_median(const struct series *series); /* 0 when empty */
double series_mean(const struct series *series);   /* 0 when empty */

#endif

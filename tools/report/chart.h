/* SPDX-License-Identifier: Apache-2.0 */
/* A line chart as SVG, with its points beside it for the reader's pointer (report.js). */
#ifndef TOOLS_REPORT_CHART_H
#define TOOLS_REPORT_CHART_H

#include "tools/report/run.h"

enum { CHART_LINES_MAX = 16 };

struct chart_line {
    const struct series *series;
    const char *label, *suffix; /* suffix: behind the label under the pointer; NULL: none */
    int colour;                 /* of the run: 0..RUN_COLOURS-1 */
    bool second;                /* dashed: another quantity of the same run */
    bool marked;                /* few points, each with a dot */
    bool band;                  /* from the least to the largest value, where points were thinned */
};

struct chart {
    const char *title, *note; /* note: a line below the title */
    const char *unit;         /* behind values */
    bool narrow;              /* for a third of the page's width; else half */
    bool from_zero;
    double least_top; /* the axis reaches at least this far; 0: as far as the values */
    struct chart_line lines[CHART_LINES_MAX];
    int line_count;
};

/* Adds a line unless the series is empty or the chart is full. */
void chart_add(struct chart *chart, const struct chart_line *line);

/* Writes a <figure>; nothing when there are no lines. Long series are shown by means over equal
 * spans. x_end: epochs.
 * ERR_NOMEM; errors of the stream are the caller's. */
int chart_write(FILE *stream, const struct chart *chart, double x_end);

/* Writes text with &, <, >, quotes and control characters escaped. */
void html_text(FILE *stream, const char *text);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* The page of satchel-report: one HTML file that needs no network and loads nothing. */
#ifndef TOOLS_REPORT_PAGE_H
#define TOOLS_REPORT_PAGE_H

#include "tools/report/run.h"

enum { RUN_COLOURS = 8 }; /* report.css */

/* Up to the charts; ERR_NOMEM. Errors of the stream are the caller's. runs: [count]. */
int page_begin(FILE *stream, const struct run *runs, size_t count, const char *title);
void page_recipes(FILE *stream, const struct run *runs, size_t count);
void page_end(FILE *stream);

#endif

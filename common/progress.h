/* SPDX-License-Identifier: Apache-2.0 */
/* The progress of long work: one line redrawn in place on a terminal (at most 10 a second), a plain
 * line every few seconds elsewhere. Rate over the last seconds and ETA are worked out here. */
#ifndef COMMON_PROGRESS_H
#define COMMON_PROGRESS_H

#include <stdint.h>

struct progress; /* one at a time in a process; owned by one thread */

/* total 0: unknown. unit: "images", "steps". NULL when memory is out; every call accepts NULL. */
struct progress *progress_open(const char *title, uint64_t total, const char *unit);

/* What an earlier process did already: counts as done, not for the rate. Before the first update.
 */
void progress_resume(struct progress *progress, uint64_t done);

/* done: how many so far (absolute). detail may be NULL or text shown behind the rate. */
void progress_update(struct progress *progress, uint64_t done, const char *detail);

/* Draws the last state with the total time and ends the line. Frees. */
void progress_close(struct progress *progress);

#endif

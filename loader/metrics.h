/* SPDX-License-Identifier: Apache-2.0 */
/* What a loader counts, and how it tells: a log line every ten seconds of work, and a text file for
 * Prometheus. */
#ifndef LOADER_METRICS_H
#define LOADER_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct metrics_counts {
    uint64_t images, chunks, bytes;       /* sent */
    uint64_t substituted, masked, failed; /* damaged records; chunks that could not be made */
    uint64_t refused;                     /* requests and messages turned down */
    int64_t work_ns;                      /* of all workers */
    unsigned trainers, queued, building;
    size_t buffer_bytes;
};

struct metrics {
    const char *file; /* NULL: none */
    struct metrics_counts counts;
    struct metrics_counts at_log;
    int64_t logged_ns, written_ns;
    bool write_failed; /* said once */
};

void metrics_open(struct metrics *metrics, const char *file);

/* Writes what is due; final: the file in any case. */
void metrics_tick(struct metrics *metrics, bool final);

#endif

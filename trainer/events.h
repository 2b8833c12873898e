/* SPDX-License-Identifier: Apache-2.0 */
/* TensorBoard event files of a run: events.out.tfevents.TIME.HOST.PID in its directory, a new one
 * for every process that works on the run. They mirror metrics.jsonl; a disk that fails ends them
 * with a warning, never the training. */
#ifndef TRAINER_EVENTS_H
#define TRAINER_EVENTS_H

#include <stdint.h>

struct events;

struct events_scalar {
    const char *tag;
    double value; /* left out when it is not finite */
};

enum { EVENTS_SCALARS_MAX = 8 };

/* Begins a file. step: where the run stands; TensorBoard drops what files of earlier processes have
 * from there on. ERR_IO, ERR_NOMEM. */
int events_open(struct events **out, const char *directory, uint64_t step);
void events_close(struct events *events); /* accepts NULL */

/* count at most EVENTS_SCALARS_MAX; accepts NULL events. Is on the disk within some seconds. */
void events_write(struct events *events, uint64_t step, const struct events_scalar *scalars,
                  int count);

#endif

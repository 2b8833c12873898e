/* SPDX-License-Identifier: Apache-2.0 */
/* Which checkpoint of a run directory a run goes on from. */
#ifndef TRAINER_RESUME_H
#define TRAINER_RESUME_H

#include <stdbool.h>

#include "trainer/checkpoint.h"
#include "trainer/rundir.h"

struct resume {
    struct safetensors *file; /* verified against its checksum */
    char *path;
    struct checkpoint at; /* its strings belong to file */
    bool is_last;         /* path is last.safetensors, not an earlier one */
};

/* Opens the newest checkpoint that is whole. A damaged one is a warning as long as an earlier one
 * is kept; one of another version's format is refused (ERR_UNSUPPORTED). ERR_DATA, ERR_IO: none is
 * good. */
int resume_open(struct resume *resume, const struct rundir *dir);
void resume_close(struct resume *resume); /* accepts a zeroed one */

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* The directory of a run: who may use it, and the names in it. */
#ifndef TRAINER_RUNDIR_H
#define TRAINER_RUNDIR_H

#include <stdbool.h>

struct rundir {
    char *path;
    char *recipe, *metrics, *last, *best; /* paths of the files */
    bool has_checkpoint;                  /* last is there: go on from it */
    int lock;                             /* the directory, locked for this process; -1: not */
};

/* Makes the directory where it is missing and takes it for this process until rundir_close; a
 * second trainer on it is refused. Removes what a killed process left half-written. resume false:
 * the directory must be empty (ERR_ARG). resume true: a run's directory or an empty one. ERR_IO: a
 * file of that name, read-only, a path too long, ... */
int rundir_open(struct rundir *dir, const char *path, bool resume);

/* Only names the files of a directory that is read (--eval-only). ERR_IO when there is no
 * checkpoint. */
int rundir_look(struct rundir *dir, const char *path);

/* Names the files of the directory that rank 0 has opened, for another rank. ERR_IO when the
 * checkpoint that rank 0 found (has_checkpoint) cannot be read from here. */
int rundir_follow(struct rundir *dir, const char *path, bool has_checkpoint);

void rundir_close(struct rundir *dir); /* accepts a zeroed one */

#endif

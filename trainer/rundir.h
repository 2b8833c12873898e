/* SPDX-License-Identifier: Apache-2.0 */
/* The directory of a run: who may use it, and the names in it. */
#ifndef TRAINER_RUNDIR_H
#define TRAINER_RUNDIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Paths of the files. Earlier checkpoints are step-STEP.safetensors. */
struct rundir {
    char *path;
    char *recipe, *metrics, *last, *best, *best_predictions;
    char *poisonous;     /* feed_config.poisonous */
    bool has_checkpoint; /* last, or an earlier one, is there: go on from it */
    int lock;            /* the directory, locked for this process; -1: not */
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

/* The steps of the earlier checkpoints that are kept, newest first; malloc'ed. ERR_IO, ERR_NOMEM.
 */
int rundir_kept(uint64_t **steps, size_t *count, const struct rundir *dir);

/* Path of the earlier checkpoint of a step; malloc'ed, NULL with the error set when memory is out.
 */
char *rundir_step_path(const struct rundir *dir, uint64_t step);

void rundir_close(struct rundir *dir); /* accepts a zeroed one */

#endif

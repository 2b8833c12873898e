/* SPDX-License-Identifier: Apache-2.0 */
/* Writes a run's checkpoints beside training: last.safetensors (the newest), step-STEP.safetensors
 * (the ones before it), best.safetensors and best.predictions. Training waits only while a snapshot
 * is copied.
 *
 * A save that fails is a warning; training goes on, and what was saved before stays. A disk that is
 * slower than saves come gets the newest and the best so far; those between are left out. As a rule
 * one or two copies of the state are in memory, at most four. */
#ifndef TRAINER_SAVER_H
#define TRAINER_SAVER_H

#include "trainer/metrics.h"
#include "trainer/predictions.h"
#include "trainer/rundir.h"
#include "trainer/snapshot.h"

struct saver;

struct saver_config {
    const struct rundir *dir;
    struct metrics *metrics; /* its lines reach the disk before the checkpoint behind them */
    const struct checkpoint_part *parts;
    int part_count;
    int keep;      /* last and keep - 1 before it; at least 1 */
    bool has_last; /* last.safetensors is a good checkpoint, of last_step */
    uint64_t last_step;
};

struct saver_counts {
    uint64_t saves, failed, left_out; /* left_out: a newer one came before its turn */
    double held_seconds;              /* training waited, in all saves */
};

/* Everything that the config points to must outlive the saver. Warns when the disk has little room.
 * ERR_NOMEM, ERR_IO. */
int saver_open(struct saver **out, const struct saver_config *config);

/* Waits for what was handed over; accepts NULL. */
void saver_close(struct saver *saver);

/* Copies the state; it is written soon. predictions (NULL: none) belong to a best one and are
 * copied too. What the backend says; ERR_NOMEM. */
int saver_save(struct saver *saver, const struct checkpoint *checkpoint, bool best,
               const struct predictions *predictions);

/* Waits until everything handed over is written. The error of the newest save when it failed: then
 * the run's end is not on the disk. */
int saver_wait(struct saver *saver);

void saver_counts(struct saver_counts *counts, struct saver *saver);

#endif

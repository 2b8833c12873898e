/* SPDX-License-Identifier: Apache-2.0 */
/* A run at one step, copied into memory: taking it is all that training waits for; another thread
 * writes it (trainer/saver.h) while training goes on. */
#ifndef TRAINER_SNAPSHOT_H
#define TRAINER_SNAPSHOT_H

#include "trainer/checkpoint.h"

struct snapshot;

/* Reserves the memory for these parts (a copy of their tensors); their nets and states must outlive
 * it. ERR_NOMEM. */
int snapshot_open(struct snapshot **out, const struct checkpoint_part *parts, int count);
void snapshot_close(struct snapshot *snapshot); /* accepts NULL */

/* Copies. The strings of checkpoint must stay until the snapshot is taken anew or closed. ERR_NOMEM
 * or what the backend says. */
int snapshot_take(struct snapshot *snapshot, const struct checkpoint *checkpoint);

/* Writes a checkpoint atomically; touches no backend. ERR_IO, ERR_NOMEM. */
int snapshot_write(const struct snapshot *snapshot, const char *path);

uint64_t snapshot_step(const struct snapshot *snapshot);
size_t snapshot_bytes(const struct snapshot *snapshot); /* of its tensors */

#endif

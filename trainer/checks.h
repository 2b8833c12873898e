/* SPDX-License-Identifier: Apache-2.0 */
/* What every backend refuses of a program and of a batch, in the same words. */
#ifndef TRAINER_CHECKS_H
#define TRAINER_CHECKS_H

#include "trainer/backend.h"

/* A batch size that cannot be, a map of more than 2^31 - 1 values, or BN over a single value a
 * channel. net: at the program's size. ERR_ARG. */
int checks_program(const struct program_config *config, const struct net *net);

/* Whether a teacher's program fits its student's. ERR_ARG. */
int checks_teacher(const struct program_config *teacher, const struct net *teacher_net,
                   const struct program_config *config, const struct net *net);

/* Samples, slot, labels, and what the input's format needs (trainer/unpack.h). ERR_ARG. */
int checks_batch(const struct batch *batch, const struct program_config *config,
                 const struct net *net, int slot, int slot_total);

int checks_slot(int slot, int slot_total); /* ERR_ARG */

/* Whether bucket is BUCKETS_ALL or one of bucket_total. ERR_ARG. */
int checks_bucket(int bucket, int bucket_total);

/* Whether the net has this tensor, and the tensor values of this kind. ERR_ARG. */
int checks_tensor(const struct net *net, enum state_kind kind, int tensor);

#endif

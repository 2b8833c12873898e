/* SPDX-License-Identifier: Apache-2.0 */
/* The fixed tree in which the gradients of a step's micro-batches are summed.
 *
 * sum(n) of n consecutive micro-batches: n even: sum(first n/2) + sum(last n/2); n odd: the n parts
 * one after another from the left. A rank's share of a power-of-two number of ranks is a node of
 * this tree, so 1, 2, 4 and 8 ranks add the same numbers in the same order. */
#ifndef TRAINER_ACCUMULATE_H
#define TRAINER_ACCUMULATE_H

/* Slots needed for n micro-batches on this rank. */
int accumulate_slots(int n);

struct accumulate_step {
    int slot; /* the next micro-batch goes into this slot */
    int adds; /* then this many additions: slot_add(add_dst[i], add_src[i]), in order */
    int add_dst[32], add_src[32];
};

/* What to do for micro-batch i of n. After the last one the sum is in slot 0. */
void accumulate_plan(struct accumulate_step *step, int i, int n);

#endif

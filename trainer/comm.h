/* SPDX-License-Identifier: Apache-2.0 */
/* The ranks of a run: one operations table per way to talk. One rank drives one device. Every call
 * is collective: all ranks make the same calls in the same order. */
#ifndef TRAINER_COMM_H
#define TRAINER_COMM_H

#include <stddef.h>
#include <stdint.h>

struct comm;

struct comm_ops {
    const char *name;
    void (*close)(struct comm *comm);
    int (*barrier)(struct comm *comm);
    /* Sums over the ranks, in place; every rank gets the same bits. Floats are a gradient bucket in
     * the memory of the backend that the table was made for, summed in the binary tree over ranks
     * that continues trainer/accumulate.h's tree over micro-batches. */
    int (*sum_floats)(struct comm *comm, float *data, size_t count);
    int (*sum_doubles)(struct comm *comm, double *data, size_t count);
    int (*sum_integers)(struct comm *comm, uint64_t *data, size_t count); /* modulo 2^64 */
};

/* Every comm starts with this. */
struct comm {
    const struct comm_ops *ops;
    int rank, size; /* 0 <= rank < size */
};

/* One rank alone: nothing to sum. */
int comm_single_open(struct comm **out);

#endif

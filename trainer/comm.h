/* SPDX-License-Identifier: Apache-2.0 */
/* The ranks of a run: one operations table per way to talk. One rank drives one device. Every call
 * but reduce_stats and abort is collective: all ranks make the same calls in the same order.
 * One thread calls, but reduce_begin may come from a backend's thread while that one is in run. */
#ifndef TRAINER_COMM_H
#define TRAINER_COMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/hash.h"
#include "trainer/backend.h"

struct comm;

struct comm_stats {
    uint64_t bytes;      /* of gradient buckets summed so far */
    double busy_seconds; /* while a bucket was being summed */
    double wait_seconds; /* of them, reduce_end waited: not hidden behind other work */
};

struct comm_ops {
    const char *name;
    void (*close)(struct comm *comm); /* waits for the other ranks to close as well */
    /* Ends all ranks of the job at once, this one included, with this exit status. */
    void (*abort)(struct comm *comm, int status);
    int (*barrier)(struct comm *comm);
    int (*broadcast)(struct comm *comm, void *data, size_t bytes); /* what rank 0 has */
    /* Sums over the ranks, in place; every rank gets the same bits. */
    int (*sum_doubles)(struct comm *comm, double *data, size_t count);    /* in the ranks' order */
    int (*sum_integers)(struct comm *comm, uint64_t *data, size_t count); /* modulo 2^64 */

    /* Sums gradient buckets over the ranks, in place, while the caller goes on: begin queues a
     * bucket whose content is complete (or will be when its `ready` event fires), end waits until
     * all queued ones are summed (on a device: makes its queue wait). The sum is taken in the
     * binary tree over ranks that continues trainer/accumulate.h's tree over micro-batches, so
     * that 1, 2, 4, 8, ... ranks give the same bits. */
    int (*reduce_begin)(struct comm *comm, const struct bucket *bucket);
    int (*reduce_end)(struct comm *comm);
    void (*reduce_stats)(struct comm_stats *stats, struct comm *comm);
};

struct comm_reducer;

/* Another way to sum buckets, for those that lie on a device: same contract as reduce_begin and
 * reduce_end above, but that the sum over ranks may be taken in any order, the same each time.
 * Everything that they queue can be captured in a CUDA graph. */
struct comm_reducer_ops {
    const char *name;
    void (*close)(struct comm_reducer *reducer);
    int (*begin)(struct comm_reducer *reducer, const struct bucket *bucket);
    int (*end)(struct comm_reducer *reducer);
    /* When a rank was found dead, sums since may be anything: ERR_INTERNAL then. */
    int (*check)(const struct comm_reducer *reducer);
};
struct comm_reducer {
    const struct comm_reducer_ops *ops;
};

/* What a module with a reducer in it has under the name reducer_NAME. queue: backend_ops.queue.
 * Collective. When a rank dies it ends the job by the comm's abort. */
struct comm_reducer_module {
    int (*open)(struct comm_reducer **out, struct comm *comm, void *queue);
};

/* Every comm starts with this. */
struct comm {
    const struct comm_ops *ops;
    struct comm_reducer *reducer; /* NULL: the comm sums buckets itself */
    int rank, size;               /* 0 <= rank < size */
    int local_rank, local_size;   /* among the ranks on this host */
    bool agreed;                  /* comm_agree failed: every rank knows and ends by itself */
    bool silent;                  /* and another rank tells why */
};

/* What a module with a comm in it has under the name comm_NAME. */
struct comm_module {
    int (*open)(struct comm **out);
};

/* The rank of this process as the job's launcher tells it in the environment, before anything is
 * opened; 0 without a launcher. */
int comm_launched_rank(void);

/* Joins the other ranks when the process was started by mpirun or srun (opens the module mpi), else
 * one rank alone. ERR_UNSUPPORTED: this build has no MPI; ERR_ARG: srun started several tasks that
 * have no way to find each other. */
int comm_open(struct comm **out);

/* One rank alone: nothing to sum. */
int comm_single_open(struct comm **out);

/* Several ranks whose buckets lie on a device (backend_ops.queue is not NULL) get the reducer for
 * it (the module nccl); else does nothing. Detach before the backend closes and behind the programs
 * whose captured steps have sums: NCCL waits for their graphs to end. Collective.
 * ERR_UNSUPPORTED: this build has no NCCL. */
int comm_attach(struct comm *comm, const struct backend_ops *ops, struct backend *backend);
void comm_detach(struct comm *comm);

/* By the reducer, if there is one. */
int comm_reduce_begin(struct comm *comm, const struct bucket *bucket);
int comm_reduce_end(struct comm *comm);
int comm_reduce_check(struct comm *comm); /* behind the host's wait for sums on a device */

/* Whether all ranks may go on: returns 0 when all have code 0, else on every rank the code of the
 * first one that has not. A rank with a failure of its own keeps its message. */
int comm_agree(struct comm *comm, int code);

/* Compares lines of "key = value" with rank 0's. ERR_ARG on a rank that differs; the message names
 * the first line that does. Other ranks return 0: comm_agree comes next. */
int comm_compare(struct comm *comm, const char *lines);

/* Compares a hash (of the weights) with rank 0's. ERR_INTERNAL on all ranks alike, naming those
 * that differ: what says what is compared. */
int comm_compare_hash(struct comm *comm, struct hash128 hash, const char *what);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of the module satchel-mpi.so. Only one thread, the messenger, calls MPI. */
#ifndef TRAINER_MPI_WORLD_H
#define TRAINER_MPI_WORLD_H

#include <mpi.h>
#include <stdatomic.h>
#include <stddef.h>

/* The messenger's view of the job. */
struct world {
    int rank, size;
    float *scratch; /* grows to what tree_sum needs */
    size_t scratch_count;
    MPI_Request *requests;   /* [2 * size] */
    atomic_int waiting;      /* callers that can do nothing else until a job is done */
    atomic_int abort_status; /* not 0: end the job, now */
};

/* Waits for all requests without holding a core that the network needs: MPI's own waits spin. The
 * pauses between two looks grow, less so while a caller waits. Warns when it takes long. Ends the
 * job when abort_status is set meanwhile. */
void wait_all(struct world *world, MPI_Request *requests, int count);

/* Sums data over the ranks, in place; every rank gets the same bits. The sum is the node of
 * trainer/accumulate.h's tree whose leaves are the ranks: for an even number of ranks the first
 * half plus the last half, for an odd one all from the left. Each level of halves is summed by
 * pairs of ranks that exchange a half of what they still hold (recursive halving), and then the way
 * back. Moves 2 (size - 1) / size of the data each way. ERR_NOMEM. */
int tree_sum(struct world *world, float *data, size_t count);

#endif

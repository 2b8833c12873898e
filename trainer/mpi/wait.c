/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting for messages. */
#include <sched.h>
#include <time.h>

#include "common/clock.h"
#include "common/log.h"
#include "trainer/mpi/world.h"

enum { SPINS = 100, PAUSE_MIN_NS = 10000, PAUSE_WAITING_NS = 40000, PAUSE_MAX_NS = 1000000 };

static const double warn_seconds = 60;

void wait_all(struct world *world, MPI_Request *requests, int count)
{
    double start_s = 0, warned_s = 0;
    long pause_ns = PAUSE_MIN_NS / 2;
    int done = 0;
    for (unsigned turn = 0;; turn++) {
        MPI_Testall(count, requests, &done, MPI_STATUSES_IGNORE);
        if (done)
            return;
        int status = atomic_load(&world->abort_status);
        if (status)
            MPI_Abort(MPI_COMM_WORLD, status);
        if (turn < SPINS) {
            sched_yield();
            continue;
        }
        long most_ns = atomic_load(&world->waiting) ? PAUSE_WAITING_NS : PAUSE_MAX_NS;
        pause_ns = pause_ns * 2 < most_ns ? pause_ns * 2 : most_ns;
        nanosleep(&(struct timespec){.tv_nsec = pause_ns}, NULL);
        double now_s = clock_seconds();
        if (start_s == 0)
            start_s = warned_s = now_s;
        if (now_s - warned_s > warn_seconds) {
            log_warn("waiting for the other ranks since %.0f s", now_s - start_s);
            warned_s = now_s;
        }
    }
}

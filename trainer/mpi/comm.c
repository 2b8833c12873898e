/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks over MPI. All calls become jobs of one thread, the messenger, which alone calls MPI
 * (MPI_THREAD_FUNNELED): gradients are summed while the backward goes on, and no MPI library's
 * support for threads has to be trusted. */
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/err.h"
#include "trainer/comm.h"
#include "trainer/mpi/world.h"

enum { JOBS_MAX = 64, MESSAGE_BYTES = 1024, TIMER_SLACK_NS = 1000 };

enum job_kind { JOB_BARRIER, JOB_BROADCAST, JOB_DOUBLES, JOB_INTEGERS, JOB_REDUCE, JOB_CLOSE };

struct job {
    enum job_kind kind;
    void *data;
    size_t count;
};

struct mpi_comm {
    struct comm base;
    pthread_t messenger;
    struct world world;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool started;
    struct job jobs[JOBS_MAX];
    uint64_t queued, finished; /* jobs since the start */
    int code;                  /* of the first job that failed since it was last told */
    char message[MESSAGE_BYTES];
    struct comm_stats stats;
};

/* --- the messenger --- */

static int too_large(const char *what, size_t count)
{
    return err_set(ERR_INTERNAL, "a message of %zu %s to the other ranks is too large", count,
                   what);
}

static int broadcast(struct mpi_comm *mpi, const struct job *job)
{
    MPI_Request request;
    if (job->count > INT_MAX)
        return too_large("bytes", job->count);
    MPI_Ibcast(job->data, (int)job->count, MPI_BYTE, 0, MPI_COMM_WORLD, &request);
    wait_all(&mpi->world, &request, 1);
    return 0;
}

static int sum_integers(struct mpi_comm *mpi, const struct job *job)
{
    MPI_Request request;
    if (job->count > INT_MAX)
        return too_large("integers", job->count);
    MPI_Iallreduce(MPI_IN_PLACE, job->data, (int)job->count, MPI_UINT64_T, MPI_SUM, MPI_COMM_WORLD,
                   &request);
    wait_all(&mpi->world, &request, 1);
    return 0;
}

/* All parts to all ranks, which add them in the same order. */
static int sum_doubles(struct mpi_comm *mpi, const struct job *job)
{
    MPI_Request request;
    size_t count = job->count, size = (size_t)mpi->world.size;
    double *data = job->data;
    if (count > INT_MAX)
        return too_large("numbers", count);
    double *all = malloc(size * count * sizeof *all);
    if (!all)
        return err_set(ERR_NOMEM, "out of memory to sum %zu numbers over the ranks", count);
    MPI_Iallgather(data, (int)count, MPI_DOUBLE, all, (int)count, MPI_DOUBLE, MPI_COMM_WORLD,
                   &request);
    wait_all(&mpi->world, &request, 1);
    memcpy(data, all, count * sizeof *data);
    for (size_t r = 1; r < size; r++)
        for (size_t i = 0; i < count; i++)
            data[i] += all[r * count + i];
    free(all);
    return 0;
}

static int reduce(struct mpi_comm *mpi, const struct job *job)
{
    if (job->count > INT_MAX)
        return too_large("gradients", job->count);
    double start_s = clock_seconds();
    int code = tree_sum(&mpi->world, job->data, job->count);
    pthread_mutex_lock(&mpi->lock);
    mpi->stats.busy_seconds += clock_seconds() - start_s;
    mpi->stats.bytes += job->count * sizeof(float);
    pthread_mutex_unlock(&mpi->lock);
    return code;
}

static int run_job(struct mpi_comm *mpi, const struct job *job)
{
    MPI_Request request;
    switch (job->kind) {
    case JOB_BARRIER:
        MPI_Ibarrier(MPI_COMM_WORLD, &request);
        wait_all(&mpi->world, &request, 1);
        return 0;
    case JOB_BROADCAST:
        return broadcast(mpi, job);
    case JOB_DOUBLES:
        return sum_doubles(mpi, job);
    case JOB_INTEGERS:
        return sum_integers(mpi, job);
    case JOB_REDUCE:
        return reduce(mpi, job);
    case JOB_CLOSE:
        MPI_Finalize();
        return 0;
    }
    return err_set(ERR_INTERNAL, "an unknown job for the ranks");
}

/* How many ranks the launcher counts: a mismatch is another MPI's launcher, and every process would
 * be rank 0 of 1. */
static int check_launcher(int size)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *value = getenv(names[i]);
        if (value && *value && atoi(value) != size)
            return err_set(ERR_ARG,
                           "the launcher started %s processes (%s), MPI sees %d: use the mpirun of "
                           "the MPI that this program was built with, or srun --mpi=pmix",
                           value, names[i], size);
        if (value && *value)
            return 0;
    }
    return 0;
}

static int join_world(struct mpi_comm *mpi)
{
    int provided, rank, size, local_rank, local_size;
    MPI_Comm local;
    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS)
        return err_set(ERR_UNSUPPORTED, "MPI cannot be started");
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL, &local);
    MPI_Comm_rank(local, &local_rank);
    MPI_Comm_size(local, &local_size);
    MPI_Comm_free(&local);
    mpi->world.rank = mpi->base.rank = rank;
    mpi->world.size = mpi->base.size = size;
    mpi->base.local_rank = local_rank;
    mpi->base.local_size = local_size;
    int code = check_launcher(size);
    mpi->world.requests = calloc(2 * (size_t)size, sizeof *mpi->world.requests);
    if (!code && !mpi->world.requests)
        code = err_set(ERR_NOMEM, "out of memory for %d ranks", size);
    if (code)
        MPI_Finalize();
    return code;
}

/* The calling thread holds the lock. */
static void note_failure(struct mpi_comm *mpi, int code)
{
    if (!code || mpi->code)
        return;
    mpi->code = code;
    snprintf(mpi->message, sizeof mpi->message, "%s", err_message());
}

/* The next job; waits. Ends the program when that is asked for. */
static struct job next_job(struct mpi_comm *mpi)
{
    pthread_mutex_lock(&mpi->lock);
    while (mpi->finished == mpi->queued && !atomic_load(&mpi->world.abort_status))
        pthread_cond_wait(&mpi->changed, &mpi->lock);
    struct job job = mpi->jobs[mpi->finished % JOBS_MAX];
    pthread_mutex_unlock(&mpi->lock);
    int status = atomic_load(&mpi->world.abort_status);
    if (status)
        MPI_Abort(MPI_COMM_WORLD, status);
    return job;
}

static void *run_messenger(void *user)
{
    struct mpi_comm *mpi = user;
    struct job job = {JOB_BARRIER, NULL, 0};
    prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS); /* so that short pauses are short */
    int code = join_world(mpi);
    pthread_mutex_lock(&mpi->lock);
    mpi->started = true;
    note_failure(mpi, code);
    pthread_cond_broadcast(&mpi->changed);
    pthread_mutex_unlock(&mpi->lock);
    while (!code && job.kind != JOB_CLOSE) {
        job = next_job(mpi);
        int failure = run_job(mpi, &job);
        pthread_mutex_lock(&mpi->lock);
        note_failure(mpi, failure);
        mpi->finished++;
        pthread_cond_broadcast(&mpi->changed);
        pthread_mutex_unlock(&mpi->lock);
    }
    return NULL;
}

/* --- the callers --- */

static uint64_t queue_job(struct mpi_comm *mpi, enum job_kind kind, void *data, size_t count)
{
    pthread_mutex_lock(&mpi->lock);
    while (mpi->queued - mpi->finished == JOBS_MAX)
        pthread_cond_wait(&mpi->changed, &mpi->lock);
    mpi->jobs[mpi->queued % JOBS_MAX] = (struct job){kind, data, count};
    uint64_t ticket = ++mpi->queued;
    pthread_cond_broadcast(&mpi->changed);
    pthread_mutex_unlock(&mpi->lock);
    return ticket;
}

/* What went wrong since it was last told; the calling thread holds the lock. */
static int tell_failure(struct mpi_comm *mpi)
{
    int code = mpi->code;
    mpi->code = 0;
    return code ? err_set(code, "%s", mpi->message) : 0;
}

static int await(struct mpi_comm *mpi, uint64_t ticket)
{
    atomic_fetch_add(&mpi->world.waiting, 1);
    pthread_mutex_lock(&mpi->lock);
    while (mpi->finished < ticket)
        pthread_cond_wait(&mpi->changed, &mpi->lock);
    int code = tell_failure(mpi);
    pthread_mutex_unlock(&mpi->lock);
    atomic_fetch_sub(&mpi->world.waiting, 1);
    return code;
}

static struct mpi_comm *of(struct comm *comm)
{
    return (struct mpi_comm *)comm;
}

static int mpi_barrier(struct comm *comm)
{
    return await(of(comm), queue_job(of(comm), JOB_BARRIER, NULL, 0));
}

static int mpi_broadcast(struct comm *comm, void *data, size_t bytes)
{
    return await(of(comm), queue_job(of(comm), JOB_BROADCAST, data, bytes));
}

static int mpi_sum_doubles(struct comm *comm, double *data, size_t count)
{
    return await(of(comm), queue_job(of(comm), JOB_DOUBLES, data, count));
}

static int mpi_sum_integers(struct comm *comm, uint64_t *data, size_t count)
{
    return await(of(comm), queue_job(of(comm), JOB_INTEGERS, data, count));
}

static int mpi_reduce_begin(struct comm *comm, const struct bucket *bucket)
{
    queue_job(of(comm), JOB_REDUCE, bucket->data, bucket->count);
    return 0;
}

static int mpi_reduce_end(struct comm *comm)
{
    struct mpi_comm *mpi = of(comm);
    double start_s = clock_seconds();
    pthread_mutex_lock(&mpi->lock);
    uint64_t queued = mpi->queued;
    pthread_mutex_unlock(&mpi->lock);
    int code = await(mpi, queued);
    pthread_mutex_lock(&mpi->lock);
    mpi->stats.wait_seconds += clock_seconds() - start_s;
    pthread_mutex_unlock(&mpi->lock);
    return code;
}

static void mpi_reduce_stats(struct comm_stats *stats, struct comm *comm)
{
    struct mpi_comm *mpi = of(comm);
    pthread_mutex_lock(&mpi->lock);
    *stats = mpi->stats;
    pthread_mutex_unlock(&mpi->lock);
}

static void release(struct mpi_comm *mpi)
{
    pthread_join(mpi->messenger, NULL);
    pthread_cond_destroy(&mpi->changed);
    pthread_mutex_destroy(&mpi->lock);
    free(mpi->world.scratch);
    free(mpi->world.requests);
    free(mpi);
}

static void mpi_close(struct comm *comm)
{
    queue_job(of(comm), JOB_CLOSE, NULL, 0);
    release(of(comm));
}

static void mpi_abort(struct comm *comm, int status)
{
    struct mpi_comm *mpi = of(comm);
    atomic_store(&mpi->world.abort_status, status);
    pthread_mutex_lock(&mpi->lock);
    pthread_cond_broadcast(&mpi->changed);
    pthread_mutex_unlock(&mpi->lock);
    pthread_join(mpi->messenger, NULL); /* MPI_Abort ends the process */
    _exit(status);
}

static const struct comm_ops mpi_ops = {
    .name = "mpi",
    .close = mpi_close,
    .abort = mpi_abort,
    .barrier = mpi_barrier,
    .broadcast = mpi_broadcast,
    .sum_doubles = mpi_sum_doubles,
    .sum_integers = mpi_sum_integers,
    .reduce_begin = mpi_reduce_begin,
    .reduce_end = mpi_reduce_end,
    .reduce_stats = mpi_reduce_stats,
};

static int mpi_open(struct comm **out)
{
    *out = NULL;
    struct mpi_comm *mpi = calloc(1, sizeof *mpi);
    if (!mpi)
        return err_set(ERR_NOMEM, "out of memory for the ranks");
    mpi->base.ops = &mpi_ops;
    pthread_mutex_init(&mpi->lock, NULL);
    pthread_cond_init(&mpi->changed, NULL);
    int failure = pthread_create(&mpi->messenger, NULL, run_messenger, mpi);
    if (failure) {
        free(mpi);
        return err_set(ERR_NOMEM, "cannot start a thread for the ranks: %s", strerror(failure));
    }
    pthread_mutex_lock(&mpi->lock);
    while (!mpi->started)
        pthread_cond_wait(&mpi->changed, &mpi->lock);
    int code = tell_failure(mpi);
    pthread_mutex_unlock(&mpi->lock);
    if (code)
        release(mpi);
    else
        *out = &mpi->base;
    return code;
}

/* Found by trainer/comm.c in this module. */
extern const struct comm_module comm_mpi;
const struct comm_module comm_mpi = {.open = mpi_open};

/* SPDX-License-Identifier: Apache-2.0 */
/* Gradients of GPUs summed by NCCL, on a stream of their own, so that the backward goes on
 * meanwhile; all of it can be captured in a CUDA graph. The ranks' other talk stays with the comm
 * that they were started with, which also spreads NCCL's id.
 *
 * A rank that dies leaves the others waiting on their devices for ever: NCCL's kernels have no
 * deadline, and the host may be waiting for them. So a thread of its own looks at NCCL's
 * asynchronous errors and at the processes on this host, and ends the job. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cuda_runtime_api.h>
#include <nccl.h>
#include <xxhash.h>

#include "common/err.h"
#include "common/log.h"
#include "trainer/comm.h"

enum { LOOK_MS = 200, NAMES_BYTES = 200, GRACE_LOOKS = 10 };

struct nccl_reducer {
    struct comm_reducer base;
    struct comm *comm; /* not owned */
    cudaStream_t stream, queue;
    cudaEvent_t summed;
    ncclComm_t nccl;
    uint64_t *hosts, *processes; /* [size]: where each rank runs */
    pthread_t watcher;
    bool watched;
    atomic_bool failed; /* a rank is gone; set before the sums that wait for it come back */

    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool closing;
};

static struct nccl_reducer *of(struct comm_reducer *reducer)
{
    return (struct nccl_reducer *)reducer;
}

static int check(ncclResult_t result, const struct nccl_reducer *nccl, const char *what)
{
    if (result == ncclSuccess)
        return 0;
    const char *more = ncclGetLastError(nccl->nccl);
    return err_set(ERR_INTERNAL, "NCCL failed at %s: %s%s%s (NCCL_DEBUG=INFO tells more)", what,
                   ncclGetErrorString(result), more && *more ? ": " : "", more ? more : "");
}

static int check_cuda(cudaError_t error, const char *what)
{
    if (error == cudaSuccess)
        return 0;
    return err_set(ERR_INTERNAL, "the GPU failed at %s: %s", what, cudaGetErrorString(error));
}

/* --- whoever is gone -------------------------------------------------------------------------- */

/* Process numbers mean the same on one host and in one container. */
static uint64_t host_of_this_process(void)
{
    struct {
        char name[256];
        uint64_t device, inode;
    } where;
    struct stat space;
    memset(&where, 0, sizeof where);
    gethostname(where.name, sizeof where.name - 1);
    if (stat("/proc/self/ns/pid", &space) == 0) {
        where.device = space.st_dev;
        where.inode = space.st_ino;
    }
    return XXH3_64bits(&where, sizeof where);
}

static int tell_processes(struct nccl_reducer *nccl)
{
    struct comm *comm = nccl->comm;
    size_t size = (size_t)comm->size;
    nccl->hosts = calloc(size, sizeof *nccl->hosts);
    nccl->processes = calloc(size, sizeof *nccl->processes);
    if (!nccl->hosts || !nccl->processes)
        return err_set(ERR_NOMEM, "out of memory for %d ranks", comm->size);
    nccl->hosts[comm->rank] = host_of_this_process();
    nccl->processes[comm->rank] = (uint64_t)getpid();
    int code = comm->ops->sum_integers(comm, nccl->hosts, size);
    return code ? code : comm->ops->sum_integers(comm, nccl->processes, size);
}

/* The ranks of this host whose processes are not there any more: "2 (process 4711)"; "": none. */
static void name_gone(char names[NAMES_BYTES], const struct nccl_reducer *nccl)
{
    const struct comm *comm = nccl->comm;
    size_t used = 0;
    names[0] = '\0';
    for (int i = 0; i < comm->size && used < NAMES_BYTES; i++)
        if (nccl->hosts[i] == nccl->hosts[comm->rank] && kill((pid_t)nccl->processes[i], 0) != 0 &&
            errno == ESRCH)
            used += (size_t)snprintf(names + used, NAMES_BYTES - used, "%s%d (process %d)",
                                     used ? ", " : "", i, (int)nccl->processes[i]);
}

/* Waits for a moment; false: it is time to end. */
static bool look_again(struct nccl_reducer *nccl)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += LOOK_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    pthread_mutex_lock(&nccl->lock);
    while (!nccl->closing && pthread_cond_timedwait(&nccl->changed, &nccl->lock, &until) == 0)
        ;
    bool goes_on = !nccl->closing;
    pthread_mutex_unlock(&nccl->lock);
    return goes_on;
}

/* Sums that wait come back at once; the call itself may not: it waits for the captured graphs that
 * have sums in them, which are there until the session closes. */
static void *abort_sums(void *user)
{
    struct nccl_reducer *nccl = user;
    ncclCommAbort(nccl->nccl);
    return NULL;
}

/* The job ends with this rank: work that waits for the dead one is given up first, for a moment. */
static void give_up(struct nccl_reducer *nccl, const char *gone, ncclResult_t error)
{
    const char *why = error != ncclSuccess ? ncclGetErrorString(error) : "it waits for them";
    if (*gone)
        log_error("rank %d: rank %s is gone (%s): the run ends; --resume goes on from the newest "
                  "checkpoint",
                  nccl->comm->rank, gone, why);
    else
        log_error("rank %d: NCCL failed while gradients were summed: %s: the run ends; --resume "
                  "goes on from the newest checkpoint",
                  nccl->comm->rank, why);
    atomic_store(&nccl->failed, true);
    pthread_t aborter;
    if (pthread_create(&aborter, NULL, abort_sums, nccl) == 0)
        nanosleep(&(struct timespec){.tv_nsec = LOOK_MS * 1000000L}, NULL);
    nccl->comm->ops->abort(nccl->comm, err_exit_status(ERR_PEER));
}

static void *watch(void *user)
{
    struct nccl_reducer *nccl = user;
    int failing = 0; /* looks at a failure that no rank of this host explains yet */
    while (look_again(nccl)) {
        char gone[NAMES_BYTES];
        ncclResult_t error = ncclSuccess;
        if (ncclCommGetAsyncError(nccl->nccl, &error) == ncclSuccess && error == ncclInProgress)
            error = ncclSuccess;
        name_gone(gone, nccl);
        failing += error != ncclSuccess;
        if (*gone || failing > GRACE_LOOKS)
            give_up(nccl, gone, error); /* does not return */
    }
    return NULL;
}

/* --- sums ------------------------------------------------------------------------------------- */

static int nccl_begin(struct comm_reducer *reducer, const struct bucket *bucket)
{
    struct nccl_reducer *nccl = of(reducer);
    int code = check_cuda(cudaStreamWaitEvent(nccl->stream, bucket->ready, 0),
                          "waiting for a bucket of gradients");
    if (code || bucket->count == 0)
        return code;
    return check(ncclAllReduce(bucket->data, bucket->data, bucket->count, ncclFloat, ncclSum,
                               nccl->nccl, nccl->stream),
                 nccl, "summing gradients");
}

static int nccl_end(struct comm_reducer *reducer)
{
    struct nccl_reducer *nccl = of(reducer);
    cudaError_t error = cudaEventRecord(nccl->summed, nccl->stream);
    if (!error)
        error = cudaStreamWaitEvent(nccl->queue, nccl->summed, 0);
    return check_cuda(error, "waiting for the sums of gradients");
}

/* The watcher has told why. */
static int nccl_check(const struct comm_reducer *reducer)
{
    const struct nccl_reducer *nccl = (const struct nccl_reducer *)reducer;
    if (!atomic_load(&nccl->failed))
        return 0;
    nccl->comm->silent = true;
    return err_set(ERR_INTERNAL, "a rank is gone");
}

static void stop_watcher(struct nccl_reducer *nccl)
{
    if (!nccl->watched)
        return;
    pthread_mutex_lock(&nccl->lock);
    nccl->closing = true;
    pthread_cond_broadcast(&nccl->changed);
    pthread_mutex_unlock(&nccl->lock);
    pthread_join(nccl->watcher, NULL);
}

static void nccl_close(struct comm_reducer *reducer)
{
    struct nccl_reducer *nccl = of(reducer);
    stop_watcher(nccl);
    if (nccl->nccl)
        ncclCommDestroy(nccl->nccl);
    if (nccl->summed)
        cudaEventDestroy(nccl->summed);
    if (nccl->stream)
        cudaStreamDestroy(nccl->stream);
    pthread_cond_destroy(&nccl->changed);
    pthread_mutex_destroy(&nccl->lock);
    free(nccl->hosts);
    free(nccl->processes);
    free(nccl);
}

/* --- opening ---------------------------------------------------------------------------------- */

static int make_queue(struct nccl_reducer *nccl)
{
    int least, greatest; /* a sum that waits for processors holds up everybody */
    cudaError_t error = cudaDeviceGetStreamPriorityRange(&least, &greatest);
    if (!error)
        error = cudaStreamCreateWithPriority(&nccl->stream, cudaStreamNonBlocking, greatest);
    if (!error)
        error = cudaEventCreateWithFlags(&nccl->summed, cudaEventDisableTiming);
    return check_cuda(error, "making a stream for the ranks");
}

/* Rank 0 makes the id; a rank that failed so far keeps the others from waiting for it. */
static int join(struct nccl_reducer *nccl, int code)
{
    struct comm *comm = nccl->comm;
    ncclUniqueId id = {{0}};
    if (!code && comm->rank == 0)
        code = check(ncclGetUniqueId(&id), nccl, "making an id");
    code = comm_agree(comm, code);
    if (code)
        return code;
    code = comm->ops->broadcast(comm, &id, sizeof id);
    if (!code)
        code = check(ncclCommInitRank(&nccl->nccl, comm->size, id, comm->rank), nccl,
                     "joining the ranks");
    return comm_agree(comm, code);
}

static int start_watcher(struct nccl_reducer *nccl)
{
    int failure = pthread_create(&nccl->watcher, NULL, watch, nccl);
    nccl->watched = !failure;
    return failure
               ? err_set(ERR_NOMEM, "cannot start a thread for the ranks: %s", strerror(failure))
               : 0;
}

static const struct comm_reducer_ops nccl_ops = {
    .name = "nccl",
    .close = nccl_close,
    .begin = nccl_begin,
    .end = nccl_end,
    .check = nccl_check,
};

static int nccl_open(struct comm_reducer **out, struct comm *comm, void *queue)
{
    pthread_condattr_t clock;
    int version = 0;
    *out = NULL;
    struct nccl_reducer *nccl = calloc(1, sizeof *nccl);
    if (!nccl)
        return err_set(ERR_NOMEM, "out of memory for the ranks");
    *nccl = (struct nccl_reducer){.base.ops = &nccl_ops, .comm = comm, .queue = queue};
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&nccl->changed, &clock);
    pthread_condattr_destroy(&clock);
    pthread_mutex_init(&nccl->lock, NULL);
    int code = join(nccl, make_queue(nccl));
    if (!code)
        code = tell_processes(nccl);
    if (!code)
        code = start_watcher(nccl);
    if (code) {
        nccl_close(&nccl->base);
        return code;
    }
    ncclGetVersion(&version);
    if (comm->rank == 0)
        log_info("gradients are summed by NCCL %d.%d.%d", version / 10000, version / 100 % 100,
                 version % 100);
    *out = &nccl->base;
    return 0;
}

/* Found by trainer/comm.c in this module. */
extern const struct comm_reducer_module reducer_nccl;
const struct comm_reducer_module reducer_nccl = {.open = nccl_open};

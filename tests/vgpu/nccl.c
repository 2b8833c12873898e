/* SPDX-License-Identifier: Apache-2.0 */
/* NCCL between processes of this host, over shared memory: the entry points that the trainer uses.
 * Sums are taken in the order of the ranks. As NCCL does, a sum whose partner has died waits until
 * ncclCommAbort, and ncclCommGetAsyncError tells; and ncclCommAbort itself waits for the end of all
 * captured graphs that have sums of it, as ncclCommDestroy does (which is a failure here). Aborts
 * when the ranks do not all ask for the same: another count, or captured on one and not on
 * another. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <nccl.h>

#include "tests/vgpu/stream.h"

enum { RANKS_MAX = 16, PIECE = 1 << 14 /* floats that a rank gives at a time */ };

struct shared {
    _Atomic uint64_t arrived[RANKS_MAX]; /* at how many meetings */
    _Atomic int process[RANKS_MAX];
    _Atomic int attached;
    struct asked {
        uint64_t count;
        int captured;
    } asked[RANKS_MAX];
    float piece[RANKS_MAX][PIECE];
};

struct ncclComm {
    int rank, size;
    struct shared *shared;
    uint64_t meetings;
    _Atomic int aborted, error; /* looked at without the double's lock, which a sum holds */
    _Atomic int captured;       /* sums in graphs that are still there */
};

struct sum {
    struct ncclComm *comm;
    const float *src;
    float *dst;
    size_t count;
    bool captured;
};

static bool died(const struct ncclComm *comm, int rank)
{
    int process = atomic_load(&comm->shared->process[rank]);
    return process && kill(process, 0) != 0 && errno == ESRCH;
}

/* Until all ranks were here as often as this one; false: aborted. */
static bool meet(struct ncclComm *comm)
{
    struct shared *shared = comm->shared;
    atomic_store(&shared->arrived[comm->rank], ++comm->meetings);
    for (int rank = 0; rank < comm->size; rank++)
        for (long turn = 1; atomic_load(&shared->arrived[rank]) < comm->meetings; turn++) {
            if (atomic_load(&comm->aborted))
                return false;
            if (turn % 64 == 0 && died(comm, rank))
                atomic_store(&comm->error, ncclRemoteError);
            nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
        }
    return true;
}

static void check_asked(const struct ncclComm *comm)
{
    const struct asked *mine = &comm->shared->asked[comm->rank];
    for (int rank = 0; rank < comm->size; rank++) {
        const struct asked *its = &comm->shared->asked[rank];
        if (its->count != mine->count || its->captured != mine->captured)
            vgpu_fail("rank %d sums %llu values%s, rank %d %llu%s", comm->rank,
                      (unsigned long long)mine->count, mine->captured ? " in a graph" : "", rank,
                      (unsigned long long)its->count, its->captured ? " in a graph" : "");
    }
}

static void add_up(const struct ncclComm *comm, float *dst, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        float total = comm->shared->piece[0][i];
        for (int rank = 1; rank < comm->size; rank++)
            total += comm->shared->piece[rank][i];
        dst[i] = total;
    }
}

static void run_sum(void *payload)
{
    const struct sum *sum = payload;
    struct ncclComm *comm = sum->comm;
    struct shared *shared = comm->shared;
    size_t bytes = sum->count * sizeof(float);
    const float *src = vgpu_reach(sum->src, bytes, VGPU_READ, "what is summed");
    float *dst = vgpu_reach(sum->dst, bytes, VGPU_WRITE, "the sum");
    shared->asked[comm->rank] = (struct asked){sum->count, sum->captured};
    if (atomic_load(&comm->aborted) || !meet(comm))
        return;
    check_asked(comm);
    for (size_t at = 0; at < sum->count; at += PIECE) {
        size_t count = sum->count - at < PIECE ? sum->count - at : PIECE;
        memcpy(shared->piece[comm->rank], src + at, count * sizeof(float));
        if (!meet(comm))
            return;
        add_up(comm, dst + at, count);
        if (!meet(comm))
            return;
    }
    meet(comm); /* what was asked for is asked again */
}

static void drop_sum(void *payload)
{
    struct sum *sum = payload;
    if (sum->captured)
        atomic_fetch_sub(&sum->comm->captured, 1);
    free(sum);
}

ncclResult_t ncclAllReduce(const void *src, void *dst, size_t count, ncclDataType_t type,
                           ncclRedOp_t op, ncclComm_t comm, cudaStream_t handle)
{
    if (type != ncclFloat || op != ncclSum)
        vgpu_fail("ncclAllReduce: the double sums floats and nothing else");
    if (!comm || count == 0 || !vgpu_is_device(src) || !vgpu_is_device(dst))
        return ncclInvalidArgument;
    vgpu_lock();
    struct vgpu_stream *stream = vgpu_stream_of(handle);
    struct sum *sum = malloc(sizeof *sum);
    if (!sum)
        vgpu_fail("no memory");
    *sum = (struct sum){comm, src, dst, count, vgpu_graph_capturing(stream)};
    if (sum->captured)
        atomic_fetch_add(&comm->captured, 1);
    vgpu_enqueue(stream, vgpu_task(run_sum, drop_sum, sum, "ncclAllReduce of %zu floats", count));
    vgpu_unlock();
    return ncclSuccess;
}

ncclResult_t ncclGetVersion(int *version)
{
    *version = NCCL_VERSION_CODE;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    memset(id, 0, sizeof *id);
    snprintf(id->internal, sizeof id->internal, "/vgpu-nccl-%d-%ld%09ld", (int)getpid(),
             (long)now.tv_sec, now.tv_nsec);
    return ncclSuccess;
}

static struct shared *map(const char *name)
{
    int file = shm_open(name, O_RDWR | O_CREAT, 0600);
    if (file < 0 || ftruncate(file, sizeof(struct shared)) != 0)
        vgpu_fail("no shared memory: %s", strerror(errno));
    void *at = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (at == MAP_FAILED)
        vgpu_fail("no address space for shared memory");
    close(file);
    return at;
}

ncclResult_t ncclCommInitRank(ncclComm_t *out, int size, ncclUniqueId id, int rank)
{
    if (size < 1 || size > RANKS_MAX || rank < 0 || rank >= size || id.internal[0] != '/')
        return ncclInvalidArgument;
    struct ncclComm *comm = calloc(1, sizeof *comm);
    if (!comm)
        vgpu_fail("no memory");
    comm->rank = rank;
    comm->size = size;
    comm->shared = map(id.internal);
    atomic_store(&comm->shared->process[rank], (int)getpid());
    meet(comm);
    if (atomic_fetch_add(&comm->shared->attached, 1) == 0)
        shm_unlink(id.internal); /* everybody has it open */
    *out = comm;
    return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    if (!comm)
        return ncclInvalidArgument;
    if (atomic_load(&comm->captured))
        vgpu_fail("ncclCommDestroy waits for captured graphs that have sums of it");
    munmap(comm->shared, sizeof *comm->shared);
    free(comm);
    return ncclSuccess;
}

/* Sums that wait come back; the memory stays for them. */
ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    if (!comm)
        return ncclInvalidArgument;
    atomic_store(&comm->aborted, 1);
    while (atomic_load(&comm->captured))
        nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
    return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *error)
{
    if (!comm)
        return ncclInvalidArgument;
    *error = (ncclResult_t)atomic_load(&comm->error);
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result)
{
    switch ((int)result) {
    case ncclSuccess:
        return "no error";
    case ncclInvalidArgument:
        return "invalid argument";
    case ncclRemoteError:
        return "remote process exited or there was a network error";
    default:
        return "unknown result code";
    }
}

const char *ncclGetLastError(ncclComm_t comm)
{
    return "";
}

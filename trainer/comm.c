/* SPDX-License-Identifier: Apache-2.0 */
/* Finding the other ranks, and agreeing with them. */
#include "trainer/comm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "trainer/module.h"

enum { LINE_BYTES = 200, NAMES_BYTES = 200 };

/* Open MPI's mpirun and prte; srun --mpi=pmix; MPICH's mpirun and srun --mpi=pmi2. */
static const char *const rank_variables[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"};

static const char *launched(void)
{
    for (size_t i = 0; i < sizeof rank_variables / sizeof rank_variables[0]; i++) {
        const char *value = getenv(rank_variables[i]);
        if (value && *value)
            return value;
    }
    return NULL;
}

int comm_launched_rank(void)
{
    const char *rank = launched();
    return rank ? atoi(rank) : 0;
}

/* srun without PMI: each task would train a model of its own. */
static int check_not_srun(void)
{
    const char *tasks = getenv("SLURM_STEP_NUM_TASKS");
    if (!tasks || atoi(tasks) <= 1)
        return 0;
    return err_set(ERR_ARG,
                   "srun started %s tasks that cannot find each other: use srun --mpi=pmix (or "
                   "pmi2; srun --mpi=list tells which there are)",
                   tasks);
}

int comm_open(struct comm **out)
{
    void *symbol;
    *out = NULL;
    int code = 0;
    if (!launched()) {
        code = check_not_srun();
        return code ? code : comm_single_open(out);
    }
    code = module_open(&symbol, "mpi", "comm_mpi");
    if (code)
        return err_wrap(code, "started by mpirun or srun");
    const struct comm_module *module = symbol;
    return module->open(out);
}

int comm_attach(struct comm *comm, const struct backend_ops *ops, struct backend *backend)
{
    void *symbol, *queue = ops->queue ? ops->queue(backend) : NULL;
    const char *always = getenv("SATCHEL_NCCL"); /* one rank too: tools/gpu_check.sh */
    if (!queue || comm->reducer || (comm->size == 1 && !(always && *always)))
        return 0;
    int code = module_open(&symbol, "nccl", "reducer_nccl");
    code = comm_agree(comm, code);
    if (code)
        return err_wrap(code, "several GPUs");
    const struct comm_reducer_module *module = symbol;
    return module->open(&comm->reducer, comm, queue);
}

void comm_detach(struct comm *comm)
{
    if (comm->reducer)
        comm->reducer->ops->close(comm->reducer);
    comm->reducer = NULL;
}

int comm_reduce_begin(struct comm *comm, const struct bucket *bucket)
{
    return comm->reducer ? comm->reducer->ops->begin(comm->reducer, bucket)
                         : comm->ops->reduce_begin(comm, bucket);
}

int comm_reduce_end(struct comm *comm)
{
    return comm->reducer ? comm->reducer->ops->end(comm->reducer) : comm->ops->reduce_end(comm);
}

int comm_reduce_check(struct comm *comm)
{
    return comm->reducer ? comm->reducer->ops->check(comm->reducer) : 0;
}

/* Every rank's value. The caller frees *all; ERR_NOMEM. */
static int gather(uint64_t **all, struct comm *comm, uint64_t value)
{
    *all = calloc((size_t)comm->size, sizeof **all);
    if (!*all)
        return err_set(ERR_NOMEM, "out of memory for %d ranks", comm->size);
    (*all)[comm->rank] = value;
    return comm->ops->sum_integers(comm, *all, (size_t)comm->size);
}

int comm_agree(struct comm *comm, int code)
{
    uint64_t *codes;
    int common = 0;
    if (comm->size == 1)
        return code;
    int failure = gather(&codes, comm, (uint64_t)(int64_t)code);
    for (int i = 0; i < comm->size && !failure && !common; i++) {
        common = (int)(int64_t)codes[i];
        if (common && !code)
            err_set(common, "rank %d gave up", i);
    }
    free(codes);
    comm->agreed = common != 0;
    comm->silent = common != 0 && code == 0;
    return failure ? failure : common;
}

/* The first line of mine that is not at the same place in theirs. */
static int compare_lines(const struct comm *comm, const char *mine, const char *theirs)
{
    while (*mine && *theirs) {
        int a = (int)strcspn(mine, "\n"), b = (int)strcspn(theirs, "\n");
        if (a != b || memcmp(mine, theirs, (size_t)a) != 0)
            return err_set(ERR_ARG, "rank %d differs from rank 0: '%.*s' here, '%.*s' there",
                           comm->rank, a < LINE_BYTES ? a : LINE_BYTES, mine,
                           b < LINE_BYTES ? b : LINE_BYTES, theirs);
        mine += a + (mine[a] != '\0');
        theirs += b + (theirs[b] != '\0');
    }
    if (*mine || *theirs)
        return err_set(ERR_ARG, "rank %d differs from rank 0: '%.*s' is only %s", comm->rank,
                       LINE_BYTES, *mine ? mine : theirs, *mine ? "here" : "there");
    return 0;
}

int comm_compare(struct comm *comm, const char *lines)
{
    uint64_t bytes = strlen(lines) + 1;
    if (comm->size == 1)
        return 0;
    int code = comm->ops->broadcast(comm, &bytes, sizeof bytes);
    char *theirs = code ? NULL : malloc(bytes);
    if (!code && !theirs)
        code = err_set(ERR_NOMEM, "out of memory for the ranks' settings");
    if (!code && comm->rank == 0)
        memcpy(theirs, lines, bytes);
    if (!code)
        code = comm->ops->broadcast(comm, theirs, bytes);
    if (!code)
        code = compare_lines(comm, lines, theirs);
    free(theirs);
    return code;
}

int comm_compare_hash(struct comm *comm, struct hash128 hash, const char *what)
{
    char names[NAMES_BYTES] = "";
    struct hash128 first = hash;
    uint64_t *differs;
    size_t used = 0;
    if (comm->size == 1)
        return 0;
    int code = comm->ops->broadcast(comm, &first, sizeof first);
    if (code)
        return code;
    code = gather(&differs, comm, !hash128_equal(hash, first));
    for (int i = 0; i < comm->size && !code && used < sizeof names; i++)
        if (differs[i])
            used +=
                (size_t)snprintf(names + used, sizeof names - used, "%s%d", used ? ", " : "", i);
    free(differs);
    if (code || !*names)
        return code;
    return err_set(ERR_INTERNAL,
                   "%s differ between the ranks: on rank %s they are not rank 0's; its memory or "
                   "device may be faulty. The checkpoints so far are rank 0's",
                   what, names);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Gradients of several ranks summed by NCCL's double, inside a captured step: against the sum by
 * MPI, against one rank that does all micro-batches, and against itself. Run by mpirun with any
 * number of ranks; exits with 0 on every rank when all is well. With the argument "die" all ranks
 * but the first kill themselves behind some steps, while it waits for them on the host. */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "tests/ranks/check.h"
#include "tests/unit/trainer/tiny_net.h"
#include "trainer/comm.h"
#include "trainer/module.h"

static int failures;

enum { STEPS = 4, BATCH = 4, RANKS_MAX = 8 };

static const struct tiny_case small = {"resnet8d-w8", NULL,        16,    3, 10,  BATCH,
                                       TINY_FREE,     TINY_SMOOTH, false, 1, 4096};

struct run {
    struct tiny tiny;
    struct comm *comm; /* NULL: one rank does what all do */
};

/* What rank r trains on in a step. */
static void fill(struct tiny *tiny, int rank, int step)
{
    uint64_t random = (uint64_t)(step * RANKS_MAX + rank + 1);
    size_t pixels = (size_t)BATCH * (size_t)small.size_px * (size_t)small.size_px * 3;
    for (size_t i = 0; i < pixels; i++)
        tiny->pixels[i] = half_from_float(tiny_value(&random, -2, 2));
    for (int i = 0; i < BATCH; i++) {
        uint32_t class = (uint32_t)testing_random(&random) % (uint32_t)small.classes;
        tiny->labels[i] = (struct chunk_label){class, class, 1};
    }
}

static void reduce_bucket(void *user, int bucket)
{
    struct run *run = user;
    struct comm *comm = run->comm;
    struct bucket it = run->tiny.ops->slot_bucket(run->tiny.state, 0, bucket);
    CHECK(comm_reduce_begin(comm, &it) == 0);
}

static int queue(void *user)
{
    struct run *run = user;
    struct tiny *tiny = &run->tiny;
    int code = tiny->ops->run(tiny->program, NULL, 0, 0, reduce_bucket, run);
    if (!code)
        code = comm_reduce_end(run->comm);
    return code ? code : tiny->ops->update(tiny->state, 0, NULL);
}

static struct update update_of(const struct comm *comm)
{
    return (struct update){.lr = 0.05,
                           .momentum = 0.9,
                           .grad_scale = 1,
                           .micro_batches = comm->size,
                           .skip_nonfinite = true};
}

static float *weights_of(struct tiny *tiny, size_t *count)
{
    *count = 0;
    for (int i = 0; i < tiny->net->tensor_count; i++)
        *count += tiny->net->tensors[i].count;
    float *all = calloc(*count, sizeof *all), *at = all;
    for (int i = 0; i < tiny->net->tensor_count; i++) {
        tiny->ops->state_get(at, tiny->state, STATE_WEIGHT, i);
        at += tiny->net->tensors[i].count;
    }
    return all;
}

/* One rank's share; each result is taken when the next step was queued. */
static void open_and_step(struct run *run, const struct backend_ops *ops, bool uncaptured)
{
    const struct backend_config config = {
        .threads = 1, .precision = PRECISION_FP16, .uncaptured = uncaptured};
    struct comm *comm = run->comm;
    struct batch_metrics metrics = {0};
    CHECK(tiny_open(&run->tiny, ops, &config, &small, 3) == 0);
    CHECK(comm_attach(comm, ops, run->tiny.backend) == 0);
    const struct step_values values = {
        .loss_scale = {1, 1}, .loss_share = 1.0 / (BATCH * comm->size), .update = update_of(comm)};
    for (int i = 0; i < STEPS; i++) {
        fill(&run->tiny, comm->rank, i);
        CHECK(ops->step_load(run->tiny.program, 0, &run->tiny.batch) == 0);
        CHECK(ops->step_run(run->tiny.program, &values, queue, run) == 0);
        CHECK(i == 0 || ops->step_wait(&metrics, run->tiny.program) == 0);
        CHECK(ops->inputs_read(run->tiny.program) == 0);
    }
    CHECK(ops->step_wait(&metrics, run->tiny.program) == 0);
    CHECK(metrics.samples == BATCH * comm->size && metrics.finite);
}

static void close_run(struct run *run)
{
    run->tiny.ops->program_close(run->tiny.program); /* before the sums that it has captured */
    run->tiny.program = NULL;
    comm_detach(run->comm);
    tiny_close(&run->tiny);
}

static float *train(struct comm *comm, const struct backend_ops *ops, bool uncaptured)
{
    struct run run = {.comm = comm};
    size_t count = 0;
    open_and_step(&run, ops, uncaptured);
    float *weights = weights_of(&run.tiny, &count);
    CHECK(comm_compare_hash(comm, hash128_of(weights, count * sizeof *weights), "weights") == 0);
    close_run(&run);
    return weights;
}

/* Does not return. */
static void die(struct comm *comm, const struct backend_ops *ops)
{
    struct run run = {.comm = comm};
    open_and_step(&run, ops, false);
    if (comm->rank != 0)
        raise(SIGKILL);
    comm->ops->barrier(comm);
}

/* All ranks' shares on this one. */
static float *train_alone(struct comm *comm, const struct backend_ops *ops, size_t *count)
{
    const struct backend_config config = {.threads = 1, .precision = PRECISION_FP16};
    const struct update update = update_of(comm);
    struct tiny tiny;
    CHECK(tiny_open(&tiny, ops, &config, &small, 3) == 0);
    for (int i = 0; i < STEPS; i++) {
        for (int rank = 0; rank < comm->size; rank++) {
            fill(&tiny, rank, i);
            CHECK(ops->run(tiny.program, &tiny.batch, rank > 0, 1.0 / (BATCH * comm->size), NULL,
                           NULL) == 0);
            CHECK(ops->inputs_read(tiny.program) == 0);
            CHECK(rank == 0 || ops->slot_add(tiny.state, 0, 1, BUCKETS_ALL) == 0);
        }
        CHECK(ops->update(tiny.state, 0, &update) == 0);
    }
    float *weights = weights_of(&tiny, count);
    tiny_close(&tiny);
    return weights;
}

/* One step's gradients by both ways, of the same parts. */
static void compare_with_mpi(struct comm *comm, const struct backend_ops *ops)
{
    const struct backend_config config = {.threads = 1, .precision = PRECISION_FP16};
    struct tiny tiny;
    CHECK(tiny_open(&tiny, ops, &config, &small, 3) == 0);
    CHECK(comm_attach(comm, ops, tiny.backend) == 0);
    fill(&tiny, comm->rank, 0);
    CHECK(ops->run(tiny.program, &tiny.batch, 0, 1, NULL, NULL) == 0);
    float *parts[200] = {NULL};
    for (int i = 0; i < tiny.net->tensor_count; i++) {
        parts[i] = calloc(tiny.net->tensors[i].count, sizeof(float));
        CHECK(ops->slot_get(parts[i], tiny.state, 0, i) == 0);
        const struct bucket host = {.data = parts[i], .count = tiny.net->tensors[i].count};
        CHECK(comm->ops->reduce_begin(comm, &host) == 0);
        CHECK(comm->ops->reduce_end(comm) == 0);
    }
    for (int b = 0; b < ops->slot_buckets(tiny.state); b++) {
        struct bucket bucket = ops->slot_bucket(tiny.state, 0, b);
        CHECK(comm_reduce_begin(comm, &bucket) == 0);
    }
    CHECK(comm_reduce_end(comm) == 0);
    for (int i = 0; i < tiny.net->tensor_count; i++) {
        size_t count = tiny.net->tensors[i].count;
        float *sum = calloc(count, sizeof *sum);
        CHECK(ops->slot_get(sum, tiny.state, 0, i) == 0);
        CHECK(tiny_distance(sum, parts[i], count) <= 1e-6 * comm->size);
        free(sum);
        free(parts[i]);
    }
    comm_detach(comm);
    tiny_close(&tiny);
}

static void test(struct comm *comm, const struct backend_ops *ops)
{
    size_t count = 0;
    float *alone = train_alone(comm, ops, &count);
    float *first = train(comm, ops, false), *again = train(comm, ops, false);
    float *queued = train(comm, ops, true);
    CHECK(memcmp(first, again, count * sizeof *first) == 0);
    CHECK(memcmp(first, queued, count * sizeof *first) == 0);
    CHECK(tiny_distance(first, alone, count) <= 1e-3);
    compare_with_mpi(comm, ops);
    free(alone);
    free(first);
    free(again);
    free(queued);
}

int main(int argc, char **argv)
{
    struct comm *comm;
    void *symbol;
    log_open("nccl_test");
    if (comm_open(&comm) || module_open(&symbol, "cuda", "backend_cuda")) {
        log_error("%s", err_message());
        return 1;
    }
    const char *wanted = getenv("TEST_RANKS");
    CHECK(!wanted || atoi(wanted) == comm->size);
    if (argc > 1 && strcmp(argv[1], "die") == 0)
        die(comm, symbol);
    test(comm, symbol);
    uint64_t all = (uint64_t)failures;
    CHECK(comm->ops->sum_integers(comm, &all, 1) == 0);
    if (comm->rank == 0)
        printf("%d ranks: %d failures\n", comm->size, (int)all);
    comm->ops->close(comm);
    return all > 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What ranks say to each other; run by mpirun with any number of ranks. Prints one line and exits
 * with 0 on every rank when all is well. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/log.h"
#include "tests/ranks/check.h"
#include "tests/unit/testing.h"
#include "trainer/accumulate.h"
#include "trainer/comm.h"

static int failures;

/* Rank r's part: what r alone knows, drawn from its number. */
static float part(int rank, size_t count, size_t i, bool whole)
{
    uint64_t seed = (uint64_t)rank * 7919 + count * 104729 + i + 1;
    uint64_t random = testing_random(&seed);
    if (whole)
        return (float)((int)(random % 2001) - 1000);
    return ldexpf((float)(random >> 40) - (1 << 23), (int)(random % 20) - 10);
}

/* The tree of trainer/accumulate.h over ranks, on one element. */
static float tree(int first, int size, size_t count, size_t i, bool whole)
{
    if (size > 1 && size % 2 == 0)
        return tree(first, size / 2, count, i, whole) +
               tree(first + size / 2, size / 2, count, i, whole);
    float sum = part(first, count, i, whole);
    for (int r = 1; r < size; r++)
        sum += part(first + r, count, i, whole);
    return sum;
}

static void check_bucket(struct comm *comm, const float *data, size_t count, bool whole)
{
    size_t wrong = 0;
    for (size_t i = 0; i < count; i++) {
        float expected = tree(0, comm->size, count, i, whole);
        wrong += memcmp(&data[i], &expected, sizeof expected) != 0;
    }
    CHECK(wrong == 0);
}

/* Several buckets under way at once, of every awkward size. */
static void test_reduce(struct comm *comm, bool whole)
{
    static const size_t counts[] = {1, 0, 2, 3, 7, 8, 1000, 4099, 300007, 5};
    enum { BUCKETS = sizeof counts / sizeof counts[0] };
    float *data[BUCKETS];
    for (int b = 0; b < BUCKETS; b++) {
        data[b] = malloc((counts[b] + 1) * sizeof(float));
        for (size_t i = 0; i < counts[b]; i++)
            data[b][i] = part(comm->rank, counts[b], i, whole);
        data[b][counts[b]] = -1;
        const struct bucket bucket = {.data = data[b], .count = counts[b]};
        CHECK(comm->ops->reduce_begin(comm, &bucket) == 0);
    }
    CHECK(comm->ops->reduce_end(comm) == 0);
    for (int b = 0; b < BUCKETS; b++) {
        check_bucket(comm, data[b], counts[b], whole);
        CHECK(data[b][counts[b]] == -1);
        free(data[b]);
    }
}

static void test_sums(struct comm *comm)
{
    uint64_t integers[3] = {1, UINT64_MAX, (uint64_t)comm->rank};
    uint64_t size = (uint64_t)comm->size;
    CHECK(comm->ops->sum_integers(comm, integers, 3) == 0);
    CHECK(integers[0] == size && integers[1] == (uint64_t)0 - size);
    CHECK(integers[2] == size * (size - 1) / 2);

    double doubles[2] = {0.1 * (comm->rank + 1), 1}, expected = 0.1;
    for (int r = 1; r < comm->size; r++)
        expected += 0.1 * (r + 1);
    CHECK(comm->ops->sum_doubles(comm, doubles, 2) == 0);
    CHECK(doubles[0] == expected && doubles[1] == comm->size);

    char text[300];
    memset(text, comm->rank == 0 ? 'x' : ' ', sizeof text);
    CHECK(comm->ops->broadcast(comm, text, sizeof text) == 0);
    CHECK(text[0] == 'x' && text[sizeof text - 1] == 'x');
    CHECK(comm->ops->barrier(comm) == 0);
}

static void test_agreement(struct comm *comm)
{
    int last = comm->size - 1;
    CHECK(comm_agree(comm, 0) == 0);
    CHECK(!comm->agreed);
    int mine = comm->rank == last ? err_set(ERR_PEER, "the last one cannot") : 0;
    CHECK(comm_agree(comm, mine) == ERR_PEER);
    CHECK(comm->silent == (comm->size > 1 && comm->rank != last));
    comm->agreed = comm->silent = false;

    const char *lines = comm->rank == last ? "a = 1\nb = 3\n" : "a = 1\nb = 2\n";
    int code = comm_compare(comm, lines);
    CHECK(code == (comm->size > 1 && comm->rank == last ? ERR_ARG : 0));
    if (code)
        CHECK(strstr(err_message(), "'b = 3' here, 'b = 2' there"));
    CHECK(comm_compare(comm, comm->rank == last ? "a = 1\n" : "a = 1\nb = 2\n") ==
          (comm->size > 1 && comm->rank == last ? ERR_ARG : 0));

    struct hash128 hash = {1, 2};
    CHECK(comm_compare_hash(comm, hash, "weights") == 0);
    if (comm->size == 1)
        return;
    hash.high += comm->rank == 1; /* one rank's memory fails */
    CHECK(comm_compare_hash(comm, hash, "weights") == ERR_INTERNAL);
    CHECK(strstr(err_message(), "on rank 1 they are not rank 0's"));
}

int main(void)
{
    struct comm *comm;
    log_open("comm_test");
    if (comm_open(&comm)) {
        log_error("%s", err_message());
        return 1;
    }
    const char *wanted = getenv("TEST_RANKS");
    CHECK(!wanted || atoi(wanted) == comm->size);
    for (int turn = 0; turn < 3; turn++) {
        test_reduce(comm, true);
        test_reduce(comm, false);
        test_sums(comm);
    }
    test_agreement(comm);
    uint64_t all = (uint64_t)failures;
    CHECK(comm->ops->sum_integers(comm, &all, 1) == 0);
    if (comm->rank == 0)
        printf("%d ranks (%s): %d failures\n", comm->size, comm->ops->name, (int)all);
    comm->ops->close(comm);
    return all > 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The sum of gradients in a fixed tree over the ranks. */
#include <stdbool.h>
#include <stdlib.h>

#include "common/err.h"
#include "trainer/mpi/world.h"

enum { LEVELS_MAX = 31, TAG = 1 };

struct range {
    size_t begin, end;
};

/* Where this rank stands: size = 2^levels groups of `odd` neighbours. */
struct place {
    int odd, groups;
    int group, member;
};

static struct place place_of(const struct world *world)
{
    struct place place = {.odd = world->size, .groups = 1};
    while (place.odd % 2 == 0) {
        place.odd /= 2;
        place.groups *= 2;
    }
    place.group = world->rank / place.odd;
    place.member = world->rank % place.odd;
    return place;
}

static int reserve(struct world *world, size_t count)
{
    if (count <= world->scratch_count)
        return 0;
    free(world->scratch);
    world->scratch = malloc(count * sizeof *world->scratch);
    world->scratch_count = world->scratch ? count : 0;
    return world->scratch
               ? 0
               : err_set(ERR_NOMEM, "out of memory to sum %zu gradients over the ranks", count);
}

static struct range segment(size_t count, int parts, int part)
{
    return (struct range){count * (size_t)part / (size_t)parts,
                          count * (size_t)(part + 1) / (size_t)parts};
}

static size_t length(struct range range)
{
    return range.end - range.begin;
}

static MPI_Request send_to(int rank, const float *data, struct range range)
{
    MPI_Request request;
    MPI_Isend(data + range.begin, (int)length(range), MPI_FLOAT, rank, TAG, MPI_COMM_WORLD,
              &request);
    return request;
}

static MPI_Request receive_from(int rank, float *data, size_t count)
{
    MPI_Request request;
    MPI_Irecv(data, (int)count, MPI_FLOAT, rank, TAG, MPI_COMM_WORLD, &request);
    return request;
}

/* --- a group of an odd number of ranks: each member sums one segment, from the left --- */

static int first_of(const struct place *place)
{
    return place->group * place->odd;
}

/* The parts lie in scratch in the members' order; this member's own part stays where it is. */
static void add_from_left(float *sum, const float *scratch, size_t count, const struct place *place)
{
    for (size_t i = 0; i < count; i++) {
        float total = place->member == 0 ? sum[i] : scratch[i];
        for (int m = 1; m < place->odd; m++)
            total += m == place->member ? sum[i] : scratch[(size_t)m * count + i];
        sum[i] = total;
    }
}

static struct range scatter_group(struct world *world, const struct place *place, float *data,
                                  size_t count)
{
    struct range mine = segment(count, place->odd, place->member);
    MPI_Request *requests = world->requests;
    int n = 0;
    for (int m = 0; m < place->odd; m++) {
        if (m == place->member)
            continue;
        requests[n++] = receive_from(first_of(place) + m, world->scratch + (size_t)m * length(mine),
                                     length(mine));
        requests[n++] = send_to(first_of(place) + m, data, segment(count, place->odd, m));
    }
    wait_all(world, requests, n);
    if (place->odd > 1)
        add_from_left(data + mine.begin, world->scratch, length(mine), place);
    return mine;
}

static void gather_group(struct world *world, const struct place *place, float *data, size_t count)
{
    MPI_Request *requests = world->requests;
    int n = 0;
    for (int m = 0; m < place->odd; m++) {
        if (m == place->member)
            continue;
        struct range theirs = segment(count, place->odd, m);
        requests[n++] = receive_from(first_of(place) + m, data + theirs.begin, length(theirs));
        requests[n++] =
            send_to(first_of(place) + m, data, segment(count, place->odd, place->member));
    }
    wait_all(world, requests, n);
}

/* --- pairs of groups: recursive halving, neighbours first --- */

static void split(struct range *kept, struct range *given, struct range whole, bool lower)
{
    size_t middle = whole.begin + length(whole) / 2;
    struct range low = {whole.begin, middle}, high = {middle, whole.end};
    *kept = lower ? low : high;
    *given = lower ? high : low;
}

static void exchange(struct world *world, int partner, float *data, struct range given, float *into,
                     size_t count)
{
    MPI_Request requests[] = {receive_from(partner, into, count), send_to(partner, data, given)};
    wait_all(world, requests, 2);
}

static void sum_groups(struct world *world, const struct place *place, float *data,
                       struct range mine)
{
    struct range kept[LEVELS_MAX], given[LEVELS_MAX];
    int level = 0;
    for (int mask = 1; mask < place->groups; mask *= 2, level++) {
        int partner = (place->group ^ mask) * place->odd + place->member;
        split(&kept[level], &given[level], mine, !(place->group & mask));
        mine = kept[level];
        exchange(world, partner, data, given[level], world->scratch, length(mine));
        for (size_t i = 0; i < length(mine); i++) /* a + b == b + a: the side does not matter */
            data[mine.begin + i] += world->scratch[i];
    }
    for (int mask = place->groups / 2; mask > 0; mask /= 2) {
        int partner = (place->group ^ mask) * place->odd + place->member;
        level--;
        exchange(world, partner, data, kept[level], data + given[level].begin,
                 length(given[level]));
    }
}

int tree_sum(struct world *world, float *data, size_t count)
{
    struct place place = place_of(world);
    int code = reserve(world, place.odd > 1 ? count + (size_t)place.odd : count / 2 + 1);
    if (code)
        return code;
    struct range mine = scatter_group(world, &place, data, count);
    sum_groups(world, &place, data, mine);
    gather_group(world, &place, data, count);
    return 0;
}

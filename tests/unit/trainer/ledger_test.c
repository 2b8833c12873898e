/* SPDX-License-Identifier: Apache-2.0 */
/* The ledger against random asking, losing, overtaking and answering: every chunk is delivered
 * once, never more than two requests for one are alive, and none twice at one peer. The plan: every
 * chunk of an epoch belongs to one micro-batch of one rank. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "common/err.h"
#include "tests/unit/testing.h"
#include "trainer/feed_plan.h"
#include "trainer/ledger.h"

enum { CHUNKS = 400, PEERS = 5, ROUNDS = 200000 };

static bool any_spec(void *user, int spec)
{
    (void)user;
    (void)spec;
    return true;
}

struct alive {
    struct ledger_chunk *chunk;
    uint64_t index;
    int peer;
};

/* Takes entry i out of the list of alive requests. */
static struct alive take(struct alive *alive, unsigned *count, unsigned i)
{
    struct alive taken = alive[i];
    alive[i] = alive[--*count];
    return taken;
}

static void each_chunk_is_delivered_once(void **state)
{
    (void)state;
    uint64_t seed = testing_seed();
    struct ledger *ledger = ledger_open();
    assert_non_null(ledger);
    static unsigned delivered[CHUNKS];
    static struct alive alive[2 * CHUNKS];
    unsigned alive_count = 0;
    memset(delivered, 0, sizeof(delivered));
    for (uint64_t i = 0; i < CHUNKS; i++)
        assert_non_null(ledger_add(ledger, 0, 0, i, NULL, 0));
    for (int round = 0; round < ROUNDS && ledger_count(ledger) > 0; round++) {
        unsigned action = (unsigned)(testing_random(&seed) % 10);
        if (action < 4 || alive_count == 0) {
            int peer = (int)(testing_random(&seed) % PEERS);
            struct ledger_chunk *chunk = ledger_next(ledger, peer, any_spec, NULL);
            if (!chunk)
                continue;
            for (unsigned i = 0; i < alive_count; i++)
                assert_false(alive[i].chunk == chunk && alive[i].peer == peer);
            ledger_asked(ledger, chunk, peer);
            alive[alive_count++] = (struct alive){chunk, chunk->chunk, peer};
            unsigned same = 0;
            for (unsigned i = 0; i < alive_count; i++)
                same += alive[i].chunk == chunk;
            assert_in_range(same, 1, 2);
            assert_int_equal(ledger_is_asked_twice(chunk), same == 2);
            continue;
        }
        unsigned at = (unsigned)(testing_random(&seed) % alive_count);
        if (action < 6) {
            ledger_overdue(ledger, alive[at].chunk);
        } else if (action < 8) {
            struct alive lost = take(alive, &alive_count, at);
            ledger_lost(ledger, lost.chunk, lost.peer, true);
        } else {
            struct alive first = take(alive, &alive_count, at);
            delivered[first.index]++;
            ledger_done(ledger, first.chunk);
            for (unsigned i = alive_count; i-- > 0;) /* the duplicate is nobody's any more */
                if (alive[i].chunk == first.chunk)
                    take(alive, &alive_count, i);
        }
    }
    assert_int_equal(ledger_count(ledger), 0);
    for (int i = 0; i < CHUNKS; i++)
        assert_int_equal(delivered[i], 1);
    ledger_close(ledger);
}

static void lost_chunks_come_first(void **state)
{
    (void)state;
    struct ledger *ledger = ledger_open();
    for (uint64_t i = 0; i < 4; i++)
        assert_non_null(ledger_add(ledger, 0, 0, i, NULL, 0));
    struct ledger_chunk *first = ledger_next(ledger, 0, any_spec, NULL);
    ledger_asked(ledger, first, 0);
    struct ledger_chunk *second = ledger_next(ledger, 1, any_spec, NULL);
    ledger_asked(ledger, second, 1);
    assert_int_equal(second->chunk, 1);
    ledger_lost(ledger, first, 0, true);
    assert_ptr_equal(ledger_next(ledger, 1, any_spec, NULL), first);
    assert_true(ledger_overdue(ledger, second));
    assert_false(ledger_overdue(ledger, second)); /* once */
    ledger_asked(ledger, first, 1);
    assert_ptr_equal(ledger_next(ledger, 0, any_spec, NULL), second);
    assert_int_equal(ledger_next(ledger, 1, any_spec, NULL)->chunk, 2); /* it has 0 and 1 */
    ledger_close(ledger);
}

/* Ranks and micro-batches of any shape share out all chunks, each once and in order. */
static void plans_share_out_all_chunks(void **state)
{
    (void)state;
    uint64_t seed = testing_seed();
    for (int round = 0; round < 500; round++) {
        uint32_t chunk_size = 1 + (uint32_t)(testing_random(&seed) % 4);
        uint32_t ranks = 1 + (uint32_t)(testing_random(&seed) % 4);
        uint32_t rank_chunks = 1 + (uint32_t)(testing_random(&seed) % 7);
        uint32_t micro_chunks = 1 + (uint32_t)(testing_random(&seed) % 7);
        uint32_t samples = 1 + (uint32_t)(testing_random(&seed) % 300);
        struct feed_range range = {.chunks_per_step = ranks * rank_chunks,
                                   .rank_chunks = rank_chunks,
                                   .micro_batch = micro_chunks * chunk_size};
        range.spec.chunk_size = chunk_size;
        uint64_t total = chunk_total(&range.spec, samples);
        range.step_count = (total + range.chunks_per_step - 1) / range.chunks_per_step;
        static unsigned seen[300];
        uint64_t seen_samples = 0;
        memset(seen, 0, sizeof(seen));
        for (uint32_t rank = 0; rank < ranks; rank++) {
            range.rank_offset = rank * rank_chunks;
            assert_int_equal(feed_plan_check(&range), 0);
            struct feed_plan plan;
            struct feed_plan_batch batch;
            feed_plan_begin(&plan, &range, samples);
            uint64_t batches = feed_plan_batches(&plan), got = 0;
            while (feed_plan_next(&batch, &plan)) {
                assert_in_range(batch.chunks, 1, micro_chunks);
                assert_in_range(batch.samples, 1, range.micro_batch);
                for (uint32_t i = 0; i < batch.chunks; i++)
                    seen[batch.first_chunk + i]++;
                seen_samples += batch.samples;
                got++;
            }
            assert_int_equal(got, batches);
        }
        for (uint64_t i = 0; i < total; i++)
            assert_int_equal(seen[i], 1);
        assert_int_equal(seen_samples, samples);
    }
}

static void impossible_ranges_are_refused(void **state)
{
    (void)state;
    const struct feed_range good = {.spec = {.chunk_size = 4},
                                    .step_count = 1,
                                    .chunks_per_step = 4,
                                    .rank_offset = 2,
                                    .rank_chunks = 2,
                                    .micro_batch = 8};
    assert_int_equal(feed_plan_check(&good), 0);
    struct feed_range bad = good;
    bad.micro_batch = 6;
    assert_int_equal(feed_plan_check(&bad), ERR_ARG);
    bad = good;
    bad.rank_offset = 3;
    assert_int_equal(feed_plan_check(&bad), ERR_ARG);
    bad = good;
    bad.rank_offset = UINT32_MAX;
    assert_int_equal(feed_plan_check(&bad), ERR_ARG);
    bad = good;
    bad.first_step = 2;
    assert_int_equal(feed_plan_check(&bad), ERR_ARG);
    bad = good;
    bad.step_count = UINT64_MAX;
    assert_int_equal(feed_plan_check(&bad), ERR_ARG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_chunk_is_delivered_once),
        cmocka_unit_test(lost_chunks_come_first),
        cmocka_unit_test(plans_share_out_all_chunks),
        cmocka_unit_test(impossible_ranges_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

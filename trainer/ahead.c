/* SPDX-License-Identifier: Apache-2.0 */
/* What the feed is to fetch. */
#include "trainer/ahead.h"

#include "trainer/evaluate.h"

enum { RANGES_AHEAD = 3 };

void ahead_init(struct ahead *ahead, const struct session *session, uint64_t end_step,
                uint64_t epoch, uint64_t step_in_epoch)
{
    *ahead = (struct ahead){
        .session = session,
        .end_step = end_step,
        .start_epoch = epoch,
        .start_step = step_in_epoch,
        .epoch = epoch,
    };
}

uint64_t ahead_epoch_steps(const struct ahead *ahead, uint64_t epoch)
{
    uint64_t steps = ahead->session->steps_per_epoch, first = epoch * steps;
    uint64_t left = ahead->end_step > first ? ahead->end_step - first : 0;
    return left < steps ? left : steps;
}

bool ahead_has_epoch(const struct ahead *ahead, uint64_t epoch)
{
    return ahead_epoch_steps(ahead, epoch) > 0 ||
           (epoch == ahead->start_epoch && ahead->start_step > 0);
}

static struct feed_range train_range(const struct ahead *ahead, uint64_t first_step)
{
    const struct session *session = ahead->session;
    const struct recipe *recipe = &session->options->recipe;
    uint32_t chunks = (uint32_t)recipe->total_batch / session->train_spec.chunk_size;
    uint32_t share = chunks / (uint32_t)session->comm->size;
    return (struct feed_range){
        .spec = session->train_spec,
        .epoch = (uint32_t)ahead->epoch,
        .first_step = first_step,
        .step_count = ahead_epoch_steps(ahead, ahead->epoch),
        .chunks_per_step = chunks,
        .rank_offset = share * (uint32_t)session->comm->rank,
        .rank_chunks = share,
        .micro_batch = (uint32_t)recipe->micro_batch,
    };
}

static int push_train(struct ahead *ahead)
{
    uint64_t first = ahead->epoch == ahead->start_epoch ? ahead->start_step : 0;
    if (first >= ahead_epoch_steps(ahead, ahead->epoch))
        return 0;
    struct feed_range range = train_range(ahead, first);
    int code = feed_push(ahead->session->feed, &range);
    ahead->queued += !code;
    return code;
}

static int push_eval(struct ahead *ahead)
{
    if (!ahead->session->val)
        return 0;
    struct feed_range range = evaluate_range(ahead->session, ahead->epoch);
    int code = feed_push(ahead->session->feed, &range);
    ahead->queued += !code;
    return code;
}

int ahead_push(struct ahead *ahead)
{
    int code = 0;
    while (!code && ahead->queued < RANGES_AHEAD && ahead_has_epoch(ahead, ahead->epoch)) {
        code = ahead->eval ? push_eval(ahead) : push_train(ahead);
        ahead->epoch += ahead->eval;
        ahead->eval = !ahead->eval;
    }
    return code;
}

void ahead_taken(struct ahead *ahead)
{
    ahead->queued--;
}

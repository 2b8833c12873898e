/* SPDX-License-Identifier: Apache-2.0 */
/* Ranges to micro-batches. */
#include "trainer/feed_plan.h"

#include "common/err.h"

static uint32_t batch_chunks(const struct feed_range *range)
{
    return range->micro_batch / range->spec.chunk_size;
}

/* Micro-batches of a whole step. */
static uint32_t step_batches(const struct feed_range *range)
{
    return (range->rank_chunks + batch_chunks(range) - 1) / batch_chunks(range);
}

int feed_plan_check(const struct feed_range *range)
{
    if (range->micro_batch == 0 || range->micro_batch % range->spec.chunk_size != 0)
        return err_set(ERR_ARG, "a micro-batch of %u samples is no multiple of the chunk of %u",
                       range->micro_batch, range->spec.chunk_size);
    if (range->rank_chunks == 0 || range->rank_offset > range->chunks_per_step ||
        range->rank_chunks > range->chunks_per_step - range->rank_offset)
        return err_set(ERR_ARG, "a rank's share of %u chunks from %u does not fit a step of %u",
                       range->rank_chunks, range->rank_offset, range->chunks_per_step);
    if (range->first_step > range->step_count ||
        range->step_count > UINT64_MAX / range->chunks_per_step)
        return err_set(ERR_ARG, "a range of impossible steps");
    return ERR_OK;
}

void feed_plan_begin(struct feed_plan *plan, const struct feed_range *range, uint32_t sample_count)
{
    *plan = (struct feed_plan){*range, sample_count, range->first_step, 0};
}

/* The micro-batch at (step, batch); no chunks past the end of the store. */
static struct feed_plan_batch batch_at(const struct feed_plan *plan, uint64_t step, uint32_t batch)
{
    const struct feed_range *range = &plan->range;
    uint64_t total = chunk_total(&range->spec, plan->sample_count);
    uint32_t offset = batch * batch_chunks(range);
    uint32_t chunks = range->rank_chunks - offset;
    struct feed_plan_batch out = {.step = step};
    if (chunks > batch_chunks(range))
        chunks = batch_chunks(range);
    out.first_chunk = step * range->chunks_per_step + range->rank_offset + offset;
    if (out.first_chunk >= total)
        return out;
    out.chunks = total - out.first_chunk < chunks ? (uint32_t)(total - out.first_chunk) : chunks;
    for (uint32_t i = 0; i < out.chunks; i++)
        out.samples += chunk_samples(&range->spec, out.first_chunk + i, plan->sample_count);
    return out;
}

bool feed_plan_next(struct feed_plan_batch *batch, struct feed_plan *plan)
{
    while (plan->step < plan->range.step_count) {
        *batch = batch_at(plan, plan->step, plan->batch);
        if (++plan->batch == step_batches(&plan->range)) {
            plan->batch = 0;
            plan->step++;
        }
        if (batch->chunks > 0)
            return true;
        plan->step = plan->range.step_count; /* first chunks only grow: nothing follows */
    }
    return false;
}

uint64_t feed_plan_batches(const struct feed_plan *plan)
{
    struct feed_plan copy = *plan;
    struct feed_plan_batch batch;
    uint64_t batches = 0;
    while (feed_plan_next(&batch, &copy))
        batches++;
    return batches;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Accuracy over the validation store. */
#include "trainer/evaluate.h"

#include "common/err.h"
#include "common/log.h"

struct feed_range evaluate_range(const struct session *session, uint64_t epoch)
{
    const struct spec *spec = &session->eval_spec;
    uint32_t micro_batch = (uint32_t)session->options->recipe.micro_batch;
    uint32_t chunks = micro_batch / spec->chunk_size;
    uint32_t ranks = (uint32_t)session->comm->size;
    uint64_t total = chunk_total(spec, session->val->sample_count);
    return (struct feed_range){
        .spec = *spec,
        .epoch = (uint32_t)epoch,
        .step_count = (total + (uint64_t)ranks * chunks - 1) / ((uint64_t)ranks * chunks),
        .chunks_per_step = ranks * chunks,
        .rank_offset = (uint32_t)session->comm->rank * chunks,
        .rank_chunks = chunks,
        .micro_batch = micro_batch,
    };
}

enum { SUM_LOSS, SUM_TOP1, SUM_TOP5, SUM_SAMPLES, SUM_MASKED, SUMS };

static int add_batch(double sums[SUMS], struct session *session)
{
    struct feed_batch fetched;
    struct batch_metrics metrics;
    int code = feed_pop(&fetched, session->feed);
    if (code)
        return code;
    struct batch batch = {fetched.pixels, fetched.labels, fetched.offsets, (int)fetched.samples};
    code = session->ops->run(session->eval_program, &batch, 0, 1, NULL, NULL);
    if (!code)
        code = session->ops->metrics(&metrics, session->eval_state, 0);
    feed_release(session->feed, &fetched);
    if (code)
        return code;
    sums[SUM_LOSS] += metrics.loss;
    sums[SUM_TOP1] += metrics.top1;
    sums[SUM_TOP5] += metrics.top5;
    sums[SUM_SAMPLES] += metrics.samples;
    sums[SUM_MASKED] += fetched.masked;
    return 0;
}

/* An evaluation at another size has a state of its own. */
static int update_state(struct session *session)
{
    if (session->eval_state == session->state)
        return 0;
    struct weights src = session_weights(session);
    struct weights dst = {session->ops, session->eval_state, session->eval_net};
    return weights_copy(&dst, &src);
}

int evaluate_run(struct metrics_eval *eval, struct session *session)
{
    double sums[SUMS] = {0};
    struct feed_range range = evaluate_range(session, eval->epoch);
    uint64_t batches = feed_range_batches(session->feed, &range);
    int code = update_state(session);
    for (uint64_t i = 0; i < batches && !code; i++)
        code = add_batch(sums, session);
    code = comm_agree(session->comm, code);
    if (!code)
        code = session->comm->ops->sum_doubles(session->comm, sums, SUMS);
    if (code)
        return code;
    if (sums[SUM_MASKED] > 0)
        log_warn("%.0f damaged validation samples were left out", sums[SUM_MASKED]);
    if (!(sums[SUM_SAMPLES] > 0))
        return err_set(ERR_DATA, "no validation sample could be judged");
    eval->top1 = 100 * sums[SUM_TOP1] / sums[SUM_SAMPLES];
    eval->top5 = 100 * sums[SUM_TOP5] / sums[SUM_SAMPLES];
    eval->loss = sums[SUM_LOSS] / sums[SUM_SAMPLES];
    eval->samples = (uint64_t)sums[SUM_SAMPLES];
    return 0;
}

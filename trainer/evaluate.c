/* SPDX-License-Identifier: Apache-2.0 */
/* Accuracy over the validation store. */
#include "trainer/evaluate.h"

#include <stdlib.h>

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

enum { SUM_LOSS, SUM_TOP1, SUM_TOP5, SUM_SAMPLES, SUM_MASKED, SUM_EMA, SUMS = SUM_EMA + 3 };

/* The batch's place in the identity order says which samples it holds. */
static int add_predictions(struct predictions *predictions, float *logits,
                           const struct session *session, const struct feed_batch *fetched,
                           const struct feed_range *range)
{
    int code = session->ops->logits(logits, session->eval_program);
    uint64_t chunk = fetched->step * range->chunks_per_step + range->rank_offset;
    uint64_t first = chunk * range->spec.chunk_size;
    if (code)
        return code;
    predictions_enter(predictions, first, fetched->samples, logits);
    for (uint32_t i = 0; i < fetched->samples; i++)
        if (fetched->labels[i].a == CHUNK_LABEL_MASKED)
            predictions_clear(predictions, first + i);
    return 0;
}

struct evaluation {
    double sums[SUMS];
    struct feed_range range;
    struct predictions *predictions; /* NULL: not wanted */
    float *logits;                   /* [micro_batch][classes] */
};

/* Judges a batch by a program and adds to loss, top-1 and top-5 from sums on. */
static int judge(double sums[3], double *samples, const struct session *session,
                 struct program *program, struct state *state, const struct batch *batch)
{
    struct batch_metrics metrics;
    int code = session->ops->run(program, batch, 0, 1, NULL, NULL);
    if (!code)
        code = session->ops->metrics(&metrics, state, 0);
    if (code)
        return code;
    sums[SUM_LOSS] += metrics.loss;
    sums[SUM_TOP1] += metrics.top1;
    sums[SUM_TOP5] += metrics.top5;
    *samples += metrics.samples;
    return 0;
}

static int add_batch(struct evaluation *evaluation, struct session *session)
{
    struct feed_batch fetched;
    double *sums = evaluation->sums, again = 0; /* the average's samples are the same */
    int code = feed_pop(&fetched, session->feed);
    if (code)
        return code;
    struct batch batch = {fetched.pixels, fetched.labels, fetched.offsets, (int)fetched.samples};
    code = judge(sums, &sums[SUM_SAMPLES], session, session->eval_program, session->eval_state,
                 &batch);
    if (!code && evaluation->predictions)
        code = add_predictions(evaluation->predictions, evaluation->logits, session, &fetched,
                               &evaluation->range);
    if (!code && session->average.program)
        code = judge(sums + SUM_EMA, &again, session, session->average.program,
                     session->average.weights.state, &batch);
    feed_release(session->feed, &fetched);
    sums[SUM_MASKED] += fetched.masked;
    return code;
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

static int run_batches(struct evaluation *evaluation, struct session *session)
{
    size_t room = (size_t)evaluation->range.micro_batch * session->val->class_count;
    uint64_t batches = feed_range_batches(session->feed, &evaluation->range);
    int code = update_state(session);
    if (!code && evaluation->predictions) {
        evaluation->logits = malloc(room * sizeof *evaluation->logits);
        if (!evaluation->logits)
            code = err_set(ERR_NOMEM, "out of memory for %zu logits", room);
    }
    for (uint64_t i = 0; i < batches && !code; i++)
        code = add_batch(evaluation, session);
    free(evaluation->logits);
    code = comm_agree(session->comm, code);
    return code ? code : session->comm->ops->sum_doubles(session->comm, evaluation->sums, SUMS);
}

int evaluate_run(struct metrics_eval *eval, struct predictions *predictions,
                 struct session *session)
{
    struct evaluation evaluation = {
        .range = evaluate_range(session, eval->epoch),
        .predictions = predictions,
    };
    const double *sums = evaluation.sums;
    int code = run_batches(&evaluation, session);
    if (code)
        return code;
    if (sums[SUM_MASKED] > 0)
        log_warn("%.0f damaged validation samples were left out", sums[SUM_MASKED]);
    if (!(sums[SUM_SAMPLES] > 0))
        return comm_agree(session->comm, /* all ranks alike */
                          err_set(ERR_DATA, "no validation sample could be judged"));
    eval->top1 = 100 * sums[SUM_TOP1] / sums[SUM_SAMPLES];
    eval->top5 = 100 * sums[SUM_TOP5] / sums[SUM_SAMPLES];
    eval->loss = sums[SUM_LOSS] / sums[SUM_SAMPLES];
    eval->samples = (uint64_t)sums[SUM_SAMPLES];
    eval->has_ema = session->average.program != NULL;
    eval->ema_top1 = 100 * sums[SUM_EMA + SUM_TOP1] / sums[SUM_SAMPLES];
    eval->ema_top5 = 100 * sums[SUM_EMA + SUM_TOP5] / sums[SUM_SAMPLES];
    eval->ema_loss = sums[SUM_EMA + SUM_LOSS] / sums[SUM_SAMPLES];
    return 0;
}

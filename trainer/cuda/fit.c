/* SPDX-License-Identifier: Apache-2.0 */
/* Fitting a schedule to a device: the plans of its graphs. Where cuDNN has no engine for a fused
 * graph, the schedule is made anew without it. */
#include <stdlib.h>

#include "common/err.h"
#include "common/log.h"
#include "trainer/cuda/cuda.h"

static bool takes(const void *user, const struct graph_spec *spec)
{
    return !plans_refused(user, spec);
}

static enum fusion fusion_of(const struct backend *backend)
{
    enum fusion fusion = backend->fusion == FUSION_AUTO ? FUSION_NONE : backend->fusion;
    /* On older chips a block's end has no engine, and its backward one with a workspace as large as
     * the map. */
    return fusion == FUSION_BLOCK && backend->major < 9 ? FUSION_PROLOGUE : fusion;
}

int fit_cuda_schedule(struct schedule **out, const struct program *program, int batch)
{
    const struct state *state = program->state;
    struct program_config config = program->config;
    const struct scheme scheme = {
        .fusion = fusion_of(state->backend), .takes = takes, .user = state->backend->plans};
    config.batch = batch;
    return schedule_open(out, program->net, state->layout, &config, &scheme);
}

/* numbers[step] of its plan, -1: none. */
static int want(int *numbers, const struct program *program)
{
    const struct schedule *schedule = program->schedule;
    for (int i = 0; i < schedule->step_count; i++) {
        const struct step *step = &schedule->steps[i];
        numbers[i] = -1;
        if (step->graph < 0)
            continue;
        numbers[i] = plans_want(program->state->backend->plans, &schedule->graphs[step->graph]);
        if (numbers[i] < 0)
            return err_set(ERR_NOMEM, "no memory for cuDNN's plans");
    }
    return 0;
}

/* Takes the plans; false when one was refused. */
static bool take(struct program *program, const int *numbers)
{
    for (int i = 0; i < program->schedule->step_count; i++) {
        const struct plan *plan =
            numbers[i] < 0 ? NULL : plans_get(program->state->backend->plans, numbers[i]);
        program->plans[i] = plan;
        if (plan && plan->refused)
            return false;
        if (plan && plan->workspace_bytes > program->workspace_bytes)
            program->workspace_bytes = plan->workspace_bytes;
    }
    return true;
}

static int build(struct program *program, bool *fits)
{
    struct backend *backend = program->state->backend;
    size_t steps = (size_t)program->schedule->step_count;
    int *numbers = calloc(steps, sizeof *numbers);
    program->workspace_bytes = 0;
    program->plans = calloc(steps, sizeof *program->plans);
    int code = numbers && program->plans ? want(numbers, program)
                                         : err_set(ERR_NOMEM, "no memory for cuDNN's plans");
    if (!code)
        code = plans_build(backend->plans, backend->threads);
    if (!code)
        code = tune_cuda_plans(backend);
    if (!code)
        *fits = take(program, numbers);
    free(numbers);
    return code;
}

static void tell(const struct program *program)
{
    const int *forms = program->schedule->forms;
    if (!program_trains(program))
        return;
    if (forms[FORM_STORED] + forms[FORM_BLOCK] + forms[FORM_PROLOGUE] + forms[FORM_SHORTCUT] > 0)
        log_info("sums are fused: a second run may differ from this one in its last bits "
                 "(--fusion none: it does not)");
    log_verbose("batch normalisations of %s: %d normalised by the convolutions that read them, "
                "%d added as a shortcut, %d by the block behind, %d in one pass, %d in two",
                program->net->model, forms[FORM_PROLOGUE], forms[FORM_SHORTCUT], forms[FORM_BLOCK],
                forms[FORM_STORED], forms[FORM_PLAIN]);
}

int fit_cuda_program(struct program *program)
{
    bool fits = false;
    while (!fits) {
        schedule_close(program->schedule);
        program->schedule = NULL;
        free(program->plans);
        program->plans = NULL;
        int code = fit_cuda_schedule(&program->schedule, program, program->config.batch);
        if (!code)
            code = program_cuda_check_memory(program, program_cuda_bytes(program));
        if (!code)
            code = build(program, &fits);
        if (code)
            return code;
    }
    tell(program);
    return 0;
}

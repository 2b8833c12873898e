/* SPDX-License-Identifier: Apache-2.0 */
/* Choosing an engine for one graph. */
#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/err.h"
#include "trainer/cuda/plan_build.h"

enum { NOTES_MAX = CUDNN_NUMERICAL_NOTE_TYPE_COUNT };

/* Engines that sum in fp16, or otherwise than asked for, are never taken. */
static bool note_is_wrong(cudnnBackendNumericalNote_t note)
{
    return note == CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION ||
           note == CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS || note == CUDNN_NUMERICAL_NOTE_FFT;
}

struct choice { /* among the engines of one graph */
    struct plan *plan;
    const struct plan_context *context;
    bool built;
    int passed_over;   /* built, but plan->pick is a later one */
    int unfit;         /* left out for their notes or workspace */
    char refusal[300]; /* of the first that could not be built */
};

/* Whether the engine of a configuration computes what is asked for, and the same each time. */
static bool is_fit(struct choice *choice, cudnnBackendDescriptor_t config)
{
    struct describe *d = &choice->plan->graph->describe;
    int kept = d->count;
    cudnnBackendNumericalNote_t notes[NOTES_MAX];
    int64_t engines = 0, count = 0;
    bool fit = true;
    cudnnBackendDescriptor_t engine = describe_new(d, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    if (!engine ||
        cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                 1, &engines, &engine) ||
        cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                                 CUDNN_TYPE_NUMERICAL_NOTE, NOTES_MAX, &count, notes))
        fit = false;
    for (int64_t i = 0; i < count && i < NOTES_MAX && fit; i++)
        fit = !note_is_wrong(notes[i]) && notes[i] != CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC;
    describe_release(d, kept);
    choice->unfit += !fit;
    return fit;
}

/* Whether the plan is to be had and its workspace is small enough. */
static void build_config(struct choice *choice, cudnnBackendDescriptor_t config)
{
    struct plan *plan = choice->plan;
    struct describe *d = &plan->graph->describe;
    const struct plan_context *context = choice->context;
    int64_t bytes = 0, count = 0;
    describe_forget();
    cudnnBackendDescriptor_t made = describe_new(d, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    if (!made)
        return;
    if (context->handle)
        describe_set(d, made, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1,
                     &context->handle);
    else
        describe_set_descriptor(d, made, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, context->device);
    describe_set_descriptor(d, made, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
    describe_finalize(d, made);
    plan->tried++;
    cudnnStatus_t status = d->status;
    if (!status)
        status = cudnnBackendGetAttribute(made, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                          CUDNN_TYPE_INT64, 1, &count, &bytes);
    if (!status && (size_t)bytes <= context->workspace_limit) {
        plan->executable = made;
        plan->workspace_bytes = (size_t)bytes;
        choice->built = true;
        if (choice->passed_over == plan->pick)
            return;
        choice->passed_over++;
        choice->built = false;
        plan->executable = NULL;
        describe_release(d, d->count - 1);
        return;
    }
    if (status && !choice->refusal[0])
        snprintf(choice->refusal, sizeof choice->refusal, "%.200s %.90s", d->reason,
                 describe_heard());
    choice->unfit += !status;
    /* This one is out; the next may be in. */
    d->status = CUDNN_STATUS_SUCCESS;
    describe_release(d, d->count - 1);
}

/* The configurations of one list of the heuristics; d->count grows by as many. */
static int64_t list_configs(struct choice *choice, cudnnBackendHeurMode_t mode)
{
    struct describe *d = &choice->plan->graph->describe;
    const struct plan_context *context = choice->context;
    int64_t count = 0, got = 0;
    describe_forget();
    cudnnBackendDescriptor_t list = describe_new(d, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    describe_set_descriptor(d, list, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH,
                            choice->plan->graph->descriptor);
    describe_set(d, list, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    if (!context->handle)
        describe_set_descriptor(d, list, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, context->device);
    describe_finalize(d, list);
    if (!d->status)
        cudnnBackendGetAttribute(list, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                 0, &count, NULL);
    int room = DESCRIBE_MAX - 8 - d->count; /* 8: engines and plans meanwhile */
    if (count > room)
        count = room;
    /* Results go into descriptors that are there already. */
    cudnnBackendDescriptor_t *configs = d->all + d->count;
    for (int64_t i = 0; i < count; i++)
        describe_new(d, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    if (!d->status && count > 0)
        cudnnBackendGetAttribute(list, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                 count, &got, configs);
    return d->status ? 0 : got;
}

static void swap(cudnnBackendDescriptor_t *a, cudnnBackendDescriptor_t *b)
{
    cudnnBackendDescriptor_t old = *a;
    *a = *b;
    *b = old;
}

/* Tries one list; of its descriptors only the chosen configuration and its plan stay. */
static void choose(struct choice *choice, cudnnBackendHeurMode_t mode)
{
    struct describe *d = &choice->plan->graph->describe;
    int kept = d->count;
    int64_t count = list_configs(choice, mode);
    int first = kept + 1, last = d->count; /* behind the list itself */
    int64_t chosen = -1;
    for (int64_t i = 0; i < count && chosen < 0; i++) {
        if (!is_fit(choice, d->all[first + i]))
            continue;
        build_config(choice, d->all[first + i]);
        if (choice->built)
            chosen = i;
    }
    if (!choice->refusal[0] && count == 0)
        snprintf(choice->refusal, sizeof choice->refusal, "no engine is offered %.250s",
                 describe_heard());
    if (chosen < 0) {
        d->status = CUDNN_STATUS_SUCCESS;
        describe_release(d, kept);
        return;
    }
    swap(&d->all[kept], &d->all[first + chosen]);
    swap(&d->all[kept + 1], &d->all[last]); /* the plan */
    describe_release(d, kept + 2);
}

static int tell(const struct choice *choice)
{
    char name[160];
    const struct describe *d = &choice->plan->graph->describe;
    graph_name(name, sizeof name, &choice->plan->spec);
    if (d->status)
        return err_set(ERR_UNSUPPORTED, "cuDNN does not take the graph '%s': %.300s", name,
                       d->reason);
    return err_set(ERR_UNSUPPORTED,
                   "cuDNN has no engine for the graph '%s': %d are not deterministic, less precise "
                   "or too large, others: %s",
                   name, choice->unfit, choice->refusal[0] ? choice->refusal : "none");
}

int plan_build(struct plan *plan, const struct plan_context *context)
{
    struct choice choice = {.plan = plan, .context = context};
    double start_s = clock_seconds();
    plan->graph = malloc(sizeof *plan->graph);
    if (!plan->graph)
        return err_set(ERR_NOMEM, "no memory for a graph");
    graph_describe(plan->graph, &plan->spec, context->handle);
    if (!plan->graph->describe.status)
        choose(&choice, CUDNN_HEUR_MODE_A);
    if (!plan->graph->describe.status && !choice.built && plan->pick == 0)
        choose(&choice, CUDNN_HEUR_MODE_FALLBACK);
    plan->seconds = clock_seconds() - start_s;
    if (choice.built)
        return 0;
    int code = tell(&choice);
    plan_release(plan);
    return code;
}

void plan_release(struct plan *plan)
{
    if (plan->graph)
        describe_release(&plan->graph->describe, 0);
    free(plan->graph);
    plan->graph = NULL;
    plan->executable = NULL;
}

int plan_pack(cudnnBackendDescriptor_t *pack, const struct plan *plan, void *const *pointers,
              void *workspace)
{
    int count = plan->graph->role_count;
    int64_t ids[GRAPH_ROLES];
    struct describe describe = {.count = 0};
    for (int i = 0; i < count; i++)
        ids[i] = plan->graph->roles[i];
    cudnnBackendDescriptor_t made = describe_new(&describe, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    describe_set(&describe, made, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, count, ids);
    describe_set(&describe, made, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, count,
                 pointers);
    describe_set(&describe, made, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1,
                 &workspace);
    describe_finalize(&describe, made);
    if (!describe.status) {
        *pack = made;
        return 0;
    }
    describe_release(&describe, 0);
    return err_set(ERR_INTERNAL, "cuDNN does not take the tensors of a graph: %s", describe.reason);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Heuristics, engine configurations, plans, variant packs and their execution. As with cuDNN, a
 * graph that no engine can run has zero configurations and no error; and the first ones offered are
 * those a backend must not take: one that sums in fp16, one whose results vary, one that never
 * finalises. The first two compute wrongly enough to be noticed. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/vgpu/cudnn_handle.h"
#include "tests/vgpu/graph.h"

enum engine { REDUCED, VARYING, BROKEN, SOUND, OTHER, ENGINES }; /* the last two are alike */

/* Engines in the order that the heuristics give them. */
static int configurations(const struct descriptor *heuristics, int engines[ENGINES])
{
    const struct descriptor *graph =
        vgpu_get_descriptor(heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH);
    if (!vgpu_graph_supported(graph))
        return 0;
    if (vgpu_get_int(heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, -1) == CUDNN_HEUR_MODE_FALLBACK) {
        engines[0] = SOUND;
        return 1;
    }
    for (int i = 0; i < ENGINES; i++)
        engines[i] = i;
    return ENGINES;
}

static void fill(cudnnBackendDescriptor_t handle, cudnnBackendDescriptorType_t type,
                 struct descriptor *origin, int engine)
{
    struct descriptor *dst = vgpu_descriptor(handle);
    if (dst->kind->type != type)
        vgpu_fail("a %s descriptor where a %s is to be filled in", dst->kind->text,
                  vgpu_kind(type)->text);
    vgpu_descriptor_hold(origin);
    vgpu_descriptor_drop(dst->origin);
    dst->origin = origin;
    dst->engine = engine;
    dst->final = true;
}

static int64_t give_configurations(struct descriptor *heuristics, int64_t requested, void *elements)
{
    int engines[ENGINES], count = configurations(heuristics, engines);
    if (!elements)
        return count;
    cudnnBackendDescriptor_t *handles = elements;
    int64_t given = requested < count ? requested : count;
    for (int64_t i = 0; i < given; i++)
        fill(handles[i], CUDNN_BACKEND_ENGINECFG_DESCRIPTOR,
             vgpu_get_descriptor(heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH), engines[i]);
    return given;
}

static int64_t give_notes(const struct descriptor *engine, int64_t requested, void *elements)
{
    cudnnBackendNumericalNote_t notes[2] = {CUDNN_NUMERICAL_NOTE_TENSOR_CORE};
    int64_t count = 1;
    if (engine->engine == REDUCED)
        notes[count++] = CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION;
    if (engine->engine == VARYING)
        notes[count++] = CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC;
    if (elements)
        memcpy(elements, notes, (size_t)(requested < count ? requested : count) * sizeof *notes);
    return count;
}

static int64_t workspace_of(const struct descriptor *graph)
{
    int count;
    struct descriptor *const *ops = vgpu_graph_operations(graph, &count);
    int64_t bytes = 0;
    for (int i = 0; i < count; i++)
        bytes += vgpu_is_conv(ops[i]) ? 20480 : vgpu_is_norm(ops[i]) ? 4096 : 0;
    return bytes;
}

static const struct descriptor *config_of(const struct descriptor *plan)
{
    return vgpu_get_descriptor(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG);
}

void vgpu_engine_get(struct descriptor *descriptor, int name, int64_t requested, int64_t *count,
                     void *elements, bool *known)
{
    *known = true;
    switch (name) {
    case CUDNN_ATTR_ENGINEHEUR_RESULTS:
        *count = give_configurations(descriptor, requested, elements);
        return;
    case CUDNN_ATTR_ENGINECFG_ENGINE:
        if (requested != 1 || !elements)
            vgpu_fail("ENGINECFG_ENGINE is read into %lld descriptors", (long long)requested);
        fill(*(cudnnBackendDescriptor_t *)elements, CUDNN_BACKEND_ENGINE_DESCRIPTOR,
             descriptor->origin, descriptor->engine);
        *count = 1;
        return;
    case CUDNN_ATTR_ENGINE_NUMERICAL_NOTE:
        *count = give_notes(descriptor, requested, elements);
        return;
    case CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE:
        *count = 0;
        return;
    case CUDNN_ATTR_ENGINE_GLOBAL_INDEX:
        *(int64_t *)elements = descriptor->engine;
        *count = 1;
        return;
    case CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE:
        *(int64_t *)elements = workspace_of(config_of(descriptor)->origin);
        *count = 1;
        return;
    default:
        *known = false;
    }
}

cudnnStatus_t vgpu_plan_finalize(struct descriptor *plan)
{
    const struct descriptor *config = config_of(plan);
    if (config->kind->type != CUDNN_BACKEND_ENGINECFG_DESCRIPTOR || !config->origin)
        vgpu_fail("a plan's configuration does not come from the heuristics");
    return config->engine == BROKEN ? CUDNN_STATUS_NOT_SUPPORTED : CUDNN_STATUS_SUCCESS;
}

void vgpu_pack_finalize(struct descriptor *pack)
{
    const struct attribute *uids = vgpu_get(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
    const struct attribute *pointers = vgpu_get(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
    if (uids->count != pointers->count)
        vgpu_fail("a variant pack has %lld unique ids and %lld pointers", (long long)uids->count,
                  (long long)pointers->count);
    const int64_t *uid = uids->data;
    for (int64_t i = 0; i < uids->count; i++)
        for (int64_t j = 0; j < i; j++)
            if (uid[i] == uid[j])
                vgpu_fail("a variant pack has the unique id %lld twice", (long long)uid[i]);
}

/* Execution. */
struct launch {
    struct descriptor *graph;
    enum engine engine;
    struct operands operands;
    void *pointers[OPERANDS * OPERATIONS]; /* by operand; NULL: virtual or by value */
    double scalars[OPERANDS * OPERATIONS]; /* by value */
    void *workspace;
    size_t workspace_bytes;
};

/* Where the pack says that a tensor is. */
static void *find(const struct descriptor *pack, const struct operand *operand)
{
    const struct attribute *uids = vgpu_get(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
    void *const *pointers = vgpu_get(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS)->data;
    long long uid = (long long)operand->tensor->tensor.uid;
    for (int64_t i = 0; i < uids->count; i++)
        if (((const int64_t *)uids->data)[i] == uid)
            return pointers[i];
    vgpu_fail("%s (unique id %lld) is not in the variant pack", operand->name, uid);
}

static void check_pack(const struct descriptor *pack, const struct operands *operands)
{
    const struct attribute *uids = vgpu_get(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
    for (int64_t i = 0; i < uids->count; i++) {
        int64_t uid = ((const int64_t *)uids->data)[i];
        int at = 0;
        while (at < operands->count && operands->items[at].tensor->tensor.uid != uid)
            at++;
        if (at == operands->count)
            vgpu_fail("the variant pack has unique id %lld, which the graph does not",
                      (long long)uid);
        if (operands->items[at].tensor->tensor.is_virtual)
            vgpu_fail("the variant pack has unique id %lld, which is virtual", (long long)uid);
    }
}

static void bind(struct launch *launch, const struct descriptor *pack, int i)
{
    const struct operand *operand = &launch->operands.items[i];
    const struct tensor *tensor = &operand->tensor->tensor;
    if (tensor->is_virtual)
        return;
    void *pointer = find(pack, operand);
    if ((uintptr_t)pointer % (tensor->by_value ? 4 : (uintptr_t)tensor->alignment))
        vgpu_fail("%s (unique id %lld) is at %p, which is not aligned to %lld bytes", operand->name,
                  (long long)tensor->uid, pointer, (long long)tensor->alignment);
    if (vgpu_is_device(pointer) == tensor->by_value)
        vgpu_fail("%s (unique id %lld) is at %p, which is%s device memory", operand->name,
                  (long long)tensor->uid, pointer, tensor->by_value ? "" : " no");
    if (tensor->by_value)
        vgpu_tensor_load(&launch->scalars[i], tensor, pointer);
    else
        launch->pointers[i] = pointer;
}

/* A result may lie on an operand only where an element of the one needs no other of the other: the
 * same shape at the same place, in pointwise operations. */
static void check_overlap(const struct launch *launch, int result, int other)
{
    const char *a = launch->pointers[result], *b = launch->pointers[other];
    const struct operand *to = &launch->operands.items[result],
                         *of = &launch->operands.items[other];
    const struct tensor *ta = &to->tensor->tensor, *tb = &of->tensor->tensor;
    if (!a || !b || a + vgpu_tensor_bytes(ta) <= b || b + vgpu_tensor_bytes(tb) <= a)
        return;
    bool pointwise =
        !strncmp(of->name, "POINTWISE", 9) || !strncmp(of->name, "OPERATION_POINTWISE", 19);
    if (of->producers || !pointwise || a != b || ta->type != tb->type ||
        !vgpu_tensor_same_shape(ta, tb))
        vgpu_fail("%s (unique id %lld) and %s (unique id %lld) lie on the same memory", to->name,
                  (long long)ta->uid, of->name, (long long)tb->uid);
}

static void check_workspace(struct launch *launch, const struct descriptor *pack)
{
    const struct attribute *workspace = vgpu_get(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE);
    launch->workspace_bytes = (size_t)workspace_of(launch->graph);
    if (!launch->workspace_bytes)
        return;
    if (!workspace || !*(void **)workspace->data)
        vgpu_fail("the plan needs a workspace of %zu bytes and has none", launch->workspace_bytes);
    launch->workspace = *(void **)workspace->data;
    for (int i = 0; i < launch->operands.count; i++) {
        const char *at = launch->pointers[i], *own = launch->workspace;
        size_t bytes = vgpu_tensor_bytes(&launch->operands.items[i].tensor->tensor);
        if (at && at < own + launch->workspace_bytes && own < at + bytes)
            vgpu_fail("%s lies in the workspace", launch->operands.items[i].name);
    }
}

/* beta: the result is read as well. */
static bool accumulates(const struct descriptor *graph)
{
    int count;
    struct descriptor *const *ops = vgpu_graph_operations(graph, &count);
    static const int betas[] = {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA,
                                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA,
                                CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA};
    for (int i = 0; i < count; i++)
        for (size_t b = 0; b < sizeof betas / sizeof *betas; b++)
            if (vgpu_get_real(ops[i], betas[b], 0) != 0)
                return true;
    return false;
}

/* What is wrong with the engines that a backend must not take. */
static void damage(double *values, int64_t count, enum engine engine)
{
    static unsigned noise;
    for (int64_t i = 0; i < count && engine == REDUCED; i++)
        values[i] = ldexp(round(ldexp(values[i], 6)), -6);
    for (int64_t i = 0; i < count && engine == VARYING; i++)
        values[i] *= 1.0 + (double)((noise = noise * 1664525 + 1013904223) >> 16 & 1023) * 1e-4;
}

static void run_launch(void *payload)
{
    struct launch *launch = payload;
    const struct operands *all = &launch->operands;
    bool adds = accumulates(launch->graph);
    struct values values = {.count = all->count};
    for (int i = 0; i < all->count; i++) {
        const struct operand *operand = &all->items[i];
        const struct tensor *tensor = &operand->tensor->tensor;
        values.tensors[i] = operand->tensor;
        values.data[i] = vgpu_numbers(vgpu_tensor_count(tensor));
        if (tensor->by_value)
            values.data[i][0] = launch->scalars[i];
        else if (launch->pointers[i] && (!operand->producers || adds))
            vgpu_tensor_load(values.data[i], tensor,
                             vgpu_reach(launch->pointers[i], vgpu_tensor_bytes(tensor), VGPU_READ,
                                        operand->name));
    }
    if (launch->workspace) /* scratch: written, and worth nothing afterwards */
        vgpu_reach(launch->workspace, launch->workspace_bytes, VGPU_WRITE, "the workspace");
    vgpu_graph_compute(launch->graph, &values);
    for (int i = 0; i < all->count; i++) {
        const struct operand *operand = &all->items[i];
        const struct tensor *tensor = &operand->tensor->tensor;
        if (operand->producers && launch->pointers[i]) {
            damage(values.data[i], vgpu_tensor_count(tensor), launch->engine);
            vgpu_tensor_store(vgpu_reach(launch->pointers[i], vgpu_tensor_bytes(tensor), VGPU_WRITE,
                                         operand->name),
                              tensor, values.data[i]);
        }
        free(values.data[i]);
    }
    if (launch->workspace)
        vgpu_forget(launch->workspace, launch->workspace_bytes);
    vgpu_count.plans++;
}

static void drop_launch(void *payload)
{
    struct launch *launch = payload;
    vgpu_descriptor_drop(launch->graph);
    free(launch);
}

/* $VGPU_UNCAPTURED: the engine that is offered last does what a capture forbids. */
static bool spoils_capture(enum engine engine, struct vgpu_stream *stream)
{
    if (engine != OTHER || !vgpu_graph_capturing(stream) || !getenv("VGPU_UNCAPTURED"))
        return false;
    vgpu_graph_spoil(stream);
    return true;
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan_handle,
                                  cudnnBackendDescriptor_t pack_handle)
{
    vgpu_lock();
    struct vgpu_stream *stream = vgpu_handle_stream(handle);
    struct descriptor *plan = vgpu_descriptor(plan_handle), *pack = vgpu_descriptor(pack_handle);
    if (!plan->final || !pack->final)
        vgpu_fail("cudnnBackendExecute of a %s that was not finalised",
                  plan->final ? "variant pack" : "plan");
    struct launch *launch = calloc(1, sizeof *launch);
    if (!launch)
        vgpu_fail("no memory");
    launch->graph = config_of(plan)->origin;
    launch->engine = (enum engine)config_of(plan)->engine;
    vgpu_descriptor_hold(launch->graph);
    const char *before = vgpu_actor.label;
    vgpu_actor.label = launch->graph->label;
    vgpu_graph_operands(&launch->operands, launch->graph);
    check_pack(pack, &launch->operands);
    for (int i = 0; i < launch->operands.count; i++)
        bind(launch, pack, i);
    for (int i = 0; i < launch->operands.count; i++)
        for (int j = 0; j < launch->operands.count; j++)
            if (i != j && launch->operands.items[i].producers)
                check_overlap(launch, i, j);
    check_workspace(launch, pack);
    vgpu_actor.label = before;
    if (spoils_capture(launch->engine, stream)) {
        drop_launch(launch);
        vgpu_unlock();
        return CUDNN_STATUS_EXECUTION_FAILED;
    }
    vgpu_enqueue(stream, vgpu_task(run_launch, drop_launch, launch, "%s", launch->graph->label));
    vgpu_unlock();
    return CUDNN_STATUS_SUCCESS;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "trainer/cuda/schedule.h"

#include <stdlib.h>

#include "common/err.h"
#include "trainer/checks.h"
#include "trainer/cuda/schedule_build.h"

/* Room for one more element; NULL leaves the array as it was. */
static void *grown(void *array, int *room, int count, size_t element, int *code)
{
    if (*code || count < *room)
        return array;
    int more = *room ? 2 * *room : 256;
    void *bigger = realloc(array, (size_t)more * element);
    if (!bigger) {
        *code = err_set(ERR_NOMEM, "no memory for planning a network");
        return array;
    }
    *room = more;
    return bigger;
}

struct step *schedule_step(struct building *building, enum step_kind kind, int node)
{
    struct schedule *schedule = building->schedule;
    schedule->steps = grown(schedule->steps, &schedule->step_room, schedule->step_count,
                            sizeof *schedule->steps, &schedule->code);
    if (schedule->code)
        return NULL;
    struct step *step = &schedule->steps[schedule->step_count++];
    *step = (struct step){.kind = kind, .node = node, .graph = -1, .bucket = -1};
    return step;
}

void schedule_put(struct building *building, enum graph_role role, enum place_kind kind, int index)
{
    struct schedule *schedule = building->schedule;
    if (!schedule->code)
        schedule->steps[schedule->step_count - 1].at[role] = (struct place){kind, index};
}

void schedule_use(struct building *building, enum graph_role role, int block)
{
    struct schedule *schedule = building->schedule;
    arena_extend(schedule->arena, block, schedule->step_count - 1);
    schedule_put(building, role, PLACE_BLOCK, block);
}

int schedule_want(struct building *building, size_t bytes)
{
    int now = building->schedule->step_count - 1;
    return arena_want(building->schedule->arena, bytes, now, now);
}

struct graph_spec schedule_spec(const struct building *building, int index, enum graph_kind kind)
{
    const struct node *node = &building->net->nodes[index];
    bool whole = node->kind == NODE_GLOBAL_AVG;
    return (struct graph_spec){.kind = kind,
                               .batch = building->schedule->batch,
                               .in_channels = layout_padded(node->in_channels),
                               .in_height = node->in_height,
                               .in_width = node->in_width,
                               .out_channels = layout_padded(node->out_channels),
                               .out_height = node->out_height,
                               .out_width = node->out_width,
                               .kernel = whole ? 0 : node->kernel,
                               .stride = whole ? 0 : node->stride,
                               .pad = whole ? 0 : node->pad};
}

/* What a graph of one kind does not look at must not tell it from another. */
static void normalise(struct graph_spec *spec)
{
    bool norm = spec->kind >= GRAPH_FINALIZE && spec->kind <= GRAPH_SCALE_BACKWARD;
    if (spec->kind == GRAPH_FINALIZE)
        spec->batch = spec->out_height = spec->out_width = 1;
    if (norm) {
        spec->in_channels = spec->in_height = spec->in_width = 0;
        spec->kernel = spec->stride = spec->pad = 0;
    }
}

bool schedule_takes(const struct building *building, const struct graph_spec *spec)
{
    const struct scheme *scheme = building->scheme;
    struct graph_spec asked = *spec;
    normalise(&asked);
    return !scheme->takes || scheme->takes(scheme->user, &asked);
}

void schedule_graph(struct building *building, int node, const struct graph_spec *spec)
{
    struct schedule *schedule = building->schedule;
    struct step *step = schedule_step(building, STEP_GRAPH, node);
    schedule->graphs = grown(schedule->graphs, &schedule->graph_room, schedule->graph_count,
                             sizeof *schedule->graphs, &schedule->code);
    if (!step || schedule->code)
        return;
    step->graph = schedule->graph_count;
    schedule->graphs[schedule->graph_count] = *spec;
    normalise(&schedule->graphs[schedule->graph_count++]);
}

size_t schedule_map_bytes(const struct building *building, int index)
{
    const struct node *node = &building->net->nodes[index];
    return (size_t)building->schedule->batch * (size_t)node->out_height * (size_t)node->out_width *
           (size_t)layout_padded(node->out_channels) * sizeof(uint16_t);
}

static void find_gradients(struct building *building)
{
    const struct net *net = building->net;
    for (int i = 0; i < net->node_count; i++) {
        const struct node *node = &net->nodes[i];
        const int tensors[] = {node->weight, node->bias, node->gamma, node->beta};
        struct node_blocks *blocks = &building->nodes[i];
        *blocks = (struct node_blocks){.y = -1,
                                       .out = -1,
                                       .mask = -1,
                                       .index = -1,
                                       .mean = -1,
                                       .inverse = -1,
                                       .scale = -1,
                                       .shift = -1,
                                       .grad = -1,
                                       .dy = -1};
        for (int k = 0; k < 4; k++)
            blocks->needs_grad |= tensors[k] >= 0 && net->tensors[tensors[k]].trained;
        blocks->needs_grad |= node->input >= 0 && building->nodes[node->input].needs_grad;
        blocks->needs_grad |= node->residual >= 0 && building->nodes[node->residual].needs_grad;
        blocks->frozen = net_bn_frozen(net, node);
    }
}

/* What is read on the host afterwards, and what several steps use. */
static void want_shared(struct building *building)
{
    struct schedule *schedule = building->schedule;
    struct arena *arena = schedule->arena;
    const struct net *net = building->net;
    size_t batch = (size_t)schedule->batch;
    size_t logits = batch * (size_t)layout_padded(net->classes);
    schedule->folded =
        schedule->trains
            ? -1
            : arena_want(arena, schedule->layout->value_count * sizeof(uint16_t), 0, 0);
    schedule->logits = arena_want(arena, logits * sizeof(float), 0, 0);
    schedule->dlogits = schedule->trains ? arena_want(arena, logits * sizeof(uint16_t), 0, 0) : -1;
    schedule->losses = arena_want(arena, batch * METRICS * sizeof(float), 0, 0);
}

static void keep_shared(struct schedule *schedule)
{
    const int kept[] = {schedule->folded, schedule->logits, schedule->dlogits, schedule->losses};
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++)
        arena_extend(schedule->arena, kept[i], schedule->step_count);
}

int schedule_open(struct schedule **out, const struct net *net, const struct layout *layout,
                  const struct program_config *config, const struct scheme *scheme)
{
    *out = NULL;
    int code = checks_program(config, net);
    if (code)
        return code;
    struct schedule *schedule = calloc(1, sizeof *schedule);
    struct node_blocks *nodes = calloc((size_t)net->node_count, sizeof *nodes);
    enum fusion_form *forms = calloc((size_t)net->node_count, sizeof *forms);
    if (schedule)
        schedule->arena = arena_open();
    if (!schedule || !nodes || !forms || !schedule->arena) {
        free(nodes);
        free(forms);
        schedule_close(schedule);
        return err_set(ERR_NOMEM, "no memory for planning %s", net->model);
    }
    schedule->net = net;
    schedule->layout = layout;
    schedule->trains = config->mode == PROGRAM_TRAIN;
    schedule->batch = config->batch;
    struct building building = {
        .schedule = schedule, .net = net, .scheme = scheme, .nodes = nodes, .forms = forms};
    find_gradients(&building);
    schedule_choose(&building);
    want_shared(&building);
    schedule_forward(&building);
    if (schedule->trains)
        schedule_backward(&building);
    keep_shared(schedule);
    free(nodes);
    free(forms);
    code = schedule->code ? schedule->code : arena_plan(schedule->arena);
    if (code) {
        schedule_close(schedule);
        return code;
    }
    *out = schedule;
    return 0;
}

void schedule_close(struct schedule *schedule)
{
    if (!schedule)
        return;
    arena_close(schedule->arena);
    free(schedule->steps);
    free(schedule->graphs);
    free(schedule->gathers);
    free(schedule);
}

size_t schedule_bytes(const struct schedule *schedule)
{
    return arena_bytes(schedule->arena);
}

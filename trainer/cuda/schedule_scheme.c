/* SPDX-License-Identifier: Apache-2.0 */
/* What becomes of each batch normalisation: as trainer/fusion.h would have it, less what cuDNN has
 * no engine for. */
#include "trainer/cuda/schedule_build.h"

struct graph_spec schedule_conv(const struct building *building, int index)
{
    struct graph_spec spec = schedule_spec(building, index, GRAPH_CONV);
    int input = building->net->nodes[index].input;
    spec.keep =
        building->forms[input] == FORM_BLOCK && fusion_first_reader(building->net, input) == index;
    spec.prologue = spec.keep || schedule_is_virtual(building, input);
    spec.residual = spec.keep;
    spec.dual = spec.keep && schedule_is_virtual(building, building->net->nodes[input].residual);
    spec.stats = building->forms[index] != FORM_PLAIN;
    return spec;
}

struct graph_spec schedule_conv_weight(const struct building *building, int index)
{
    struct graph_spec spec = schedule_spec(building, index, GRAPH_CONV_WEIGHT);
    spec.prologue = schedule_is_virtual(building, building->net->nodes[index].input);
    return spec;
}

/* adds: something has contributed already. */
struct graph_spec schedule_conv_data(const struct building *building, int index, bool adds)
{
    int input = building->net->nodes[index].input;
    struct graph_spec spec = schedule_spec(building, index, GRAPH_CONV_DATA);
    spec.accumulate = adds;
    if (fusion_first_reader(building->net, input) != index)
        return spec;
    spec.sums = fusion_sums(building->forms, building->net, building->scheme->fusion, input);
    if (spec.sums) {
        spec.residual = building->net->nodes[input].residual >= 0;
        spec.dual =
            spec.residual && schedule_is_virtual(building, building->net->nodes[input].residual);
        bool given = building->forms[input] == FORM_BLOCK; /* checked when it was chosen */
        spec.sums = given || schedule_takes(building, &spec);
        return spec;
    }
    spec.masked = building->forms[input] == FORM_STORED && building->nodes[input].mask >= 0;
    if (spec.masked && !schedule_takes(building, &spec))
        spec.masked = false;
    return spec;
}

struct graph_spec schedule_end(const struct building *building, int index)
{
    const struct node *node = &building->net->nodes[index];
    bool scales = building->nodes[index].frozen || building->forms[index] != FORM_PLAIN;
    struct graph_spec spec = schedule_spec(building, index, scales ? GRAPH_SCALE : GRAPH_NORM);
    spec.relu = node->relu;
    spec.residual = node->residual >= 0;
    spec.dual = spec.residual && schedule_is_virtual(building, node->residual);
    return spec;
}

struct graph_spec schedule_norm_backward(const struct building *building, int index)
{
    const struct node *node = &building->net->nodes[index];
    const struct node_blocks *blocks = &building->nodes[index];
    struct graph_spec spec =
        schedule_spec(building, index, blocks->frozen ? GRAPH_SCALE_BACKWARD : GRAPH_NORM_BACKWARD);
    spec.recompute = node->relu && schedule_is_virtual(building, index);
    spec.relu = node->relu && !spec.recompute && !blocks->masked;
    return spec;
}

static bool takes_finalize(const struct building *building, int index)
{
    struct graph_spec spec = schedule_spec(building, index, GRAPH_FINALIZE);
    spec.halves = fusion_halves(building->forms, building->net, index);
    return schedule_takes(building, &spec);
}

/* A map that is made by its readers: whether the backward can do it too. */
static bool takes_backward(const struct building *building, int index)
{
    const struct graph_spec spec = schedule_norm_backward(building, index);
    return !building->nodes[index].needs_grad || schedule_takes(building, &spec);
}

static bool reads_prologue(const struct building *building, int index)
{
    const struct node *node = &building->net->nodes[index];
    const struct graph_spec forward = schedule_conv(building, index);
    const struct graph_spec weight = schedule_conv_weight(building, index);
    return schedule_takes(building, &forward) &&
           (!building->net->tensors[node->weight].trained || schedule_takes(building, &weight));
}

static bool readers_take(const struct building *building, int index)
{
    const struct net *net = building->net;
    for (int i = index + 1; i < net->node_count; i++) {
        if (net->nodes[i].input == index && !reads_prologue(building, i))
            return false;
        const struct graph_spec end = schedule_end(building, i);
        if (building->forms[i] == FORM_BLOCK) /* its own affair */
            continue;
        if (net->nodes[i].residual == index &&
            (end.kind != GRAPH_SCALE || !schedule_takes(building, &end)))
            return false;
    }
    return true;
}

struct graph_spec schedule_apply(const struct building *building, int index)
{
    int residual = building->net->nodes[index].residual;
    struct graph_spec spec = schedule_spec(building, index, GRAPH_APPLY);
    spec.dual = residual >= 0 && schedule_is_virtual(building, residual);
    return spec;
}

static bool has_other_reader(const struct net *net, int index, int reader)
{
    for (int i = index + 1; i < net->node_count; i++)
        if (i != reader && (net->nodes[i].input == index || net->nodes[i].residual == index))
            return true;
    return false;
}

/* The end of a block by its first reader, and its backward. */
static bool takes_block(const struct building *building, int index)
{
    int reader = fusion_first_reader(building->net, index);
    const struct graph_spec forward = schedule_conv(building, reader);
    if (!forward.stats || !schedule_takes(building, &forward))
        return false;
    bool adds = has_other_reader(building->net, index, reader);
    const struct graph_spec data = schedule_conv_data(building, reader, adds);
    const struct graph_spec apply = schedule_apply(building, index);
    return !building->nodes[index].needs_grad ||
           (schedule_takes(building, &data) && schedule_takes(building, &apply));
}

/* A form that can be had, given those of the others. */
static enum fusion_form demoted(const struct building *building, int index)
{
    enum fusion_form form = building->forms[index];
    const struct graph_spec conv = schedule_conv(building, index);
    if (form == FORM_BLOCK && !takes_block(building, index))
        return FORM_STORED;
    if (form >= FORM_PROLOGUE &&
        (!readers_take(building, index) || !takes_backward(building, index)))
        return FORM_STORED;
    if (!takes_finalize(building, index) || (!conv.prologue && !schedule_takes(building, &conv)))
        return FORM_PLAIN;
    return form;
}

void schedule_choose(struct building *building)
{
    const struct net *net = building->net;
    bool moved = building->schedule->trains;
    fusion_forms(building->forms, net, moved ? building->scheme->fusion : FUSION_NONE);
    while (moved) {
        moved = false;
        for (int i = 0; i < net->node_count; i++) {
            enum fusion_form form = building->forms[i];
            if (form == FORM_PLAIN)
                continue;
            building->forms[i] = demoted(building, i);
            moved |= building->forms[i] != form;
        }
    }
    for (int i = 0; i < net->node_count; i++)
        if (net->nodes[i].kind == NODE_CONV && !building->nodes[i].frozen)
            building->schedule->forms[building->forms[i]]++;
}

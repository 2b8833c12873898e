/* SPDX-License-Identifier: Apache-2.0 */
/* The backward half of a step's list of work: from the gradient of the logits to that of the
 * stem, in the order in which the gradients get done. */
#include <stdlib.h>

#include "common/err.h"
#include "trainer/cuda/schedule_build.h"

static void gather(struct building *building, enum gather_kind kind, int tensor, int block,
                   double unbias)
{
    struct schedule *schedule = building->schedule;
    if (schedule->code || !layout_in_slot(schedule->layout, tensor))
        return;
    if (schedule->gather_count == schedule->gather_room) {
        int room = schedule->gather_room ? 2 * schedule->gather_room : 256;
        struct gather *gathers = realloc(schedule->gathers, (size_t)room * sizeof *gathers);
        if (!gathers) {
            schedule->code = err_set(ERR_NOMEM, "no memory for planning a network");
            return;
        }
        schedule->gathers = gathers;
        schedule->gather_room = room;
    }
    schedule->gathers[schedule->gather_count++] =
        (struct gather){kind, tensor, {PLACE_BLOCK, block}, unbias};
}

/* A second contribution to the gradient of a node's output that cannot be added to it. */
static void refuse(struct building *building, int index)
{
    if (!building->schedule->code)
        building->schedule->code =
            err_set(ERR_UNSUPPORTED,
                    "the cuda backend cannot add up the gradients that meet at node %d of %s",
                    index, building->net->model);
}

/* The block of a gradient that nothing has contributed to yet; the last step writes it. */
static int first_gradient(struct building *building, int index)
{
    if (building->nodes[index].grad >= 0)
        refuse(building, index);
    building->nodes[index].grad = schedule_want(building, schedule_map_bytes(building, index));
    return building->nodes[index].grad;
}

static bool wants_gradient(const struct building *building, int index)
{
    return index >= 0 && building->nodes[index].needs_grad;
}

static int want_channels(struct building *building, const struct node *node)
{
    return schedule_want(building, (size_t)layout_padded(node->out_channels) * sizeof(float));
}

/* The roles of one BN in a graph that sums and in one that applies. */
struct bn_roles {
    enum graph_role y, mean, inverse, gamma, beta, dscale, dbias, a, b, c;
};
static const struct bn_roles main_bn = {GRAPH_Y,    GRAPH_MEAN,   GRAPH_INVERSE, GRAPH_SCALE_OF,
                                        GRAPH_BIAS, GRAPH_DSCALE, GRAPH_DBIAS,   GRAPH_A,
                                        GRAPH_B,    GRAPH_C};
static const struct bn_roles shortcut_bn = {
    GRAPH_RESIDUAL,   GRAPH_RES_MEAN,  GRAPH_RES_INVERSE, GRAPH_RES_GAMMA, GRAPH_RES_BETA,
    GRAPH_RES_DSCALE, GRAPH_RES_DBIAS, GRAPH_RES_A,       GRAPH_RES_B,     GRAPH_RES_C};

/* What the last step takes of a BN to sum, and what it gives. */
static void sum_bn(struct building *building, int index, const struct bn_roles *roles)
{
    const struct node *node = &building->net->nodes[index];
    struct node_blocks *blocks = &building->nodes[index];
    int dscale = want_channels(building, node), dbias = want_channels(building, node);
    blocks->a = want_channels(building, node);
    blocks->b = want_channels(building, node);
    blocks->c = want_channels(building, node);
    schedule_use(building, roles->y, blocks->y);
    schedule_use(building, roles->mean, blocks->mean);
    schedule_use(building, roles->inverse, blocks->inverse);
    schedule_put(building, roles->gamma, PLACE_VALUES, node->gamma);
    schedule_put(building, roles->beta, PLACE_VALUES, node->beta);
    schedule_use(building, roles->dscale, dscale);
    schedule_use(building, roles->dbias, dbias);
    schedule_use(building, roles->a, blocks->a);
    schedule_use(building, roles->b, blocks->b);
    schedule_use(building, roles->c, blocks->c);
    gather(building, GATHER_FLOATS, node->gamma, dscale, 0);
    gather(building, GATHER_FLOATS, node->beta, dbias, 0);
}

/* The last contribution to a gradient, which goes through ReLU and BN's sums in the last step. */
static void sum_gradient(struct building *building, int index, const struct graph_spec *spec)
{
    struct node_blocks *blocks = &building->nodes[index];
    int residual = building->net->nodes[index].residual;
    if (spec->accumulate)
        schedule_use(building, GRAPH_OTHER, blocks->grad);
    sum_bn(building, index, &main_bn);
    if (spec->dual)
        sum_bn(building, residual, &shortcut_bn);
    else if (spec->residual)
        schedule_use(building, GRAPH_RESIDUAL, building->nodes[residual].out);
    blocks->grad = schedule_want(building, schedule_map_bytes(building, index));
    blocks->masked = blocks->summed = true;
    schedule_use(building, GRAPH_DZ, blocks->grad);
}

static void apply_bn(struct building *building, int index, const struct bn_roles *roles,
                     enum graph_role dy)
{
    struct node_blocks *blocks = &building->nodes[index];
    schedule_use(building, roles->y, blocks->y);
    schedule_use(building, roles->a, blocks->a);
    schedule_use(building, roles->b, blocks->b);
    schedule_use(building, roles->c, blocks->c);
    blocks->dy = schedule_want(building, schedule_map_bytes(building, index));
    schedule_use(building, dy, blocks->dy);
}

/* The rest of BN's backward where its sums are there already: dy of it, and of its shortcut. */
static void backward_apply(struct building *building, int index)
{
    struct node_blocks *blocks = &building->nodes[index];
    int residual = building->net->nodes[index].residual;
    const struct graph_spec spec = schedule_apply(building, index);
    schedule_graph(building, index, &spec);
    schedule_use(building, GRAPH_DZ, blocks->grad);
    apply_bn(building, index, &main_bn, GRAPH_DY);
    if (spec.dual)
        apply_bn(building, residual, &shortcut_bn, GRAPH_RES_DY);
    if (!wants_gradient(building, residual))
        return;
    if (building->nodes[residual].grad >= 0)
        refuse(building, residual);
    building->nodes[residual].grad = blocks->grad;
}

/* BN's backward from the gradient of a node's output to that of its convolution's: the block. */
static int backward_norm(struct building *building, int index)
{
    const struct node *node = &building->net->nodes[index];
    struct node_blocks *blocks = &building->nodes[index];
    if (blocks->summed)
        backward_apply(building, index);
    if (blocks->dy >= 0)
        return blocks->dy;
    bool to_residual = wants_gradient(building, node->residual);
    struct graph_spec spec = schedule_norm_backward(building, index);
    spec.keep = spec.relu && to_residual;
    schedule_graph(building, index, &spec);
    schedule_use(building, GRAPH_DOUT, blocks->grad);
    if (spec.relu)
        schedule_use(building, GRAPH_MASK, blocks->mask);
    if (blocks->frozen) {
        schedule_use(building, GRAPH_SCALE_OF, blocks->scale);
    } else {
        int dscale = want_channels(building, node), dbias = want_channels(building, node);
        schedule_use(building, GRAPH_Y, blocks->y);
        schedule_use(building, GRAPH_MEAN, blocks->mean);
        schedule_use(building, GRAPH_INVERSE, blocks->inverse);
        schedule_put(building, GRAPH_SCALE_OF, PLACE_VALUES, node->gamma);
        if (spec.recompute)
            schedule_put(building, GRAPH_BIAS, PLACE_VALUES, node->beta);
        schedule_use(building, GRAPH_DSCALE, dscale);
        schedule_use(building, GRAPH_DBIAS, dbias);
        gather(building, GATHER_FLOATS, node->gamma, dscale, 0);
        gather(building, GATHER_FLOATS, node->beta, dbias, 0);
    }
    if (spec.keep)
        schedule_use(building, GRAPH_DZ, first_gradient(building, node->residual));
    else if (to_residual && building->nodes[node->residual].grad < 0)
        building->nodes[node->residual].grad = blocks->grad; /* no mask: it is the same map */
    else if (to_residual)
        refuse(building, node->residual);
    int dy = schedule_want(building, schedule_map_bytes(building, index));
    schedule_use(building, GRAPH_DY, dy);
    return dy;
}

static void backward_weight(struct building *building, int index, int dy)
{
    const struct node *node = &building->net->nodes[index];
    const struct graph_spec spec = schedule_conv_weight(building, index);
    schedule_graph(building, index, &spec);
    schedule_use_input(building, node->input);
    schedule_use(building, GRAPH_DY, dy);
    int dw = schedule_want(building,
                           layout_count(&building->net->tensors[node->weight]) * sizeof(uint16_t));
    schedule_use(building, GRAPH_DW, dw);
    gather(building, GATHER_HALVES, node->weight, dw, 0);
}

static void backward_data(struct building *building, int index, int dy)
{
    const struct node *node = &building->net->nodes[index];
    struct node_blocks *input = &building->nodes[node->input];
    const struct graph_spec spec = schedule_conv_data(building, index, input->grad >= 0);
    schedule_graph(building, index, &spec);
    schedule_use(building, GRAPH_DY, dy);
    schedule_put(building, GRAPH_W, PLACE_HALVES, node->weight);
    if (spec.sums) {
        sum_gradient(building, node->input, &spec);
        return;
    }
    if (spec.masked) {
        schedule_use(building, GRAPH_MASK, input->mask);
        if (spec.accumulate)
            schedule_use(building, GRAPH_OTHER, input->grad);
        input->grad = schedule_want(building, schedule_map_bytes(building, node->input));
        input->masked = true;
    } else if (!spec.accumulate) {
        first_gradient(building, node->input);
    }
    schedule_use(building, GRAPH_DX, input->grad);
}

static void backward_conv(struct building *building, int index)
{
    const struct node *node = &building->net->nodes[index];
    int dy = backward_norm(building, index);
    if (building->net->tensors[node->weight].trained)
        backward_weight(building, index, dy);
    if (wants_gradient(building, node->input))
        backward_data(building, index, dy);
}

static void backward_pool(struct building *building, int index)
{
    const struct node *node = &building->net->nodes[index];
    bool max = node->kind == NODE_MAX_POOL;
    const struct graph_spec spec =
        schedule_spec(building, index, max ? GRAPH_MAX_POOL_BACKWARD : GRAPH_AVG_POOL_BACKWARD);
    schedule_graph(building, index, &spec);
    schedule_use(building, GRAPH_DOUT, building->nodes[index].grad);
    if (max)
        schedule_use(building, GRAPH_INDEX, building->nodes[index].index);
    schedule_use(building, GRAPH_DX, first_gradient(building, node->input));
}

static void backward_fc(struct building *building, int index)
{
    const struct node *node = &building->net->nodes[index];
    schedule_step(building, STEP_FC_BACKWARD, index);
    schedule_use(building, GRAPH_X, building->nodes[node->input].out);
    schedule_put(building, GRAPH_W, PLACE_HALVES, node->weight);
    schedule_use(building, GRAPH_DOUT, building->schedule->dlogits);
    if (wants_gradient(building, node->input))
        schedule_use(building, GRAPH_DX, first_gradient(building, node->input));
}

/* Where the gradients of a node end in a slot; 0 when it has none. */
static size_t gradients_end(const struct building *building, const struct node *node)
{
    const struct layout *layout = building->schedule->layout;
    const int tensors[] = {node->weight, node->bias, node->gamma, node->beta};
    size_t end = 0;
    for (int i = 0; i < 4; i++) {
        int tensor = tensors[i];
        if (tensor < 0 || !building->net->tensors[tensor].trained)
            continue;
        size_t after = layout->at[tensor] + layout_count(&building->net->tensors[tensor]);
        end = after > end ? after : end;
    }
    return end;
}

static bool is_in_bucket(const struct layout *layout, int tensor, int bucket)
{
    size_t at = layout->at[tensor];
    return at < layout->bucket_ends[bucket] &&
           (bucket == 0 || at >= layout->bucket_ends[bucket - 1]);
}

/* A step for every bucket that is complete; what it gathers lives until then. */
static void gather_complete(struct building *building)
{
    struct schedule *schedule = building->schedule;
    const struct layout *layout = schedule->layout;
    while (building->bucket < layout->bucket_total &&
           layout->bucket_ends[building->bucket] <= building->complete) {
        struct step *step = schedule_step(building, STEP_GATHER, -1);
        if (!step)
            return;
        step->bucket = building->bucket;
        for (int i = 0; i < schedule->gather_count; i++)
            if (is_in_bucket(layout, schedule->gathers[i].tensor, building->bucket))
                arena_extend(schedule->arena, schedule->gathers[i].from.index,
                             schedule->step_count - 1);
        building->bucket++;
    }
}

static void gather_statistics(struct building *building)
{
    const struct net *net = building->net;
    for (int i = 0; i < net->node_count; i++) {
        const struct node *node = &net->nodes[i];
        if (node->kind != NODE_CONV || building->nodes[i].frozen)
            continue;
        double count = (double)building->schedule->batch * node->out_height * node->out_width;
        gather(building, GATHER_FLOATS, node->running_mean, building->nodes[i].mean, 0);
        gather(building, GATHER_VARIANCES, node->running_var, building->nodes[i].inverse,
               count / (count - 1));
    }
}

void schedule_backward(struct building *building)
{
    const struct net *net = building->net;
    gather_statistics(building);
    for (int i = net->node_count - 1; i > 0; i--) {
        if (!building->nodes[i].needs_grad)
            continue;
        if (net->nodes[i].kind == NODE_FC)
            backward_fc(building, i);
        else if (net->nodes[i].kind == NODE_CONV)
            backward_conv(building, i);
        else if (wants_gradient(building, net->nodes[i].input))
            backward_pool(building, i);
        size_t end = gradients_end(building, &net->nodes[i]);
        building->complete = end > building->complete ? end : building->complete;
        gather_complete(building);
    }
    building->complete = building->schedule->layout->slot_count;
    gather_complete(building);
}

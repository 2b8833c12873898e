/* SPDX-License-Identifier: Apache-2.0 */
/* What the forward and the backward half of a schedule share while it is built. */
#ifndef TRAINER_CUDA_SCHEDULE_BUILD_H
#define TRAINER_CUDA_SCHEDULE_BUILD_H

#include "trainer/cuda/schedule.h"

struct node_blocks { /* of the arena; -1: not there */
    int y, out, mask, index, mean, inverse;
    int scale, shift; /* of frozen BN, or of the batch's */
    int grad;         /* of out */
    bool masked;      /* grad is behind ReLU's mask already */
    bool summed;      /* and BN's gradients and these coefficients are there */
    int a, b, c;
    int dy;          /* its BN's backward is done */
    bool needs_grad; /* it or something before it is trained */
    bool frozen;     /* BN with running statistics in training too */
};

struct building {
    struct schedule *schedule;
    const struct net *net;
    const struct scheme *scheme;
    struct node_blocks *nodes;
    enum fusion_form *forms; /* [node] */
    size_t complete;         /* of the slot, so far */
    int bucket;              /* the next to be gathered */
};

/* Appends a step; NULL when memory is out. Valid until the next one. */
struct step *schedule_step(struct building *building, enum step_kind kind, int node);

/* Puts a block to a role of the last step and lets it live until then. */
void schedule_use(struct building *building, enum graph_role role, int block);
void schedule_put(struct building *building, enum graph_role role, enum place_kind kind, int index);

/* A block of the last step. */
int schedule_want(struct building *building, size_t bytes);

/* The shape of a node's graph, and a step that runs it. */
struct graph_spec schedule_spec(const struct building *building, int node, enum graph_kind kind);
void schedule_graph(struct building *building, int node, const struct graph_spec *spec);

bool schedule_takes(const struct building *building, const struct graph_spec *spec);

/* schedule_scheme.c: what becomes of each BN, and the graphs that follow from it. */
void schedule_choose(struct building *building);
struct graph_spec schedule_conv(const struct building *building, int node);
struct graph_spec schedule_conv_weight(const struct building *building, int node);
struct graph_spec schedule_conv_data(const struct building *building, int node, bool adds);
struct graph_spec schedule_end(const struct building *building, int node);
struct graph_spec schedule_apply(const struct building *building, int node);
struct graph_spec schedule_norm_backward(const struct building *building, int node);

/* Whether a node's output is made by those who read it. */
static inline bool schedule_is_virtual(const struct building *building, int node)
{
    return building->forms[node] >= FORM_PROLOGUE;
}

size_t schedule_map_bytes(const struct building *building, int node); /* fp16, of out */

/* Puts what a node's reader reads to GRAPH_X, with what normalises it on the way. */
void schedule_use_input(struct building *building, int input);

void schedule_forward(struct building *building);
void schedule_backward(struct building *building);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* A net as the steps that run it, one after another, and the memory they need. Pure planning: no
 * device is touched, so that it can be checked, and sized, anywhere.
 *
 * FUSION_NONE: convolutions as they are; BN with residual, ReLU and a bit mask in one graph (two
 * reads of the map); its backward in one; pools; FC. FUSION_PROLOGUE: trainer/fusion.h says what
 * becomes of each BN; a small graph makes scale and shift of a convolution's sums; the backward
 * makes normalised maps again from y where they were not stored. A map's gradient is written by its
 * first contributor and added to by later ones, which are convolutions; the last of them applies
 * the ReLU's mask too, where fused. A block of memory lives from the first step that uses it to the
 * last. */
#ifndef TRAINER_CUDA_SCHEDULE_H
#define TRAINER_CUDA_SCHEDULE_H

#include "trainer/arena.h"
#include "trainer/backend.h"
#include "trainer/cuda/graph.h"
#include "trainer/cuda/layout.h"
#include "trainer/fusion.h"

enum place_kind {
    PLACE_NONE,
    PLACE_BLOCK,  /* index: of the arena */
    PLACE_HALVES, /* index: tensor, the state's fp16 copy */
    PLACE_VALUES, /* index: tensor, the state's fp32 values */
    PLACE_FOLDED, /* index: tensor; inference: weights with BN folded in, fp16; the bias is at
                     beta's */
    PLACE_EPSILON,
    PLACE_ZERO,
    PLACE_ONE,
    PLACE_COUNT, /* index: node; how many values a channel of its output has, on the host */
};
struct place {
    enum place_kind kind;
    int index;
};

enum step_kind {
    STEP_INPUT,       /* unpacks pixels */
    STEP_GRAPH,       /* a plan of cuDNN */
    STEP_FREEZE,      /* frozen BN: scale and shift from running statistics */
    STEP_FC,          /* logits */
    STEP_LOSS,        /* loss, metrics; in training the logits' gradient */
    STEP_FC_BACKWARD, /* straight into the slot; and the features' gradient */
    STEP_GATHER,      /* a bucket of the slot is filled; it is complete then */
};

struct step {
    enum step_kind kind;
    int node;
    int graph;                    /* STEP_GRAPH: number in schedule->graphs */
    int bucket;                   /* STEP_GATHER */
    struct place at[GRAPH_ROLES]; /* STEP_GRAPH, and by their roles the other kinds too */
};

enum gather_kind { GATHER_HALVES, GATHER_FLOATS, GATHER_VARIANCES /* from 1/std, unbiased */ };

/* What goes from the program's memory to a tensor's place in the slot. */
struct gather {
    enum gather_kind kind;
    int tensor;
    struct place from;
    double unbias; /* n / (n - 1) of a variance over n values */
};

struct schedule {
    const struct net *net; /* not owned */
    const struct layout *layout;
    bool trains;
    int batch;
    struct step *steps;
    int step_count, step_room;
    struct graph_spec *graphs; /* of each STEP_GRAPH, equal ones too */
    int graph_count, graph_room;
    struct gather *gathers;
    int gather_count, gather_room;
    struct arena *arena; /* planned, not allocated */

    /* Blocks of the arena that live throughout. */
    int folded, logits, dlogits, losses;
    int forms[FORM_SHORTCUT + 1]; /* how many BNs of the batch became what (trainer/fusion.h) */
    int code;                     /* of building it */
};

/* How much is fused in training, where an engine takes the graph. */
struct scheme {
    enum fusion fusion;
    /* Whether there is an engine; NULL: for all graphs. */
    bool (*takes)(const void *user, const struct graph_spec *spec);
    const void *user;
};

/* layout was split when config->mode is PROGRAM_TRAIN. ERR_ARG, ERR_UNSUPPORTED (a net that has no
 * such plan), ERR_NOMEM. */
int schedule_open(struct schedule **out, const struct net *net, const struct layout *layout,
                  const struct program_config *config, const struct scheme *scheme);
void schedule_close(struct schedule *schedule); /* accepts NULL */

/* Bytes of all blocks. */
size_t schedule_bytes(const struct schedule *schedule);

#endif

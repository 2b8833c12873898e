/* SPDX-License-Identifier: Apache-2.0 */
/* A net with memory for a batch: what program.c allocates and pass.c runs. */
#ifndef TRAINER_REF_PROGRAM_H
#define TRAINER_REF_PROGRAM_H

#include "trainer/ref/ops.h"
#include "trainer/fusion.h"
#include "trainer/ref/ref.h"

struct node_memory {
    real *out;          /* [batch][out_height][out_width][pitch] */
    real *y;            /* conv in training: before BN, same shape; else NULL */
    real *grad;         /* of out, same shape; NULL where nothing needs it */
    double *mean, *var; /* conv in training: [out_channels] of this batch, biased */
    bool needs_grad;    /* it or something before it is trained */
    bool has_grad;      /* during a backward: grad holds something */
};

struct program {
    struct state *state;
    struct net *net; /* at this program's size */
    struct program_config config;
    struct node_memory *nodes;
    enum fusion_form *forms; /* [node]: what a device that fuses does not store is not rounded */
    void **owned;            /* all allocations of the nodes, for close */
    int owned_count, owned_room;
    size_t bytes;
    int samples;    /* of the last run */
    double seconds; /* of all runs, without the teacher's */

    real *packed, *zeros;
    real *rounded; /* fp16, bf16: a node's weights as they are stored */
    double *partial;
    double *scale, *shift;    /* [widest channels]: BN as scale and shift */
    double *logits, *dlogits; /* [batch][classes] */
};

static inline bool program_trains(const struct program *program)
{
    return program->config.mode == PROGRAM_TRAIN;
}

/* Rounds what a device would store in half floats or bf16, in that precision. */
static inline void program_round(const struct program *program, real *values, size_t count)
{
    if (program->state->backend->halves)
        fp16_ref_round(values, count);
    if (program->state->backend->bf16)
        bf16_ref_round(values, count);
}

#endif

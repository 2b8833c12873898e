/* SPDX-License-Identifier: Apache-2.0 */
/* The objects of the oneDNN backend. Its state is the reference backend's: weights, momentum and
 * gradients in their canonical layouts, so that slots mean the same on every machine; a program
 * keeps packed copies of the weights, renewed when the state's version has moved.
 *
 * PRECISION_BF16: maps, their gradients and the packed weights are bf16; sums are taken in fp32,
 * and all that a state holds, the features before the classifier and the classifier stay in fp32.
 */
#ifndef TRAINER_DNNL_DNNL_H
#define TRAINER_DNNL_DNNL_H

#include "trainer/arena.h"
#include "trainer/dnnl/kernels.h"
#include "trainer/dnnl/primitives.h"
#include "trainer/ref/ref.h"

struct backend_cpu {
    struct backend base; /* first */
    struct engine *engine;
    const struct kernels *kernels;
    bool bf16;
};

static inline const struct backend_cpu *backend_cpu_of(const struct state *state)
{
    return (const struct backend_cpu *)state->backend;
}

enum work {
    WORK_INPUT,
    WORK_PACK, /* weights to the layout of a convolution */
    WORK_CONV,
    WORK_BN, /* with ReLU and the residual's addition */
    WORK_POOL,
    WORK_CLASSIFIER,
    WORK_BN_BACKWARD,
    WORK_CONV_WEIGHTS,
    WORK_CONV_DATA,
    WORK_UNPACK, /* the gradient of the weights to its canonical layout */
    WORK_ADD,
    WORKS,
};

enum { GRADIENTS = 2 }; /* parts that a map's gradient is the sum of; more are added up */

/* What a node has: blocks of the arena while it is planned, then memory. NULL or -1: not wanted. */
struct node_blocks {
    int x, out, again, chosen, packed_forward, packed_data, params, to_input;
    int scratch_forward, scratch_weights, scratch_data, packed_gradient;
    int gradients[GRADIENTS];
};

struct node_memory {
    void *x; /* conv in training: before BN, then its gradient; blocked */
    void
        *out; /* blocked; NODE_INPUT also plain; NODE_GLOBAL_AVG, NODE_FC float [batch][channels] */
    void
        *again; /* out once more, made from x for the backward of its reader: not kept until then */
    uint8_t *chosen; /* max pool */
    void *packed_forward, *packed_data;
    void *scratch_forward, *scratch_weights, *scratch_data; /* the library's, while it computes */
    void *packed_gradient;      /* of the weights, as the library makes it */
    void *gradients[GRADIENTS]; /* of out, to be added up; [0] may be changed in place */
    void *to_input;             /* the gradient that the node makes for its input */
};

struct node_plan {
    struct map in, out;
    struct conv *forward, *backward_data, *backward_weights;
    struct bn bn;
    struct node_blocks blocks;
    struct node_memory at;
    bool needs_grad; /* it or something before it is trained */
    bool frozen;     /* BN with running statistics in training too */
    int gradient_count;
    bool to_residual;             /* passes its own gradient on, after ReLU's mask */
    bool add_input, add_residual; /* the other one has GRADIENTS parts already: add to its first */
};

struct program {
    struct state *state;
    struct net *net; /* at this program's size */
    struct program_config config;
    struct node_plan *nodes;
    struct arena *arena;
    int input_block, input_channels; /* layout of the input: block 1 is plain */
    uint64_t version;                /* of the state that the packed weights are from */
    int samples;                     /* of the last run */
    double seconds;                  /* of all runs, without the teacher's */
    double (*profile)[WORKS];        /* [nodes] seconds by work; NULL: runs are not timed so */
    struct {
        int staging, partial, dlogits32, logits, dlogits;
    } blocks;
    float *staging;
    double *partial;
    float *dlogits32;         /* [batch][classes] */
    double *logits, *dlogits; /* [batch][classes] */
};

static inline bool program_trains(const struct program *program)
{
    return program->config.mode == PROGRAM_TRAIN;
}

/* Weights that serve one micro-batch are packed where they are used, into memory that others use
 * before and after; else all at once, for the runs until they move. */
static inline bool program_packs_at_use(const struct program *program)
{
    return program_trains(program) && program->config.micro_batches <= 1;
}

/* program.c */
int program_dnnl_open(struct program **out, struct state *state,
                      const struct program_config *config);
void program_dnnl_close(struct program *program);
size_t program_dnnl_bytes(const struct program *program);
double program_dnnl_seconds(const struct program *program);

/* profile.c: work is timed from the mark before it, which add turns into the next one. */
int profile_dnnl_start(struct program *program);
int profile_dnnl_read(struct profile_line *lines, int most, const struct program *program);
int profile_dnnl_peaks(double *flops, double *bytes, struct backend *backend);
double profile_dnnl_mark(const struct program *program);
double profile_dnnl_add(struct program *program, int node, enum work work, double mark_s);

/* plan.c: which maps live when, for a program whose convolutions are open. */
void plan_dnnl_lives(struct program *program);
int plan_dnnl_end(const struct program *program); /* of all lives */
void plan_dnnl_memory(struct program *program);   /* after arena_place */

/* pixels.c: the pixels as they came, [samples][size][size][channels], to
 * [batch][blocks][pixels][block] in the type of maps; what no pixel belongs to becomes zero. */
void pixels_dnnl_load(void *dst, const struct batch *batch, const struct program *program);

/* pass.c */
int pass_dnnl_run(struct program *program, const struct batch *batch, int slot, double loss_factor,
                  void (*bucket_ready)(void *user, int bucket), void *user);
int pass_dnnl_logits(float *dst, struct program *program);

/* update.c: as state_ref_update, in parallel. */
int update_dnnl(struct state *state, int slot, const struct update *update);

#endif

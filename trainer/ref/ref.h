/* SPDX-License-Identifier: Apache-2.0 */
/* The objects of the reference backend and what state.c, program.c and pass.c give to its
 * operations table (trainer/backend.h says what each does). */
#ifndef TRAINER_REF_REF_H
#define TRAINER_REF_REF_H

#include "trainer/ref/real.h" /* first: it renames backend_ref */

#include "trainer/backend.h"

struct backend {
    struct backend_head head;
    int threads;
    enum fusion fusion; /* halves: whose roundings */
    bool halves; /* PRECISION_FP16: maps, weights and their gradients are stored in half floats */
    bool bf16;   /* PRECISION_BF16: maps and convolutions' weights are stored in bf16 */
    char text[64];
};

enum { METRICS = 4 }; /* loss sum, top-1, top-5, samples */

struct state {
    struct backend *backend;
    struct net *net;
    size_t *value_at; /* [tensor]: where its values (and its momentum) start */
    size_t *slot_at;  /* [tensor]: where its gradient or statistic starts in a slot; NOWHERE */
    real *values, *momentum;
    real *slots; /* [slot][slot_count] */
    int slot_total;
    size_t slot_count, metrics_at;
    size_t *bucket_ends; /* bucket b is slot values bucket_ends[b - 1] .. bucket_ends[b] */
    int bucket_total;    /* 0 until a training program was opened */
    int updated_slot;    /* of the last update, -1 before */
    bool updated_finite;
    uint64_t version; /* moves with the values, for backends that keep them in other layouts */
};

#define NOWHERE SIZE_MAX

static inline real *state_values(const struct state *state, int tensor)
{
    return state->values + state->value_at[tensor];
}

/* NULL when the tensor has no place in slots. */
static inline real *state_slot(const struct state *state, int slot, int tensor)
{
    size_t at = state->slot_at[tensor];
    return at == NOWHERE ? NULL : state->slots + (size_t)slot * state->slot_count + at;
}

static inline real *state_slot_metrics(const struct state *state, int slot)
{
    return state->slots + (size_t)slot * state->slot_count + state->metrics_at;
}

/* state.c */
int state_ref_open(struct state **out, struct backend *backend, const struct net *net, int slots);
void state_ref_close(struct state *state);
int state_ref_set(struct state *state, enum state_kind kind, int tensor, const float *src);
int state_ref_get(float *dst, struct state *state, enum state_kind kind, int tensor);
int state_ref_split(struct state *state, size_t bucket_bytes); /* once: cuts the buckets */
int state_ref_slot_add(struct state *state, int dst, int src, int bucket);
int state_ref_slot_get(float *dst, struct state *state, int slot, int tensor);
int state_ref_buckets(const struct state *state);
struct bucket state_ref_bucket(struct state *state, int slot, int bucket);
int state_ref_update(struct state *state, int slot, const struct update *update);
int state_ref_average(struct state *average, struct state *state, double decay);
int state_ref_metrics(struct batch_metrics *metrics, struct state *state, int slot);

/* program.c */
int program_ref_open(struct program **out, struct state *state,
                     const struct program_config *config);
void program_ref_close(struct program *program);
size_t program_ref_bytes(const struct program *program);
double program_ref_seconds(const struct program *program);

/* fp16.c: rounds to the nearest half float or bf16, in place. */
void fp16_ref_round(real *values, size_t count);
void bf16_ref_round(real *values, size_t count);

/* pass.c */
int pass_ref_run(struct program *program, const struct batch *batch, int slot, double loss_factor,
                 void (*bucket_ready)(void *user, int bucket), void *user);
int pass_ref_logits(float *dst, struct program *program);

/* plan.c: gives each of count blocks of memory, wanted from begin to end (both included; size 0:
 * not wanted), a buffer that no other block uses meanwhile. buffer[i] is its number or -1;
 * buffer_size[number] how large it must be. Returns how many buffers. */
struct plan_block {
    int begin, end;
    size_t size;
};
int plan_ref(int *buffer, size_t *buffer_size, const struct plan_block *blocks, int count);

#endif

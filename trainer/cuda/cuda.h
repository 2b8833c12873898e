/* SPDX-License-Identifier: Apache-2.0 */
/* The objects of the cuda backend and what its files give to the operations table
 * (trainer/backend.h says what each does).
 *
 * Two streams: `compute` runs kernels, cuDNN and cuBLASLt; `copy` brings what arrives from the host
 * into one of two places in turn, so that the next batch comes in while this one is computed. Fp16
 * maps and weights, fp32 everything else. */
#ifndef TRAINER_CUDA_CUDA_H
#define TRAINER_CUDA_CUDA_H

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include "trainer/backend.h"
#include "trainer/cuda/kernels.h"
#include "trainer/cuda/plan.h"
#include "trainer/cuda/schedule.h"

struct backend {
    struct backend_head head;
    int device, threads;
    enum fusion fusion;
    int major; /* compute capability */
    cudaStream_t compute, copy;
    cudnnHandle_t dnn;
    cublasLtHandle_t lt;
    struct plans *plans;
    char *tune_path; /* of what timing engines found; NULL: the heuristics choose */
    char text[160];
};

struct state {
    struct backend *backend;
    struct net *net;
    struct layout *layout;
    float *values, *momenta;     /* device, [value_count], [gradient_count] */
    uint16_t *halves;            /* device, [value_count]: values as fp16 */
    float *slots;                /* device, [slot_total][slot_count] */
    int *flag;                   /* device: a gradient of the last update was not finite */
    struct kernel_chunk *chunks; /* device, for the update */
    int slot_total, chunk_total;
    cudaEvent_t *ready; /* [slot_total][bucket_total]; NULL until a training program */
    int updated_slot;   /* of the last update, -1 before and when it was filled again */
    uint64_t version;   /* moves with the values: inference folds them anew */
};

static inline float *state_slot(const struct state *state, int slot)
{
    return state->slots + (size_t)slot * state->layout->slot_count;
}

/* cuda.c: 0, or ERR_* with the error's name. what: "copying the weights". */
int cuda_check(cudaError_t error, const char *what);
int cuda_check_dnn(cudnnStatus_t status, const char *what);
/* Zeroed memory on the device. ERR_NOMEM says how much is free. */
int cuda_alloc(void *memory, struct backend *backend, size_t bytes, const char *what);
/* An array of the host on the device; waits. */
int cuda_upload(void *memory, struct backend *backend, const void *src, size_t bytes,
                const char *what);

/* state.c */
int state_cuda_open(struct state **out, struct backend *backend, const struct net *net, int slots);
void state_cuda_close(struct state *state);
int state_cuda_set(struct state *state, enum state_kind kind, int tensor, const float *src);
int state_cuda_get(float *dst, struct state *state, enum state_kind kind, int tensor);
int state_cuda_split(struct state *state, size_t bucket_bytes); /* once */
int state_cuda_slot_add(struct state *state, int dst, int src, int bucket);
int state_cuda_slot_get(float *dst, struct state *state, int slot, int tensor);
int state_cuda_buckets(const struct state *state);
struct bucket state_cuda_bucket(struct state *state, int slot, int bucket);
int state_cuda_update(struct state *state, int slot, const struct update *update);
int state_cuda_average(struct state *average, struct state *state, double decay);
int state_cuda_metrics(struct batch_metrics *metrics, struct state *state, int slot);

/* fc.c: the classifier's three products by cuBLASLt; features and classes padded. */
struct fc;
int fc_cuda_open(struct fc **out, struct backend *backend, int batch, int features, int classes,
                 bool trains);
void fc_cuda_close(struct fc *fc);
size_t fc_cuda_workspace(const struct fc *fc);
struct fc_data {
    const uint16_t *x;       /* [batch][features] */
    const uint16_t *weights; /* [classes][features] */
    const float *bias;       /* [classes] */
    float *logits;           /* [batch][classes] */
    const uint16_t *dlogits; /* [batch][classes] */
    uint16_t *dx;            /* [batch][features] */
    float *dweights;         /* [classes][features] */
    void *workspace;
};
int fc_cuda_forward(const struct fc *fc, const struct fc_data *data);
int fc_cuda_backward_data(const struct fc *fc, const struct fc_data *data);
int fc_cuda_backward_weights(const struct fc *fc, const struct fc_data *data);

/* program.c */
struct program {
    struct state *state;
    struct net *net; /* at this program's size */
    struct program_config config;
    struct schedule *schedule;
    struct fc *fc;
    uint8_t *memory; /* device: all blocks, then the workspace */
    uint8_t *workspace;
    size_t workspace_bytes;
    cudnnBackendDescriptor_t *packs;     /* [step]: what a graph runs on; NULL for other steps */
    const struct plan **plans;           /* [step] */
    struct kernel_gather_chunk *gathers; /* device, by bucket */
    int *gather_ends;                    /* [bucket] */
    struct kernel_fold_row *folds;       /* device; frozen: by node */
    int fold_total;
    int *fold_begins;         /* [node] */
    int64_t *counts;          /* [node]: values in a channel of its output */
    float epsilon, zero, one; /* what graphs take by value */

    cudaEvent_t copied[2], unpacked[2]; /* of the two places for what arrives */
    unsigned runs;
    int samples;      /* of the last run */
    uint64_t version; /* of the state that was folded */
};

static inline bool program_trains(const struct program *program)
{
    return program->config.mode == PROGRAM_TRAIN;
}

void *program_cuda_at(const struct program *program, struct place place); /* device; NULL: none */
static inline void *program_cuda_block(const struct program *program, int block)
{
    return block < 0 ? NULL : program->memory + arena_offset(program->schedule->arena, block);
}

/* ERR_NOMEM names the largest batch that fits. */
int program_cuda_check_memory(const struct program *program, size_t wanted);

/* fit.c: the schedule, plans and workspace of a program; its schedule at another batch. */
int fit_cuda_program(struct program *program);
int fit_cuda_schedule(struct schedule **out, const struct program *program, int batch);

/* tune.c: times the engines of all plans that are not settled yet, where config->tune_path asks for
 * it. Their programs come afterwards. */
int tune_cuda_plans(struct backend *backend);

int program_cuda_open(struct program **out, struct state *state,
                      const struct program_config *config);
void program_cuda_close(struct program *program);
size_t program_cuda_bytes(const struct program *program);

/* pass.c */
int pass_cuda_run(struct program *program, const struct batch *batch, int slot, double loss_factor,
                  void (*bucket_ready)(void *user, int bucket), void *user);
int pass_cuda_inputs_read(struct program *program);
int pass_cuda_logits(float *dst, struct program *program);

#endif

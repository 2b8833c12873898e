/* SPDX-License-Identifier: Apache-2.0 */
/* The objects of the cuda backend and what its files give to the operations table
 * (trainer/backend.h says what each does).
 *
 * What arrives from the host goes to one of two places in turn, each with a stream of its own, so
 * that the next batch comes in while this one is computed. A captured step runs on its turn's
 * stream: that is how it is behind its copies, and the copies two steps later behind it; behind the
 * step before it is because no graph runs twice at a time. Everything else runs on `compute`. So
 * between steps there is nothing to record and nothing to wait for. Fp16 maps and weights, fp32
 * everything else. */
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
    cudaStream_t compute, turns[2];
    cudaEvent_t passed; /* one stream is put behind another by it */
    const struct captured_step *latest;
    int latest_turn; /* whose stream runs latest, which compute is not behind; -1: there is none,
                        and captured steps are not behind compute */
    bool uncaptured; /* steps are queued anew each time */
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
    float *values, *momenta; /* device, [value_count], [gradient_count] */
    uint16_t *halves;        /* device, [value_count]: values as fp16 */
    float *slots;            /* device, [slot_total][slot_count] */
    int *flags; /* device, [KERNEL_FLAGS]: a gradient of the last update was not finite */
    struct kernel_control *control; /* device: of updates outside of steps */
    struct kernel_chunk *chunks;    /* device, for the update */
    int slot_total, chunk_total;
    cudaEvent_t *ready;             /* [slot_total][bucket_total]; NULL until a training program */
    int updated_slot;               /* of the last update, -1 before and when it was filled again */
    bool skips;                     /* the last update is left out when a gradient is not finite */
    uint64_t version;               /* moves with the values: inference folds them anew */
    struct captured_step *stepping; /* while the queue of a step is being filled */
};

static inline float *state_slot(const struct state *state, int slot)
{
    return state->slots + (size_t)slot * state->layout->slot_count;
}

/* cuda.c: 0, or ERR_* with the error's name. what: "copying the weights". */
int cuda_check(cudaError_t error, const char *what);
int cuda_check_dnn(cudnnStatus_t status, const char *what);
/* What is queued on `later` from now on is behind what `earlier` has. */
int cuda_order(struct backend *backend, cudaStream_t earlier, cudaStream_t later);
/* Before work on compute: it is behind captured steps, and those that come are behind it. */
int cuda_outside(struct backend *backend);
int cuda_finish(struct backend *backend); /* waits for everything */
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

/* input.c: what arrives from the host. Two turns, so that the next batch comes in while this one is
 * computed; of each, a place for every micro-batch of a step. */
struct input {
    struct backend *backend;
    int micro_batches;
    size_t sample_bytes;        /* of a sample's pixels */
    size_t label_at, offset_at; /* bytes from a place's pixels; offset_at 0: none */
    size_t place_bytes;
    uint8_t *memory;                /* device, [2][micro_batches] places */
    struct kernel_control *control; /* device; its turn is that of what was released last */
    cudaEvent_t copied[2];
    bool unmarked[2]; /* by turn: there are copies that copied is not behind */
    bool watched;     /* somebody waits for copies */
    int turn;         /* of what arrives next */
};
struct arrival { /* by turn, on the device */
    const struct kernel_control *control;
    const void *pixels[2];
    const struct chunk_label *labels[2];
    const float *offsets[2]; /* NULL: none */
};

/* Bytes on the device that a program of this kind needs for it. */
size_t input_cuda_bytes(const struct program_config *config, const struct net *net);
int input_cuda_open(struct input **out, struct backend *backend,
                    const struct program_config *config, const struct net *net);
void input_cuda_close(struct input *input);
struct arrival input_cuda_arrival(const struct input *input, int micro_batch);
/* Queues the copy of a micro-batch behind what reads its place. */
int input_cuda_load(struct input *input, int micro_batch, const struct batch *batch);
int input_cuda_mark(struct input *input);    /* the turn's copies can be waited for */
int input_cuda_arrive(struct input *input);  /* compute goes on when they are in */
int input_cuda_release(struct input *input); /* the turn's stream goes on behind compute */
int input_cuda_read(struct input *input);    /* waits for all copies */
static inline cudaStream_t input_cuda_stream(const struct input *input) /* the turn's */
{
    return input->backend->turns[input->turn];
}

/* captured.c: a program's training step as one CUDA graph, which the second step makes. */
struct captured_step {
    struct program *program;
    struct kernel_values *values; /* pinned, [2]: by turn */
    struct kernel_report *report; /* device, [2] */
    struct kernel_report *told;   /* pinned, [2] */
    cudaGraphExec_t graph;        /* NULL: not captured yet */
    int loaded, queued;           /* micro-batches of the step that is being put together */
    int slot;                     /* that it updates; -1: none yet */
    uint64_t begun, waited;       /* steps */
};
int captured_cuda_open(struct captured_step **out, struct program *program);
void captured_cuda_close(struct captured_step *step);
int captured_cuda_load(struct program *program, int micro_batch, const struct batch *batch);
int captured_cuda_run(struct program *program, const struct step_values *values,
                      int (*queue)(void *user), void *user);
int captured_cuda_wait(struct batch_metrics *metrics, struct program *program);
struct kernel_values captured_cuda_values(const struct update *update);

/* profile.c: runs outside of steps, timed by step of the schedule. mark: before step `index`, and
 * behind the last; add: waits, and adds the run up. Both do nothing without a profile. */
struct profile;
int profile_cuda_start(struct program *program);
int profile_cuda_read(struct profile_line *lines, int most, const struct program *program);
int profile_cuda_peaks(double *flops, double *bytes, struct backend *backend);
int profile_cuda_mark(const struct program *program, int index);
int profile_cuda_add(const struct program *program);
void profile_cuda_close(struct profile *profile);
/* Seconds on the device of the fastest of some tries at work, which queues on compute. */
int profile_cuda_best(double *best_s, struct backend *backend, int tries, int (*work)(void *user),
                      void *user);

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

    struct input *input;
    struct captured_step *step; /* training */
    struct profile *profile;    /* NULL: nobody asked for one */
    double seconds;             /* of the steps that were waited for; a teacher: of its part */
    int samples;                /* of the last run */
    uint64_t version;           /* of the state that was folded */
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
double program_cuda_seconds(const struct program *program);

/* pass.c */
int pass_cuda_run(struct program *program, const struct batch *batch, int slot, double loss_factor,
                  void (*bucket_ready)(void *user, int bucket), void *user);
/* Queues micro-batch `place` of what has arrived, a step's. */
int pass_cuda_queue(struct program *program, int place, int slot,
                    void (*bucket_ready)(void *user, int bucket), void *user);
/* Inference: BN goes into the weights when they have moved. */
int pass_cuda_fold(struct program *program);
int pass_cuda_inputs_read(struct program *program);
int pass_cuda_logits(float *dst, struct program *program);

#endif

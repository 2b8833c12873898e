/* SPDX-License-Identifier: Apache-2.0 */
/* How a network runs: one operations table per backend (ref, dnnl, cuda).
 *
 *   backend   a device opened for use (threads or a GPU, precision)
 *   state     the weights, momentum and running statistics of one net on it, and its gradient slots
 *   program   a net compiled for a batch size, to train or to infer, sharing a state
 *
 * Everything that a training step sums lives in a gradient slot: a row of buckets of floats in the
 * backend's own layout: gradients in the order the backward produces them, then the batch mean and
 * unbiased variance of every BN, then the metrics (loss sum, top-1, top-5, samples). A micro-batch
 * fills a slot; slots are added in a fixed binary tree (trainer/accumulate.h), then all-reduced
 * bucket by bucket, then consumed by the update. So sums are the same whoever computed the parts.
 *
 * Calls queue work and may return before it is done; nothing here implies a host synchronisation
 * but metrics, state_get, slot_get, logits and synchronise. Buffers given to run stay untouched
 * until the next of those calls, or until inputs_read returned. One thread drives a backend. The
 * fused CUDA graph fits behind run(): BN statistics are an output of a convolution and its scale
 * and bias an input of the next one, which no caller sees; buckets are announced as they become
 * ready.
 *
 * Frozen tensors (net_freeze: `trained` cleared before state_open) have neither gradient nor
 * momentum and are not updated; see net_bn_frozen. slot_get and STATE_MOMENTUM of a tensor that has
 * none are ERR_ARG. */
#ifndef TRAINER_BACKEND_H
#define TRAINER_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "proto/chunk.h"
#include "trainer/model/net.h"

enum precision { PRECISION_FP32, PRECISION_BF16, PRECISION_FP16 };

/* How much of batch normalisation goes into the convolutions around it (trainer/fusion.h). */
enum fusion {
    FUSION_AUTO,     /* the backend's choice; ref: FUSION_NONE */
    FUSION_NONE,     /* normalised maps are stored */
    FUSION_PROLOGUE, /* a convolution normalises what it reads and sums what it writes */
    FUSION_BLOCK,    /* the end of a block, and the sums of the backward, as well */
};

struct backend_config {
    int threads; /* CPU: 0 = all that the process may use */
    int device;  /* GPU ordinal of this rank */
    enum precision precision;
    const char *tune_path; /* cuda: time engines and keep what was found in this file; NULL: not */
    enum fusion fusion;    /* cuda; ref in PRECISION_FP16 rounds as that does */
    bool verbose;
    bool uncaptured; /* cuda: every step is queued anew instead of run as one graph */
};

enum state_kind {
    STATE_WEIGHT,   /* fp32 master copy; for running_mean and running_var: themselves */
    STATE_MOMENTUM, /* trained tensors only */
};

struct loss_config {
    double label_smoothing; /* epsilon */
    bool smoothing_over_k;  /* off-value epsilon/K instead of epsilon/(K-1) */
    double kd_temperature;  /* 0: no distillation */
    double kd_hard_weight;  /* weight of the hard loss; soft: T^2 (1 when both are the paper's) */
    double kd_soft_weight;
};

enum program_mode { PROGRAM_TRAIN, PROGRAM_INFER };

/* How pixels arrive. Zero: half floats, normalised and mixed (the fp16 wire). */
struct input_format {
    bool bytes;            /* the uint8 wire: the backend normalises and mixes (trainer/unpack.h) */
    int chunk_size;        /* bytes: position n of a chunk mixes with chunk_size - 1 - n */
    float mean[3], std[3]; /* bytes: on a scale of 0..255 */
};

struct program_config {
    enum program_mode mode;
    int batch;                 /* samples of a micro-batch */
    int size_px;               /* input size (net_reshape); 0: the net's */
    struct input_format input; /* a teacher's is the same */
    struct loss_config loss;
    struct program
        *teacher; /* inference program of the same backend, batch, size and classes, whose logits on
                     the same input enter the loss; run() runs it; NULL: none. Outlives this one */
    int micro_batches;   /* that step_load takes for a step; 0: one */
    size_t bucket_bytes; /* aim for gradient buckets; 0: the backend's choice. The state's first
                            training program fixes the buckets for all */
};

/* A micro-batch in host memory (from host_alloc). */
struct batch {
    const void *pixels; /* [batch][size][size][channels] half floats (uint16_t), or uint8_t where
                           the program's input is bytes; NHWC; rows past samples are ignored */
    const struct chunk_label *labels; /* [batch] */
    const float (*offsets)[3];        /* [batch] PCA offsets of bytes; else NULL */
    int samples; /* 1..batch, in training exactly batch; masked labels (inference) are not counted
                  */
};

/* The metrics of a slot, summed over its samples. */
struct batch_metrics {
    double loss;       /* sum over samples of the loss, without weight decay */
    double top1, top5; /* counts; against label a (mixed samples: the heavier of the two labels) */
    double samples;    /* counted samples */
    bool finite;       /* no gradient of the slot was infinite or NaN (set by update) */
};

struct update {
    double lr, momentum, weight_decay;
    double head_lr; /* of the classifier's tensors (tensor.head); 0: lr */
    bool no_bias_decay;
    double grad_scale;    /* gradients are multiplied by this first: 1 / loss scale */
    double micro_batches; /* of the whole step over all ranks: BN statistics are divided by it */
    bool skip_nonfinite;  /* leave everything as it was when a gradient is not finite */
};

/* What differs between steps. The loss scale is one of two: the second when the update before this
 * step was left out because a gradient was not finite, which the host may not know yet. */
struct step_values {
    double loss_scale[2];
    double loss_share;    /* of a sample: the loss factor is loss_scale * loss_share */
    struct update update; /* its grad_scale is not looked at: it is 1 / loss_scale */
};

/* What one run spends on one kind of work of one node. */
struct profile_line {
    int node;         /* of the net */
    const char *work; /* "convolution", static */
    double seconds;   /* of all runs since profile_start */
    double flops,
        bytes; /* of one run: operations, and what must be read and written at the least */
};

enum { BUCKETS_ALL = -1 };

struct bucket {
    void *data;   /* backend memory: host floats for CPU backends, device floats for cuda */
    size_t count; /* floats */
    void *ready;  /* cuda: the cudaEvent_t recorded when run() completed it; CPU: NULL */
};

struct backend;
struct state;
struct program;

struct backend_ops {
    const char *name;
    const char *device; /* "cpu" or "cuda" */

    /* ERR_UNSUPPORTED with one line when this machine lacks what it needs. */
    int (*open)(struct backend **out, const struct backend_config *config);
    void (*close)(struct backend *backend);
    const char *(*describe)(
        const struct backend *backend); /* "oneDNN 2.6.3, fp32, 2 threads, AVX-512" */

    void *(*host_alloc)(
        struct backend *backend,
        size_t bytes); /* NULL when memory is out; 64-byte aligned, pinned on cuda */
    void (*host_free)(struct backend *backend, void *memory);

    /* The net is copied. slots: how many gradient slots (accumulate_slots()). All tensors start at
     * zero. */
    int (*state_open)(struct state **out, struct backend *backend, const struct net *net,
                      int slots);
    void (*state_close)(struct state *state);
    int (*state_set)(struct state *state, enum state_kind kind, int tensor,
                     const float *src); /* canonical layout */
    int (*state_get)(float *dst, struct state *state, enum state_kind kind, int tensor);

    int (*program_open)(struct program **out, struct state *state,
                        const struct program_config *config);
    void (*program_close)(struct program *program);
    size_t (*program_bytes)(
        const struct program *program); /* memory planned for it, without state */

    /* Seconds that this program has run for so far, its teacher's own left out; for a teacher: what
     * it adds to its students' runs. NULL: the backend does not measure it. Synchronises, but cuda
     * tells of the whole steps that were waited for and waits for nothing. */
    double (*program_seconds)(const struct program *program);

    /* From now on, from zero, runs are timed by node and kind of work; read gives the lines, at
     * most so many, and returns how many. peaks: what this machine does at best in a second. All
     * NULL: not measured by this backend. */
    int (*profile_start)(struct program *program);
    int (*profile_read)(struct profile_line *lines, int most, const struct program *program);
    int (*peaks)(double *flops, double *bytes, struct backend *backend);

    /* PROGRAM_TRAIN: forward, loss, backward of one micro-batch into slot (overwritten). The
     * gradient is that of loss_factor * sum over samples of the loss (loss_factor = loss scale /
     * total batch). PROGRAM_INFER: forward with running statistics; the slot's metrics only (the
     * loss is then the plain cross-entropy). bucket_ready (may be NULL) is called from this thread
     * or a backend thread once per bucket, in order, when its content is complete. */
    int (*run)(struct program *program, const struct batch *batch, int slot, double loss_factor,
               void (*bucket_ready)(void *user, int bucket), void *user);

    /* Whole steps, for backends that run one while the host prepares the next. step_load brings
     * micro-batch 0, 1, ... of the next step to the device. step_run queues the step: at first
     * queue(user) does, by calls of run (with batch NULL: the micro-batches in their order; its
     * loss_factor is not looked at), slot_add and one update (with NULL) and what an all-reduce
     * adds; it has to do the same each time, for later steps repeat what it did without calling it.
     * Two steps may be under way; step_wait waits for the older one and tells its sums. The
     * buffers of step_load stay untouched until then, or until inputs_read returned. All NULL: the
     * backend has no such thing, run and update have to do. */
    int (*step_load)(struct program *program, int micro_batch, const struct batch *batch);
    int (*step_run)(struct program *program, const struct step_values *values,
                    int (*queue)(void *user), void *user);
    int (*step_wait)(struct batch_metrics *metrics, struct program *program);

    /* Returns once the buffers given to every run so far have been read and may be reused; work
     * on them may still be going on. On CPU backends run itself returns that late. */
    int (*inputs_read)(struct program *program);

    /* The logits of the last run: [samples][classes] fp32. Synchronises. */
    int (*logits)(float *dst, struct program *program);

    /* dst += src in one bucket, or in BUCKETS_ALL; PROGRAM_TRAIN content. May be called for a
     * bucket from within bucket_ready: its part of src is complete then. */
    int (*slot_add)(struct state *state, int dst, int src, int bucket);
    int (*slot_buckets)(
        const struct state *state); /* how many; valid after a training program was opened */
    struct bucket (*slot_bucket)(struct state *state, int slot, int bucket);
    int (*slot_get)(float *dst, struct state *state, int slot,
                    int tensor); /* gradient (or batch statistic, for running_mean and running_var),
                                    canonical layout */

    /* NAG (paper section 2; PyTorch's form): g = grad_scale * slot + wd * w; v = momentum * v + g;
     * w -= lr * (g + momentum * v). Then running statistics move once by NET_BN_MOMENTUM towards
     * the slot's mean over micro-batches. */
    int (*update)(struct state *state, int slot, const struct update *update);

    /* Exponential moving average: every weight and running statistic of average moves to decay *
     * itself + (1 - decay) * that of state, a state of the same net and backend. A backend with
     * step_run moves nothing when the last update was left out. NULL: done on the host through
     * state_get and state_set. */
    int (*state_average)(struct state *average, struct state *state, double decay);

    /* finite is known of the slot that the last update consumed, and true before. */
    int (*metrics)(struct batch_metrics *metrics, struct state *state, int slot); /* synchronises */
    int (*synchronise)(struct backend *backend);

    /* The device's native queue (cudaStream_t), for an all-reduce that has to order itself behind
     * run and before update; NULL on CPU backends, where it simply happens between the calls. */
    void *(*queue)(struct backend *backend);
};

/* Every backend object starts with this, so that ops can be found from it. */
struct backend_head {
    const struct backend_ops *ops;
};

extern const struct backend_ops backend_ref;
extern const struct backend_ops backend_dnnl;

/* Finds the table for --device and --backend ("auto" takes cuda, dnnl, ref in this order, the first
 * that opens) and opens it. ERR_UNSUPPORTED when the build or the machine lacks it. */
int backend_open(struct backend **out, const struct backend_ops **ops, const char *device,
                 const char *backend, const struct backend_config *config);

enum fusion backend_fusion(const char *name); /* of "auto", "none", "prologue" or "block" */

/* One line for each backend: what it is here, or why it cannot be used. */
void backend_list(FILE *stream);

#endif

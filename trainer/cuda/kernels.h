/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels of our own, for what no library has: their arguments and the calls that queue them. Half
 * floats are uint16_t, pointers are device memory, channels are padded (layout.h). Each call
 * returns what the launch returned; nothing waits. Bytes: what a kernel reads and writes; all are
 * bound by memory. */
#ifndef TRAINER_CUDA_KERNELS_H
#define TRAINER_CUDA_KERNELS_H

#include <cuda_runtime_api.h>
#include <stdint.h>

#include "proto/chunk.h"

#ifdef __cplusplus
extern "C" {
#endif

/* control.cu. What differs from one step to the next lies in device memory, so that a captured step
 * can be run again with other values. Where there are two of something, the scale is chosen by
 * whether the update before was left out, which only the device knows. */
struct kernel_values {
    double factor[2];    /* of the loss's gradient: loss scale times a sample's share */
    float grad_scale[2]; /* 1 / loss scale */
    float lr, head_lr, momentum;
    float matrix_decay, vector_decay; /* of weights; of biases, gammas and betas */
    float running_momentum, micro_batches;
    uint32_t skip;    /* leave the update out when a gradient is not finite */
    uint32_t pads[2]; /* 16 bytes, as in the control: copied while the other is read */
};
struct kernel_control {
    uint32_t turn, pads[3]; /* which values and which places of what arrives count now */
    struct kernel_values values[2];
};
enum { KERNEL_BAD, KERNEL_BAD_BEFORE, KERNEL_FLAGS }; /* of the last update; of the one before */

/* Outside of a captured step: these values from now on. flags: NULL, or a new update begins. */
struct kernel_set {
    struct kernel_control *control;
    int *flags; /* [KERNEL_FLAGS] */
    uint32_t turn;
    struct kernel_values values;
};
cudaError_t kernel_set(const struct kernel_set *args, cudaStream_t stream);

/* What is told of a step. */
struct kernel_report {
    float sums[4]; /* loss, top-1, top-5, samples */
    uint32_t bad, pads[3];
    uint64_t step_ns, teacher_ns; /* by the device's clock, until the update; the teacher's part */
};

/* A captured step begins: the other turn, whose values were copied, and its report. */
struct kernel_begin {
    struct kernel_control *control;
    int *flags;
    struct kernel_report *report; /* [2], by turn */
};
cudaError_t kernel_begin(const struct kernel_begin *args, cudaStream_t stream);

/* The teacher begins or ends. */
struct kernel_teacher {
    const struct kernel_control *control;
    struct kernel_report *report; /* [2], by turn */
    int ends;
};
cudaError_t kernel_teacher(const struct kernel_teacher *args, cudaStream_t stream);

/* unpack.cu: what arrived, as the network's input: [batch][pixels][lanes] half floats; zeros in
 * rows past `samples`, in pads, and of masked samples of bytes. Bytes: (2 or 1) channels + 2 lanes
 * an image pixel. Reference: trainer/unpack.h. */
struct kernel_unpack {
    const struct kernel_control *control;
    const void *pixels[2]; /* by turn: [batch][image_pixels][channels] halves or bytes */
    const struct chunk_label *labels[2]; /* [batch] */
    const float *offsets[2];             /* [batch][3]; bytes only */
    uint16_t *out;
    int batch, samples, image_pixels, channels, lanes;
    int bytes, chunk_size;
    float mean[3], std[3];
};
cudaError_t kernel_unpack(const struct kernel_unpack *args, cudaStream_t stream);

/* loss.cu: loss, ranks and gradient of each sample. Reference: trainer/loss.h, in fp32. Bytes: 4
 * (8 with a teacher) + 2 in training, a logit. */
struct kernel_loss {
    const struct kernel_control *control;
    const int *flags;                    /* which factor; [KERNEL_FLAGS] */
    const float *logits;                 /* [batch][pitch] */
    const float *teacher;                /* [batch][pitch]; NULL: none */
    const struct chunk_label *labels[2]; /* by turn: [batch] */
    uint16_t *gradient;                  /* [batch][pitch], pads zero; NULL: not wanted */
    float *losses;                       /* [batch][4]: loss, top-1, top-5, counted */
    int batch, samples, classes, pitch;
    double off, on; /* of the target: off everywhere, on more at the label */
    double hard_weight, soft_weight, temperature;
};
cudaError_t kernel_loss(const struct kernel_loss *args, cudaStream_t stream);

/* dst[4] = the sum over samples of losses[batch][4], in a fixed order. */
struct kernel_sum_losses {
    float *dst;
    const float *losses;
    int batch;
};
cudaError_t kernel_sum_losses(const struct kernel_sum_losses *args, cudaStream_t stream);

/* dst[column] = the sum over rows of src[rows][columns]: the FC bias's gradient. */
struct kernel_sum_rows {
    float *dst;
    const uint16_t *src;
    int rows, columns;
};
cudaError_t kernel_sum_rows(const struct kernel_sum_rows *args, cudaStream_t stream);

/* update.cu. Work on many tensors at once is cut into chunks, one a block of threads. */
enum { KERNEL_CHUNK = 4096 }; /* values, at most, of a chunk */

enum { UPDATE_TRAINED = 1, UPDATE_MATRIX = 2, UPDATE_HEAD = 4 };
struct kernel_chunk {
    uint32_t at, count; /* multiples of LANES, of values */
    uint32_t flags;     /* UPDATE_*; without UPDATE_TRAINED: a running statistic */
};

/* *flag |= 1 when a value is infinite or NaN. Bytes: 4 a value. Reference: update_ref_finite. */
struct kernel_finite {
    const float *values;
    size_t count;
    int *flag;
};
cudaError_t kernel_finite(const struct kernel_finite *args, cudaStream_t stream);

/* NAG on fp32 master weights, whose fp16 copy is renewed, and running statistics. Bytes: 22 a
 * trained value (w, v, slot read; w, v, half written). Reference: update_ref_nag and
 * update_ref_running. Moves nothing when skip is set and flags[KERNEL_BAD] is. */
struct kernel_update {
    const struct kernel_control *control;
    const int *flags; /* [KERNEL_FLAGS] */
    float *values, *momenta;
    const float *slot;
    uint16_t *halves;
    const struct kernel_chunk *chunks;
    int chunk_total;
    const float *sums;            /* [4], of the slot */
    struct kernel_report *report; /* [2], by turn; NULL: not wanted */
};
cudaError_t kernel_update(const struct kernel_update *args, cudaStream_t stream);

/* dst += src. Bytes: 12 a value. */
struct kernel_add {
    float *dst;
    const float *src;
    size_t count;
};
cudaError_t kernel_add(const struct kernel_add *args, cudaStream_t stream);

/* halves = values, rounded. Bytes: 6 a value. */
struct kernel_cast {
    uint16_t *halves;
    const float *values;
    size_t count;
};
cudaError_t kernel_cast(const struct kernel_cast *args, cudaStream_t stream);

/* average = decay average + (1 - decay) values; its fp16 copy too. Bytes: 14 a value. */
struct kernel_average {
    const int *bad; /* not NULL: does nothing when it is set, for the values did not move */
    float *average;
    uint16_t *halves;
    const float *values;
    size_t count;
    float decay;
};
cudaError_t kernel_average(const struct kernel_average *args, cudaStream_t stream);

/* gather.cu: a program's fp16 gradients and fp32 statistics into their places in a slot. Bytes: 6 a
 * gradient. */
enum { KERNEL_HALVES, KERNEL_FLOATS, KERNEL_VARIANCES };
struct kernel_gather_chunk {
    const void
        *src; /* halves or floats; of KERNEL_VARIANCES: 1 / sqrt(biased variance + epsilon) */
    uint32_t at, count, kind;
    float unbias;
};
struct kernel_gather {
    float *slot;
    const struct kernel_gather_chunk *chunks;
    int chunk_total;
    float epsilon;
};
cudaError_t kernel_gather(const struct kernel_gather *args, cudaStream_t stream);

/* fold.cu: BN with running statistics as a scale and a shift. One row is an output channel of a
 * convolution: its filter times the scale, rounded to fp16, and the shift: fp16 into folded, or
 * both in fp32 where scales is set (frozen BN; then no filter). Bytes: 6 a weight. */
struct kernel_fold_row {
    uint32_t filter_at, filter_count; /* values; filter_count 0: only scale and shift */
    uint32_t gamma_at, beta_at, mean_at, var_at;
};
struct kernel_fold {
    const float *values;
    const struct kernel_fold_row *rows;
    int row_total;
    uint16_t *folded;       /* same index space as values; NULL with scales */
    float *scales, *shifts; /* [row_total]; NULL with folded */
    float epsilon;
};
cudaError_t kernel_fold(const struct kernel_fold *args, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* The operation graphs that a net is made of, described for cuDNN 9 (NVIDIA cuDNN backend API).
 *
 * Maps are fp16, NHWC, channels padded (layout.h); weights fp16 KRSC; everything a channel has is
 * fp32, but the bias of GRAPH_CONV_BIAS and the scale and shift of a convolution's prologue.
 * Computation is fp32, but that of such a prologue: a fused multiply-add in fp16. Sums over a
 * convolution's result are of what it has not rounded yet. Masks have one bit an element. */
#ifndef TRAINER_CUDA_GRAPH_H
#define TRAINER_CUDA_GRAPH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "trainer/cuda/describe.h"

enum graph_kind {
    GRAPH_CONV,              /* y = w * x; with stats: the sums of y and y^2 over each channel; with
                                keep: x = relu(scale x + shift + residual) is stored */
    GRAPH_CONV_BIAS,         /* out = relu(w * x + residual + bias): inference, BN folded in */
    GRAPH_CONV_DATA,         /* dx = or += w' * dy; masked: dx = mask (w' * dy + other); sums: dz
                                instead of dx, by the mask BN(y) + residual > 0, with BN's gradients
                                and the coefficients that GRAPH_APPLY needs */
    GRAPH_CONV_WEIGHT,       /* dw = x' * dy */
    GRAPH_FINALIZE,          /* of the sums: mean, 1/std, and BN as a scale and a shift */
    GRAPH_NORM,              /* out = relu(BN(y) + residual), mask; mean and 1/std of the batch */
    GRAPH_NORM_BACKWARD,     /* dz = mask dout; dy, dscale, dbias from dz; recompute: the mask is
                                BN(y) > 0 */
    GRAPH_SCALE,             /* out = relu(scale y + bias + residual), mask; dual: the residual is
                                scaled and shifted too */
    GRAPH_APPLY,             /* dy = a dz + b y + c; dual: of the residual, from the same dz, too */
    GRAPH_SCALE_BACKWARD,    /* dz = mask dout; dy = scale dz */
    GRAPH_MAX_POOL,          /* out, index of each maximum in its window */
    GRAPH_MAX_POOL_BACKWARD, /* dx from dout and index */
    GRAPH_AVG_POOL,          /* ceil mode, padding not counted; kernel 0: the whole map */
    GRAPH_AVG_POOL_BACKWARD,
    GRAPH_KINDS
};

/* The tensors of a graph by what they are; the number is also their unique id (duplicates would
 * not be noticed by cuDNN), 1 and up. */
enum graph_role {
    GRAPH_NOTHING,
    GRAPH_X, /* input map of a convolution or pool */
    GRAPH_W,
    GRAPH_Y,        /* output of a convolution, input of BN */
    GRAPH_BIAS,     /* [out channels]: fp16 in GRAPH_CONV_BIAS, else fp32 */
    GRAPH_SCALE_OF, /* [out channels] gamma, or the frozen scale */
    GRAPH_MEAN,     /* [out channels] of the batch */
    GRAPH_INVERSE,  /* [out channels] 1 / sqrt(biased variance + epsilon) */
    GRAPH_RESIDUAL,
    GRAPH_OUT,
    GRAPH_MASK,    /* out > 0, one bit an element */
    GRAPH_INDEX,   /* int8 */
    GRAPH_EPSILON, /* a float on the host */
    GRAPH_ZERO,    /* a float on the host */
    GRAPH_DOUT,    /* gradient of out */
    GRAPH_DZ,      /* behind ReLU's mask: also the residual's gradient */
    GRAPH_DY,
    GRAPH_DX,
    GRAPH_DW,
    GRAPH_DSCALE,
    GRAPH_DBIAS,
    GRAPH_IN_SCALE, /* of a prologue, [in channels]: x = relu(scale x + shift) */
    GRAPH_IN_SHIFT,
    GRAPH_SUM,     /* [out channels] of y */
    GRAPH_SQUARES, /* [out channels] of y^2 */
    GRAPH_COUNT,   /* of the values in a channel: an int64_t on the host */
    GRAPH_FACTOR,  /* of the running statistics: a float on the host */
    GRAPH_RUNNING_MEAN,
    GRAPH_RUNNING_VAR,
    GRAPH_MOVED_MEAN,
    GRAPH_MOVED_VAR,
    GRAPH_EQ_SCALE, /* [out channels] BN as scale y + shift */
    GRAPH_EQ_SHIFT,
    GRAPH_RES_SCALE, /* [out channels] of a residual */
    GRAPH_RES_SHIFT,
    GRAPH_OTHER, /* what else contributes to dx */
    GRAPH_A,     /* coefficients of GRAPH_APPLY, a channel */
    GRAPH_B,
    GRAPH_C,
    GRAPH_RES_MEAN, /* BN of a residual that is y of another convolution, as those above */
    GRAPH_RES_INVERSE,
    GRAPH_RES_GAMMA,
    GRAPH_RES_BETA,
    GRAPH_RES_DSCALE,
    GRAPH_RES_DBIAS,
    GRAPH_RES_A,
    GRAPH_RES_B,
    GRAPH_RES_C,
    GRAPH_RES_DY,
    GRAPH_ROLES /* virtual tensors have ids from here on */
};

/* A graph without its memory. Equal bytes, equal graph: start from a zeroed one. Channels are
 * padded; out_* belong to y, out, dout and dy. */
struct graph_spec {
    int32_t kind, batch;
    int32_t in_channels, in_height, in_width, out_channels, out_height, out_width;
    int32_t kernel, stride, pad;
    int32_t relu, residual; /* present */
    int32_t accumulate;     /* GRAPH_CONV_DATA: adds to dx; masked: adds other */
    int32_t keep;           /* dz is stored */
    int32_t infers;         /* GRAPH_MAX_POOL: no index */
    int32_t prologue;       /* x is read as relu(scale x + shift), in fp16 */
    int32_t stats, dual, masked, recompute, sums;
    int32_t halves; /* GRAPH_FINALIZE: scale and shift are fp16 */
};

/* Whether there is another way to compute it, where cuDNN has no engine for it. */
bool graph_is_fused(const struct graph_spec *spec);

enum { GRAPH_OPS_MAX = 24 };

struct graph {
    struct describe describe; /* all of its descriptors */
    cudnnBackendDescriptor_t ops[GRAPH_OPS_MAX];
    int op_count;
    enum graph_role roles[GRAPH_ROLES]; /* of the tensors in memory, those on the host too */
    size_t role_bytes[GRAPH_ROLES];     /* 0: by value */
    int role_count;
    int virtual_count;
    cudnnBackendDescriptor_t descriptor; /* finalised operation graph */
};

/* Describes it; handle NULL: for a device that is only described. Failure is in
 * graph->describe.status. Release with describe_release(&graph->describe, 0). */
void graph_describe(struct graph *graph, const struct graph_spec *spec, cudnnHandle_t handle);

/* "conv 64>256 1x1/1 56x56 n256", for people. */
void graph_name(char *text, size_t bytes, const struct graph_spec *spec);

#endif

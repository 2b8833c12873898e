/* SPDX-License-Identifier: Apache-2.0 */
/* Where a net's tensors lie in device memory. Every channel count is rounded up to LANES, as tensor
 * cores and 16-byte loads want it; what is added is zero and stays zero: pads of an input meet pads
 * of the weights, their gradients vanish, and so does their decay.
 *
 *   convolution weights [out][kernel][kernel][in] (KRSC), FC weight [classes][features], vectors
 *   [channels]; all counts padded
 *
 * One index space for everything that is kept of a tensor: its fp32 values, its momentum, its fp16
 * copy and its part of a gradient slot have the same offset. First what is trained, in the order in
 * which the backward produces it; then the statistics of BN; up to there it is also what a slot
 * holds, with the metrics behind; then (values only) what is frozen. */
#ifndef TRAINER_CUDA_LAYOUT_H
#define TRAINER_CUDA_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>

#include "trainer/model/net.h"

enum { LANES = 8, METRICS = 4 /* loss sum, top-1, top-5, samples */ };

static inline int layout_padded(int channels)
{
    return (channels + LANES - 1) / LANES * LANES;
}

struct layout {
    size_t *at;            /* [tensor] */
    size_t gradient_count; /* trained values: 0 .. gradient_count */
    size_t statistics_end; /* then statistics up to here, then the metrics */
    size_t slot_count;     /* floats of a slot */
    size_t value_count;    /* floats of the values */
    size_t *bucket_ends;   /* bucket b is slot values bucket_ends[b - 1] .. bucket_ends[b] */
    int bucket_total;      /* 0 until layout_split */
};

/* ERR_NOMEM. close accepts NULL. */
int layout_open(struct layout **out, const struct net *net);
void layout_close(struct layout *layout);

/* Cuts the slot into buckets of about bucket_bytes (0: 25 MiB); the first call counts. ERR_NOMEM.
 */
int layout_split(struct layout *layout, const struct net *net, size_t bucket_bytes);

/* Padded. */
size_t layout_count(const struct tensor *tensor);

/* Whether slots have a place for it. */
bool layout_in_slot(const struct layout *layout, int tensor);

/* Between the canonical layout and the device's; dst is written whole, pads as zeros. */
void layout_from_canonical(float *dst, const float *src, const struct tensor *tensor);
void layout_to_canonical(float *dst, const float *src, const struct tensor *tensor);

#endif

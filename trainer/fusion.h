/* SPDX-License-Identifier: Apache-2.0 */
/* What becomes of each batch normalisation of a net in training, where it may be fused with the
 * convolutions around it. A fused convolution writes y and the sums of y and y^2 over a channel;
 * from them come a scale and a shift a channel, and whoever reads the normalised map makes it from
 * y: it need not be stored. */
#ifndef TRAINER_FUSION_H
#define TRAINER_FUSION_H

#include "trainer/backend.h"

enum fusion_form {
    FORM_PLAIN,  /* two passes over y: no sums from the convolution */
    FORM_STORED, /* scale, shift, residual, ReLU in one pass over y; the result is stored */
    FORM_BLOCK,  /* the same, by the convolution that reads it first, which stores it: fp16 scale */
    FORM_PROLOGUE, /* not stored: convolutions scale, shift and clip what they read, in fp16. Not
                      max pools: cuDNN 9.19 has an engine for that, which wrote zeros on an H100 */
    FORM_SHORTCUT, /* not stored: its reader adds scale y + shift as its residual, in fp32 */
};

/* forms[node]; FORM_PLAIN for all that is no normalisation with the batch's statistics. */
void fusion_forms(enum fusion_form *forms, const struct net *net, enum fusion fusion);

/* Whether scale and shift are stored in fp16: a convolution applies them. */
bool fusion_halves(const enum fusion_form *forms, const struct net *net, int node);

/* Whether the backward of a BN is fused with the convolution that reads its result first: ReLU's
 * mask, the sums over dz, and three coefficients by which dy = a dz + b y + c follows. */
bool fusion_sums(const enum fusion_form *forms, const struct net *net, enum fusion fusion,
                 int node);

/* The convolution that reads a node's output first, -1 when the first reader is another kind or
 * takes it as a residual: its part of the gradient is the last one in the backward. */
int fusion_first_reader(const struct net *net, int node);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* The draws of the stream: each a pure function of (seed, epoch, purpose, index).
 *
 * The generator's key is the seed (low word, high word); its counter is
 * {low word of index, high word of index, block | purpose << 24, epoch}. Nothing here calls libm's
 * transcendental functions (glibc picks variants by CPU): log, exp and pow are built from + - x /
 * and sqrt alone, compiled with -ffp-contract=off, and have known-answer vectors in the tests. */
#ifndef PROTO_DRAW_H
#define PROTO_DRAW_H

#include <stdint.h>

#include "proto/philox.h"

enum draw_purpose {
    DRAW_ORDER = 1,  /* index: Feistel half and round */
    DRAW_CROP = 2,   /* index: sample id; block: try; words: area, aspect, x, y */
    DRAW_FLIP = 3,   /* index: sample id; word 0 */
    DRAW_JITTER = 4, /* index: sample id; words: the three factors */
    DRAW_PCA = 5,    /* index: sample id; three normals */
    DRAW_MIXUP = 6,  /* index: chunk * 2^32 + pair, or batch */
    DRAW_INIT = 7,   /* the trainer's initial weights: index: tensor * 2^32 + block of 4 values */
};

struct draw_key {
    uint64_t seed;
    uint32_t epoch;
};

struct philox_block draw_block(struct draw_key key, enum draw_purpose purpose, uint64_t index,
                               uint32_t block);

/* (word + 1/2) / 2^32: in (0, 1), exact. */
double draw_unit(uint32_t word);

/* low + (high - low) * draw_unit(word). */
double draw_uniform(uint32_t word, double low, double high);

/* Integer in 0..count-1 (count >= 1): word * count >> 32. */
uint32_t draw_below(uint32_t word, uint32_t count);

/* Standard normals, `count` (<= 4) of them, by Box and Muller from block 0: the words (0, 1) give
 * the first two, (2, 3) the others. |value| < 6.8. */
void draw_normals(double *dst, int count, struct draw_key key, enum draw_purpose purpose,
                  uint64_t index);

/* Beta(alpha, alpha), alpha in [1e-3, 1e3]; result within [0, 1]. Exact in distribution: above 1/2
 * by Ulrich's formula from block 0, else by Joehnk's rejection with try n from block n (accepted
 * with probability 0.78 or more; after 64 refusals, which nobody will see, 1/2). */
double draw_beta(double alpha, struct draw_key key, enum draw_purpose purpose, uint64_t index);

/* Relative error <= 4 units in the last place over the normal range; domain errors give NaN or
 * infinity as libm would. */
double draw_log(double x);
double draw_exp(double x);
double draw_pow(double x, double y); /* x >= 0 */
double draw_cos_2pi(double turns);   /* cos(2 pi turns), turns in [0, 1] */

#endif

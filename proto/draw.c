/* SPDX-License-Identifier: Apache-2.0 */
/* Draws: words of the generator turned into numbers of the wanted distribution. */
#include "proto/draw.h"

#include <math.h>

enum {
    BETA_TRIES = 64, /* the chance that all of them fail is below 0.22^64 = 10^-42 */
};

struct philox_block draw_block(struct draw_key key, enum draw_purpose purpose, uint64_t index,
                               uint32_t block)
{
    const uint32_t counter[4] = {(uint32_t)index, (uint32_t)(index >> 32),
                                 block | (uint32_t)purpose << 24, key.epoch};
    const uint32_t words[2] = {(uint32_t)key.seed, (uint32_t)(key.seed >> 32)};
    return philox(counter, words);
}

double draw_unit(uint32_t word)
{
    return ((double)word + 0.5) * 0x1p-32;
}

double draw_uniform(uint32_t word, double low, double high)
{
    return low + (high - low) * draw_unit(word);
}

uint32_t draw_below(uint32_t word, uint32_t count)
{
    return (uint32_t)((uint64_t)word * count >> 32);
}

void draw_normals(double *dst, int count, struct draw_key key, enum draw_purpose purpose,
                  uint64_t index)
{
    struct philox_block block = draw_block(key, purpose, index, 0);
    for (int i = 0; i < count; i++) {
        const uint32_t *words = block.word + (i & 2);
        double radius = sqrt(-2 * draw_log(draw_unit(words[0])));
        double turns = draw_unit(words[1]);
        if (i & 1) /* sin is cos a quarter turn earlier */
            turns = turns >= 0.25 ? turns - 0.25 : turns + 0.75;
        dst[i] = radius * draw_cos_2pi(turns);
    }
}

/* In (0, 1) with 52 bits, from two words; exact. */
static double fine_unit(uint32_t high, uint32_t low)
{
    uint64_t bits = (uint64_t)high << 20 | low >> 12;
    return ((double)bits + 0.5) * 0x1p-52;
}

/* Ulrich 1984 (Devroye, "Non-uniform random variate generation", IX.4): the first coordinate of a
 * point in the disc whose squared distance from the rim is U^(2 / (2 alpha - 1)). */
static double beta_from_disc(double alpha, struct philox_block block)
{
    double depth = draw_pow(fine_unit(block.word[0], block.word[1]), 1 / (alpha - 0.5));
    double turns = fine_unit(block.word[2], block.word[3]);
    return 0.5 + 0.5 * sqrt(1 - depth) * draw_cos_2pi(turns);
}

double draw_beta(double alpha, struct draw_key key, enum draw_purpose purpose, uint64_t index)
{
    if (alpha > 0.5)
        return beta_from_disc(alpha, draw_block(key, purpose, index, 0));
    /* Joehnk 1964: x = U^(1/alpha), y = V^(1/alpha), taken when x + y <= 1; in logarithms, because
     * both may underflow. */
    for (uint32_t block = 0; block < BETA_TRIES; block++) {
        struct philox_block words = draw_block(key, purpose, index, block);
        double log_x = draw_log(fine_unit(words.word[0], words.word[1])) / alpha;
        double log_y = draw_log(fine_unit(words.word[2], words.word[3])) / alpha;
        if (draw_exp(log_x) + draw_exp(log_y) <= 1)
            return 1 / (1 + draw_exp(log_y - log_x));
    }
    return 0.5;
}

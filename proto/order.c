/* SPDX-License-Identifier: Apache-2.0 */
/* The Feistel network. Each half's round function is a whole Philox block, so that eight rounds
 * leave nothing of the small domains' structure that the tests could see. */
#include "proto/order.h"

#include "proto/draw.h"

enum {
    ROUNDS = 8,
    LEAST_HALF_BITS = 4, /* smaller halves have too few round functions to choose from */
};

static unsigned half_bits_for(uint32_t count)
{
    unsigned bits = LEAST_HALF_BITS;
    while ((uint64_t)count > (uint64_t)1 << (2 * bits))
        bits++;
    return bits;
}

/* One pass through the network: a permutation of 0..2^(2 half_bits)-1. */
static uint32_t encipher(struct draw_key key, uint32_t value, unsigned half_bits)
{
    uint32_t mask = (1u << half_bits) - 1;
    uint32_t left = value >> half_bits, right = value & mask;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        uint64_t index = (uint64_t)round << 32 | right;
        uint32_t word = draw_block(key, DRAW_ORDER, index, 0).word[0];
        uint32_t next = left ^ word >> (32 - half_bits);
        left = right;
        right = next;
    }
    return left << half_bits | right;
}

uint32_t order_at(const struct spec *spec, uint32_t epoch, uint32_t position, uint32_t count)
{
    if (spec->order == SPEC_ORDER_IDENTITY || count <= 1)
        return position;
    struct draw_key key = {.seed = spec->seed, .epoch = epoch};
    unsigned half_bits = half_bits_for(count);
    /* Walking on along the cycle stays a permutation, and comes back to below count at the latest
     * where it began. */
    uint32_t value = position;
    do {
        value = encipher(key, value, half_bits);
    } while (value >= count);
    return value;
}

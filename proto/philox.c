/* SPDX-License-Identifier: Apache-2.0 */
/* Philox 4x32-10. */
#include "proto/philox.h"

/* Multipliers and Weyl constants of Random123's philox.h. */
static const uint32_t multiplier0 = 0xd2511f53, multiplier1 = 0xcd9e8d57;
static const uint32_t weyl0 = 0x9e3779b9, weyl1 = 0xbb67ae85;

struct philox_block philox(const uint32_t counter[4], const uint32_t key[2])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t product0 = (uint64_t)multiplier0 * c0;
        uint64_t product1 = (uint64_t)multiplier1 * c2;
        c0 = (uint32_t)(product1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)product1;
        c2 = (uint32_t)(product0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)product0;
        k0 += weyl0;
        k1 += weyl1;
    }
    return (struct philox_block){{c0, c1, c2, c3}};
}

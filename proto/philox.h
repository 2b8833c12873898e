/* SPDX-License-Identifier: Apache-2.0 */
/* Philox 4x32-10, the counter-based generator of Salmon et al., "Parallel random numbers: as easy
 * as 1, 2, 3" (SC 2011), with the constants of Random123. No state. */
#ifndef PROTO_PHILOX_H
#define PROTO_PHILOX_H

#include <stdint.h>

struct philox_block {
    uint32_t word[4];
};

struct philox_block philox(const uint32_t counter[4], const uint32_t key[2]);

#endif

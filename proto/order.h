/* SPDX-License-Identifier: Apache-2.0 */
/* The order of an epoch: a pseudo-random permutation of 0..count-1, keyed by (seed, epoch),
 * computable at any position without a table: a balanced Feistel network on the next even power of
 * two, with cycle walking (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA
 * 2002). */
#ifndef PROTO_ORDER_H
#define PROTO_ORDER_H

#include <stdint.h>

#include "proto/spec.h"

/* The sample id at position (0..count-1) of the epoch's order. count in 1..2^32-1. */
uint32_t order_at(const struct spec *spec, uint32_t epoch, uint32_t position, uint32_t count);

#endif

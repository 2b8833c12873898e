/* SPDX-License-Identifier: Apache-2.0 */
/* The receipt of an epoch: the sum modulo 2^128 of XXH3-128(epoch, chunk, content) over its chunks;
 * independent of order and of who received what, so ranks add theirs.
 * Hashed bytes, in this order: epoch (u32), chunk (u64), spec hash (16 bytes), labels frame, pixels
 * frame, all little-endian. */
#ifndef PROTO_RECEIPT_H
#define PROTO_RECEIPT_H

#include <stddef.h>
#include <stdint.h>

#include "common/hash.h"

struct hash128 receipt_of_chunk(struct hash128 spec_hash, uint32_t epoch, uint64_t chunk,
                                const void *labels, size_t label_bytes, const void *pixels,
                                size_t pixel_bytes);

#endif

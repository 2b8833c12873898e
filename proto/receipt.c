/* SPDX-License-Identifier: Apache-2.0 */
/* One chunk's share of the receipt. */
#include "proto/receipt.h"

#include "common/bytes.h"

enum { HEAD_BYTES = 4 + 8 + 16 };

struct hash128 receipt_of_chunk(struct hash128 spec_hash, uint32_t epoch, uint64_t chunk,
                                const void *labels, size_t label_bytes, const void *pixels,
                                size_t pixel_bytes)
{
    uint8_t head[HEAD_BYTES];
    bytes_put(head, epoch, 4);
    bytes_put(head + 4, chunk, 8);
    hash128_to_bytes(head + 12, spec_hash);
    const struct hash_part parts[] = {
        {head, sizeof head}, {labels, label_bytes}, {pixels, pixel_bytes}};
    return hash128_of_parts(parts, 3);
}

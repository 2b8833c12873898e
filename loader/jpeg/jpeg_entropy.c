/* SPDX-License-Identifier: Apache-2.0 */
/* Starting a stream, asking where it is, choosing the loops of a level. */
#include "loader/jpeg/jpeg_entropy.h"

#include "loader/jpeg/jpeg_levels.h"

void entropy_start(struct entropy_stream *stream, const uint8_t *bytes, uint32_t bit)
{
    uint64_t window = 0;
    for (int i = 0; i < 7; i++)
        window = window << 8 | bytes[i];
    stream->window = window << (8 + bit);
    stream->next = bytes + 7;
    stream->used = 7 + bit;
    if (stream->used >= 8) { /* keep 56 or more valid bits */
        stream->window |= (uint64_t)*stream->next++ << bit;
        stream->used -= 8;
    }
}

size_t entropy_position(const struct entropy_stream *stream, const uint8_t *bytes)
{
    return (size_t)(stream->next - bytes) * 8 - (63 - stream->used);
}

const struct jpeg_ops *jpeg_ops_of(enum cpu_level level)
{
    switch (level) {
#if defined(__x86_64__)
    case CPU_AVX512:
        return &jpeg_ops_avx512;
    case CPU_AVX2:
        return &jpeg_ops_avx2;
#endif
    default:
        return &jpeg_ops_scalar;
    }
}

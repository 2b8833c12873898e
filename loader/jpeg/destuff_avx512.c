/* SPDX-License-Identifier: Apache-2.0 */
/* Takes the stuffed zero bytes out of entropy-coded data, 64 bytes at a time with VBMI2. */
#include <immintrin.h>

#include "loader/jpeg/jpeg_levels.h"

static uint64_t low_bits(size_t count)
{
    return count >= 64 ? ~0ull : (1ull << count) - 1;
}

size_t destuff_avx512(uint8_t *dst, const uint8_t *src, size_t count, size_t *used)
{
    uint64_t after_ff = 0; /* bit 0: the byte before these 64 was an FF */
    size_t to = 0;
    for (size_t from = 0; from < count; from += 64) {
        uint64_t present = low_bits(count - from);
        __m512i bytes = _mm512_maskz_loadu_epi8(present, src + from);
        uint64_t ffs = _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(-1));
        uint64_t zeros = _mm512_cmpeq_epi8_mask(bytes, _mm512_setzero_si512());
        uint64_t behind = ffs << 1 | after_ff;
        uint64_t keep = present & ~behind;
        uint64_t markers = present & behind & ~zeros;
        if (markers) {
            unsigned at = (unsigned)__builtin_ctzll(markers);
            keep &= low_bits(at);
            _mm512_storeu_si512(dst + to, _mm512_maskz_compress_epi8(keep, bytes));
            *used = from + at - 1;
            return to + (size_t)__builtin_popcountll(keep) - 1; /* without the marker's FF */
        }
        _mm512_storeu_si512(dst + to, _mm512_maskz_compress_epi8(keep, bytes));
        to += (size_t)__builtin_popcountll(keep);
        after_ff = ffs >> 63;
    }
    size_t ends_in_ff = count > 0 && src[count - 1] == 0xff;
    *used = count - ends_in_ff;
    return to - ends_in_ff;
}

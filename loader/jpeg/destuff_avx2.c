/* SPDX-License-Identifier: Apache-2.0 */
/* Takes the stuffed zero bytes out of entropy-coded data, 32 bytes at a time between FFs. */
#include <immintrin.h>

#include "loader/jpeg/jpeg_levels.h"

size_t destuff_avx2(uint8_t *dst, const uint8_t *src, size_t count, size_t *used)
{
    size_t from = 0, to = 0;
    while (from + 32 < count) {
        __m256i bytes = _mm256_loadu_si256((const __m256i *)(src + from));
        _mm256_storeu_si256((__m256i *)(dst + to), bytes);
        uint32_t ffs =
            (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(bytes, _mm256_set1_epi8(-1)));
        uint32_t clean = ffs ? (uint32_t)__builtin_ctz(ffs) : 32;
        from += clean;
        to += clean;
        if (!ffs)
            continue;
        if (src[from + 1] != 0) {
            *used = from;
            return to;
        }
        to++; /* the FF itself is stored already */
        from += 2;
    }
    size_t rest;
    to += destuff_scalar(dst + to, src + from, count - from, &rest);
    *used = from + rest;
    return to;
}

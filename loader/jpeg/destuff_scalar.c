/* SPDX-License-Identifier: Apache-2.0 */
/* Takes the stuffed zero bytes out of entropy-coded data (T.81 B.1.1.5); plain C. */
#include <string.h>

#include "loader/jpeg/jpeg_levels.h"

size_t destuff_scalar(uint8_t *dst, const uint8_t *src, size_t count, size_t *used)
{
    size_t from = 0, to = 0;
    while (from < count) {
        const uint8_t *ff = memchr(src + from, 0xff, count - from);
        size_t clean = (ff ? (size_t)(ff - src) : count) - from;
        memcpy(dst + to, src + from, clean);
        to += clean;
        from += clean;
        if (!ff || from + 1 >= count || src[from + 1] != 0)
            break;
        dst[to++] = 0xff;
        from += 2;
    }
    *used = from;
    return to;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers in files and messages: little-endian, whatever the machine. */
#ifndef COMMON_BYTES_H
#define COMMON_BYTES_H

#include <stdint.h>

/* Writes the lower bytes of value, 1 to 8 of them. */
static inline void bytes_put(uint8_t *dst, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        dst[i] = (uint8_t)(value >> 8 * i);
}

/* Reads a number of 1 to 8 bytes. */
static inline uint64_t bytes_get(const uint8_t *src, int bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++)
        value |= (uint64_t)src[i] << 8 * i;
    return value;
}

#endif

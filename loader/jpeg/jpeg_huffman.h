/* SPDX-License-Identifier: Apache-2.0 */
/* Huffman tables made for speed: one lookup of the next bits gives, for nearly all symbols, the
 * finished coefficient, how far it moves on in the block, and how many bits it took. */
#ifndef LOADER_JPEG_HUFFMAN_H
#define LOADER_JPEG_HUFFMAN_H

#include <stdbool.h>
#include <stdint.h>

#include "loader/jpeg/jpeg_header.h"

enum {
    HUFFMAN_BITS = 11, /* 4 tables of 8 KiB stay in the L1 cache; 10 and 12 bits are no faster */
    HUFFMAN_ZERO_RUN = 16,
    /* The advance of an end-of-block code: beyond the end of the block from anywhere in it. */
    HUFFMAN_END = 131,
    /* Positions after an advance: up to 63 + HUFFMAN_END, rounded up. */
    HUFFMAN_POSITIONS = 200,
    /* The most bits of one symbol: code of 16, magnitude of 15. */
    HUFFMAN_SYMBOL_BITS = 31,
};

/* An entry of fast[]: bits 0-7 total length of code and magnitude, 8-15 advance in file order,
 * 16-31 the coefficient. DC tables have advance 0. When code and magnitude are longer than
 * HUFFMAN_BITS, bits 0-7 are 0, 8-15 the advance, 16-23 the magnitude's length, 24-31 the code's,
 * and huffman_long() gives an entry of the form above; when the code itself is longer, or there is
 * none, all is 0 and huffman_slow() gives it. */
struct huffman {
    uint32_t fast[1 << HUFFMAN_BITS];
    /* tile_order[position after the advance]: where in a tile (jpeg_entropy.h) the coefficient
     * goes. An end of block stores 0 to the position after the last coefficient. A copy in each
     * table, since one register then addresses both. */
    uint8_t tile_order[HUFFMAN_POSITIONS];
    uint32_t limit[17]; /* [length]: first 16-bit window that is above all codes of this length */
    int32_t first[17];  /* [length]: index of the first symbol minus its code */
    uint8_t symbols[256];
    bool dc;
};

/* Both resolve the symbol at the top of the window, whose first HUFFMAN_SYMBOL_BITS bits are real.
 * A code that the table does not have gives an entry with length 0 that ends the block. */
uint32_t huffman_slow(const struct huffman *table, uint64_t window);

static inline uint32_t huffman_long(uint32_t entry, uint64_t window)
{
    uint32_t length = entry >> 24, size = entry >> 16 & 0xff;
    int64_t magnitude = (int64_t)(window << length); /* at the top, its first bit the sign */
    uint64_t value = (uint64_t)magnitude >> 1 >> (63 - size);
    value += ~(uint64_t)(magnitude >> 63) & ((~0ull << size) + 1); /* T.81 F.2.2.1, EXTEND */
    return (length + size) | (entry & 0xff00) | (uint32_t)value << 16;
}

/* The tables of an image, rebuilt only where they differ from those of the image before. */
struct huffman_set {
    struct huffman dc[JPEG_MAX_TABLES], ac[JPEG_MAX_TABLES];
    struct jpeg_huffman_spec dc_spec[JPEG_MAX_TABLES], ac_spec[JPEG_MAX_TABLES];
    bool dc_ready[JPEG_MAX_TABLES], ac_ready[JPEG_MAX_TABLES];
};

/* Readies the tables that the header's components use; set begins as zeros. JPEG_DAMAGED when one
 * is no Huffman code. */
enum jpeg_refusal huffman_set_load(struct huffman_set *set, const struct jpeg_header *header);

#endif

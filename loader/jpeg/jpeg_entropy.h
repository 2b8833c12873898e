/* SPDX-License-Identifier: Apache-2.0 */
/* The inner loops of the indexed decoder, one set per instruction set level: removing stuffed
 * bytes, Huffman decoding of one stream or of two at once, inverse DCT.
 *
 * They check nothing per symbol. Bits that are no valid stream give arbitrary coefficients and a
 * position beyond the end, which the caller looks at after each call; so a stream's buffer must be
 * readable for ENTROPY_OVERRUN_BYTES behind its end, with any content. */
#ifndef LOADER_JPEG_ENTROPY_H
#define LOADER_JPEG_ENTROPY_H

#include <stddef.h>
#include <stdint.h>

#include "loader/cpu.h"
#include "loader/jpeg/jpeg_huffman.h"

enum {
    ENTROPY_MAX_BLOCKS = 96, /* in one call: 24 KiB of tiles */
    /* What one call can read: 64 symbols a block, and the refill's look ahead. */
    ENTROPY_OVERRUN_BYTES = ENTROPY_MAX_BLOCKS * 64 * HUFFMAN_SYMBOL_BITS / 8 + 64,
    /* A tile is the coefficients of two blocks side by side, row by row: row r of the first block
     * at r * ENTROPY_TILE_ROW, of the second at r * ENTROPY_TILE_ROW + 8. */
    ENTROPY_TILE_ROW = 16,
    ENTROPY_TILE = 8 * ENTROPY_TILE_ROW,
};

/* What to decode a block with. */
struct entropy_block {
    const struct huffman *dc, *ac;
    uint32_t component;
};

/* A place in a stream of bits without stuffed bytes. */
struct entropy_stream {
    uint64_t window;     /* the next bits, the first one on top; zeros behind the valid ones */
    const uint8_t *next; /* the byte behind the valid bits */
    uint32_t used;       /* 63 - valid bits; 0..7 between calls */
    int32_t dc[JPEG_MAX_COMPONENTS]; /* predictors */
};

/* Starts at bit 0..7 of *bytes. Predictors are the caller's. */
void entropy_start(struct entropy_stream *stream, const uint8_t *bytes, uint32_t bit);

/* Bits from the start of bytes, where the stream was started, to the next one. */
size_t entropy_position(const struct entropy_stream *stream, const uint8_t *bytes);

struct survey_lane;

struct jpeg_ops {
    /* Copies src[0, count) without the zero bytes behind FFs, up to a marker (an FF before anything
     * but 0, or at the end). Returns the bytes written, *used the bytes read. Writes up to 64 bytes
     * more than it says; reads none outside. */
    size_t (*destuff)(uint8_t *dst, const uint8_t *src, size_t count, size_t *used);

    /* Decodes count (1..ENTROPY_MAX_BLOCKS) blocks; tiles [count][ENTROPY_TILE] hold zeros. Stream
     * a fills the first block of each tile, b the second. */
    void (*decode_two)(struct entropy_stream *a, struct entropy_stream *b,
                       const struct entropy_block *blocks, uint32_t count, int16_t *tiles);
    void (*decode_one)(struct entropy_stream *a, const struct entropy_block *blocks, uint32_t count,
                       int16_t *tiles);

    /* The same without coefficients: only the predictors move. */
    void (*skip_two)(struct entropy_stream *a, struct entropy_stream *b,
                     const struct entropy_block *blocks, uint32_t count);
    void (*skip_one)(struct entropy_stream *a, const struct entropy_block *blocks, uint32_t count);

    /* A lane, or two, until they stop (jpeg_survey.h). */
    void (*survey_one)(struct survey_lane *lane);
    void (*survey_two)(struct survey_lane *a, struct survey_lane *b);

    /* Dequantises (quant [64], row * 8 + column), transforms and stores count tiles, tile i at
     * tiles + i * tile_step: its first block's 8 x 8 samples to a + i * step, its second's to
     * b + i * step unless b is NULL; rows are stride bytes apart. Leaves the tiles zeroed. */
    void (*idct)(int16_t *tiles, uint32_t count, size_t tile_step, const uint16_t *quant,
                 uint8_t *a, uint8_t *b, size_t step, size_t stride);
};

/* The set for a level that this machine has. */
const struct jpeg_ops *jpeg_ops_of(enum cpu_level level);

#endif

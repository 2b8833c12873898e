/* SPDX-License-Identifier: Apache-2.0 */
/* The Huffman decoding loops, included by one file per instruction set level so that the compiler
 * can use that level's shifts (BMI2's take no flags and no fixed register).
 *
 * What makes them fast: one table lookup gives a finished coefficient; the bits consumed and the
 * place in the block share one register, so a symbol costs one addition for both; refilling is free
 * of branches and done once every four symbols; and two streams run in one loop, each at its own
 * pace, because a single one leaves most of the processor idle waiting for shift, load, shift. */
#ifndef LOADER_ENTROPY_LOOPS_H
#define LOADER_ENTROPY_LOOPS_H

#include <stdbool.h>
#include <string.h>

#include "loader/jpeg/jpeg_entropy.h"

#define INLINE static inline __attribute__((always_inline))

enum {
    WALK_BITS = 0xff,          /* of state: 63 - valid bits, plus what was consumed since */
    WALK_POSITION_SHIFT = 8,   /* of state: next position in the block, 1.. */
    WALK_BLOCK_DONE = 64 << 8, /* state from here on: no position is left */
    SYMBOLS_PER_REFILL = 4,    /* and a DC symbol; the slow path refills for itself */
};

/* A stream while a loop works on it. */
struct walk {
    uint64_t window;
    const uint8_t *next;
    uint32_t state;
    int16_t *tile;
    const struct huffman *ac;
    const struct entropy_block *block, *last;
    int32_t *dc;
};

INLINE uint64_t load_be64(const uint8_t *bytes)
{
    uint64_t value;
    memcpy(&value, bytes, sizeof value);
    return __builtin_bswap64(value);
}

/* Tops the window up to 56..63 valid bits. */
INLINE void refill(struct walk *w)
{
    w->window |= load_be64(w->next) >> (~w->state & 63);
    w->next += w->state >> 3 & 7;
    w->state &= ~0x38u;
}

/* The entry of the next symbol; uses up its bits in the window, and those of a long one in the
 * state too. A window that was topped up HUFFMAN_BITS times SYMBOLS_PER_REFILL bits ago has enough.
 */
INLINE uint32_t take(struct walk *w, const struct huffman *table)
{
    uint32_t entry = table->fast[w->window >> (64 - HUFFMAN_BITS)];
    if (__builtin_expect((entry & 0xff) == 0, 0)) {
        refill(w);
        entry = entry ? huffman_long(entry, w->window) : huffman_slow(table, w->window);
        w->window <<= entry & 63;
        w->state += entry & 63;
        refill(w);
        return entry & ~63u;
    }
    w->window <<= entry & 63;
    return entry;
}

INLINE void begin_block(struct walk *w, bool store)
{
    const struct entropy_block *block = w->block;
    refill(w);
    uint32_t entry = take(w, block->dc);
    w->state = ((w->state + (entry & 0xff)) & WALK_BITS) | 1 << WALK_POSITION_SHIFT;
    int32_t *dc = &w->dc[block->component];
    /* Wraps where a hostile stream drives it out of range. */
    *dc = (int32_t)((uint32_t)*dc + (uint32_t)((int32_t)entry >> 16));
    if (store)
        w->tile[0] = (int16_t)*dc;
    w->ac = block->ac;
}

/* One symbol, and the start of the next block when it was a block's last. True: all blocks done. */
INLINE bool step(struct walk *w, bool store)
{
    uint32_t entry = take(w, w->ac);
    w->state += entry & 0xffff;
    if (store)
        w->tile[w->ac->tile_order[w->state >> WALK_POSITION_SHIFT]] = (int16_t)(entry >> 16);
    if (w->state < WALK_BLOCK_DONE)
        return false;
    w->state &= WALK_BITS;
    if (w->block == w->last)
        return true;
    w->block++;
    if (store)
        w->tile += ENTROPY_TILE;
    begin_block(w, store);
    return false;
}

INLINE void walk_begin(struct walk *w, struct entropy_stream *stream,
                       const struct entropy_block *blocks, uint32_t count, int16_t *tiles,
                       bool store)
{
    *w = (struct walk){.window = stream->window,
                       .next = stream->next,
                       .state = stream->used,
                       .tile = tiles,
                       .block = blocks,
                       .last = blocks + count - 1,
                       .dc = stream->dc};
    begin_block(w, store);
}

INLINE void walk_end(struct walk *w, struct entropy_stream *stream)
{
    refill(w);
    stream->window = w->window;
    stream->next = w->next;
    stream->used = w->state;
}

INLINE void walk_to_end(struct walk *w, bool store)
{
    for (;;) {
        refill(w);
        for (int i = 0; i < SYMBOLS_PER_REFILL; i++)
            if (step(w, store))
                return;
    }
}

INLINE void run_one(struct entropy_stream *a, const struct entropy_block *blocks, uint32_t count,
                    int16_t *tiles, bool store)
{
    struct walk w;
    walk_begin(&w, a, blocks, count, tiles, store);
    walk_to_end(&w, store);
    walk_end(&w, a);
}

INLINE void run_two(struct entropy_stream *a, struct entropy_stream *b,
                    const struct entropy_block *blocks, uint32_t count, int16_t *tiles, bool store)
{
    struct walk wa, wb;
    walk_begin(&wa, a, blocks, count, tiles, store);
    walk_begin(&wb, b, blocks, count, store ? tiles + 8 : NULL, store);
    for (;;) {
#pragma GCC unroll 4
        for (int i = 0; i < SYMBOLS_PER_REFILL; i++) {
            if (step(&wa, store)) {
                walk_to_end(&wb, store);
                goto done;
            }
            if (step(&wb, store)) {
                walk_to_end(&wa, store);
                goto done;
            }
        }
        refill(&wa);
        refill(&wb);
    }
done:
    walk_end(&wa, a);
    walk_end(&wb, b);
}

static void decode_two(struct entropy_stream *a, struct entropy_stream *b,
                       const struct entropy_block *blocks, uint32_t count, int16_t *tiles)
{
    run_two(a, b, blocks, count, tiles, true);
}

static void decode_one(struct entropy_stream *a, const struct entropy_block *blocks, uint32_t count,
                       int16_t *tiles)
{
    run_one(a, blocks, count, tiles, true);
}

static void skip_two(struct entropy_stream *a, struct entropy_stream *b,
                     const struct entropy_block *blocks, uint32_t count)
{
    run_two(a, b, blocks, count, NULL, false);
}

static void skip_one(struct entropy_stream *a, const struct entropy_block *blocks, uint32_t count)
{
    run_one(a, blocks, count, NULL, false);
}

#endif

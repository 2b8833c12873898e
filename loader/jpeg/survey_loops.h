/* SPDX-License-Identifier: Apache-2.0 */
/* The survey's loops, included by one file per instruction set level as entropy_loops.h is. */
#ifndef LOADER_SURVEY_LOOPS_H
#define LOADER_SURVEY_LOOPS_H

#include "loader/jpeg/entropy_loops.h"
#include "loader/jpeg/jpeg_survey.h"

enum { SURVEY_STEPS_PER_REFILL = 3 }; /* of 56 bits */

/* A lane within a loop; state and window as in struct walk. */
struct course {
    uint64_t window;
    const uint8_t *next;
    uint32_t state;
    uint32_t rare;
    const uint32_t *symbols;
    const struct survey_part *part, *next_part; /* the block's; its successor's */
    struct survey_lane *lane;
};

INLINE void course_refill(struct course *c)
{
    c->window |= load_be64(c->next) >> (~c->state & 63);
    c->next += c->state >> 3 & 7;
    c->state &= ~0x38u;
}

/* One symbol by the tables of the decoder; 0: no such code. Of a refilled window, or of one that
 * has lost SURVEY_ENTRY_BITS at most for each of SURVEY_STEPS_PER_REFILL. */
INLINE uint32_t course_take(struct course *c, const struct huffman *table)
{
    uint32_t entry = table->fast[c->window >> (64 - HUFFMAN_BITS)];
    if (__builtin_expect((entry & 0xff) == 0, 0)) {
        course_refill(c);
        entry = entry ? huffman_long(entry, c->window) : huffman_slow(table, c->window);
        if ((entry & 0xff) == 0)
            return 0;
        c->window <<= entry & 0xff;
        c->state += entry & 0xff;
        course_refill(c);
        return entry;
    }
    c->window <<= entry & 0xff;
    c->state += entry & 0xff;
    return entry;
}

/* Where the next bit is, of a refilled window. */
INLINE uint32_t course_bit(const struct course *c)
{
    return (uint32_t)(c->next - c->lane->bytes) * 8 - (63 - (c->state & WALK_BITS));
}

/* What cannot be ends the lane, or the blocks found so far are forgotten: they were none. */
INLINE bool course_may_restart(struct course *c)
{
    struct survey_lane *lane = c->lane;
    lane->failed = lane->restarts == 0;
    if (lane->failed)
        return false;
    lane->restarts--;
    lane->block = lane->first;
    c->next_part = lane->parts;
    course_refill(c);
    c->window <<= 8;
    c->state += 8;
    return true;
}

/* True: none is begun, the lane has stopped. */
INLINE bool course_begin_block(struct course *c)
{
    struct survey_lane *lane = c->lane;
    uint32_t entry;
    do {
        c->part = c->next_part;
        c->state &= WALK_BITS;
        course_refill(c);
        lane->bit = course_bit(c);
        if (lane->bit >= lane->stop_bit || lane->block == lane->end) {
            lane->part = (uint32_t)(c->part - lane->parts);
            return true;
        }
        entry = course_take(c, c->part->dc);
        if (!entry && !course_may_restart(c))
            return true;
    } while (!entry);
    *lane->block++ = (struct survey_block){lane->bit, (int32_t)entry >> 16};
    c->next_part = lane->parts + c->part->next;
    c->symbols = c->part->symbols;
    c->rare = c->part->rare;
    c->state |= 1 << WALK_POSITION_SHIFT;
    return false;
}

/* The same for a lane at rest. */
INLINE bool course_begin(struct course *c, struct survey_lane *lane)
{
    struct entropy_stream stream;
    entropy_start(&stream, lane->bytes + lane->bit / 8, lane->bit % 8);
    *c = (struct course){.window = stream.window,
                         .next = stream.next,
                         .state = stream.used,
                         .next_part = lane->parts + lane->part,
                         .lane = lane};
    return course_begin_block(c);
}

enum course_state { COURSE_IN_BLOCK, COURSE_AT_END, COURSE_FAILED };

/* One symbol with all checks. */
INLINE enum course_state course_careful_step(struct course *c)
{
    uint32_t entry = course_take(c, c->part->ac), advance = entry >> 8 & 0xff;
    if (entry && advance == HUFFMAN_END)
        return COURSE_AT_END;
    c->state += advance << WALK_POSITION_SHIFT;
    uint32_t position = c->state >> WALK_POSITION_SHIFT;
    int32_t value = (int32_t)entry >> 16, limit = position <= 64 ? c->part->limit[position - 1] : 0;
    if (!entry || position > 64 || value < -limit || value > limit)
        return COURSE_FAILED;
    return position == 64 ? COURSE_AT_END : COURSE_IN_BLOCK;
}

/* Some symbols. True: the lane has stopped. */
INLINE bool course_step(struct course *c)
{
    uint32_t entry = c->symbols[c->window >> (64 - SURVEY_BITS)];
    uint32_t state = c->state + (entry & 0xffff), position = state >> WALK_POSITION_SHIFT;
    /* A block is whole at its last place or, with an end of block, before it. */
    if (__builtin_expect(entry >= c->rare, 0) ||
        (position > 64 && (position < SURVEY_END || position >= SURVEY_END + 64))) {
        enum course_state careful = course_careful_step(c);
        if (careful == COURSE_IN_BLOCK)
            return false;
        if (careful == COURSE_FAILED && !course_may_restart(c))
            return true;
    } else {
        c->window <<= entry & 63;
        c->state = state;
        if (position < 64)
            return false;
    }
    return course_begin_block(c);
}

INLINE void course_run(struct course *c)
{
    for (;;) {
        course_refill(c);
        for (int i = 0; i < SURVEY_STEPS_PER_REFILL; i++)
            if (course_step(c))
                return;
    }
}

static void survey_one(struct survey_lane *lane)
{
    struct course c;
    if (!course_begin(&c, lane))
        course_run(&c);
}

static void survey_two(struct survey_lane *a, struct survey_lane *b)
{
    struct course ca, cb;
    bool a_stopped = course_begin(&ca, a), b_stopped = course_begin(&cb, b);
    while (!a_stopped && !b_stopped) {
        course_refill(&ca);
        course_refill(&cb);
        for (int i = 0; i < SURVEY_STEPS_PER_REFILL; i++) {
            if ((a_stopped = course_step(&ca)))
                break;
            if ((b_stopped = course_step(&cb)))
                break;
        }
    }
    if (a_stopped && b_stopped)
        return;
    struct course last = a_stopped ? cb : ca;
    course_run(&last);
}

#endif

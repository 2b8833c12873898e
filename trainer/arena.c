/* SPDX-License-Identifier: Apache-2.0 */
#include "trainer/arena.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "common/err.h"

struct block {
    size_t bytes, at;
    int begin, end;
    bool placed;
};

struct arena {
    struct block *blocks;
    int count, room;
    bool failed;
    uint8_t *memory;
    size_t bytes;
};

static const size_t align = 256;            /* what GPUs' libraries like; cache lines too */
static const size_t page = (size_t)2 << 20; /* a huge one: fewer misses of the address cache */

struct arena *arena_open(void)
{
    return calloc(1, sizeof(struct arena));
}

void arena_close(struct arena *arena)
{
    if (!arena)
        return;
    if (arena->memory)
        munmap(arena->memory, arena->bytes);
    free(arena->blocks);
    free(arena);
}

int arena_want(struct arena *arena, size_t bytes, int begin, int end)
{
    if (arena->count == arena->room) {
        int room = arena->room ? 2 * arena->room : 64;
        struct block *blocks = realloc(arena->blocks, (size_t)room * sizeof *blocks);
        if (!blocks) {
            arena->failed = true;
            return -1;
        }
        arena->blocks = blocks;
        arena->room = room;
    }
    arena->blocks[arena->count] =
        (struct block){.bytes = (bytes + align - 1) / align * align, .begin = begin, .end = end};
    return arena->count++;
}

void arena_extend(struct arena *arena, int block, int time)
{
    if (block < 0)
        return;
    struct block *what = &arena->blocks[block];
    if (time < what->begin)
        what->begin = time;
    if (time > what->end)
        what->end = time;
}

/* The lowest place that no block of the same time has; at most as many rounds as blocks. */
static size_t lowest_place(const struct arena *arena, const struct block *what)
{
    size_t at = 0;
    bool moved = true;
    while (moved) {
        moved = false;
        for (int i = 0; i < arena->count; i++) {
            const struct block *other = &arena->blocks[i];
            if (other->placed && other->bytes && other->begin <= what->end &&
                what->begin <= other->end && at < other->at + other->bytes &&
                other->at < at + what->bytes) {
                at = other->at + other->bytes;
                moved = true;
            }
        }
    }
    return at;
}

/* Largest first: the usual greedy plan, within a few per cent of the peak for these nets. */
static struct block *largest_left(const struct arena *arena)
{
    struct block *best = NULL;
    for (int i = 0; i < arena->count; i++) {
        struct block *what = &arena->blocks[i];
        if (!what->placed && (!best || what->bytes > best->bytes))
            best = what;
    }
    return best;
}

int arena_plan(struct arena *arena)
{
    struct block *what;
    while (!arena->failed && (what = largest_left(arena)) != NULL) {
        what->at = what->bytes ? lowest_place(arena, what) : 0;
        what->placed = true;
        if (what->at + what->bytes > arena->bytes)
            arena->bytes = what->at + what->bytes;
    }
    arena->bytes = (arena->bytes + page) / page * page;
    return arena->failed ? err_set(ERR_NOMEM, "no memory for planning a program") : 0;
}

size_t arena_offset(const struct arena *arena, int block)
{
    return arena->blocks[block].at;
}

int arena_place(struct arena *arena)
{
    int code = arena_plan(arena);
    if (code)
        return code;
    void *memory =
        mmap(NULL, arena->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return err_set(ERR_NOMEM, "no memory for a program of %zu MiB", arena->bytes >> 20);
    madvise(memory, arena->bytes, MADV_HUGEPAGE);
    arena->memory = memory;
    return 0;
}

void *arena_at(const struct arena *arena, int block)
{
    return block < 0 ? NULL : arena->memory + arena->blocks[block].at;
}

size_t arena_bytes(const struct arena *arena)
{
    return arena->bytes;
}

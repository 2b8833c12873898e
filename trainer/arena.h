/* SPDX-License-Identifier: Apache-2.0 */
/* One piece of memory for all of a program, planned before it runs: blocks whose lives do not
 * overlap share a place. Nothing is allocated while it runs. */
#ifndef TRAINER_ARENA_H
#define TRAINER_ARENA_H

#include <stddef.h>

struct arena;

/* NULL when memory is out. close accepts NULL. */
struct arena *arena_open(void);
void arena_close(struct arena *arena);

/* Asks for a block that lives from begin to end (both included) and returns its number, or -1 when
 * memory for the list is out (arena_place then fails as well). bytes 0 is allowed. */
int arena_want(struct arena *arena, size_t bytes, int begin, int end);

/* Lets a block live on, or makes it begin earlier. */
void arena_extend(struct arena *arena, int block, int time);

/* Finds every block its place, 256 bytes aligned: for memory of the caller's own. ERR_NOMEM. */
int arena_plan(struct arena *arena);
size_t arena_offset(const struct arena *arena, int block);
size_t arena_bytes(const struct arena *arena);

/* arena_plan, and memory on the host for it, zeroed. ERR_NOMEM. */
int arena_place(struct arena *arena);

/* After arena_place; NULL for block -1. */
void *arena_at(const struct arena *arena, int block);

#endif

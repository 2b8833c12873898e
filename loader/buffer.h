/* SPDX-License-Identifier: Apache-2.0 */
/* Memory for finished chunks: bounded, reused, given back from any thread once ZeroMQ has sent it.
 */
#ifndef LOADER_BUFFER_H
#define LOADER_BUFFER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/share.h"

struct buffers;

struct buffer {
    uint8_t *labels;   /* as the labels frame */
    uint32_t *ids;     /* [chunk_size] */
    void *pixels;      /* 64-byte aligned, as the pixels frame */
    atomic_int *holds; /* the taker's count of buffers not given back, counted down at the end */
    size_t bytes;      /* of all of it ... */
    size_t own_bytes;  /* ... without what is in a memory file */
    struct buffers *home;
    struct buffer *next;     /* in the free list (owner: the home's lock), or in its taker's list */
    struct share_file share; /* where the pixels are; none: in this process's own memory */
    uint64_t generation;     /* of the pixels, as it is stamped there */
    uint64_t request;        /* the taker's */
};

/* limit_bytes over all buffers, taken or kept for reuse. wake_fd: an eventfd for
 * buffers_wake. token: pixels are in memory files with this token, as long as the system has some
 * (copied); NULL: none are. */
int buffers_open(struct buffers **out, size_t limit_bytes, int wake_fd,
                 const struct share_token *token);
void buffers_close(struct buffers *buffers); /* all must be back; accepts NULL */

/* What a chunk takes. */
size_t buffer_bytes(size_t label_bytes, uint32_t samples, size_t pixel_bytes);

/* Makes and touches buffers of such a size ahead, until all that exist have count times as many
 * or the limit is reached: what trainers may have outstanding takes its memory at once, not some
 * day when the network is slow. */
void buffers_reserve(struct buffers *buffers, unsigned count, size_t label_bytes, uint32_t samples,
                     size_t pixel_bytes);

/* NULL when the limit is reached at the moment or memory is out. Counts *holds up. */
struct buffer *buffer_take(struct buffers *buffers, size_t label_bytes, uint32_t samples,
                           size_t pixel_bytes, atomic_int *holds);
void buffer_give(struct buffer *buffer); /* any thread; accepts NULL */

/* Asks for wake_fd to be written when the next buffer is given back: call it, then try once more.
 */
void buffers_wake(struct buffers *buffers);

size_t buffers_taken_bytes(struct buffers *buffers);

#endif

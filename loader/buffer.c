/* SPDX-License-Identifier: Apache-2.0 */
/* Chunk buffers: a free list with a limit on what exists at all. */
#include "loader/buffer.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/err.h"
#include "common/log.h"

enum {
    ALIGNMENT = 64,
    FILES_MAX = 1024, /* memory files: each takes a descriptor ... */
    FILES_SHARE = 4,  /* ... of which they take a quarter at most: the others are for trainers */
};

struct buffers {
    pthread_mutex_t lock;
    struct buffer *free;                 /* owner: lock */
    size_t limit_bytes, bytes, in_hands; /* owner: lock; bytes: of all that exist */
    bool wake;                           /* owner: lock; somebody waits for a buffer */
    int wake_fd;
    struct share_token token;
    unsigned files, files_max;   /* owner: lock; memory files that exist, and may */
    uint64_t serial, generation; /* owner: lock; the last ones given out */
};

static unsigned files_possible(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return 0;
    rlim_t possible = limit.rlim_cur / FILES_SHARE;
    return possible < FILES_MAX ? (unsigned)possible : FILES_MAX;
}

int buffers_open(struct buffers **out, size_t limit_bytes, int wake_fd,
                 const struct share_token *token)
{
    struct buffers *buffers = calloc(1, sizeof(*buffers));
    if (!buffers)
        return err_set(ERR_NOMEM, "chunk buffers: out of memory");
    pthread_mutex_init(&buffers->lock, NULL);
    buffers->limit_bytes = limit_bytes;
    buffers->wake_fd = wake_fd;
    if (token) {
        buffers->token = *token;
        buffers->files_max = files_possible();
    }
    *out = buffers;
    return ERR_OK;
}

/* The first of the free list; the lock is held. */
static void drop_free(struct buffers *buffers)
{
    struct buffer *victim = buffers->free;
    buffers->free = victim->next;
    buffers->bytes -= victim->bytes;
    buffers->files -= victim->share.map != NULL;
    share_destroy(&victim->share);
    free(victim);
}

void buffers_close(struct buffers *buffers)
{
    if (!buffers)
        return;
    while (buffers->free)
        drop_free(buffers);
    pthread_mutex_destroy(&buffers->lock);
    free(buffers);
}

static size_t round_up(size_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

size_t buffer_bytes(size_t label_bytes, uint32_t samples, size_t pixel_bytes)
{
    return round_up(sizeof(struct buffer)) + round_up(label_bytes) +
           round_up((size_t)samples * sizeof(uint32_t)) + round_up(pixel_bytes);
}

static bool has_room(const struct buffer *buffer, size_t bytes, size_t pixel_bytes)
{
    if (!buffer->share.map)
        return buffer->bytes >= bytes;
    return buffer->own_bytes >= bytes - round_up(pixel_bytes) &&
           buffer->bytes - buffer->own_bytes >= pixel_bytes;
}

/* Takes a kept buffer of about the right size out of the free list; the lock is held. */
static struct buffer *reuse(struct buffers *buffers, size_t bytes, size_t pixel_bytes)
{
    for (struct buffer **link = &buffers->free; *link; link = &(*link)->next) {
        struct buffer *buffer = *link;
        if (has_room(buffer, bytes, pixel_bytes) && buffer->bytes / 2 <= bytes) {
            *link = buffer->next;
            return buffer;
        }
    }
    return NULL;
}

/* Room for the pixels in a memory file, when one more may exist; the lock is held. */
static void make_file(struct share_file *file, struct buffers *buffers, size_t pixel_bytes)
{
    if (buffers->files >= buffers->files_max)
        return;
    if (!share_create(file, &buffers->token, ++buffers->serial, pixel_bytes)) {
        buffers->files++;
        return;
    }
    log_warn("%s: only %u chunks at a time are shared", err_message(), buffers->files);
    buffers->files_max = buffers->files;
}

/* A new buffer within the limit, dropping kept ones for it; the lock is held. */
static struct buffer *make(struct buffers *buffers, size_t bytes, size_t pixel_bytes)
{
    while (buffers->free && buffers->bytes + bytes > buffers->limit_bytes)
        drop_free(buffers);
    if (buffers->bytes + bytes > buffers->limit_bytes)
        return NULL;
    struct share_file file = {0};
    make_file(&file, buffers, round_up(pixel_bytes));
    size_t own_bytes = file.map ? bytes - round_up(pixel_bytes) : bytes;
    struct buffer *buffer = aligned_alloc(ALIGNMENT, own_bytes);
    if (!buffer) {
        buffers->files -= file.map != NULL;
        share_destroy(&file);
        return NULL;
    }
    memset(buffer, 0, own_bytes); /* touched */
    buffer->share = file;
    buffer->bytes = bytes;
    buffer->own_bytes = own_bytes;
    buffer->home = buffers;
    buffers->bytes += bytes;
    return buffer;
}

void buffers_reserve(struct buffers *buffers, unsigned count, size_t label_bytes, uint32_t samples,
                     size_t pixel_bytes)
{
    size_t bytes = buffer_bytes(label_bytes, samples, pixel_bytes);
    pthread_mutex_lock(&buffers->lock);
    while (buffers->bytes + bytes <= count * bytes &&
           buffers->bytes + bytes <= buffers->limit_bytes) {
        struct buffer *buffer = make(buffers, bytes, pixel_bytes);
        if (!buffer)
            break;
        buffer->next = buffers->free;
        buffers->free = buffer;
    }
    pthread_mutex_unlock(&buffers->lock);
}

struct buffer *buffer_take(struct buffers *buffers, size_t label_bytes, uint32_t samples,
                           size_t pixel_bytes, atomic_int *holds)
{
    size_t bytes = buffer_bytes(label_bytes, samples, pixel_bytes);
    pthread_mutex_lock(&buffers->lock);
    struct buffer *buffer = reuse(buffers, bytes, pixel_bytes);
    if (!buffer)
        buffer = make(buffers, bytes, pixel_bytes);
    if (buffer) {
        buffers->in_hands += buffer->bytes;
        buffer->generation = ++buffers->generation;
    }
    pthread_mutex_unlock(&buffers->lock);
    if (!buffer)
        return NULL;
    buffer->labels = (uint8_t *)buffer + round_up(sizeof(*buffer));
    buffer->ids = (uint32_t *)(void *)(buffer->labels + round_up(label_bytes));
    buffer->pixels = (uint8_t *)(void *)buffer->ids + round_up((size_t)samples * sizeof(uint32_t));
    if (buffer->share.map) {
        buffer->pixels = share_pixels(&buffer->share);
        share_stamp(&buffer->share, buffer->generation);
    }
    buffer->holds = holds;
    atomic_fetch_add(holds, 1);
    return buffer;
}

void buffer_give(struct buffer *buffer)
{
    if (!buffer)
        return;
    struct buffers *buffers = buffer->home;
    atomic_int *holds = buffer->holds;
    pthread_mutex_lock(&buffers->lock);
    buffer->next = buffers->free;
    buffers->free = buffer;
    buffers->in_hands -= buffer->bytes;
    /* The counter may be freed by its owner from here on. */
    atomic_fetch_sub(holds, 1);
    bool wake = buffers->wake;
    buffers->wake = false;
    pthread_mutex_unlock(&buffers->lock);
    if (!wake)
        return;
    uint64_t one = 1;
    ssize_t ignored = write(buffers->wake_fd, &one, sizeof(one));
    (void)ignored; /* a full counter means that a wake-up is pending anyway */
}

void buffers_wake(struct buffers *buffers)
{
    pthread_mutex_lock(&buffers->lock);
    buffers->wake = true;
    pthread_mutex_unlock(&buffers->lock);
}

size_t buffers_taken_bytes(struct buffers *buffers)
{
    pthread_mutex_lock(&buffers->lock);
    size_t bytes = buffers->in_hands;
    pthread_mutex_unlock(&buffers->lock);
    return bytes;
}

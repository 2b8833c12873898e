/* SPDX-License-Identifier: Apache-2.0 */
/* Windows: a ring of pieces, in the list's order, over a ring of bytes. */
#include "datasets/ahead.h"

#include <errno.h>
#include <linux/aio_abi.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/err.h"
#include "datasets/store_parts.h"

enum {
    ALIGNMENT = 4096, /* of O_DIRECT: no device asks for more; where one does, the map is read */
    PIECES = 64,      /* of a window at a time */
    HUGE_PAGE_BYTES = 2 << 20,
};

/* A record of the list. */
struct piece {
    uint32_t id;
    uint32_t at, span; /* in the buffer; span 0: the record is read through the map */
    uint32_t skip;     /* of the span, before the record */
    uint32_t bytes;    /* of the record */
    uint64_t offset;   /* of the span, in the file */
    bool flying, read;
};

struct ahead {
    struct aheads *set;
    struct ahead *next; /* set->free */
    const struct store *store;
    uint8_t *buffer; /* [AHEAD_WINDOW_BYTES], aligned */
    aio_context_t context;
    size_t count, first, end; /* places in ids: pieces are those from first on */
    size_t head;              /* in the buffer: behind the last piece */
    unsigned flying;
    bool held; /* the first piece is what the caller has */
    struct piece pieces[PIECES];
    uint32_t ids[AHEAD_IDS_MAX];
};

struct aheads {
    uint8_t *map; /* [map_bytes], the buffers of all windows */
    size_t map_bytes;
    unsigned count, free_count;
    struct ahead *free;
    struct ahead windows[];
};

/* ---- Linux' asynchronous I/O, which glibc has no names for ---- */

static int io_setup(unsigned events, aio_context_t *context)
{
    return (int)syscall(SYS_io_setup, events, context);
}

static void io_destroy(aio_context_t context)
{
    syscall(SYS_io_destroy, context);
}

static int io_submit(aio_context_t context, unsigned count, struct iocb **blocks)
{
    return (int)syscall(SYS_io_submit, context, count, blocks);
}

static int io_getevents(aio_context_t context, unsigned least, struct io_event *events,
                        unsigned most)
{
    return (int)syscall(SYS_io_getevents, context, least, most, events, NULL);
}

/* ---- the set ---- */

static void push(struct ahead *ahead)
{
    ahead->next = ahead->set->free;
    ahead->set->free = ahead;
    ahead->set->free_count++;
}

/* Huge pages make the kernel's part of such a read half as long. */
static int map_buffers(struct aheads *aheads, unsigned windows)
{
    aheads->map_bytes = (size_t)windows * AHEAD_WINDOW_BYTES + HUGE_PAGE_BYTES;
    void *map =
        mmap(NULL, aheads->map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED)
        return err_set(ERR_NOMEM, "out of memory for reading ahead");
    aheads->map = map;
    uintptr_t begin = ((uintptr_t)map + HUGE_PAGE_BYTES - 1) & -(uintptr_t)HUGE_PAGE_BYTES;
    madvise((void *)begin, (size_t)windows * AHEAD_WINDOW_BYTES, MADV_HUGEPAGE);
    for (unsigned i = 0; i < windows; i++)
        aheads->windows[i].buffer = (uint8_t *)begin + (size_t)i * AHEAD_WINDOW_BYTES;
    return 0;
}

int aheads_open(struct aheads **out, unsigned windows)
{
    *out = NULL;
    struct aheads *aheads = calloc(1, sizeof *aheads + windows * sizeof *aheads->windows);
    if (!aheads)
        return err_set(ERR_NOMEM, "out of memory for reading ahead");
    int code = map_buffers(aheads, windows);
    while (!code && aheads->count < windows) {
        struct ahead *ahead = &aheads->windows[aheads->count];
        ahead->set = aheads;
        if (io_setup(PIECES, &ahead->context) != 0) {
            code = err_set(ERR_IO, "asynchronous reads: %s (%u of %u)", strerror(errno),
                           aheads->count, windows);
        } else {
            aheads->count++;
            push(ahead);
        }
    }
    if (code) {
        aheads_close(aheads);
        return code;
    }
    *out = aheads;
    return 0;
}

void aheads_close(struct aheads *aheads)
{
    if (!aheads)
        return;
    for (unsigned i = 0; i < aheads->count; i++)
        io_destroy(aheads->windows[i].context); /* waits for what is under way */
    if (aheads->map)
        munmap(aheads->map, aheads->map_bytes);
    free(aheads);
}

unsigned aheads_free(const struct aheads *aheads)
{
    return aheads->free_count;
}

struct ahead *ahead_take(struct aheads *aheads)
{
    struct ahead *ahead = aheads->free;
    if (ahead) {
        aheads->free = ahead->next;
        aheads->free_count--;
    }
    return ahead;
}

/* ---- reading ---- */

static struct piece *piece_at(struct ahead *ahead, size_t place)
{
    return &ahead->pieces[place % PIECES];
}

/* Room for so many bytes behind the last piece, or before the first when the buffer's end is
 * near. */
static bool find_room(struct ahead *ahead, uint32_t *at, size_t span)
{
    const struct piece *oldest = NULL;
    for (size_t i = ahead->first; i < ahead->end && !oldest; i++)
        oldest = piece_at(ahead, i)->span ? piece_at(ahead, i) : NULL;
    size_t head = oldest ? ahead->head : 0, tail = oldest ? oldest->at : 0;
    bool split = oldest && head <= tail; /* what is free lies between them */
    size_t room = split ? tail - head : AHEAD_WINDOW_BYTES - head;
    if (room < span && !split) {
        head = 0;
        room = tail;
    }
    if (room < span)
        return false;
    *at = (uint32_t)head;
    ahead->head = head + span;
    return true;
}

/* False: no room at the moment. */
static bool add_piece(struct ahead *ahead)
{
    struct piece piece = {0};
    struct store_place place;
    uint32_t id = ahead->ids[ahead->end];
    if (ahead->end - ahead->first == PIECES)
        return false;
    if (store_locate(&place, ahead->store, id) == 0 && place.direct) {
        size_t skip = place.offset % ALIGNMENT;
        size_t span = (skip + place.bytes + ALIGNMENT - 1) & -(size_t)ALIGNMENT;
        if (span <= AHEAD_WINDOW_BYTES) {
            piece = (struct piece){.id = id,
                                   .span = (uint32_t)span,
                                   .skip = (uint32_t)skip,
                                   .bytes = (uint32_t)place.bytes,
                                   .offset = place.offset - skip};
            if (!find_room(ahead, &piece.at, span))
                return false;
        }
    }
    if (piece.span == 0)
        store_announce(ahead->store, &id, 1);
    *piece_at(ahead, ahead->end++) = piece;
    return true;
}

/* Begins to read as many more as there is room for. */
static void fill(struct ahead *ahead)
{
    struct iocb blocks[PIECES], *list[PIECES];
    unsigned count = 0;
    while (ahead->end < ahead->count && add_piece(ahead)) {
        const struct piece *piece = piece_at(ahead, ahead->end - 1);
        if (piece->span == 0)
            continue;
        blocks[count] = (struct iocb){.aio_data = (uintptr_t)piece,
                                      .aio_lio_opcode = IOCB_CMD_PREAD,
                                      .aio_fildes = (uint32_t)store_direct_fd(ahead->store),
                                      .aio_buf = (uintptr_t)(ahead->buffer + piece->at),
                                      .aio_nbytes = piece->span,
                                      .aio_offset = (int64_t)piece->offset};
        list[count] = &blocks[count];
        count++;
    }
    int result = count ? io_submit(ahead->context, count, list) : 0;
    unsigned begun = result > 0 ? (unsigned)result : 0;
    for (unsigned i = 0; i < count; i++) { /* others than those will be read through the map */
        struct piece *piece = (struct piece *)(uintptr_t)blocks[i].aio_data;
        piece->flying = i < begun;
        if (!piece->flying)
            store_announce(ahead->store, &piece->id, 1);
    }
    ahead->flying += begun;
}

/* Waits until one more read has ended, or all have. ERR_INTERNAL. */
static int reap(struct ahead *ahead, bool all)
{
    struct io_event events[PIECES];
    int got = io_getevents(ahead->context, all ? ahead->flying : 1, events, PIECES);
    if (got < 0 && errno != EINTR)
        return err_set(ERR_INTERNAL, "waiting for asynchronous reads: %s", strerror(errno));
    for (int i = 0; i < got; i++) {
        struct piece *piece = (struct piece *)(uintptr_t)events[i].data;
        piece->flying = false;
        /* The last page of a file may be cut to less than the alignment. */
        piece->read = events[i].res >= (int64_t)piece->skip + piece->bytes;
        ahead->flying--;
    }
    return 0;
}

void ahead_give(struct ahead *ahead)
{
    if (!ahead)
        return;
    while (ahead->flying && reap(ahead, true) == 0)
        ;
    push(ahead);
}

void ahead_begin(struct ahead *ahead, const struct store *store, const uint32_t *ids, size_t count)
{
    ahead->store = store;
    ahead->count = count < AHEAD_IDS_MAX ? count : AHEAD_IDS_MAX;
    ahead->first = ahead->end = ahead->head = 0;
    ahead->held = false;
    memcpy(ahead->ids, ids, ahead->count * sizeof *ids);
    fill(ahead);
}

int ahead_read(struct store_record *record, struct ahead *ahead, uint32_t id)
{
    if (ahead->held)
        ahead->first++;
    ahead->held = false;
    fill(ahead);
    if (ahead->first == ahead->count || ahead->ids[ahead->first] != id)
        return store_read(record, ahead->store, id);
    ahead->held = true;
    const struct piece *piece = piece_at(ahead, ahead->first);
    while (piece->flying) {
        int code = reap(ahead, false);
        if (code)
            return code;
    }
    if (!piece->read)
        return store_read(record, ahead->store, id);
    return store_decode(record, ahead->store, id, ahead->buffer + piece->at + piece->skip,
                        piece->bytes);
}

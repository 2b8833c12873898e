/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/vgpu/memory.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define ARENA_BYTES ((size_t)16 << 30)

enum {
    PAGE = 4096,
    SKEW = 256, /* cudaMalloc promises 256 bytes and no more */
    GRAIN = 16, /* bytes that share their history */
    MEMORIES = 4096,
    LABELS = 4096, /* of each lane, the latest */
    NUMBER_BITS = 28,
};

struct block {
    char *device;
    size_t bytes;
    bool freed;
};

static struct {
    char *device, *alias;        /* the two views */
    size_t used;                 /* bytes handed out, freed ones included */
    uint8_t *written;            /* a bit for each byte */
    uint32_t *writes;            /* [grain]: lane << NUMBER_BITS | number, 0: none */
    uint32_t *reads[VGPU_LANES]; /* [grain]: number */
    struct block *blocks;        /* in the order of their addresses */
    struct block *latest;        /* that a kernel touched */
    int top_lane;
    int block_count, block_room;
    size_t live;
    struct block pinned[MEMORIES];
    int pinned_count;
} memory;

struct vgpu_actor vgpu_actor;
static char (*labels)[LABELS][96]; /* [lane][number % LABELS] */
static struct sigaction before_us;

void vgpu_clock_join(struct vgpu_clock *clock, const struct vgpu_clock *other)
{
    for (int lane = 0; lane < VGPU_LANES; lane++)
        if (other->at[lane] > clock->at[lane])
            clock->at[lane] = other->at[lane];
}

bool vgpu_is_device(const void *pointer)
{
    return memory.device && (const char *)pointer >= memory.device &&
           (const char *)pointer < memory.device + ARENA_BYTES;
}

static void say(const char *text)
{
    if (write(STDERR_FILENO, text, strlen(text)) < 0)
        _exit(1);
}

/* The host touched device memory: name it, then let whoever was there before us handle it. */
static void on_fault(int number, siginfo_t *info, void *context)
{
    if (vgpu_is_device(info->si_addr)) {
        say("vgpu: host code touched device memory (a device pointer was followed on the host)\n");
        sigaction(SIGSEGV, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
        abort();
    }
    sigaction(SIGSEGV, &before_us, NULL); /* the access faults again */
}

static void *reserve(size_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED)
        vgpu_fail("no address space for %zu bytes", bytes);
    madvise(at, bytes, MADV_DONTDUMP);
    return at;
}

static char *view(int file, int protection)
{
    char *at = mmap(NULL, ARENA_BYTES, protection, MAP_SHARED | MAP_NORESERVE, file, 0);
    if (at == MAP_FAILED)
        vgpu_fail("no address space for device memory");
    madvise(at, ARENA_BYTES, MADV_DONTDUMP);
    return at;
}

static void start(void)
{
    if (memory.device)
        return;
    int file = memfd_create("vgpu", MFD_CLOEXEC);
    if (file < 0 || ftruncate(file, (off_t)ARENA_BYTES) != 0)
        vgpu_fail("no memory for the device");
    memory.alias = view(file, PROT_READ | PROT_WRITE);
    memory.written = reserve(ARENA_BYTES / 8);
    memory.writes = reserve(ARENA_BYTES / GRAIN * sizeof *memory.writes);
    for (int lane = 1; lane < VGPU_LANES; lane++)
        memory.reads[lane] = reserve(ARENA_BYTES / GRAIN * sizeof *memory.reads[lane]);
    labels = reserve(VGPU_LANES * sizeof *labels);
    memory.device = view(file, PROT_NONE);
    close(file);
}

/* Again whenever somebody else (a test framework) has taken the signal. */
static void watch_faults(void)
{
    struct sigaction now, ours = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigaction(SIGSEGV, NULL, &now);
    if (now.sa_sigaction != on_fault)
        sigaction(SIGSEGV, &ours, &before_us);
}

void *vgpu_memory_alloc(size_t bytes)
{
    start();
    watch_faults();
    size_t span = (bytes + SKEW + PAGE - 1) / PAGE * PAGE + PAGE; /* a page nobody owns behind it */
    if (bytes > vgpu_memory_left())
        return NULL;
    if (memory.used + span > ARENA_BYTES)
        vgpu_fail("the double never uses an address twice and is out of addresses");
    if (memory.block_count == memory.block_room) {
        memory.block_room = memory.block_room ? 2 * memory.block_room : 256;
        memory.blocks = realloc(memory.blocks, (size_t)memory.block_room * sizeof *memory.blocks);
        if (!memory.blocks)
            vgpu_fail("no memory");
        memory.latest = NULL;
    }
    char *device = memory.device + memory.used + SKEW;
    memory.used += span;
    memory.blocks[memory.block_count++] = (struct block){device, bytes, false};
    memset(memory.alias + (device - memory.device), 0xff, bytes); /* NaN in every float type */
    memory.live += bytes;
    vgpu_count.live_bytes = memory.live;
    if (memory.live > vgpu_count.peak_bytes)
        vgpu_count.peak_bytes = memory.live;
    return device;
}

size_t vgpu_memory_left(void)
{
    return vgpu_device()->memory_bytes - memory.live;
}

/* The last block that begins at or before the address. */
static struct block *block_of(const void *device)
{
    int low = 0, high = memory.block_count;
    while (low < high) {
        int middle = (low + high) / 2;
        if (memory.blocks[middle].device <= (const char *)device)
            low = middle + 1;
        else
            high = middle;
    }
    return low ? &memory.blocks[low - 1] : NULL;
}

void vgpu_memory_free(void *device)
{
    struct block *block = vgpu_is_device(device) ? block_of(device) : NULL;
    if (!block || block->device != device)
        vgpu_fail("cudaFree of %p, which cudaMalloc never gave", device);
    if (block->freed)
        vgpu_fail("cudaFree of %p a second time", device);
    block->freed = true;
    memory.live -= block->bytes;
    vgpu_count.live_bytes = memory.live;
    size_t at = (size_t)(block->device - memory.device), first = at / PAGE * PAGE;
    size_t span = (at + block->bytes + PAGE - 1) / PAGE * PAGE - first;
    madvise(memory.alias + first, span, MADV_REMOVE); /* gives the pages back */
}

/* Names a place: "byte 12 of the 4096 bytes at 0x...". */
static const char *place(char *dst, size_t size, const void *device)
{
    const struct block *block = block_of(device);
    if (!block)
        snprintf(dst, size, "%p, before every allocation", device);
    else
        snprintf(dst, size, "%p, byte %td of the %zu at %p%s", device,
                 (const char *)device - block->device, block->bytes, (void *)block->device,
                 block->freed ? " (freed)" : "");
    return dst;
}

static void check_bounds(const char *device, size_t bytes, int access, const char *what)
{
    const struct block *block = vgpu_is_device(device) ? block_of(device) : NULL;
    const char *verb = access & VGPU_WRITE ? "writes" : "reads";
    char text[200];
    if (!vgpu_is_device(device))
        vgpu_fail("%s %zu bytes of %s at %p, which is not device memory", verb, bytes, what,
                  (const void *)device);
    if (!block || block->freed || device + bytes > block->device + block->bytes)
        vgpu_fail("%s %zu bytes of %s outside of living memory: at %s", verb, bytes, what,
                  place(text, sizeof text, device));
}

static bool bit_of(size_t at)
{
    return memory.written[at / 8] >> at % 8 & 1;
}

static void check_written(size_t at, size_t bytes, const char *what)
{
    for (size_t i = at; i < at + bytes; i++) {
        if (i % 64 == 0 && i + 64 <= at + bytes) {
            uint64_t word;
            memcpy(&word, memory.written + i / 8, sizeof word);
            if (word == UINT64_MAX) {
                i += 63;
                continue;
            }
        }
        char text[200];
        if (!bit_of(i))
            vgpu_fail("reads byte %zu of %s (%zu bytes), which nobody wrote: at %s", i - at, what,
                      bytes, place(text, sizeof text, memory.device + i));
    }
}

static void mark(size_t at, size_t bytes, bool written)
{
    for (size_t i = at; i < at + bytes; i++) {
        if (i % 8 == 0 && i + 8 <= at + bytes) {
            size_t whole = (at + bytes - i) / 8;
            memset(memory.written + i / 8, written ? 0xff : 0, whole);
            i += whole * 8 - 1;
        } else if (written) {
            memory.written[i / 8] |= (uint8_t)(1u << i % 8);
        } else {
            memory.written[i / 8] &= (uint8_t) ~(1u << i % 8);
        }
    }
}

void vgpu_remember(int lane, uint32_t number, const char *label)
{
    start();
    memory.top_lane = lane > memory.top_lane ? lane : memory.top_lane;
    snprintf(labels[lane][number % LABELS], sizeof labels[lane][0], "%s", label);
}

static void race(size_t grain, int lane, uint32_t number, bool wrote, int access, const char *what)
{
    char text[200];
    vgpu_fail(
        "%s %s on stream %d, which \"%s\" on stream %d %s, and no event or synchronisation is "
        "between the two: at %s",
        access & VGPU_WRITE ? "writes" : "reads", what, vgpu_actor.lane,
        labels[lane][number % LABELS], lane, wrote ? "wrote" : "reads",
        place(text, sizeof text, memory.device + grain * GRAIN));
}

static void check_order(size_t grain, int access, const char *what)
{
    const struct vgpu_actor *actor = &vgpu_actor;
    uint32_t last = memory.writes[grain], number = last & ((1u << NUMBER_BITS) - 1);
    int lane = (int)(last >> NUMBER_BITS);
    if (number > actor->clock.at[lane])
        race(grain, lane, number, true, access, what);
    if (!(access & VGPU_WRITE)) {
        memory.reads[actor->lane][grain] = actor->clock.at[actor->lane];
        return;
    }
    for (lane = 1; lane <= memory.top_lane; lane++)
        if (memory.reads[lane][grain] > actor->clock.at[lane])
            race(grain, lane, memory.reads[lane][grain], false, access, what);
    memory.writes[grain] = (uint32_t)actor->lane << NUMBER_BITS | actor->clock.at[actor->lane];
}

void *vgpu_reach(const void *device, size_t bytes, int access, const char *what)
{
    if (bytes == 0)
        return NULL;
    check_bounds(device, bytes, access, what);
    size_t at = (size_t)((const char *)device - memory.device);
    if (access & VGPU_READ)
        check_written(at, bytes, what);
    for (size_t grain = at / GRAIN; grain <= (at + bytes - 1) / GRAIN; grain++)
        check_order(grain, access, what);
    if (access & VGPU_WRITE)
        mark(at, bytes, true);
    return memory.alias + at;
}

void vgpu_forget(const void *device, size_t bytes)
{
    size_t at = (size_t)((const char *)device - memory.device);
    memset(memory.alias + at, 0xff, bytes);
    mark(at, bytes, false);
}

void vgpu_memory_open(bool open)
{
    start();
    if (memory.used &&
        mprotect(memory.device, memory.used, open ? PROT_READ | PROT_WRITE : PROT_NONE))
        vgpu_fail("mprotect of device memory failed");
}

/* The same checks as vgpu_reach for a few bytes in one grain of the block touched last; false when
 * it is not that simple, or when something is wrong. */
static bool touch_fast(const char *device, size_t bytes, int access)
{
    const struct block *block = memory.latest;
    size_t at = (size_t)(device - memory.device), grain = at / GRAIN;
    if (!block || block->freed || device < block->device ||
        device + bytes > block->device + block->bytes || (at + bytes - 1) / GRAIN != grain)
        return false;
    const struct vgpu_actor *actor = &vgpu_actor;
    uint32_t last = memory.writes[grain], now = actor->clock.at[actor->lane];
    if ((last & ((1u << NUMBER_BITS) - 1)) > actor->clock.at[last >> NUMBER_BITS])
        return false;
    uint32_t word, mask = (uint32_t)((1ull << bytes) - 1) << at % 8;
    memcpy(&word, memory.written + at / 8, sizeof word);
    if (access & VGPU_READ && (word & mask) != mask)
        return false;
    if (!(access & VGPU_WRITE)) {
        memory.reads[actor->lane][grain] = now;
        return true;
    }
    uint32_t own = (uint32_t)actor->lane << NUMBER_BITS | now;
    for (int lane = 1; last != own && lane <= memory.top_lane; lane++)
        if (memory.reads[lane][grain] > actor->clock.at[lane])
            return false;
    memory.writes[grain] = own;
    word |= mask;
    memcpy(memory.written + at / 8, &word, sizeof word);
    return true;
}

bool vgpu_touch(const void *device, size_t bytes, int access)
{
    if (!vgpu_is_device(device))
        return false;
    if (bytes == 0 || bytes > GRAIN || !touch_fast(device, bytes, access)) {
        vgpu_reach(device, bytes, access, "memory");
        memory.latest = block_of(device);
    }
    return true;
}

void *vgpu_pinned_alloc(size_t bytes)
{
    void *at = aligned_alloc(PAGE, (bytes + PAGE - 1) / PAGE * PAGE);
    if (!at)
        return NULL;
    if (memory.pinned_count == MEMORIES)
        vgpu_fail("more than %d pinned allocations", MEMORIES);
    memory.pinned[memory.pinned_count++] = (struct block){at, bytes, false};
    return at;
}

void vgpu_pinned_free(void *at)
{
    for (int i = 0; i < memory.pinned_count; i++)
        if (memory.pinned[i].device == at) {
            memory.pinned[i] = memory.pinned[--memory.pinned_count];
            free(at);
            return;
        }
    vgpu_fail("cudaFreeHost of %p, which cudaHostAlloc never gave", at);
}

bool vgpu_is_pinned(const void *at, size_t bytes)
{
    for (int i = 0; i < memory.pinned_count; i++) {
        const struct block *block = &memory.pinned[i];
        if ((const char *)at >= block->device &&
            (const char *)at + bytes <= block->device + block->bytes)
            return true;
    }
    return false;
}

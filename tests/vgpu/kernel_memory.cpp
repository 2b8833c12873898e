/* SPDX-License-Identifier: Apache-2.0 */
/* The calls that -fsanitize=thread puts before each load and store. */
#include "tests/vgpu/kernel_memory.h"

#include <cstdint>
#include <cstring>
#include <link.h>
#include <vector>

#include "tests/vgpu/kernel.h"
#include "tests/vgpu/memory.h"

extern "C" {
/* All __shared__ variables; the linker's names for a section's ends. */
extern char __start_vgpu_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_vgpu_shared[] __attribute__((weak, visibility("hidden")));
}

namespace
{
struct range {
    const char *begin, *end;
    bool has(const void *memory) const
    {
        return memory >= begin && memory < end;
    }
};

struct word {                         /* history of 4 bytes of shared memory within a block */
    int writer, reader;               /* thread + 1; 0: none */
    unsigned written, read;           /* barriers passed by then */
    unsigned written_warp, read_warp; /* and warp operations of that thread's warp */
    bool valid;                       /* somebody wrote it in this block */
};

bool running;
range stacks, arguments;
std::vector<range> images; /* of the program and its libraries: constants, static data */
std::vector<word> words;
int current;
unsigned barriers, warps[32];

int add_image(struct dl_phdr_info *info, size_t, void *)
{
    for (int i = 0; i < info->dlpi_phnum; i++)
        if (info->dlpi_phdr[i].p_type == PT_LOAD) {
            const char *begin = (const char *)info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
            images.push_back({begin, begin + info->dlpi_phdr[i].p_memsz});
        }
    return 0;
}

bool is_shared(const void *memory)
{
    return memory >= (void *)__start_vgpu_shared && memory < (void *)__stop_vgpu_shared;
}

/* Whether what another thread did then comes before what the running one does now. */
bool ordered(int other, unsigned then, unsigned then_warp)
{
    if (!other || other - 1 == current || then != barriers)
        return true;
    return (other - 1) / 32 == current / 32 && then_warp != warps[current / 32];
}

void touch_shared(const char *memory, size_t bytes, int access)
{
    size_t at = (size_t)(memory - __start_vgpu_shared);
    for (size_t w = at / 4; w <= (at + bytes - 1) / 4; w++) {
        word &it = words[w];
        if (access & VGPU_READ && !it.valid)
            vgpu_fail("%s reads shared memory that its block never wrote", vgpu_kernel_where());
        if (!ordered(it.writer, it.written, it.written_warp) ||
            (access & VGPU_WRITE && !ordered(it.reader, it.read, it.read_warp)))
            vgpu_fail("%s %s shared memory that thread %d %s, and no barrier is between the two",
                      vgpu_kernel_where(), access & VGPU_WRITE ? "writes" : "reads",
                      (ordered(it.writer, it.written, it.written_warp) ? it.reader : it.writer) - 1,
                      ordered(it.writer, it.written, it.written_warp) ? "reads" : "wrote");
        if (access & VGPU_READ) {
            it.reader = current + 1;
            it.read = barriers;
            it.read_warp = warps[current / 32];
        }
        if (access & VGPU_WRITE) {
            it.writer = current + 1;
            it.written = barriers;
            it.written_warp = warps[current / 32];
            it.valid = true;
        }
    }
}

void touch(const void *memory, size_t bytes, int access)
{
    if (!running || vgpu_touch(memory, bytes, access) || stacks.has(memory) ||
        arguments.has(memory))
        return;
    if (is_shared(memory)) {
        touch_shared(static_cast<const char *>(memory), bytes, access);
        return;
    }
    for (const range &image : images)
        if (image.has(memory))
            return;
    vgpu_fail("%s follows %p, which is host memory", vgpu_kernel_where(), memory);
}
} // namespace

void vgpu_kernel_begins(const void *stack_memory, size_t stack_bytes, const void *argument_memory,
                        size_t argument_bytes)
{
    if (images.empty())
        dl_iterate_phdr(add_image, nullptr);
    stacks = {static_cast<const char *>(stack_memory),
              static_cast<const char *>(stack_memory) + stack_bytes};
    arguments = {static_cast<const char *>(argument_memory),
                 static_cast<const char *>(argument_memory) + argument_bytes};
    running = true;
}

void vgpu_kernel_ends()
{
    running = false;
}

void vgpu_kernel_block_begins()
{
    size_t bytes = (size_t)(__stop_vgpu_shared - __start_vgpu_shared);
    words.assign((bytes + 3) / 4, word());
    memset(__start_vgpu_shared, 0xff, bytes);
    memset(warps, 0, sizeof warps);
    barriers = 0;
}

void vgpu_kernel_block_synced()
{
    barriers++;
}

void vgpu_kernel_warp_synced(int warp)
{
    warps[warp]++;
}

void vgpu_kernel_thread(int index)
{
    current = index;
}

void vgpu_atomic(const void *memory, size_t bytes)
{
    /* Ordered among themselves, so only the value's existence counts in shared memory. */
    if (is_shared(memory)) {
        size_t at = (size_t)(static_cast<const char *>(memory) - __start_vgpu_shared);
        if (!words[at / 4].valid)
            vgpu_fail("%s: an atomic on shared memory that its block never wrote",
                      vgpu_kernel_where());
        return;
    }
    touch(memory, bytes, VGPU_READ | VGPU_WRITE);
}

/* The names are the sanitizer's. */
#define HOOK(name, bytes, access)                                                                  \
    extern "C" void name(void *memory);                                                            \
    void name(void *memory)                                                                        \
    {                                                                                              \
        touch(memory, bytes, access);                                                              \
    }
#define HOOKS(bytes)                                                                               \
    HOOK(__tsan_read##bytes, bytes, VGPU_READ)                                                     \
    HOOK(__tsan_write##bytes, bytes, VGPU_WRITE)                                                   \
    HOOK(__tsan_unaligned_read##bytes, bytes, VGPU_READ)                                           \
    HOOK(__tsan_unaligned_write##bytes, bytes, VGPU_WRITE)                                         \
    HOOK(__tsan_volatile_read##bytes, bytes, VGPU_READ)                                            \
    HOOK(__tsan_volatile_write##bytes, bytes, VGPU_WRITE)
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)

extern "C" {
void __tsan_init();
void __tsan_func_entry(void *);
void __tsan_func_exit();
void __tsan_read_range(void *memory, size_t bytes);
void __tsan_write_range(void *memory, size_t bytes);
}

void __tsan_init()
{
}

void __tsan_func_entry(void *)
{
}

void __tsan_func_exit()
{
}

void __tsan_read_range(void *memory, size_t bytes)
{
    touch(memory, bytes, VGPU_READ);
}

void __tsan_write_range(void *memory, size_t bytes)
{
    touch(memory, bytes, VGPU_WRITE);
}

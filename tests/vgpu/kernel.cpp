/* SPDX-License-Identifier: Apache-2.0 */
/* How blocks run. Threads are taken up one after another on one stack; a thread that has to wait
 * keeps its stack, and the next one begins on another. */
#include "tests/vgpu/kernel.h"

#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>
#include <ucontext.h>

#include "tests/vgpu/kernel_memory.h"
#include "tests/vgpu/memory.h"
#include "tests/vgpu/stream.h"

namespace
{
enum { MOST_THREADS = 1024, STACK_BYTES = 64 << 10 };
enum state { FRESH, RUNNABLE, AT_BARRIER, AT_WARP, DONE };
enum meeting { EXCHANGE, BALLOT };

struct thread {
    state at;
    int stack; /* -1: none */
    int line;
    int predicate;
    vgpu_vote vote; /* AT_BARRIER */
    meeting kind;   /* AT_WARP */
    unsigned mask;
    int lane; /* EXCHANGE: whose value */
    uint64_t value, result;
};

struct stack {
    ucontext_t context;
    char *memory;
    bool busy; /* a thread waits on it */
};

struct {
    const vgpu_call *call;
    vgpu_where where; /* of the thread that runs */
    int count, fresh, running;
    thread threads[MOST_THREADS];
    stack stacks[MOST_THREADS];
    ucontext_t scheduler;
    char *memory; /* of all stacks */
} block;

const char *where_text()
{
    static char text[120];
    const vgpu_where &at = block.where;
    snprintf(text, sizeof text, "block %u,%u,%u thread %u,%u,%u", at.block.x, at.block.y,
             at.block.z, at.thread.x, at.thread.y, at.thread.z);
    return text;
}

void enter(int index)
{
    block.running = index;
    unsigned x = block.where.block_size.x, y = block.where.block_size.y, i = (unsigned)index;
    block.where.thread = make_uint3(i % x, i / x % y, i / x / y);
    vgpu_kernel_thread(index);
}

/* Runs fresh threads until one has to wait, or none is left. */
void work()
{
    for (;;) {
        int mine = block.running;
        block.call->run(block.call->arguments);
        block.threads[block.running].at = DONE;
        int used = block.threads[mine].stack;
        if (block.fresh == block.count) {
            block.stacks[used].busy = false;
            block.threads[mine].stack = -1;
            swapcontext(&block.stacks[used].context, &block.scheduler);
            continue; /* the scheduler gave this stack a thread of another block */
        }
        int next = block.fresh++;
        block.threads[next].stack = used;
        block.threads[next].at = RUNNABLE;
        enter(next);
    }
}

void prepare(stack &it)
{
    it.memory = block.memory + (size_t)(&it - block.stacks) * STACK_BYTES;
    getcontext(&it.context);
    it.context.uc_stack.ss_sp = it.memory;
    it.context.uc_stack.ss_size = STACK_BYTES;
    it.context.uc_link = nullptr;
    makecontext(&it.context, work, 0);
}

void resume(int index)
{
    thread &it = block.threads[index];
    if (it.stack < 0) {
        it.stack = 0;
        while (block.stacks[it.stack].busy)
            it.stack++;
        stack &chosen = block.stacks[it.stack];
        chosen.busy = true;
        if (!chosen.memory)
            prepare(chosen);
    }
    it.at = RUNNABLE;
    enter(index);
    swapcontext(&block.scheduler, &block.stacks[it.stack].context);
}

/* The running thread waits until the scheduler lets it go on. */
void wait(state at, int line)
{
    int index = block.running;
    block.threads[index].at = at;
    block.threads[index].line = line;
    swapcontext(&block.stacks[block.threads[index].stack].context, &block.scheduler);
    enter(index);
}

[[noreturn]] void stuck(const char *why)
{
    int shown = 0;
    char text[400];
    size_t used = 0;
    for (int i = 0; i < block.count && shown < 4; i++)
        if (i == 0 || block.threads[i].at != block.threads[i - 1].at ||
            block.threads[i].line != block.threads[i - 1].line) {
            const thread &it = block.threads[i];
            used += (size_t)snprintf(text + used, sizeof text - used, "%s thread %d %s line %d",
                                     shown++ ? "," : "", i,
                                     it.at == DONE         ? "has returned, was last at"
                                     : it.at == AT_BARRIER ? "waits at a barrier in"
                                                           : "waits for its warp in",
                                     it.line);
        }
    vgpu_fail("block %u: %s:%s", block.where.block.x, why, text);
}

/* Lets a warp go whose threads have all come. */
bool release_warp(int first)
{
    int last = first + 32 < block.count ? first + 32 : block.count, leader = -1;
    for (int i = first; i < last && leader < 0; i++)
        if (block.threads[i].at == AT_WARP)
            leader = i;
    if (leader < 0)
        return false;
    const thread lead = block.threads[leader];
    unsigned votes = 0;
    for (int i = first; i < last; i++) {
        const thread &it = block.threads[i];
        if (!(lead.mask >> (i - first) & 1))
            continue;
        if (it.at != AT_WARP || it.line != lead.line || it.mask != lead.mask ||
            it.kind != lead.kind)
            stuck("a warp's threads do not all come to the same operation");
        votes |= (unsigned)(it.predicate != 0) << (i - first);
    }
    if (lead.mask & ~(last - first == 32 ? 0xffffffffu : (1u << (last - first)) - 1))
        stuck("an operation's mask names threads that do not exist");
    for (int i = first; i < last; i++)
        if (lead.mask >> (i - first) & 1) {
            thread &it = block.threads[i];
            if (it.kind == EXCHANGE && !(lead.mask >> it.lane & 1))
                stuck("a shuffle reads a lane outside of its mask");
            it.result = it.kind == BALLOT ? votes : block.threads[first + it.lane].value;
        }
    for (int i = first; i < last; i++)
        if (lead.mask >> (i - first) & 1)
            block.threads[i].at = RUNNABLE;
    vgpu_kernel_warp_synced(first / 32);
    return true;
}

void release_barrier()
{
    int line = -1, any = 0, all = 1, count = 0;
    for (int i = 0; i < block.count; i++) {
        const thread &it = block.threads[i];
        if (it.at == DONE)
            continue;
        if (it.at != AT_BARRIER || (line >= 0 && it.line != line))
            stuck("the block's threads do not all come to the same barrier");
        line = it.line;
        any |= it.predicate != 0;
        all &= it.predicate != 0;
        count += it.predicate != 0;
    }
    for (int i = 0; i < block.count; i++) {
        thread &it = block.threads[i];
        if (it.at != AT_BARRIER)
            continue;
        it.result = (uint64_t)(it.vote == VGPU_OR ? any : it.vote == VGPU_AND ? all : count);
        it.at = RUNNABLE;
    }
    vgpu_kernel_block_synced();
}

bool unfinished()
{
    for (int i = 0; i < block.count; i++)
        if (block.threads[i].at != DONE)
            return true;
    return false;
}

void run_block()
{
    for (int i = 0; i < block.count; i++) {
        block.threads[i] = thread();
        block.threads[i].stack = -1;
    }
    block.fresh = 0;
    vgpu_kernel_block_begins();
    do {
        while (block.fresh < block.count)
            resume(block.fresh++);
        bool released = false;
        for (int warp = 0; warp < block.count; warp += 32)
            released |= release_warp(warp);
        if (!released && unfinished())
            release_barrier();
        for (int i = 0; i < block.count; i++)
            if (block.threads[i].at == RUNNABLE)
                resume(i);
    } while (unfinished());
}

void run_call(void *payload)
{
    const vgpu_call *call = static_cast<const vgpu_call *>(payload);
    if (!block.memory) {
        block.memory = static_cast<char *>(
            mmap(nullptr, (size_t)MOST_THREADS * STACK_BYTES, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
        if (block.memory == MAP_FAILED)
            vgpu_fail("no memory for the stacks of a block");
    }
    block.call = call;
    block.count = (int)(call->block.x * call->block.y * call->block.z);
    block.where.block_size = call->block;
    block.where.grid_size = call->grid;
    vgpu_memory_open(true);
    vgpu_kernel_begins(block.memory, (size_t)MOST_THREADS * STACK_BYTES, call->arguments,
                       call->argument_bytes);
    for (unsigned z = 0; z < call->grid.z; z++)
        for (unsigned y = 0; y < call->grid.y; y++)
            for (unsigned x = 0; x < call->grid.x; x++) {
                block.where.block = make_uint3(x, y, z);
                run_block();
            }
    vgpu_kernel_ends();
    vgpu_memory_open(false);
    vgpu_count.kernels++;
}

void drop_call(void *payload)
{
    vgpu_call *call = static_cast<vgpu_call *>(payload);
    call->drop(call->arguments);
    delete call;
}
} // namespace

const vgpu_where &vgpu_self()
{
    return block.where;
}

const char *vgpu_kernel_where()
{
    return where_text();
}

int vgpu_lane()
{
    return block.running % 32;
}

int vgpu_barrier(vgpu_vote vote, int predicate, int line)
{
    thread &it = block.threads[block.running];
    it.vote = vote;
    it.predicate = predicate;
    wait(AT_BARRIER, line);
    return (int)it.result;
}

uint64_t vgpu_exchange(unsigned mask, uint64_t value, int lane, int line)
{
    thread &it = block.threads[block.running];
    it.kind = EXCHANGE;
    it.mask = mask;
    it.value = value;
    it.lane = lane;
    wait(AT_WARP, line);
    return it.result;
}

unsigned vgpu_ballot(unsigned mask, int predicate, int line)
{
    thread &it = block.threads[block.running];
    it.kind = BALLOT;
    it.mask = mask;
    it.predicate = predicate;
    wait(AT_WARP, line);
    return (unsigned)it.result;
}

void vgpu_call_enqueue(const vgpu_call &call, size_t shared_bytes, cudaStream_t stream)
{
    vgpu_lock();
    unsigned threads = call.block.x * call.block.y * call.block.z;
    if (threads < 1 || threads > MOST_THREADS || call.grid.x < 1 || call.grid.y < 1 ||
        call.grid.z < 1 || call.grid.x > 2147483647u || call.grid.y > 65535 || call.grid.z > 65535)
        vgpu_fail("kernel %s: a launch of %u x %u x %u blocks of %u threads", call.name,
                  call.grid.x, call.grid.y, call.grid.z, threads);
    if (shared_bytes)
        vgpu_fail("kernel %s: the double has no dynamic shared memory", call.name);
    vgpu_enqueue(vgpu_stream_of(stream),
                 vgpu_task(run_call, drop_call, new vgpu_call(call), "kernel %s<<<%u, %u>>>",
                           call.name, call.grid.x, threads));
    vgpu_unlock();
}

/* SPDX-License-Identifier: Apache-2.0 */
/* A GPU for tests: the entry points of cudart, cuDNN's backend API and cuBLASLt that the CUDA
 * backend uses, on host memory. Written from NVIDIA's documentation and headers; it shares no code
 * with the backend, so that it can disagree with it.
 *
 *   memory.c   device memory, which bytes of it were written, and which work may touch it when
 *   stream.c   streams, events, captured graphs: work runs as late as the API allows
 *   cudart.c   the runtime's entry points
 *   descriptor.c descriptors and attributes; engine.c heuristics, plans, execution;
 *   graph.c    what an operation graph computes, by the op_*.c
 *   cublaslt.c matrix products
 *   kernel.h   compiles CUDA kernels as host C++, every load and store checked
 *
 * It is strict: what the documentation forbids or leaves undefined (memory that nobody wrote or
 * that was freed, two streams on one buffer without an event between them, attributes unset, shapes
 * that do not fit, a workspace too small, ...) prints one line that names the operation and aborts.
 *
 * The environment describes the device: VGPU_DEVICES (1), VGPU_CAPABILITY (90), VGPU_REFUSE
 * (nothing; support.c), VGPU_UNCAPTURED (nothing; engine.c), VGPU_DRIVER
 * (13000), VGPU_MEMORY_MIB (16384 at most). */
#ifndef TESTS_VGPU_VGPU_H
#define TESTS_VGPU_VGPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct vgpu_device {
    int count, major, minor, driver;
    size_t memory_bytes;
};
const struct vgpu_device *vgpu_device(void);

/* Prints "vgpu: <operation>: <message>" and aborts; the operation is the work that is running. */
void vgpu_fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* Every entry point holds this (recursive) lock. */
void vgpu_lock(void);
void vgpu_unlock(void);

/* What queued work does: run may be called several times (captured graphs), drop once. */
struct vgpu_task {
    int references;
    void (*run)(void *payload);
    void (*drop)(void *payload); /* frees payload */
    void *payload;
    char label[200]; /* names it in messages */
};
/* A task with one reference, the caller's; payload (malloc) is the task's from now on. */
struct vgpu_task *vgpu_task(void (*run)(void *), void (*drop)(void *), void *payload,
                            const char *format, ...) __attribute__((format(printf, 4, 5)));
void vgpu_task_drop(struct vgpu_task *task);

/* Queues task behind the stream's work, or in the graph that it captures; takes the reference. */
void vgpu_enqueue(void *stream, struct vgpu_task *task);

/* The label of the work that is running, or "". */
const char *vgpu_running(void);

/* Called with the result of every ReLU that is computed, as [n][h][w][c]: what a backend let pass.
 * NULL: nobody looks. */
extern void (*vgpu_observe_relu)(const double *values, const int64_t dim[4]);

/* How often an entry point of the runtime was called, or NULL: all together, since
 * vgpu_calls_reset(). What other libraries and kernels queue is counted as "queued", copies
 * included. */
uint64_t vgpu_calls(const char *name);
void vgpu_calls_reset(void);
void vgpu_called(const char *name); /* where they are counted */

/* From now on waits are counted from 0, and number `ignored` is left out as if the program had
 * forgotten it; -1: none. Waits are cudaStreamWaitEvent, cudaEventSynchronize,
 * cudaStreamSynchronize where there is work, and a graph's for its own last run on another stream.
 */
void vgpu_waits_reset(int ignored);
int vgpu_waits(void);

/* Counters for tests. */
struct vgpu_counts {
    uint64_t kernels, plans, copies, graphs; /* that ran */
    uint64_t live_bytes, peak_bytes;         /* of device memory */
    uint64_t live_descriptors;               /* of cuDNN */
};
struct vgpu_counts vgpu_counts(void);
extern struct vgpu_counts vgpu_count; /* where they are counted */

#ifdef __cplusplus
}
#endif

#endif

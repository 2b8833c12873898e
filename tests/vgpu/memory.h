/* SPDX-License-Identifier: Apache-2.0 */
/* Device memory, and who may touch what when.
 *
 * Device addresses are real addresses of pages that the host may not touch; the double reaches the
 * same pages through a second mapping, and opens the first one only while a kernel runs. Addresses
 * are never used twice. Beside every byte lies whether it was ever written, beside every 16 bytes
 * the last write and the last read of each lane (a stream's position in vector clocks), so that an
 * access which nothing orders behind the one before it is found whatever order they ran in. */
#ifndef TESTS_VGPU_MEMORY_H
#define TESTS_VGPU_MEMORY_H

#include "tests/vgpu/vgpu.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { VGPU_LANES = 16 }; /* lane 0 is nobody */

/* at[lane]: how many pieces of that lane's work come before. */
struct vgpu_clock {
    uint32_t at[VGPU_LANES];
};
void vgpu_clock_join(struct vgpu_clock *clock, const struct vgpu_clock *other);

/* The work that is running, as memory sees it: its lane, its own number is clock.at[lane]. */
struct vgpu_actor {
    int lane;
    struct vgpu_clock clock;
    const char *label;
};
extern struct vgpu_actor vgpu_actor;

void *vgpu_memory_alloc(size_t bytes); /* NULL: more than the device has */
void vgpu_memory_free(void *device);
size_t vgpu_memory_left(void);

bool vgpu_is_device(const void *pointer);

enum vgpu_access { VGPU_READ = 1, VGPU_WRITE = 2 };

/* Where the running work reaches bytes of device memory. Aborts unless they lie in one living
 * allocation, were written (VGPU_READ) and are ordered behind what touched them before. what names
 * the operand. */
void *vgpu_reach(const void *device, size_t bytes, int access, const char *what);

/* Marks bytes as never written again: scratch that its owner is done with. */
void vgpu_forget(const void *device, size_t bytes);

/* Opens and closes the device's own addresses around a kernel. */
void vgpu_memory_open(bool open);

/* One load or store by a kernel at a device address; false when the address is not the device's. */
bool vgpu_touch(const void *device, size_t bytes, int access);

/* Pinned host memory. */
void *vgpu_pinned_alloc(size_t bytes);
void vgpu_pinned_free(void *memory);
bool vgpu_is_pinned(const void *memory, size_t bytes);

/* Labels of work by lane and number, for messages. */
void vgpu_remember(int lane, uint32_t number, const char *label);

#ifdef __cplusplus
}
#endif

#endif

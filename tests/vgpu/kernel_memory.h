/* SPDX-License-Identifier: Apache-2.0 */
/* The loads and stores of kernels: what kernel.cpp tells kernel_memory.cpp. */
#ifndef TESTS_VGPU_KERNEL_MEMORY_H
#define TESTS_VGPU_KERNEL_MEMORY_H

#include <cstddef>

void vgpu_kernel_begins(const void *stacks, size_t stack_bytes, const void *arguments,
                        size_t argument_bytes);
void vgpu_kernel_ends();
void vgpu_kernel_block_begins(); /* __shared__ memory is nobody's */
void vgpu_kernel_block_synced();
void vgpu_kernel_warp_synced(int warp);
void vgpu_kernel_thread(int index); /* runs from now on */

const char *vgpu_kernel_where(); /* "block 0,0,0 thread 5,0,0" */

#endif

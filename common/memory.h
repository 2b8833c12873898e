/* SPDX-License-Identifier: Apache-2.0 */
/* How much memory this process may count on. */
#ifndef COMMON_MEMORY_H
#define COMMON_MEMORY_H

#include <stdint.h>

/* Bytes: what the machine has left, page cache that can be given up included (MemAvailable), or the
 * limit of the memory cgroup that the process is in, version 1 or 2, or of one above it, where that
 * is less. UINT64_MAX when nothing can be told. root: "" (a test's own /proc and /sys otherwise).
 */
uint64_t memory_available(const char *root);

#endif

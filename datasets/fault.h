/* SPDX-License-Identifier: Apache-2.0 */
/* Stores that change under a running program. A mapped file that is cut short raises SIGBUS at the
 * next touch of a page behind its new end; instead of dying without a word the program says which
 * store it was and ends with status 1. */
#ifndef DATASETS_FAULT_H
#define DATASETS_FAULT_H

#include <setjmp.h>
#include <stddef.h>

/* Installs the handler of SIGBUS and SIGSEGV; faults outside every registered range go to the
 * thread's landing, or where it has none on to what was installed before. Called by main, once. */
void fault_install(void);

/* Where this thread goes on after a fault outside every registered range, NULL: nowhere. Set only
 * around LMDB's walks through a tree, whose pages are data from disk: a damaged one can send it to
 * any address. The jump takes the landing away. */
extern _Thread_local sigjmp_buf *fault_landing;

/* store_open and store_close call these. path must live until fault_unregister. When all places
 * (64) are taken the range goes without the message. Thread-safe. */
void fault_register(const void *begin, size_t bytes, const char *path);
void fault_unregister(const void *begin);

#endif

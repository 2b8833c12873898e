/* SPDX-License-Identifier: Apache-2.0 */
/* Stores that change under a running program. A mapped file that is cut short raises SIGBUS at the
 * next touch of a page behind its new end; instead of dying without a word the program says which
 * store it was and ends with status 1. */
#ifndef DATASETS_FAULT_H
#define DATASETS_FAULT_H

#include <stddef.h>

/* Installs the handler of SIGBUS and SIGSEGV; faults outside every registered range go on to what
 * was installed before. Called by main, once. */
void fault_install(void);

/* store_open and store_close call these. path must live until fault_unregister. When all places
 * (64) are taken the range goes without the message. Thread-safe. */
void fault_register(const void *begin, size_t bytes, const char *path);
void fault_unregister(const void *begin);

#endif

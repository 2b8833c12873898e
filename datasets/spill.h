/* SPDX-License-Identifier: Apache-2.0 */
/* A nameless temporary file beside the output: bytes of a compressed or unseekable input that have
 * to wait for their turn in the order of ids. Gone when the program ends, however it ends. */
#ifndef DATASETS_SPILL_H
#define DATASETS_SPILL_H

#include <stddef.h>
#include <stdint.h>

struct spill;

/* beside: a path in the directory to use. ERR_IO names the directory. */
int spill_open(struct spill **out, const char *beside);
void spill_close(struct spill *spill); /* accepts NULL */

/* Appends; the bytes begin at spill_end() of before. One thread. */
int spill_append(struct spill *spill, const void *data, size_t bytes);
uint64_t spill_end(const struct spill *spill);

/* Writes out what is buffered; before the first read. */
int spill_flush(struct spill *spill);
int spill_fd(const struct spill *spill); /* for pread */

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Reading ahead past the page cache, for stores larger than memory. Read through the map, each
 * record of such a store costs the kernel its pages twice, to fill and to evict: about 70 us of
 * processor time for 110 KB; by O_DIRECT into a buffer of the program's own it is about 11.
 *
 * A window reads the records of one list in order, as many at once as its buffer holds, by Linux'
 * asynchronous I/O (io_submit(2): it needs no threads, and containers allow it where they forbid
 * io_uring). Whatever cannot be read so is read through the map, which is always right: records in
 * the part of the file that the page cache is to hold (store_limit_cache), that are small or larger
 * than a buffer, or that the kernel would not read. */
#ifndef DATASETS_AHEAD_H
#define DATASETS_AHEAD_H

#include <stddef.h>
#include <stdint.h>

#include "datasets/store.h"

enum {
    AHEAD_WINDOW_BYTES = 1 << 20,
    AHEAD_IDS_MAX = 4096, /* in a list */
};

struct aheads; /* a set of windows. One thread takes, begins and gives back */
struct ahead;  /* one window. Used by one thread at a time */

/* ERR_IO: the kernel does not offer it, or not for so many; ERR_NOMEM. */
int aheads_open(struct aheads **out, unsigned windows);
void aheads_close(struct aheads *aheads); /* accepts NULL; all windows are given back by then */
unsigned aheads_free(const struct aheads *aheads); /* windows that can be taken */

struct ahead *ahead_take(struct aheads *aheads); /* NULL: none is free */
void ahead_give(struct ahead *ahead); /* accepts NULL; waits for reads that are under way */

/* Begins to read; ids is copied. Unknown ids are ahead_read's to refuse. */
void ahead_begin(struct ahead *ahead, const struct store *store, const uint32_t *ids, size_t count);

/* store_read() of the window's store, but that the record is valid only until the next call. The
 * list's ids come in its order, each once or not at all from some place on; other ids may come in
 * between. */
int ahead_read(struct store_record *record, struct ahead *ahead, uint32_t id);

#endif

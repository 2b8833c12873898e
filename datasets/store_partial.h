/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a store that is not complete: for the writer that goes on with it. The same care is taken
 * as with a complete one, since the machine may have crashed on it. */
#ifndef DATASETS_STORE_PARTIAL_H
#define DATASETS_STORE_PARTIAL_H

#include "datasets/partial.h"
#include "datasets/store.h"

/* fd: of the file at path, which reaches to the last page of its tree. partial->next is UINT64_MAX
 * when nothing is missing but the file's name. ERR_DATA: damaged, or nothing in it; ERR_IO. */
int store_open_partial(struct store **out, struct partial *partial, const char *path, int fd);
void store_close_partial(struct store *store); /* accepts NULL */

/* Record id, verified. ERR_DATA. */
int store_record_of_partial(struct store_record *record, const struct store *store, uint32_t id,
                            uint64_t tag);

#endif

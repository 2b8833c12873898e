/* SPDX-License-Identifier: Apache-2.0 */
/* Where a store lies. Policy: loaders read stores from any file system, for a file that nobody
 * touches is the same everywhere; but from the network each page comes late and can go away, so
 * they say so at start. Packing to the network is allowed as well, and the store is always read
 * back from there: LMDB promises nothing about such file systems (lmdb.h, "Caveats"). */
#ifndef DATASETS_FILE_SYSTEM_H
#define DATASETS_FILE_SYSTEM_H

#include <stdint.h>

/* The name of the network or FUSE file system that the path, or its directory when it does not
 * exist yet, lies on; NULL: a local one, or it cannot be told. */
const char *file_system_network(const char *path);

/* The same for statfs' f_type. */
const char *file_system_name(uint32_t type);

#endif

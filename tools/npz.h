/* SPDX-License-Identifier: Apache-2.0 */
/* Arrays for NumPy: an uncompressed .npz (a zip of .npy files, format 1.0), written whole or not at
 * all. */
#ifndef TOOLS_NPZ_H
#define TOOLS_NPZ_H

#include <stddef.h>
#include <stdint.h>

struct npz; /* a file on its way */

/* An array in C order. descr: NumPy's name of the element type, "<f2". */
struct npz_array {
    const char *name, *descr;
    size_t item_bytes;
    int dimensions; /* 1 to 4 */
    uint64_t shape[4];
    const void *data;
};

/* Errors: ERR_IO naming the path, ERR_NOMEM. */
int npz_open(struct npz **out, const char *path);
int npz_add(struct npz *npz, const struct npz_array *array);
int npz_commit(struct npz *npz);   /* publishes; frees npz whatever happens */
void npz_discard(struct npz *npz); /* removes what was written; accepts NULL */

#endif

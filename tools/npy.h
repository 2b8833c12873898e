/* SPDX-License-Identifier: Apache-2.0 */
/* NumPy's .npy, format 1.0 (numpy.lib.format): the header, and a file written row by row. */
#ifndef TOOLS_NPY_H
#define TOOLS_NPY_H

#include <stddef.h>
#include <stdint.h>

enum { NPY_HEADER_BYTES = 256 }; /* a multiple of 64, and room for any of our shapes */

/* descr: NumPy's name of the element type, "<f2". dimensions: 1 to 4, C order. */
void npy_header(char dst[NPY_HEADER_BYTES], const char *descr, int dimensions,
                const uint64_t shape[4]);

/* float32 [rows][columns], published only at commit and only when all rows came. Errors: ERR_IO,
 * ERR_NOMEM, naming the path. */
struct npy;
int npy_open(struct npy **out, const char *path, uint64_t rows, uint64_t columns);
void npy_add(struct npy *npy, const float *values, uint64_t rows); /* errors show at commit */
int npy_commit(struct npy *npy);                                   /* frees npy in any case */
void npy_discard(struct npy *npy);                                 /* accepts NULL */

#endif

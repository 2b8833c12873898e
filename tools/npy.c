/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/npy.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/file.h"

enum { MAGIC_BYTES = 10 }; /* \x93NUMPY, version, length of the text */

struct npy {
    struct file_atomic *file;
    uint64_t rows, columns, written;
};

void npy_header(char dst[NPY_HEADER_BYTES], const char *descr, int dimensions,
                const uint64_t shape[4])
{
    static const char magic[] = "\x93NUMPY\x01";
    enum { TEXT_BYTES = NPY_HEADER_BYTES - MAGIC_BYTES };
    memset(dst, ' ', NPY_HEADER_BYTES);
    memcpy(dst, magic, sizeof magic); /* with its NUL: version 1.0 */
    dst[8] = (char)(TEXT_BYTES & 255);
    dst[9] = (char)(TEXT_BYTES >> 8);
    char text[100] = "";
    for (int i = 0; i < dimensions; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "%" PRIu64 ", ", shape[i]);
    int length = snprintf(dst + MAGIC_BYTES, TEXT_BYTES,
                          "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", descr, text);
    dst[MAGIC_BYTES + length] = ' '; /* snprintf's NUL */
    dst[NPY_HEADER_BYTES - 1] = '\n';
}

int npy_open(struct npy **out, const char *path, uint64_t rows, uint64_t columns)
{
    char header[NPY_HEADER_BYTES];
    *out = NULL;
    struct npy *npy = calloc(1, sizeof *npy);
    if (!npy)
        return err_set(ERR_NOMEM, "%s: out of memory", path);
    *npy = (struct npy){.rows = rows, .columns = columns};
    int code = file_atomic_open(&npy->file, path);
    if (code) {
        free(npy);
        return code;
    }
    npy_header(header, "<f4", 2, (const uint64_t[4]){rows, columns});
    fwrite(header, 1, sizeof header, file_atomic_stream(npy->file));
    *out = npy;
    return 0;
}

void npy_add(struct npy *npy, const float *values, uint64_t rows)
{
    fwrite(values, sizeof *values, rows * npy->columns, file_atomic_stream(npy->file));
    npy->written += rows;
}

int npy_commit(struct npy *npy)
{
    if (npy->written != npy->rows) {
        npy_discard(npy);
        return err_set(ERR_INTERNAL, "an array's rows did not come");
    }
    int code = file_atomic_commit(npy->file);
    free(npy);
    return code;
}

void npy_discard(struct npy *npy)
{
    if (!npy)
        return;
    file_atomic_discard(npy->file);
    free(npy);
}

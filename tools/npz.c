/* SPDX-License-Identifier: Apache-2.0 */
/* The zip is libarchive's; the .npy header is NumPy's documented format (numpy.lib.format). */
#include "tools/npz.h"

#include <archive.h>
#include <archive_entry.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/file.h"

enum {
    MAGIC_BYTES = 10,  /* \x93NUMPY, version, length of the text */
    HEADER_BYTES = 256 /* a multiple of 64, and room for any of our shapes */
};

struct npz {
    struct file_atomic *file;
    struct archive *zip;
    char *path;
};

static int refuse(struct npz *npz)
{
    return err_set(ERR_IO, "%s: %s", npz->path, archive_error_string(npz->zip));
}

int npz_open(struct npz **out, const char *path)
{
    struct npz *npz = calloc(1, sizeof *npz);
    if (!npz || !(npz->path = strdup(path)) || !(npz->zip = archive_write_new())) {
        npz_discard(npz);
        return err_set(ERR_NOMEM, "%s: out of memory", path);
    }
    int code = file_atomic_open(&npz->file, path);
    if (!code && (archive_write_set_format_zip(npz->zip) != ARCHIVE_OK ||
                  archive_write_zip_set_compression_store(npz->zip) != ARCHIVE_OK ||
                  archive_write_open_FILE(npz->zip, file_atomic_stream(npz->file)) != ARCHIVE_OK))
        code = refuse(npz);
    if (code) {
        npz_discard(npz);
        return code;
    }
    *out = npz;
    return 0;
}

static void make_header(char dst[HEADER_BYTES], const struct npz_array *array)
{
    static const char magic[] = "\x93NUMPY\x01";
    enum { TEXT_BYTES = HEADER_BYTES - MAGIC_BYTES };
    memset(dst, ' ', HEADER_BYTES);
    memcpy(dst, magic, sizeof magic); /* with its NUL: version 1.0 */
    dst[8] = (char)(TEXT_BYTES & 255);
    dst[9] = (char)(TEXT_BYTES >> 8);
    char shape[100] = "";
    for (int i = 0; i < array->dimensions; i++)
        snprintf(shape + strlen(shape), sizeof shape - strlen(shape), "%" PRIu64 ", ",
                 array->shape[i]);
    int length =
        snprintf(dst + MAGIC_BYTES, TEXT_BYTES,
                 "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", array->descr, shape);
    dst[MAGIC_BYTES + length] = ' '; /* snprintf's NUL */
    dst[HEADER_BYTES - 1] = '\n';
}

int npz_add(struct npz *npz, const struct npz_array *array)
{
    char name[80], header[HEADER_BYTES];
    size_t bytes = array->item_bytes;
    for (int i = 0; i < array->dimensions; i++)
        bytes *= array->shape[i];
    snprintf(name, sizeof name, "%s.npy", array->name);
    make_header(header, array);
    struct archive_entry *entry = archive_entry_new();
    if (!entry)
        return err_set(ERR_NOMEM, "%s: out of memory", npz->path);
    archive_entry_set_pathname(entry, name);
    archive_entry_set_filetype(entry, AE_IFREG);
    archive_entry_set_perm(entry, 0644);
    archive_entry_set_size(entry, (int64_t)(HEADER_BYTES + bytes));
    int code = 0;
    if (archive_write_header(npz->zip, entry) != ARCHIVE_OK ||
        archive_write_data(npz->zip, header, HEADER_BYTES) != HEADER_BYTES ||
        archive_write_data(npz->zip, array->data, bytes) != (la_ssize_t)bytes)
        code = refuse(npz);
    archive_entry_free(entry);
    return code;
}

int npz_commit(struct npz *npz)
{
    int code = archive_write_close(npz->zip) == ARCHIVE_OK ? 0 : refuse(npz);
    if (!code) {
        code = file_atomic_commit(npz->file);
        npz->file = NULL;
    }
    npz_discard(npz);
    return code;
}

void npz_discard(struct npz *npz)
{
    if (!npz)
        return;
    if (npz->zip)
        archive_write_free(npz->zip);
    file_atomic_discard(npz->file);
    free(npz->path);
    free(npz);
}

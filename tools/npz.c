/* SPDX-License-Identifier: Apache-2.0 */
/* The zip is libarchive's. */
#include "tools/npz.h"

#include <archive.h>
#include <archive_entry.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/file.h"
#include "tools/npy.h"

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

int npz_add(struct npz *npz, const struct npz_array *array)
{
    char name[80], header[NPY_HEADER_BYTES];
    size_t bytes = array->item_bytes;
    for (int i = 0; i < array->dimensions; i++)
        bytes *= array->shape[i];
    snprintf(name, sizeof name, "%s.npy", array->name);
    npy_header(header, array->descr, array->dimensions, array->shape);
    struct archive_entry *entry = archive_entry_new();
    if (!entry)
        return err_set(ERR_NOMEM, "%s: out of memory", npz->path);
    archive_entry_set_pathname(entry, name);
    archive_entry_set_filetype(entry, AE_IFREG);
    archive_entry_set_perm(entry, 0644);
    archive_entry_set_size(entry, (int64_t)(NPY_HEADER_BYTES + bytes));
    int code = 0;
    if (archive_write_header(npz->zip, entry) != ARCHIVE_OK ||
        archive_write_data(npz->zip, header, NPY_HEADER_BYTES) != NPY_HEADER_BYTES ||
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

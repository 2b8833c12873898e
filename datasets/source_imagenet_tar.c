/* SPDX-License-Identifier: Apache-2.0 */
/* ILSVRC2012_img_train.tar: a tar of tars, one inner CLASS.tar per class.
 *
 * A plain outer tar in a regular file is only listed: members are then read in place, at their
 * offsets. What is compressed (the outer tar, or one inner) goes through the spill file. */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/err.h"
#include "common/log.h"
#include "common/stop.h"
#include "datasets/source.h"
#include "datasets/spill.h"
#include "datasets/store.h"

enum {
    OUTER_BLOCK_BYTES = 64 << 10,
    INNER_BLOCK_BYTES = 4 << 10, /* listing skips the data: more would be read for nothing */
};

/* An inner tar as libarchive's callbacks see it. */
struct inner {
    struct archive *outer; /* NULL: read in place from fd */
    int fd;
    uint64_t at, end; /* in fd */
    uint8_t block[INNER_BLOCK_BYTES];
};

static la_ssize_t read_inner(struct archive *archive, void *user, const void **data)
{
    struct inner *inner = user;
    if (inner->outer) {
        size_t bytes = 0;
        la_int64_t offset;
        int code = archive_read_data_block(inner->outer, data, &bytes, &offset);
        if (code == ARCHIVE_EOF)
            return 0;
        if (code == ARCHIVE_OK)
            return (la_ssize_t)bytes;
        archive_set_error(archive, EIO, "%s", archive_error_string(inner->outer));
        return -1;
    }
    uint64_t left = inner->end - inner->at;
    size_t wanted = left < sizeof inner->block ? (size_t)left : sizeof inner->block;
    ssize_t got = pread(inner->fd, inner->block, wanted, (off_t)inner->at);
    if (got < 0)
        archive_set_error(archive, errno, "%s", strerror(errno));
    else
        inner->at += (uint64_t)got;
    *data = inner->block;
    return got;
}

static la_int64_t skip_inner(struct archive *archive, void *user, la_int64_t wanted)
{
    (void)archive;
    struct inner *inner = user;
    if (inner->outer || wanted < 0)
        return 0;
    uint64_t left = inner->end - inner->at,
             step = (uint64_t)wanted < left ? (uint64_t)wanted : left;
    inner->at += step;
    return (la_int64_t)step;
}

static int tar_error(struct archive *archive, const char *path, const char *inside)
{
    const char *text = archive_error_string(archive);
    return err_set(archive_errno(archive) == ENOMEM ? ERR_NOMEM : ERR_DATA, "%s: %s%s%s", path,
                   inside, *inside ? ": " : "", text ? text : "cannot be read");
}

static const char *base_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static int spill_member(struct source *source, struct archive *archive, const char *inside,
                        uint64_t *bytes)
{
    const void *data;
    size_t count;
    la_int64_t offset;
    int code = 0, status;
    *bytes = 0;
    while ((status = archive_read_data_block(archive, &data, &count, &offset)) == ARCHIVE_OK) {
        /* Too large for a record: counted, so that packing refuses it by name, but not kept. */
        if (*bytes + count <= STORE_RECORD_BYTES_MAX)
            code = spill_append(source->spill, data, count);
        if (code)
            return code;
        *bytes += count;
    }
    return status == ARCHIVE_EOF ? 0 : tar_error(archive, source->path, inside);
}

static int add_member(struct source *source, struct archive *archive, struct archive_entry *entry,
                      struct inner *inner, size_t class_index, const char *inside, uint64_t base)
{
    const char *name = archive_entry_pathname(entry);
    if (!name || archive_entry_filetype(entry) != AE_IFREG || *(name = base_of(name)) == '.' ||
        !*name)
        return 0;
    if (archive_entry_sparse_count(entry) > 0)
        return err_set(ERR_DATA, "%s: %s: %s is stored sparse", source->path, inside, name);
    if (inner->outer || archive_filter_code(archive, 0) != ARCHIVE_FILTER_NONE) {
        uint64_t begin = spill_end(source->spill), bytes = 0;
        int code = spill_member(source, archive, inside, &bytes);
        return code ? code : list_add(&source->list, class_index, name, true, begin, bytes);
    }
    /* The format reader has consumed the headers and nothing else: the data begin here. */
    uint64_t offset = base + (uint64_t)archive_filter_bytes(archive, 0);
    la_int64_t bytes = archive_entry_size(entry);
    if (bytes < 0 || offset > inner->end || (uint64_t)bytes > inner->end - offset)
        return err_set(ERR_DATA, "%s: %s: truncated at %s", source->path, inside, name);
    return list_add(&source->list, class_index, name, false, offset, (uint64_t)bytes);
}

static int list_inner(struct source *source, struct inner *inner, const char *inside)
{
    char *id = strndup(inside, strlen(inside) - strlen(".tar"));
    size_t class_index;
    int code =
        id ? list_add_class(&source->list, id, &class_index) : err_set(ERR_NOMEM, "out of memory");
    free(id);
    if (code)
        return code;
    struct archive *archive = archive_read_new();
    if (!archive)
        return err_set(ERR_NOMEM, "out of memory");
    uint64_t base = inner->at;
    archive_read_support_filter_all(archive);
    archive_read_support_format_tar(archive);
    archive_read_support_format_empty(archive);
    archive_read_set_callback_data(archive, inner);
    archive_read_set_read_callback(archive, read_inner);
    archive_read_set_skip_callback(archive, skip_inner);
    int status = archive_read_open1(archive);
    struct archive_entry *entry;
    while (!code && status == ARCHIVE_OK &&
           ((status = archive_read_next_header(archive, &entry)) == ARCHIVE_OK ||
            status == ARCHIVE_WARN)) {
        status = ARCHIVE_OK;
        code = stop_requested()
                   ? err_set(ERR_IO, "stopped; nothing was written")
                   : add_member(source, archive, entry, inner, class_index, inside, base);
    }
    if (!code && status != ARCHIVE_EOF)
        code = tar_error(archive, source->path, inside);
    archive_read_free(archive);
    return code;
}

static bool is_tar(const char *name)
{
    size_t length = strlen(name);
    return length > strlen(".tar") && name[0] != '.' && strcmp(name + length - 4, ".tar") == 0;
}

static int visit(struct source *source, struct archive *outer, struct archive_entry *entry,
                 uint64_t file_bytes, size_t *beside)
{
    const char *path = archive_entry_pathname(entry);
    if (!path || archive_entry_filetype(entry) != AE_IFREG)
        return 0;
    if (!is_tar(base_of(path))) {
        ++*beside;
        return 0;
    }
    char *inside = strdup(base_of(path));
    struct inner *inner = calloc(1, sizeof *inner);
    int code = 0;
    if (!inside || !inner)
        code = err_set(ERR_NOMEM, "out of memory");
    if (!code && archive_entry_sparse_count(entry) > 0)
        code = err_set(ERR_DATA, "%s: %s is stored sparse", source->path, inside);
    if (!code && archive_filter_code(outer, 0) == ARCHIVE_FILTER_NONE) {
        uint64_t begin = (uint64_t)archive_filter_bytes(outer, 0);
        la_int64_t bytes = archive_entry_size(entry);
        if (bytes < 0 || begin > file_bytes || (uint64_t)bytes > file_bytes - begin)
            code = err_set(ERR_DATA, "%s: truncated at %s", source->path, inside);
        inner->fd = source->fd;
        inner->at = begin;
        inner->end = begin + (uint64_t)bytes;
    } else if (!code) {
        inner->outer = outer;
    }
    if (!code)
        code = list_inner(source, inner, inside);
    free(inside);
    free(inner);
    return code;
}

static int walk(struct source *source, struct archive *outer, uint64_t file_bytes)
{
    struct archive_entry *entry;
    size_t beside = 0;
    int status, code = 0;
    while (!code && ((status = archive_read_next_header(outer, &entry)) == ARCHIVE_OK ||
                     status == ARCHIVE_WARN))
        code = visit(source, outer, entry, file_bytes, &beside);
    if (!code && status != ARCHIVE_EOF)
        return tar_error(outer, source->path, "");
    if (!code && source->list.class_count == 0)
        return err_set(ERR_DATA, "%s: holds no inner CLASS.tar", source->path);
    if (!code && beside)
        log_warn("%s: %zu members that are no .tar are left out", source->path, beside);
    return code;
}

static int open_imagenet_tar(struct source *source, const struct source_request *request)
{
    struct stat status;
    if (request->input_count != 1)
        return err_set(ERR_ARG, "--source imagenet-tar takes one file, %zu are given",
                       request->input_count);
    source->fd = open(source->path, O_RDONLY | O_CLOEXEC);
    if (source->fd < 0 || fstat(source->fd, &status) != 0)
        return err_set(ERR_IO, "%s: %s", source->path, strerror(errno));
    if (!S_ISREG(status.st_mode))
        return err_set(ERR_IO, "%s: not a regular file", source->path);
    int code = spill_open(&source->spill, request->out);
    if (code)
        return code;
    struct archive *outer = archive_read_new();
    if (!outer)
        return err_set(ERR_NOMEM, "out of memory");
    archive_read_support_filter_all(outer);
    archive_read_support_format_tar(outer);
    if (archive_read_open_fd(outer, source->fd, OUTER_BLOCK_BYTES) != ARCHIVE_OK)
        code = tar_error(outer, source->path, "");
    else
        code = walk(source, outer, (uint64_t)status.st_size);
    archive_read_free(outer);
    return code ? code : spill_flush(source->spill);
}

const struct source_ops source_imagenet_tar = {"imagenet-tar", open_imagenet_tar,
                                               source_read_range};

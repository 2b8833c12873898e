/* SPDX-License-Identifier: Apache-2.0 */
#include "datasets/tar_walk.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/err.h"
#include "common/log.h"
#include "common/stop.h"
#include "datasets/filters.h"
#include "datasets/spill.h"
#include "datasets/store.h"

enum { BLOCK_BYTES = 4 << 10 }; /* listing skips the data: more would be read for nothing */

/* The bytes of the tar come from a file of the source, or from a member of another walk. */
struct tar_walk {
    struct source *source;
    uint32_t file;
    uint64_t begin, at, end; /* of the tar in the file */
    struct tar_walk *outer;  /* NULL: from the file */
    const char *inside;      /* name of the inner tar, "" in the outer one */
    struct archive *archive;
    struct archive_entry *entry;
    size_t left_out; /* members that are no regular files */
    uint8_t block[BLOCK_BYTES];
};

static la_ssize_t read_outer(struct archive *archive, struct archive *outer, const void **data)
{
    size_t bytes = 0;
    la_int64_t offset;
    int code = archive_read_data_block(outer, data, &bytes, &offset);
    if (code == ARCHIVE_EOF)
        return 0;
    if (code == ARCHIVE_OK)
        return (la_ssize_t)bytes;
    archive_set_error(archive, EIO, "%s", archive_error_string(outer));
    return -1;
}

static la_ssize_t read_some(struct archive *archive, void *user, const void **data)
{
    struct tar_walk *walk = user;
    if (walk->outer)
        return read_outer(archive, walk->outer->archive, data);
    uint64_t left = walk->end - walk->at;
    size_t wanted = left < sizeof walk->block ? (size_t)left : sizeof walk->block;
    ssize_t got = pread(walk->source->files[walk->file].fd, walk->block, wanted, (off_t)walk->at);
    if (got < 0)
        archive_set_error(archive, errno, "%s", strerror(errno));
    else
        walk->at += (uint64_t)got;
    *data = walk->block;
    return got;
}

static la_int64_t skip_some(struct archive *archive, void *user, la_int64_t wanted)
{
    (void)archive;
    struct tar_walk *walk = user;
    if (walk->outer || wanted < 0)
        return 0;
    uint64_t left = walk->end - walk->at;
    uint64_t step = (uint64_t)wanted < left ? (uint64_t)wanted : left;
    walk->at += step;
    return (la_int64_t)step;
}

static int fail(const struct tar_walk *walk, int code, const char *what)
{
    return err_set(code, "%s: %s%s%s", walk->source->files[walk->file].path, walk->inside,
                   *walk->inside ? ": " : "", what);
}

static int tar_error(const struct tar_walk *walk)
{
    const char *text = archive_error_string(walk->archive);
    return fail(walk, archive_errno(walk->archive) == ENOMEM ? ERR_NOMEM : ERR_DATA,
                text ? text : "cannot be read");
}

/* Of the member: ERR_DATA with its name. */
static int fail_member(const struct tar_walk *walk, const char *path, const char *what)
{
    char text[256];
    snprintf(text, sizeof text, "%s %s", path, what);
    return fail(walk, ERR_DATA, text);
}

static bool is_in_place(const struct tar_walk *walk)
{
    return !walk->outer && archive_filter_code(walk->archive, 0) == ARCHIVE_FILTER_NONE;
}

/* In place only. The format reader has consumed the headers and nothing else: the data begin here.
 */
static int place_of(const struct tar_walk *walk, struct source_place *place)
{
    uint64_t offset = walk->begin + (uint64_t)archive_filter_bytes(walk->archive, 0);
    la_int64_t bytes = archive_entry_size(walk->entry);
    if (bytes < 0 || offset > walk->end || (uint64_t)bytes > walk->end - offset)
        return fail(walk, ERR_DATA, "truncated: it ends inside of a member");
    *place = (struct source_place){walk->file, offset, (uint64_t)bytes};
    return 0;
}

static int spill_member(struct tar_walk *walk, struct source_place *place)
{
    struct spill *spill;
    const void *data;
    size_t count;
    la_int64_t offset;
    int code = source_need_spill(walk->source, &spill), status;
    if (code)
        return code;
    *place = (struct source_place){SOURCE_SPILL, spill_end(spill), 0};
    while ((status = archive_read_data_block(walk->archive, &data, &count, &offset)) ==
           ARCHIVE_OK) {
        /* Too large for a record: counted, so that packing refuses it by name, but not kept. */
        if (place->bytes + count <= STORE_RECORD_BYTES_MAX)
            code = spill_append(spill, data, count);
        if (code)
            return code;
        place->bytes += count;
    }
    return status == ARCHIVE_EOF ? 0 : tar_error(walk);
}

int tar_member_place(struct tar_walk *walk, struct source_place *place)
{
    return is_in_place(walk) ? place_of(walk, place) : spill_member(walk, place);
}

int tar_member_read(struct tar_walk *walk, void *dst, size_t room, size_t *bytes)
{
    la_ssize_t got = archive_read_data(walk->archive, dst, room);
    if (got < 0)
        return tar_error(walk);
    *bytes = (size_t)got;
    return 0;
}

static int check_member(const struct tar_walk *walk, const char *path)
{
    if (stop_requested())
        return err_set(ERR_STOPPED, "stopped; nothing was written");
    if (archive_entry_sparse_count(walk->entry) > 0)
        return fail_member(walk, path, "is stored sparse; make the tar without --sparse");
    if (archive_entry_hardlink(walk->entry))
        return fail_member(walk, path,
                           "is a link to another member; make the tar with --hard-dereference");
    return 0;
}

static int visit_member(struct tar_walk *walk, tar_visit visit, void *user)
{
    const char *path = archive_entry_pathname(walk->entry);
    if (!path)
        path = archive_entry_pathname_utf8(walk->entry);
    if (!path)
        return fail(walk, ERR_DATA, "a member whose name cannot be read");
    if (archive_entry_filetype(walk->entry) == AE_IFDIR || *source_base_name(path) == '.' ||
        *source_base_name(path) == '\0')
        return 0;
    if (archive_entry_filetype(walk->entry) != AE_IFREG && !archive_entry_hardlink(walk->entry)) {
        walk->left_out++;
        return 0;
    }
    int code = check_member(walk, path);
    return code ? code : visit(walk, path, user);
}

static int walk_all(struct tar_walk *walk, tar_visit visit, void *user)
{
    walk->archive = archive_read_new();
    if (!walk->archive)
        return err_set(ERR_NOMEM, "out of memory");
    filters_support(walk->archive);
    archive_read_support_format_tar(walk->archive);
    archive_read_support_format_empty(walk->archive);
    archive_read_set_callback_data(walk->archive, walk);
    archive_read_set_read_callback(walk->archive, read_some);
    archive_read_set_skip_callback(walk->archive, skip_some);
    int code = 0, status = archive_read_open1(walk->archive);
    while (!code && status == ARCHIVE_OK &&
           ((status = archive_read_next_header(walk->archive, &walk->entry)) == ARCHIVE_OK ||
            status == ARCHIVE_WARN)) {
        status = ARCHIVE_OK;
        code = visit_member(walk, visit, user);
    }
    if (!code && status != ARCHIVE_EOF)
        code = tar_error(walk);
    if (!code && walk->left_out)
        log_warn("%s: %s%s%zu links and other members that are no files are left out",
                 walk->source->files[walk->file].path, walk->inside, *walk->inside ? ": " : "",
                 walk->left_out);
    archive_read_free(walk->archive);
    return code;
}

int tar_walk_file(struct source *source, uint32_t file, tar_visit visit, void *user)
{
    struct tar_walk walk = {
        .source = source, .file = file, .end = source->files[file].bytes, .inside = ""};
    return walk_all(&walk, visit, user);
}

int tar_member_walk(struct tar_walk *walk, const char *name, tar_visit visit, void *user)
{
    struct tar_walk inner = {.source = walk->source, .file = walk->file, .inside = name};
    struct source_place place;
    if (is_in_place(walk)) {
        int code = place_of(walk, &place);
        if (code)
            return code;
        inner.begin = inner.at = place.offset;
        inner.end = place.offset + place.bytes;
    } else {
        inner.outer = walk;
    }
    return walk_all(&inner, visit, user);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What all sources share: choosing the layout by name, reading entries, letting go. */
#include "datasets/source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/err.h"
#include "common/progress.h"
#include "datasets/spill.h"
#include "datasets/store.h"

static const struct source_ops *const layouts[] = {
    &source_cifar,        &source_folder, &source_idx, &source_image_list,
    &source_imagenet_tar, &source_rec,    &source_tar, &source_webdataset};

static const struct source_ops *find_layout(const char *name)
{
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++) {
        if (strcmp(layouts[i]->name, name) == 0)
            return layouts[i];
    }
    return NULL;
}

static int list_all(struct source *source, const struct source_request *request)
{
    int code = source->ops->open(source, request);
    progress_close(source->list.progress);
    source->list.progress = NULL;
    if (!code && source->spill)
        code = spill_flush(source->spill);
    if (code)
        return code;
    code = list_expect_classes(&source->list, request);
    if (!code)
        code = list_finish(&source->list, request->allow_empty);
    return code ? err_wrap(code, "%s", source->path) : 0;
}

int source_open(struct source **out, const char *layout, const struct source_request *request)
{
    *out = NULL;
    const struct source_ops *ops = find_layout(layout);
    if (!ops)
        return err_set(ERR_ARG, "no source layout %s", layout);
    struct source *source = calloc(1, sizeof *source);
    if (!source)
        return err_set(ERR_NOMEM, "out of memory");
    source->ops = ops;
    source->folder = -1;
    source->beside = request->out;
    source->path = strdup(request->inputs[0]);
    int code = source->path ? list_all(source, request) : err_set(ERR_NOMEM, "out of memory");
    if (code) {
        source_close(source);
        return code;
    }
    *out = source;
    return 0;
}

void source_close(struct source *source)
{
    if (!source)
        return;
    for (uint32_t i = 0; i < source->file_count; i++) {
        close(source->files[i].fd);
        free(source->files[i].path);
    }
    if (source->folder >= 0)
        close(source->folder);
    spill_close(source->spill);
    list_release(&source->list);
    free(source->files);
    free(source->path);
    free(source);
}

/* Hundreds of shards are usual, and so is a soft limit of 1,024 open files. */
static int open_one_more(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct rlimit limit;
    if (fd >= 0 || errno != EMFILE || getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return fd;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    return open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
}

static int open_regular(int *fd, uint64_t *bytes, const char *path)
{
    struct stat status;
    *fd = open_one_more(path);
    if (*fd < 0)
        return err_set(ERR_IO, "%s: %s", path, strerror(errno));
    int code = 0;
    if (fstat(*fd, &status) != 0)
        code = err_set(ERR_IO, "%s: %s", path, strerror(errno));
    else if (!S_ISREG(status.st_mode))
        code = err_set(ERR_IO, "%s: %s", path,
                       S_ISDIR(status.st_mode) ? "a folder, not a regular file; --source folder "
                                                 "takes a folder of class folders"
                                               : "not a regular file");
    if (code)
        close(*fd);
    else
        *bytes = (uint64_t)status.st_size;
    return code;
}

int source_add_file(struct source *source, const char *path, uint32_t *index)
{
    int fd = -1;
    uint64_t bytes = 0;
    int code = open_regular(&fd, &bytes, path);
    if (code)
        return code;
    struct source_file *grown = reallocarray(source->files, source->file_count + 1, sizeof *grown);
    char *copy = strdup(path);
    if (grown)
        source->files = grown;
    if (!grown || !copy) {
        free(copy);
        close(fd);
        return err_set(ERR_NOMEM, "out of memory");
    }
    *index = source->file_count;
    grown[source->file_count++] = (struct source_file){.path = copy, .fd = fd, .bytes = bytes};
    return 0;
}

int source_need_spill(struct source *source, struct spill **spill)
{
    int code = source->spill ? 0 : spill_open(&source->spill, source->beside);
    *spill = source->spill;
    return code;
}

const char *source_base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

int source_read(const struct source *source, size_t i, struct source_buffer *buffer)
{
    const struct source_entry *entry = &source->list.entries[i];
    if (entry->bytes > STORE_RECORD_BYTES_MAX)
        return err_set(ERR_DATA, "%ju bytes: larger than a record's 64 MiB",
                       (uintmax_t)entry->bytes);
    if (entry->bytes > buffer->room) {
        free(buffer->data);
        buffer->data = malloc(entry->bytes);
        buffer->room = buffer->data ? entry->bytes : 0;
        if (!buffer->data)
            return err_set(ERR_NOMEM, "out of memory for %ju bytes", (uintmax_t)entry->bytes);
    }
    buffer->bytes = 0;
    return source->ops->read(source, entry, buffer);
}

void source_buffer_free(struct source_buffer *buffer)
{
    free(buffer->data);
    *buffer = (struct source_buffer){0};
}

int source_read_range(const struct source *source, const struct source_entry *entry,
                      struct source_buffer *buffer)
{
    int fd = entry->file == SOURCE_SPILL ? spill_fd(source->spill) : source->files[entry->file].fd;
    while (buffer->bytes < entry->bytes) {
        ssize_t got = pread(fd, buffer->data + buffer->bytes, entry->bytes - buffer->bytes,
                            (off_t)(entry->offset + buffer->bytes));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_set(ERR_IO, "%s", strerror(errno));
        if (got == 0)
            return err_set(ERR_IO, "the input ends inside of it");
        buffer->bytes += (size_t)got;
    }
    return 0;
}

int source_read_path(const struct source *source, const struct source_entry *entry,
                     struct source_buffer *buffer)
{
    int fd = openat(source->folder, source->list.text + entry->offset,
                    O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int code = fd < 0 ? err_set(ERR_IO, "%s", strerror(errno)) : 0;
    while (!code && buffer->bytes < entry->bytes) {
        ssize_t got = read(fd, buffer->data + buffer->bytes, entry->bytes - buffer->bytes);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            code = err_set(ERR_IO, "%s", strerror(errno));
        if (got <= 0)
            break;
        buffer->bytes += (size_t)got;
    }
    if (fd >= 0)
        close(fd);
    if (!code && buffer->bytes != entry->bytes)
        code = err_set(ERR_IO, "changed while it was packed");
    return code;
}

const char *source_name(const struct source *source, size_t i)
{
    return source->list.text + source->list.entries[i].name;
}

void source_describe(char *dst, size_t bytes, const struct source *source, size_t i)
{
    snprintf(dst, bytes, "%s/%s", source->list.class_ids[source->list.entries[i].label],
             source_name(source, i));
}

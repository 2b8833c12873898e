/* SPDX-License-Identifier: Apache-2.0 */
/* What all sources share: choosing the layout by name, reading entries, letting go. */
#include "datasets/source.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/err.h"
#include "datasets/spill.h"
#include "datasets/store.h"

static const struct source_ops *const layouts[] = {&source_folder, &source_idx,
                                                   &source_imagenet_tar};
static const char *const later[] = {"tar", "list", "cifar", "rec", "webdataset"};

static const struct source_ops *find_layout(const char *name)
{
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++) {
        if (strcmp(layouts[i]->name, name) == 0)
            return layouts[i];
    }
    return NULL;
}

int source_open(struct source **out, const char *layout, const struct source_request *request)
{
    *out = NULL;
    const struct source_ops *ops = find_layout(layout);
    for (size_t i = 0; i < sizeof later / sizeof *later; i++) {
        if (strcmp(later[i], layout) == 0)
            return err_set(ERR_UNSUPPORTED,
                           "--source %s is not built into this version; it has folder, idx and "
                           "imagenet-tar",
                           layout);
    }
    if (!ops)
        return err_set(ERR_ARG, "no source layout %s", layout);
    struct source *source = calloc(1, sizeof *source);
    if (!source)
        return err_set(ERR_NOMEM, "out of memory");
    source->ops = ops;
    source->fd = -1;
    source->path = strdup(request->inputs[0]);
    int code = source->path ? ops->open(source, request) : err_set(ERR_NOMEM, "out of memory");
    if (!code) {
        code = list_finish(&source->list, request->allow_empty);
        if (code)
            err_wrap(code, "%s", source->path);
    }
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
    if (source->fd >= 0)
        close(source->fd);
    spill_close(source->spill);
    list_release(&source->list);
    free(source->path);
    free(source);
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
    int fd = entry->spilled ? spill_fd(source->spill) : source->fd;
    while (buffer->bytes < entry->bytes) {
        ssize_t got = pread(fd, buffer->data + buffer->bytes, entry->bytes - buffer->bytes,
                            (off_t)(entry->offset + buffer->bytes));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_set(ERR_IO, "%s", strerror(errno));
        if (got == 0)
            return err_set(ERR_DATA, "the input ends inside of it");
        buffer->bytes += (size_t)got;
    }
    return 0;
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

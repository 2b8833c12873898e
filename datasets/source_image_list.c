/* SPDX-License-Identifier: Apache-2.0 */
/* A list of files and their classes (datasets/labels.h), as "LIST" or "LIST ROOT": paths begin in
 * ROOT, without it in the list's own folder. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/err.h"
#include "common/stop.h"
#include "datasets/labels.h"
#include "datasets/source.h"

static int open_root(struct source *source, const struct source_request *request)
{
    const char *list = request->inputs[0];
    size_t length = (size_t)(source_base_name(list) - list);
    char *own = length ? strndup(list, length) : strdup(".");
    const char *root = request->input_count == 2 ? request->inputs[1] : own;
    if (!own)
        return err_set(ERR_NOMEM, "out of memory");
    source->folder = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int code = source->folder < 0 ? err_set(ERR_IO, "%s: %s", root, strerror(errno)) : 0;
    free(own);
    return code;
}

static int add_files(struct source *source, const struct labels *labels)
{
    struct stat status;
    int code = 0;
    for (size_t i = 0; !code && i < labels->count; i++) {
        const struct labels_entry *entry = &labels->entries[i];
        if (stop_requested())
            return err_set(ERR_STOPPED, "stopped; nothing was written");
        if (fstatat(source->folder, entry->file, &status, 0) != 0)
            return err_set(ERR_IO, "%s: %s: %s (where paths begin: LIST ROOT)", source->path,
                           entry->file, strerror(errno));
        if (!S_ISREG(status.st_mode))
            return err_set(ERR_IO, "%s: %s: not a regular file", source->path, entry->file);
        code =
            list_add_path(&source->list, entry->class_index, entry->file, (uint64_t)status.st_size);
    }
    return code;
}

static int add_classes(struct source *source, const struct labels *labels,
                       const struct source_request *request)
{
    if (labels->numbers)
        return list_number_classes(&source->list, request, labels->most);
    size_t index;
    int code = 0;
    for (size_t i = 0; !code && i < labels->id_count; i++)
        code = list_add_class(&source->list, labels->ids[i], &index);
    return code;
}

static int open_image_list(struct source *source, const struct source_request *request)
{
    struct labels labels = {0};
    if (request->input_count > 2)
        return err_set(ERR_ARG, "--source list takes LIST or LIST ROOT, %zu inputs are given",
                       request->input_count);
    int code = labels_read(&labels, source->path);
    if (!code)
        code = open_root(source, request);
    if (!code)
        code = add_files(source, &labels);
    if (!code)
        code = add_classes(source, &labels, request);
    labels_release(&labels);
    return code;
}

const struct source_ops source_image_list = {"list", open_image_list, source_read_path};

/* SPDX-License-Identifier: Apache-2.0 */
/* Tars of images: class folders inside, or files in any folders with a file of labels. */
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "datasets/labelled.h"
#include "datasets/tar_walk.h"

static int visit(struct tar_walk *walk, const char *path, void *user)
{
    struct labelled *labelled = user;
    size_t class_index;
    struct source_place place;
    int code = labelled_class(labelled, &class_index, path);
    if (code || class_index == SIZE_MAX)
        return code;
    char *name = strdup(source_base_name(path)); /* the path does not outlive the data */
    code = name ? tar_member_place(walk, &place) : err_set(ERR_NOMEM, "out of memory");
    if (!code)
        code = list_add(&labelled->source->list, class_index, name, place);
    free(name);
    return code;
}

static int open_tar(struct source *source, const struct source_request *request)
{
    struct labelled labelled;
    uint32_t file;
    int code = labelled_begin(&labelled, source, request);
    for (size_t i = 0; !code && i < request->input_count; i++) {
        code = source_add_file(source, request->inputs[i], &file);
        if (!code)
            code = tar_walk_file(source, file, visit, &labelled);
    }
    if (!code)
        code = labelled_end(&labelled);
    labelled_release(&labelled);
    return code;
}

const struct source_ops source_tar = {"tar", open_tar, source_read_range};

/* SPDX-License-Identifier: Apache-2.0 */
/* ILSVRC2012_img_train.tar: a tar of tars, one inner CLASS.tar per class. */
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/log.h"
#include "datasets/tar_walk.h"

struct listing {
    struct source *source;
    size_t class_index;
    size_t beside; /* members that are no .tar */
};

static int visit_image(struct tar_walk *walk, const char *path, void *user)
{
    struct listing *listing = user;
    struct source_place place;
    const char *name = source_base_name(path);
    char *kept = strdup(name); /* the entry's name does not outlive its data */
    int code = kept ? tar_member_place(walk, &place) : err_set(ERR_NOMEM, "out of memory");
    if (!code)
        code = list_add(&listing->source->list, listing->class_index, kept, place);
    free(kept);
    return code;
}

static bool is_tar(const char *name)
{
    size_t length = strlen(name);
    return length > strlen(".tar") && strcmp(name + length - 4, ".tar") == 0;
}

static int visit_class(struct tar_walk *walk, const char *path, void *user)
{
    struct listing *listing = user;
    const char *name = source_base_name(path);
    if (!is_tar(name)) {
        listing->beside++;
        return 0;
    }
    char *kept = strdup(name), *id = strndup(name, strlen(name) - strlen(".tar"));
    int code = kept && id ? 0 : err_set(ERR_NOMEM, "out of memory");
    if (!code)
        code = list_add_class(&listing->source->list, id, &listing->class_index);
    if (!code)
        code = tar_member_walk(walk, kept, visit_image, listing);
    free(kept);
    free(id);
    return code;
}

static int open_imagenet_tar(struct source *source, const struct source_request *request)
{
    struct listing listing = {.source = source};
    uint32_t file;
    if (request->input_count != 1)
        return err_set(ERR_ARG, "--source imagenet-tar takes one file, %zu are given",
                       request->input_count);
    int code = source_add_file(source, source->path, &file);
    if (!code)
        code = tar_walk_file(source, file, visit_class, &listing);
    if (code)
        return code;
    if (source->list.class_count == 0)
        return err_set(ERR_DATA, "%s: holds no inner CLASS.tar; --source tar takes a tar of images",
                       source->path);
    if (listing.beside)
        log_warn("%s: %zu members that are no .tar are left out", source->path, listing.beside);
    return 0;
}

const struct source_ops source_imagenet_tar = {"imagenet-tar", open_imagenet_tar,
                                               source_read_range};

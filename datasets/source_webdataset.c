/* SPDX-License-Identifier: Apache-2.0 */
/* WebDataset shards (https://github.com/webdataset/webdataset): tars in which members that follow
 * each other and have the same key make a sample. The key is the path up to the first dot of the
 * name; what is behind the dot says what the member is: jpg, jpeg or png the image, cls the class,
 * an id or a number in text. Anything else is left alone. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/err.h"
#include "common/log.h"
#include "datasets/labelled.h"
#include "datasets/tar_walk.h"

enum { CLASS_BYTES = 256, PATH_BYTES = 4096 };

struct listing {
    struct labelled labelled; /* classes by their ids */
    struct source *source;
    const char *shard;
    char key[PATH_BYTES];  /* of the sample on its way, "": none */
    char name[PATH_BYTES]; /* of its image, "": none yet */
    struct source_place place;
    char text[CLASS_BYTES]; /* of its class, "": none yet */
    enum { CLASSES_UNKNOWN, CLASSES_NUMBERS, CLASSES_IDS } classes;
    uint32_t most;    /* the highest number */
    size_t imageless; /* keys without an image */
};

static int class_of(struct listing *listing, size_t *class_index)
{
    uint32_t number;
    bool is_number = labels_number(&number, listing->text);
    if (listing->classes == CLASSES_UNKNOWN)
        listing->classes = is_number ? CLASSES_NUMBERS : CLASSES_IDS;
    if (listing->classes == CLASSES_IDS)
        return labelled_folder(&listing->labelled, class_index, listing->text);
    if (!is_number)
        return err_set(ERR_DATA, "%s: %s.cls: \"%s\" is no number, those before are",
                       listing->shard, listing->key, listing->text);
    *class_index = number;
    listing->most = number > listing->most ? number : listing->most;
    return 0;
}

/* Ends the sample on its way. */
static int flush(struct listing *listing)
{
    size_t class_index;
    if (!*listing->key)
        return 0;
    int code = 0;
    if (!*listing->name)
        listing->imageless++;
    else if (!*listing->text)
        code = err_set(ERR_DATA, "%s: %s has no %s.cls beside it", listing->shard, listing->name,
                       source_base_name(listing->key));
    else
        code = class_of(listing, &class_index);
    if (!code && *listing->name)
        code = list_add(&listing->source->list, class_index, listing->name, listing->place);
    listing->key[0] = listing->name[0] = listing->text[0] = '\0';
    return code;
}

static bool is_image(const char *extension)
{
    return strcasecmp(extension, "jpg") == 0 || strcasecmp(extension, "jpeg") == 0 ||
           strcasecmp(extension, "png") == 0;
}

static int read_class(struct listing *listing, struct tar_walk *walk)
{
    size_t bytes;
    int code = tar_member_read(walk, listing->text, sizeof listing->text - 1, &bytes);
    if (code)
        return code;
    while (bytes > 0 && strchr(" \t\r\n", listing->text[bytes - 1]))
        bytes--;
    listing->text[bytes] = '\0';
    if (bytes == 0 || bytes == sizeof listing->text - 1 || strlen(listing->text) != bytes)
        return err_set(ERR_DATA, "%s: %s.cls holds no class", listing->shard, listing->key);
    return 0;
}

static int visit(struct tar_walk *walk, const char *path, void *user)
{
    struct listing *listing = user;
    const char *name = source_base_name(path), *dot = strchr(name, '.');
    if (!dot)
        return 0;
    size_t length = (size_t)(dot - path);
    if (strlen(path) >= PATH_BYTES)
        return err_set(ERR_DATA, "%s: a name of %zu bytes", listing->shard, strlen(path));
    int code = 0;
    if (strncmp(listing->key, path, length) != 0 || listing->key[length] != '\0') {
        code = flush(listing);
        memcpy(listing->key, path, length);
        listing->key[length] = '\0';
    }
    if (!code && strcmp(dot + 1, "cls") == 0)
        return read_class(listing, walk);
    if (code || !is_image(dot + 1))
        return code;
    if (*listing->name)
        return err_set(ERR_DATA, "%s: %s has two images", listing->shard, listing->key);
    strcpy(listing->name, name);
    return tar_member_place(walk, &listing->place);
}

static int list_shards(struct listing *listing, const struct source_request *request)
{
    uint32_t file;
    int code = 0;
    for (size_t i = 0; !code && i < request->input_count; i++) {
        listing->shard = request->inputs[i];
        code = source_add_file(listing->source, listing->shard, &file);
        if (!code)
            code = tar_walk_file(listing->source, file, visit, listing);
        if (!code)
            code = flush(listing);
    }
    return code;
}

static int open_webdataset(struct source *source, const struct source_request *request)
{
    struct listing *listing = calloc(1, sizeof *listing);
    if (!listing)
        return err_set(ERR_NOMEM, "out of memory");
    listing->source = source;
    int code = labelled_begin(&listing->labelled, source, request);
    if (!code)
        code = list_shards(listing, request);
    if (!code && listing->classes == CLASSES_NUMBERS)
        code = list_number_classes(&source->list, request, listing->most);
    if (!code && listing->imageless)
        log_warn("%s: %zu samples without a jpg or png are left out", source->path,
                 listing->imageless);
    labelled_release(&listing->labelled);
    free(listing);
    return code;
}

const struct source_ops source_webdataset = {"webdataset", open_webdataset, source_read_range};

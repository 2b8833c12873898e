/* SPDX-License-Identifier: Apache-2.0 */
/* IDX, the MNIST family's format (http://yann.lecun.com/exdb/mnist): 00 00 08 D, D big-endian u32
 * sizes, then bytes. One file of images (D = 3) and one of labels (D = 1), plain or compressed;
 * the names of samples are their positions. */
#include <archive.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/err.h"
#include "datasets/filters.h"
#include "datasets/source.h"
#include "datasets/spill.h"
#include "datasets/store.h"

enum {
    DIMENSIONS_MAX = 3,
    READ_BYTES = 1 << 20,
};

struct idx {
    const char *path;
    struct archive *archive;
    unsigned dimensions;
    uint32_t size[DIMENSIONS_MAX];
};

static int archive_error(const struct idx *idx)
{
    const char *text = archive_error_string(idx->archive);
    return err_set(ERR_DATA, "%s: %s", idx->path, text ? text : "cannot be read");
}

static int read_exactly(struct idx *idx, void *dst, size_t bytes)
{
    for (size_t used = 0; used < bytes;) {
        la_ssize_t got = archive_read_data(idx->archive, (char *)dst + used, bytes - used);
        if (got < 0)
            return archive_error(idx);
        if (got == 0)
            return err_set(ERR_DATA, "%s: truncated IDX file", idx->path);
        used += (size_t)got;
    }
    return 0;
}

static int expect_end(struct idx *idx)
{
    char byte;
    la_ssize_t got = archive_read_data(idx->archive, &byte, 1);
    if (got < 0)
        return archive_error(idx);
    return got == 0 ? 0 : err_set(ERR_DATA, "%s: bytes behind the end of the IDX data", idx->path);
}

static void idx_close(struct idx *idx)
{
    archive_read_free(idx->archive);
    idx->archive = NULL;
}

/* libarchive's raw format is "whatever comes out of the filters". */
static int idx_open(struct idx *idx, const char *path)
{
    struct archive_entry *entry;
    struct stat status;
    uint8_t head[4], size[4 * DIMENSIONS_MAX];
    *idx = (struct idx){.path = path};
    if (stat(path, &status) != 0)
        return err_set(ERR_IO, "%s: %s", path, strerror(errno));
    idx->archive = archive_read_new();
    if (!idx->archive)
        return err_set(ERR_NOMEM, "out of memory");
    filters_support(idx->archive);
    archive_read_support_format_raw(idx->archive);
    archive_read_support_format_empty(idx->archive);
    int opened = archive_read_open_filename(idx->archive, path, READ_BYTES);
    if (opened == ARCHIVE_OK)
        opened = archive_read_next_header(idx->archive, &entry);
    if (opened == ARCHIVE_EOF)
        return err_set(ERR_DATA, "%s: empty file", path);
    if (opened != ARCHIVE_OK)
        return archive_error(idx);
    int code = read_exactly(idx, head, sizeof head);
    if (code)
        return code;
    if (head[0] || head[1] || head[2] != 8 || (head[3] != 1 && head[3] != 3))
        return err_set(ERR_DATA, "%s: not an IDX file of bytes with 1 or 3 dimensions", path);
    idx->dimensions = head[3];
    code = read_exactly(idx, size, 4 * (size_t)idx->dimensions);
    for (unsigned i = 0; !code && i < idx->dimensions; i++)
        idx->size[i] = (uint32_t)size[4 * i] << 24 | (uint32_t)size[4 * i + 1] << 16 |
                       (uint32_t)size[4 * i + 2] << 8 | size[4 * i + 3];
    return code;
}

static int copy_images(struct source *source, struct idx *images, const uint8_t *labels)
{
    size_t bytes = (size_t)images->size[1] * images->size[2];
    uint8_t *image = malloc(bytes);
    struct spill *spill;
    int code = source_need_spill(source, &spill);
    if (!code && !image)
        code = err_set(ERR_NOMEM, "out of memory");
    for (uint32_t i = 0; !code && i < images->size[0]; i++) {
        char name[16];
        snprintf(name, sizeof name, "%010" PRIu32, i);
        code = read_exactly(images, image, bytes);
        if (!code)
            code = list_add(&source->list, labels[i], name,
                            (struct source_place){SOURCE_SPILL, spill_end(spill), bytes});
        if (!code)
            code = spill_append(spill, image, bytes);
    }
    free(image);
    if (!code)
        code = expect_end(images);
    return code;
}

static int check_sizes(const struct idx *images, const struct idx *labels)
{
    if (images->size[0] != labels->size[0])
        return err_set(ERR_DATA, "%s holds %" PRIu32 " images, %s %" PRIu32 " labels", images->path,
                       images->size[0], labels->path, labels->size[0]);
    if (images->size[0] == 0)
        return err_set(ERR_DATA, "%s: holds no images", images->path);
    if (images->size[1] < 1 || images->size[1] > UINT16_MAX || images->size[2] < 1 ||
        images->size[2] > UINT16_MAX ||
        (uint64_t)images->size[1] * images->size[2] > STORE_RECORD_BYTES_MAX)
        return err_set(ERR_DATA, "%s: images of %" PRIu32 " x %" PRIu32 " px", images->path,
                       images->size[2], images->size[1]);
    return 0;
}

/* The file may say any count; memory is taken as labels come. */
static int read_labels(struct idx *labels, uint8_t **values)
{
    size_t room = 0, count = labels->size[0];
    int code = 0;
    *values = NULL;
    for (size_t used = 0; !code && used < count; used = room) {
        size_t wanted = room ? 2 * room : READ_BYTES;
        wanted = wanted < count ? wanted : count;
        uint8_t *grown = realloc(*values, wanted);
        if (!grown)
            return err_set(ERR_NOMEM, "out of memory for labels");
        *values = grown;
        room = wanted;
        code = read_exactly(labels, grown + used, room - used);
    }
    return code;
}

static uint8_t highest(const uint8_t *labels, uint32_t count)
{
    uint8_t most = 0;
    for (uint32_t i = 0; i < count; i++)
        most = labels[i] > most ? labels[i] : most;
    return most;
}

static int load(struct source *source, const struct source_request *request, struct idx *images,
                struct idx *labels)
{
    uint8_t *values = NULL;
    int code = check_sizes(images, labels);
    if (!code)
        code = read_labels(labels, &values);
    if (!code)
        code = expect_end(labels);
    if (!code)
        code = list_number_classes(&source->list, request, highest(values, labels->size[0]));
    if (!code)
        code = copy_images(source, images, values);
    free(values);
    source->height = images->size[1];
    source->width = images->size[2];
    source->channels = 1;
    return code;
}

static int load_pair(struct source *source, const struct source_request *request, const char *a,
                     const char *b)
{
    struct idx first = {0}, second = {0};
    int code = idx_open(&first, a);
    if (!code)
        code = idx_open(&second, b);
    if (!code && first.dimensions == second.dimensions)
        code = err_set(ERR_ARG, "%s and %s: one must hold images, the other labels", a, b);
    if (!code)
        code = first.dimensions == 3 ? load(source, request, &first, &second)
                                     : load(source, request, &second, &first);
    idx_close(&first);
    idx_close(&second);
    return code;
}

static bool has_part(const char *name, const char *prefix, const char *part)
{
    size_t length = strlen(prefix);
    return strncmp(name, prefix, length) == 0 && strstr(name + length, part) != NULL;
}

/* The one file of the directory whose name begins with prefix and holds part. */
static int find_one(char **path, const char *directory, const char *prefix, const char *part)
{
    DIR *listing = opendir(directory);
    if (!listing)
        return err_set(ERR_IO, "%s: %s", directory, strerror(errno));
    int code = 0, found = 0;
    *path = NULL;
    for (struct dirent *item; !code && (item = readdir(listing));) {
        if (!has_part(item->d_name, prefix, part) || found++)
            continue;
        if (asprintf(path, "%s/%s", directory, item->d_name) < 0) {
            *path = NULL;
            code = err_set(ERR_NOMEM, "out of memory");
        }
    }
    closedir(listing);
    if (!code && found == 0)
        return err_set(ERR_IO,
                       "%s: no file %s*%s*; --split chooses train or t10k, or give the two files",
                       directory, prefix, part);
    if (!code && found > 1)
        return err_set(ERR_ARG,
                       "%s: %d files %s*%s*: choose by --split train or t10k, or by a "
                       "prefix, such as %s/train",
                       directory, found, prefix, part, directory);
    return code;
}

/* MNIST's own names for the splits. */
static const char *prefix_of_split(const char *split)
{
    if (!split)
        return "";
    if (strcmp(split, "train") == 0)
        return "train";
    bool test = !strcmp(split, "val") || !strcmp(split, "test") || !strcmp(split, "t10k");
    return test ? "t10k" : "";
}

/* A directory (with --split to choose), or what the two names have in common. */
static int load_prefix(struct source *source, const struct source_request *request)
{
    struct stat status;
    char *directory = NULL, *prefix = NULL, *images = NULL, *labels = NULL;
    int code = 0;
    if (stat(source->path, &status) == 0 && S_ISDIR(status.st_mode)) {
        directory = strdup(source->path);
        prefix = strdup(prefix_of_split(request->split));
    } else {
        const char *slash = strrchr(source->path, '/');
        directory =
            slash ? strndup(source->path, (size_t)(slash - source->path) + (slash == source->path))
                  : strdup(".");
        prefix = strdup(slash ? slash + 1 : source->path);
    }
    if (!directory || !prefix)
        code = err_set(ERR_NOMEM, "out of memory");
    if (!code)
        code = find_one(&images, directory, prefix, "images-idx3");
    if (!code)
        code = find_one(&labels, directory, prefix, "labels-idx1");
    if (!code)
        code = load_pair(source, request, images, labels);
    free(directory);
    free(prefix);
    free(images);
    free(labels);
    return code;
}

static int open_idx(struct source *source, const struct source_request *request)
{
    if (request->input_count == 2)
        return load_pair(source, request, request->inputs[0], request->inputs[1]);
    if (request->input_count == 1)
        return load_prefix(source, request);
    return err_set(ERR_ARG,
                   "--source idx takes a file of images and one of labels, or a prefix; "
                   "%zu inputs are given",
                   request->input_count);
}

const struct source_ops source_idx = {"idx", open_idx, source_read_range};

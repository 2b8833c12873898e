/* SPDX-License-Identifier: Apache-2.0 */
/* CIFAR's binary version (https://www.cs.toronto.edu/~kriz/cifar.html): records of one label byte
 * (CIFAR-10) or two, coarse and fine (CIFAR-100: the fine one counts), then 32 x 32 bytes of R, G
 * and B each. Names of samples are their positions over all files; files are taken in the order of
 * their names. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/err.h"
#include "datasets/source.h"

enum {
    SIDE_PX = 32,
    IMAGE_BYTES = 3 * SIDE_PX * SIDE_PX,
    BLOCK_RECORDS = 512,
    FILES_MAX = 16,
};

struct kind {
    const char *name;
    unsigned label_bytes, classes;
    const char *train, *test; /* what the names of its files begin with */
};

static const struct kind kinds[] = {{"CIFAR-10", 1, 10, "data_batch", "test_batch"},
                                    {"CIFAR-100", 2, 100, "train.bin", "test.bin"}};
enum { KINDS = sizeof kinds / sizeof *kinds };

struct paths {
    char *path[FILES_MAX];
    size_t count;
};

/* By the size, a multiple of the record's; labels are checked later. */
static const struct kind *kind_of(uint64_t bytes)
{
    const struct kind *found = NULL;
    for (int i = 0; i < KINDS; i++) {
        if (bytes == 0 || bytes % (kinds[i].label_bytes + IMAGE_BYTES))
            continue;
        if (found)
            return NULL;
        found = &kinds[i];
    }
    return found;
}

static int add_block(struct source *source, uint32_t file, const struct kind *kind,
                     const uint8_t *records, size_t count, uint64_t first)
{
    size_t record_bytes = kind->label_bytes + IMAGE_BYTES;
    int code = 0;
    for (size_t i = 0; !code && i < count; i++) {
        uint8_t label = records[i * record_bytes + kind->label_bytes - 1];
        char name[16];
        struct source_place place = {file, (first + i) * record_bytes + kind->label_bytes,
                                     IMAGE_BYTES};
        if (label >= kind->classes)
            return err_set(ERR_DATA, "%s: record %" PRIu64 ": label %u, but %s has %u classes",
                           source->files[file].path, first + i, label, kind->name, kind->classes);
        snprintf(name, sizeof name, "%010zu", source->list.count);
        code = list_add(&source->list, label, name, place);
    }
    return code;
}

static int list_file(struct source *source, const char *path, const struct kind **kind)
{
    uint32_t file;
    int code = source_add_file(source, path, &file);
    if (code)
        return code;
    const struct kind *own = kind_of(source->files[file].bytes);
    if (!own || (*kind && *kind != own))
        return err_set(ERR_DATA,
                       "%s: %ju bytes are not CIFAR-10 or CIFAR-100 in its binary version", path,
                       (uintmax_t)source->files[file].bytes);
    *kind = own;
    size_t record_bytes = own->label_bytes + IMAGE_BYTES;
    uint64_t records = source->files[file].bytes / record_bytes;
    uint8_t *block = malloc(BLOCK_RECORDS * record_bytes);
    if (!block)
        return err_set(ERR_NOMEM, "out of memory");
    for (uint64_t first = 0; !code && first < records; first += BLOCK_RECORDS) {
        size_t count = records - first < BLOCK_RECORDS ? (size_t)(records - first) : BLOCK_RECORDS;
        ssize_t got = pread(source->files[file].fd, block, count * record_bytes,
                            (off_t)(first * record_bytes));
        if (got != (ssize_t)(count * record_bytes))
            code = err_set(ERR_IO, "%s: %s", path, got < 0 ? strerror(errno) : "cut short");
        else
            code = add_block(source, file, own, block, count, first);
    }
    free(block);
    return code;
}

static bool is_wanted(const char *name, const char *split)
{
    bool train = !split || strcmp(split, "train") == 0;
    size_t length = strlen(name);
    if (length < 4 || strcmp(name + length - 4, ".bin") != 0)
        return false;
    for (int i = 0; i < KINDS; i++) {
        const char *begin = train ? kinds[i].train : kinds[i].test;
        if (strncmp(name, begin, strlen(begin)) == 0)
            return true;
    }
    return false;
}

static int compare_paths(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int find_files(struct paths *paths, const char *directory, const char *split)
{
    DIR *listing = opendir(directory);
    if (!listing)
        return err_set(ERR_IO, "%s: %s", directory, strerror(errno));
    int code = 0;
    for (struct dirent *item; !code && (item = readdir(listing));) {
        if (!is_wanted(item->d_name, split))
            continue;
        if (paths->count == FILES_MAX)
            code = err_set(ERR_ARG, "%s: more than %d files of the split", directory, FILES_MAX);
        else if (asprintf(&paths->path[paths->count], "%s/%s", directory, item->d_name) < 0)
            code = err_set(ERR_NOMEM, "out of memory");
        else
            paths->count++;
    }
    closedir(listing);
    if (!code && paths->count == 0)
        code = err_set(ERR_IO,
                       "%s: no file data_batch*.bin or train.bin (with --split val or "
                       "test: test_batch.bin or test.bin)",
                       directory);
    if (paths->count)
        qsort(paths->path, paths->count, sizeof *paths->path, compare_paths);
    return code;
}

static int open_cifar(struct source *source, const struct source_request *request)
{
    struct paths paths = {0};
    struct stat status;
    const struct kind *kind = NULL;
    bool directory =
        request->input_count == 1 && stat(source->path, &status) == 0 && S_ISDIR(status.st_mode);
    int code = directory ? find_files(&paths, source->path, request->split) : 0;
    size_t count = directory ? paths.count : request->input_count;
    for (size_t i = 0; !code && i < count; i++)
        code = list_file(source, directory ? paths.path[i] : request->inputs[i], &kind);
    for (size_t i = 0; i < paths.count; i++)
        free(paths.path[i]);
    source->width = source->height = SIDE_PX;
    source->channels = 3;
    return code ? code : list_number_classes(&source->list, request, kind->classes - 1);
}

const struct source_ops source_cifar = {"cifar", open_cifar, source_read_range};

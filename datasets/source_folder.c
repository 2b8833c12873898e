/* SPDX-License-Identifier: Apache-2.0 */
/* Class folders, INPUT/CLASS/FILE, or with a file of labels INPUT/FILE and INPUT/FOLDER/FILE. Any
 * file counts, whatever its name: its content decides later. Hidden names and deeper folders are
 * left out, and without labels the files beside the class folders. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/err.h"
#include "common/log.h"
#include "common/stop.h"
#include "datasets/labelled.h"

/* Symbolic links are followed; a name that cannot be looked at is left to the read to report. */
static mode_t kind_of(int directory, const char *name, uint64_t *bytes)
{
    struct stat status;
    *bytes = 0;
    if (fstatat(directory, name, &status, 0) != 0)
        return S_IFREG;
    *bytes = (uint64_t)status.st_size;
    return status.st_mode & S_IFMT;
}

static DIR *open_directory(int parent, const char *name)
{
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    if (!directory && fd >= 0)
        close(fd);
    return directory;
}

struct listing {
    struct source *source;
    struct labelled labelled;
    size_t beside, deeper; /* what is left out */
};

static int add_file(struct listing *listing, const char *folder, const char *name, uint64_t bytes)
{
    char *path = NULL;
    size_t class_index;
    if (asprintf(&path, "%s%s%s", folder, *folder ? "/" : "", name) < 0)
        return err_set(ERR_NOMEM, "out of memory");
    int code = stop_requested() ? err_set(ERR_STOPPED, "stopped; nothing was written")
                                : labelled_class(&listing->labelled, &class_index, path);
    if (!code && class_index != SIZE_MAX)
        code = list_add_path(&listing->source->list, class_index, path, bytes);
    free(path);
    return code;
}

static int list_folder(struct listing *listing, const char *folder)
{
    const struct source *source = listing->source;
    DIR *directory = open_directory(source->folder, folder);
    if (!directory)
        return err_set(ERR_IO, "%s/%s: %s", source->path, folder, strerror(errno));
    int code = 0;
    errno = 0;
    for (struct dirent *item; !code && (item = readdir(directory)); errno = 0) {
        uint64_t bytes;
        if (item->d_name[0] == '.')
            continue;
        mode_t kind = kind_of(dirfd(directory), item->d_name, &bytes);
        listing->deeper += kind == S_IFDIR;
        if (kind == S_IFREG)
            code = add_file(listing, folder, item->d_name, bytes);
    }
    if (!code && errno)
        code = err_set(ERR_IO, "%s/%s: %s", source->path, folder, strerror(errno));
    closedir(directory);
    return code;
}

/* A class may be empty: it is there before its files. */
static int list_class(struct listing *listing, const char *folder)
{
    size_t index;
    int code = 0;
    if (!listing->labelled.request->labels)
        code = labelled_folder(&listing->labelled, &index, folder);
    return code ? code : list_folder(listing, folder);
}

static int list_root(struct listing *listing, DIR *root)
{
    int code = 0;
    errno = 0;
    for (struct dirent *item; !code && (item = readdir(root)); errno = 0) {
        uint64_t bytes;
        if (item->d_name[0] == '.')
            continue;
        mode_t kind = kind_of(dirfd(root), item->d_name, &bytes);
        if (kind == S_IFDIR)
            code = list_class(listing, item->d_name);
        else if (kind == S_IFREG && listing->labelled.request->labels)
            code = add_file(listing, "", item->d_name, bytes);
        else
            listing->beside++;
    }
    if (!code && errno)
        code = err_set(ERR_IO, "%s: %s", listing->source->path, strerror(errno));
    return code;
}

static int open_folder(struct source *source, const struct source_request *request)
{
    struct listing listing = {.source = source};
    if (request->input_count != 1)
        return err_set(ERR_ARG, "--source folder takes one folder, %zu are given",
                       request->input_count);
    source->folder = open(source->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *root = source->folder < 0 ? NULL : open_directory(source->folder, ".");
    if (!root)
        return err_set(ERR_IO, "%s: %s", source->path, strerror(errno));
    int code = labelled_begin(&listing.labelled, source, request);
    if (!code)
        code = list_root(&listing, root);
    closedir(root);
    if (!code)
        code = labelled_end(&listing.labelled);
    labelled_release(&listing.labelled);
    if (code)
        return code;
    if (source->list.class_count == 0)
        return err_set(ERR_DATA,
                       "%s: holds no class folders; for files beside each other say "
                       "--labels FILE",
                       source->path);
    if (listing.beside)
        log_warn("%s: %zu files beside the class folders are left out", source->path,
                 listing.beside);
    if (listing.deeper)
        log_warn("%s: %zu folders inside of folders are left out", source->path, listing.deeper);
    return 0;
}

const struct source_ops source_folder = {"folder", open_folder, source_read_path};

/* SPDX-License-Identifier: Apache-2.0 */
/* Class folders: INPUT/CLASS/FILE. Any file counts, whatever its name: its content decides later.
 * Hidden names, deeper folders and files beside the class folders are left out. */
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
#include "datasets/source.h"

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

static int list_class(struct source *source, const char *id)
{
    size_t index;
    int code = list_add_class(&source->list, id, &index);
    if (code)
        return code;
    DIR *directory = open_directory(source->fd, id);
    if (!directory)
        return err_set(ERR_IO, "%s/%s: %s", source->path, id, strerror(errno));
    errno = 0;
    for (struct dirent *item; !code && (item = readdir(directory)); errno = 0) {
        uint64_t bytes;
        if (item->d_name[0] == '.' || kind_of(dirfd(directory), item->d_name, &bytes) != S_IFREG)
            continue;
        code = list_add(&source->list, index, item->d_name, false, 0, bytes);
    }
    if (!code && errno)
        code = err_set(ERR_IO, "%s/%s: %s", source->path, id, strerror(errno));
    closedir(directory);
    return code;
}

static int open_folder(struct source *source, const struct source_request *request)
{
    if (request->input_count != 1)
        return err_set(ERR_ARG, "--source folder takes one folder, %zu are given",
                       request->input_count);
    source->fd = open(source->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *root = source->fd < 0 ? NULL : open_directory(source->fd, ".");
    if (!root)
        return err_set(ERR_IO, "%s: %s", source->path, strerror(errno));
    int code = 0;
    size_t beside = 0;
    errno = 0;
    for (struct dirent *item; !code && (item = readdir(root)); errno = 0) {
        uint64_t bytes;
        if (item->d_name[0] == '.')
            continue;
        if (kind_of(dirfd(root), item->d_name, &bytes) == S_IFDIR)
            code = list_class(source, item->d_name);
        else
            beside++;
    }
    if (!code && errno)
        code = err_set(ERR_IO, "%s: %s", source->path, strerror(errno));
    closedir(root);
    if (!code && source->list.class_count == 0)
        return err_set(ERR_DATA, "%s: holds no class folders", source->path);
    if (!code && beside)
        log_warn("%s: %zu files beside the class folders are left out", source->path, beside);
    return code;
}

static int open_file(const struct source *source, const struct source_entry *entry)
{
    char *path;
    if (asprintf(&path, "%s/%s", source->list.class_ids[entry->label],
                 source->list.text + entry->name) < 0) {
        errno = ENOMEM;
        return -1;
    }
    int fd = openat(source->fd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int saved = errno;
    free(path);
    errno = saved;
    return fd;
}

static int read_file(const struct source *source, const struct source_entry *entry,
                     struct source_buffer *buffer)
{
    int fd = open_file(source, entry);
    if (fd < 0)
        return err_set(ERR_IO, "%s", strerror(errno));
    int code = 0;
    while (buffer->bytes < entry->bytes) {
        ssize_t got = read(fd, buffer->data + buffer->bytes, entry->bytes - buffer->bytes);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            code = err_set(ERR_IO, "%s", strerror(errno));
        if (got <= 0)
            break;
        buffer->bytes += (size_t)got;
    }
    close(fd);
    if (!code && buffer->bytes != entry->bytes)
        code = err_set(ERR_DATA, "changed while it was packed");
    return code;
}

const struct source_ops source_folder = {"folder", open_folder, read_file};

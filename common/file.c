/* SPDX-License-Identifier: Apache-2.0 */
/* Files written whole or not at all, and read whole. */
#include "common/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/err.h"

struct file_atomic {
    char *path, *temporary;
    FILE *stream;
};

static int io_error(const char *what, const char *path)
{
    int code = errno == ENOMEM ? ERR_NOMEM : ERR_IO;
    return err_set(code, "cannot %s '%s': %s", what, path, strerror(errno));
}

int file_sync_directory_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    size_t bytes = slash ? (size_t)(slash - path) : 0;
    char *directory = !slash ? strdup(".") : bytes == 0 ? strdup("/") : strndup(path, bytes);
    if (!directory)
        return err_set(ERR_NOMEM, "out of memory for the path '%s'", path);
    int code = 0;
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    /* Some file systems refuse to sync a directory; there is nothing better to do on them. */
    if (fd < 0 || (fsync(fd) != 0 && errno != EINVAL && errno != EROFS))
        code = io_error("sync the directory", directory);
    if (fd >= 0)
        close(fd);
    free(directory);
    return code;
}

/* path.PID.NUMBER.tmp; NULL when memory is out. */
static char *temporary_name(const char *path)
{
    static atomic_uint counter;
    char *name;
    unsigned number = atomic_fetch_add(&counter, 1);
    return asprintf(&name, "%s.%ld.%u.tmp", path, (long)getpid(), number) < 0 ? NULL : name;
}

/* A name that nobody else uses, in the directory of path; mode as the umask has it (mkstemp would
 * make the published file private). */
static int open_temporary(char **name, const char *path)
{
    for (int tries = 0; tries < 1000; tries++) {
        *name = temporary_name(path);
        if (!*name) {
            errno = ENOMEM;
            return -1;
        }
        int fd = open(*name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd >= 0 || errno != EEXIST)
            return fd;
        free(*name);
        *name = NULL;
    }
    return -1;
}

int file_atomic_open(struct file_atomic **out, const char *path)
{
    struct stat status;
    *out = NULL;
    /* Renaming onto a device, a directory or a pipe would destroy it or fail late. */
    if (stat(path, &status) == 0 && !S_ISREG(status.st_mode))
        return err_set(ERR_IO, "cannot write '%s': it exists and is not a regular file", path);
    struct file_atomic *file = calloc(1, sizeof *file);
    if (!file || !(file->path = strdup(path))) {
        free(file);
        return err_set(ERR_NOMEM, "out of memory for writing '%s'", path);
    }
    int fd = open_temporary(&file->temporary, path);
    if (fd < 0) {
        int code = io_error("write", path);
        free(file->temporary);
        free(file->path);
        free(file);
        return code;
    }
    file->stream = fdopen(fd, "wb");
    if (!file->stream) {
        int code = io_error("write", path);
        close(fd);
        file_atomic_discard(file);
        return code;
    }
    *out = file;
    return 0;
}

FILE *file_atomic_stream(struct file_atomic *file)
{
    return file->stream;
}

/* Why an earlier write failed: a stream keeps that it did and not why. Asked by writing on, into a
 * file that will be discarded, until that fails too; EIO when it does not. */
static int reason_of_failure(FILE *stream)
{
    static const char more[1 << 16];
    for (int tries = 0; tries < 4; tries++) {
        if (write(fileno(stream), more, sizeof more) < 0)
            return errno;
    }
    return EIO;
}

/* lasting: it is on the disk before it has its name. */
static int publish(struct file_atomic *file, bool lasting)
{
    int code = 0;
    if (ferror(file->stream)) {
        errno = reason_of_failure(file->stream);
        code = io_error("write", file->path);
        goto out;
    }
    if (fflush(file->stream) != 0 || (lasting && fsync(fileno(file->stream)) != 0)) {
        code = io_error("write", file->path);
        goto out;
    }
    int closed = fclose(file->stream);
    file->stream = NULL;
    if (closed != 0 || rename(file->temporary, file->path) != 0) {
        code = io_error("write", file->path);
        goto out;
    }
    free(file->temporary);
    file->temporary = NULL;
    if (lasting)
        code = file_sync_directory_of(file->path);
out:
    file_atomic_discard(file);
    return code;
}

int file_atomic_commit(struct file_atomic *file)
{
    return publish(file, true);
}

void file_atomic_discard(struct file_atomic *file)
{
    if (!file)
        return;
    if (file->stream)
        fclose(file->stream);
    if (file->temporary)
        unlink(file->temporary);
    free(file->temporary);
    free(file->path);
    free(file);
}

static int write_whole(const char *path, const void *data, size_t bytes, bool lasting)
{
    struct file_atomic *file;
    int code = file_atomic_open(&file, path);
    if (code)
        return code;
    if (bytes > 0 && fwrite(data, 1, bytes, file->stream) != bytes) {
        code = io_error("write", path);
        file_atomic_discard(file);
        return code;
    }
    return publish(file, lasting);
}

int file_write_atomic(const char *path, const void *data, size_t bytes)
{
    return write_whole(path, data, bytes, true);
}

int file_write_passing(const char *path, const void *data, size_t bytes)
{
    return write_whole(path, data, bytes, false);
}

static int make_link(const char *temporary, const char *existing, const char *path)
{
    int code = 0;
    if (link(existing, temporary) != 0) {
        bool never = errno == EPERM || errno == EOPNOTSUPP || errno == ENOSYS || errno == EMLINK;
        return err_set(never ? ERR_UNSUPPORTED : ERR_IO, "cannot link '%s' to '%s': %s", path,
                       existing, strerror(errno));
    }
    if (rename(temporary, path) != 0)
        code = io_error("write", path);
    /* Still there after a failure, and when both names were one file already. */
    if (unlink(temporary) != 0 && errno != ENOENT && !code)
        code = io_error("remove", temporary);
    return code;
}

int file_link(const char *path, const char *existing)
{
    char *temporary = temporary_name(path);
    if (!temporary)
        return err_set(ERR_NOMEM, "out of memory for the path '%s'", path);
    int code = make_link(temporary, existing, path);
    free(temporary);
    return code ? code : file_sync_directory_of(path);
}

/* Fills buffer (of bytes) from fd; *got is less than bytes at the end of the file. */
static int read_full(int fd, uint8_t *buffer, size_t bytes, size_t *got)
{
    *got = 0;
    while (*got < bytes) {
        ssize_t now = read(fd, buffer + *got, bytes - *got);
        if (now < 0 && errno == EINTR)
            continue;
        if (now < 0)
            return -1;
        if (now == 0)
            break;
        *got += (size_t)now;
    }
    return 0;
}

int file_open_regular(int *fd, uint64_t *bytes, const char *path)
{
    struct stat status;
    int code = 0;
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe of that name must not hang */
    if (*fd < 0 || fstat(*fd, &status) != 0)
        code = io_error("read", path);
    else if (!S_ISREG(status.st_mode))
        code = err_set(ERR_IO, "cannot read '%s': not a regular file", path);
    if (!code) {
        *bytes = (uint64_t)status.st_size;
        return 0;
    }
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
    return code;
}

int file_read(uint8_t **data, size_t *bytes, const char *path, size_t max_bytes)
{
    uint8_t *buffer = NULL;
    uint64_t size;
    int fd;
    *data = NULL;
    *bytes = 0;
    int code = file_open_regular(&fd, &size, path);
    if (code)
        return code;
    if (size > max_bytes)
        code = err_set(ERR_IO, "cannot read '%s': %" PRIu64 " bytes, at most %zu are expected",
                       path, size, max_bytes);
    else if (!(buffer = malloc(size + 1)))
        code = err_set(ERR_NOMEM, "out of memory for the %" PRIu64 " bytes of '%s'", size, path);
    else if (read_full(fd, buffer, size, bytes) != 0)
        code = io_error("read", path);
    close(fd);
    if (code) {
        *bytes = 0;
        free(buffer);
        return code;
    }
    buffer[*bytes] = 0;
    *data = buffer;
    return 0;
}

/* One level; an existing directory is fine. */
static int make_one(const char *path)
{
    struct stat status;
    if (mkdir(path, 0777) == 0)
        return 0;
    int reason = errno;
    if (stat(path, &status) == 0 && S_ISDIR(status.st_mode))
        return 0;
    errno = reason;
    return io_error("make the directory", path);
}

bool file_is_same(const char *a, const char *b)
{
    struct stat first, second;
    return stat(a, &first) == 0 && stat(b, &second) == 0 && first.st_dev == second.st_dev &&
           first.st_ino == second.st_ino;
}

int file_check_output(const char *output, const char *input, const char *what)
{
    if (output && input && file_is_same(output, input))
        return err_set(ERR_ARG, "'%s' is %s itself: choose another name", output, what);
    return 0;
}

int file_make_directory(const char *path)
{
    char *prefix = strdup(path);
    if (!prefix)
        return err_set(ERR_NOMEM, "out of memory for the path '%s'", path);
    int code = 0;
    for (char *at = prefix; *at && !code; at++) {
        if (*at != '/' || at == prefix)
            continue;
        *at = '\0';
        code = make_one(prefix);
        *at = '/';
    }
    if (!code)
        code = make_one(prefix);
    free(prefix);
    return code;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "datasets/spill.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/err.h"

struct spill {
    FILE *stream;
    uint64_t end;
    char *directory;
};

static char *directory_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        return strdup(".");
    return slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
}

/* O_TMPFILE where the file system has it, else a name that is taken away at once. */
static int open_nameless(const char *directory)
{
    int fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL))
        return fd;
    char *path;
    if (asprintf(&path, "%s/.satchel-spill-XXXXXX", directory) < 0)
        return -1;
    fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0)
        unlink(path);
    free(path);
    return fd;
}

int spill_open(struct spill **out, const char *beside)
{
    *out = NULL;
    struct spill *spill = calloc(1, sizeof *spill);
    if (spill)
        spill->directory = directory_of(beside);
    if (!spill || !spill->directory) {
        spill_close(spill);
        return err_set(ERR_NOMEM, "out of memory");
    }
    int fd = open_nameless(spill->directory);
    if (fd >= 0)
        spill->stream = fdopen(fd, "w+");
    if (!spill->stream) {
        int code = err_set(ERR_IO, "%s: no temporary file: %s", spill->directory, strerror(errno));
        if (fd >= 0)
            close(fd);
        spill_close(spill);
        return code;
    }
    *out = spill;
    return 0;
}

void spill_close(struct spill *spill)
{
    if (!spill)
        return;
    if (spill->stream)
        fclose(spill->stream);
    free(spill->directory);
    free(spill);
}

static int cannot_write(const struct spill *spill)
{
    return err_set(ERR_IO, "%s: cannot write the temporary file: %s", spill->directory,
                   strerror(errno));
}

int spill_append(struct spill *spill, const void *data, size_t bytes)
{
    if (fwrite(data, 1, bytes, spill->stream) != bytes)
        return cannot_write(spill);
    spill->end += bytes;
    return 0;
}

uint64_t spill_end(const struct spill *spill)
{
    return spill->end;
}

int spill_flush(struct spill *spill)
{
    return fflush(spill->stream) == 0 ? 0 : cannot_write(spill);
}

int spill_fd(const struct spill *spill)
{
    return fileno(spill->stream);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Memory files: made and sealed by loaders, found and mapped by trainers. */
#include "proto/share.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "common/err.h"
#include "proto/frame.h"
#include "proto/spec.h"

#ifndef F_SEAL_FUTURE_WRITE /* Linux 5.1; glibc's headers may be older */
#define F_SEAL_FUTURE_WRITE 0x0010
#endif
#ifndef MFD_NOEXEC_SEAL /* Linux 6.3, which complains in the kernel's log without it */
#define MFD_NOEXEC_SEAL 0x0008U
#endif

enum {
    SEALS = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE,
    /* A reader cannot be hurt by a file that has these: it can neither become shorter nor lose
     * pages, for which reading would end the process (SIGBUS). */
    SEALS_NEEDED = F_SEAL_SHRINK | F_SEAL_FUTURE_WRITE,
    /* A loader's buffer has room for one chunk, or is kept from one twice as large. */
    FILE_BYTES_MAX = 2 * SPEC_MAX_CHUNK_BYTES + SHARE_HEADER_BYTES,
};

static const char MAGIC[8] = {'S', 'a', 't', 'c', 'h', 'e', 'l', 'M'};

struct header {
    char magic[sizeof(MAGIC)];
    struct share_token token;
    uint64_t serial;
    _Atomic uint64_t generation;
};

_Static_assert(sizeof(struct header) <= SHARE_HEADER_BYTES, "pixels begin behind the header");

int share_token_make(struct share_token *token)
{
    if (getrandom(token->bytes, sizeof(token->bytes), 0) != (ssize_t)sizeof(token->bytes))
        return err_set(ERR_IO, "random bytes: %s", strerror(errno));
    return ERR_OK;
}

bool share_token_equal(const struct share_token *a, const struct share_token *b)
{
    uint8_t difference = 0; /* takes as long wherever they differ */
    for (int i = 0; i < SHARE_TOKEN_BYTES; i++)
        difference |= a->bytes[i] ^ b->bytes[i];
    return difference == 0;
}

/* ---- loader ---- */

static int open_memory(void)
{
    int fd = memfd_create("satchel-chunk", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL)
        fd = memfd_create("satchel-chunk", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    return fd;
}

int share_create(struct share_file *file, const struct share_token *token, uint64_t serial,
                 size_t pixel_bytes)
{
    size_t bytes = SHARE_HEADER_BYTES + pixel_bytes;
    *file = (struct share_file){.bytes = bytes, .serial = serial, .fd = open_memory()};
    if (file->fd < 0)
        return err_set(ERR_IO, "shared memory: %s", strerror(errno));
    /* All pages now: a file with holes would end the process when memory is out. */
    int failed;
    do
        failed = posix_fallocate(file->fd, 0, (off_t)bytes);
    while (failed == EINTR);
    void *map =
        failed ? MAP_FAILED
               : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, file->fd, 0);
    file->map = map == MAP_FAILED ? NULL : map;
    if (!file->map || fcntl(file->fd, F_ADD_SEALS, SEALS) != 0) {
        int code = err_set(ERR_IO, "shared memory: %s", strerror(failed ? failed : errno));
        share_destroy(file);
        return code;
    }
    struct header *header = file->map;
    memcpy(header->magic, MAGIC, sizeof(MAGIC));
    header->token = *token;
    header->serial = serial;
    atomic_init(&header->generation, 0);
    return ERR_OK;
}

void share_destroy(struct share_file *file)
{
    if (file->bytes == 0)
        return;
    if (file->map)
        munmap(file->map, file->bytes);
    if (file->fd >= 0)
        close(file->fd);
    *file = (struct share_file){0};
}

void *share_pixels(const struct share_file *file)
{
    return (uint8_t *)file->map + SHARE_HEADER_BYTES;
}

void share_stamp(struct share_file *file, uint64_t generation)
{
    struct header *header = file->map;
    atomic_store_explicit(&header->generation, generation, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst); /* no pixel is written before */
}

/* ---- trainer ---- */

/* What a process has open may be anything. */
static int check_memory(int fd, size_t *bytes)
{
    struct stat facts;
    struct statfs system;
    int seals = fcntl(fd, F_GET_SEALS);
    if (fstat(fd, &facts) != 0 || fstatfs(fd, &system) != 0 || seals < 0 ||
        (unsigned long)system.f_type != TMPFS_MAGIC)
        return err_set(ERR_IO, "shared memory: what is there is no memory file");
    if (facts.st_size < SHARE_HEADER_BYTES || facts.st_size > FILE_BYTES_MAX)
        return err_set(ERR_PEER, "shared memory: a file of %lld bytes, %d to %d are possible",
                       (long long)facts.st_size, SHARE_HEADER_BYTES, FILE_BYTES_MAX);
    if ((seals & SEALS_NEEDED) != SEALS_NEEDED || facts.st_blocks * 512 < facts.st_size)
        return err_set(ERR_PEER, "shared memory: a file that may become shorter");
    *bytes = (size_t)facts.st_size;
    return ERR_OK;
}

int share_open(struct share_view *view, pid_t pid, uint32_t descriptor)
{
    char path[64];
    struct stat facts;
    *view = (struct share_view){.descriptor = descriptor};
    snprintf(path, sizeof(path), "/proc/%lld/fd/%u", (long long)pid, descriptor);
    /* Looked at first: opening a device or a pipe may have effects. */
    if (pid <= 0 || stat(path, &facts) != 0)
        return err_set(ERR_IO, "shared memory: its process cannot be looked into (%s)",
                       pid <= 0 ? "another container, perhaps" : strerror(errno));
    int fd = S_ISREG(facts.st_mode) ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
    if (fd < 0)
        return err_set(ERR_IO, "shared memory: its memory cannot be opened");
    int code = check_memory(fd, &view->bytes);
    void *map =
        code ? MAP_FAILED : mmap(NULL, view->bytes, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (!code && map == MAP_FAILED)
        code = err_set(ERR_IO, "shared memory: %s", strerror(errno));
    close(fd);
    if (code) {
        *view = (struct share_view){0};
        return code;
    }
    view->map = map;
    const struct header *header = map;
    view->serial = header->serial;
    if (memcmp(header->magic, MAGIC, sizeof(MAGIC)) == 0)
        return ERR_OK;
    share_close(view);
    return err_set(ERR_IO, "shared memory: what is there is no memory file of a loader");
}

void share_close(struct share_view *view)
{
    if (view->map)
        munmap((void *)view->map, view->bytes);
    *view = (struct share_view){0};
}

struct share_token share_view_token(const struct share_view *view)
{
    return ((const struct header *)view->map)->token;
}

const void *share_view_pixels(const struct share_view *view, size_t pixel_bytes)
{
    if (pixel_bytes > view->bytes - SHARE_HEADER_BYTES)
        return NULL;
    return (const uint8_t *)view->map + SHARE_HEADER_BYTES;
}

bool share_is_current(const struct share_view *view, uint64_t generation)
{
    const struct header *header = view->map;
    atomic_thread_fence(memory_order_seq_cst); /* all pixels were read before */
    return atomic_load_explicit(&header->generation, memory_order_relaxed) == generation;
}

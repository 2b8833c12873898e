/* SPDX-License-Identifier: Apache-2.0 */
/* Pixels in shared memory, where loader and trainer run on one host as one user: the loader makes
 * chunks in memory files (memfd), the trainer maps them, read only, by way of /proc. They have no
 * name in any file system: whoever dies, the kernel takes them away with their last user.
 * docs/protocol.md has the conversation about them.
 *
 * A file is 64 bytes of header and then the pixels. The header, little-endian as the machine is:
 * "SatchelM", the token of the loader's process (16 bytes), a serial (u64) that no other file of
 * that process has, a generation (u64) that changes before the pixels do. Files are sealed: they
 * keep their size and all their pages, and nobody but the loader's own mapping writes to them. */
#ifndef PROTO_SHARE_H
#define PROTO_SHARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { SHARE_TOKEN_BYTES = 16, SHARE_HEADER_BYTES = 64 };

struct share_token { /* random: who knows it has read this process's memory */
    uint8_t bytes[SHARE_TOKEN_BYTES];
};

int share_token_make(struct share_token *token); /* ERR_IO */
bool share_token_equal(const struct share_token *a, const struct share_token *b);

/* ---- loader ---- */

struct share_file { /* zeros: none */
    void *map;
    size_t bytes; /* of the map */
    uint64_t serial;
    int fd;
};

/* Room for so many bytes of pixels (0: the header alone), with all its pages. ERR_IO: the system
 * has no such files, or no memory or descriptor for one. */
int share_create(struct share_file *file, const struct share_token *token, uint64_t serial,
                 size_t pixel_bytes);
void share_destroy(struct share_file *file); /* accepts none */

void *share_pixels(const struct share_file *file); /* 64-byte aligned */

/* Before the pixels change: readers of an older generation can tell from now on. */
void share_stamp(struct share_file *file, uint64_t generation);

/* ---- trainer ---- */

struct share_view { /* zeros: none */
    const void *map;
    size_t bytes;
    uint64_t serial;
    uint32_t descriptor;
};

/* Maps the memory file that process pid has open under this descriptor. ERR_IO: there is none, or
 * this process may not read it; ERR_PEER: it is not sealed, has no pages, or is too large. */
int share_open(struct share_view *view, pid_t pid, uint32_t descriptor);
void share_close(struct share_view *view); /* accepts none */

struct share_token share_view_token(const struct share_view *view);

/* NULL when it has no room for so many. */
const void *share_view_pixels(const struct share_view *view, size_t pixel_bytes);

/* After the pixels were read: false when they may have changed since this generation was told. */
bool share_is_current(const struct share_view *view, uint64_t generation);

#endif

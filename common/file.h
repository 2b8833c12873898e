/* SPDX-License-Identifier: Apache-2.0 */
/* Files written whole or not at all, and read whole. Errors: ERR_IO, ERR_NOMEM, ERR_ARG, each
 * naming the path. */
#ifndef COMMON_FILE_H
#define COMMON_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Replaces path by the bytes: temporary name in the same directory, write, fsync, rename, fsync of
 * the directory. A crash at any instant leaves the old file or the new one. */
int file_write_atomic(const char *path, const void *data, size_t bytes);

/* The same without waiting for the disk: readers find the old file or the new one, a crash of the
 * machine may leave neither. For what is soon written again. */
int file_write_passing(const char *path, const void *data, size_t bytes);

/* The same for content that is produced piece by piece. */
struct file_atomic; /* a file on its way */
int file_atomic_open(struct file_atomic **out, const char *path);
FILE *file_atomic_stream(struct file_atomic *file); /* write here; do not close it */
int file_atomic_commit(struct file_atomic *file);   /* publishes; frees file whatever happens */
void file_atomic_discard(struct file_atomic *file); /* removes the temporary; accepts NULL */

/* Replaces path by a second name (hard link) of an existing file; path's old file or the new one is
 * there at any instant. ERR_UNSUPPORTED: the file system has no such links. */
int file_link(const char *path, const char *existing);

/* Opens a regular file for reading; bytes: its size. Anything else (a pipe, a device, a directory)
 * is refused, not waited for. The caller closes fd, which is -1 after an error. */
int file_open_regular(int *fd, uint64_t *bytes, const char *path);

/* Reads a whole regular file of at most max_bytes into malloc'ed memory (caller frees); one NUL is
 * added behind the content and not counted. */
int file_read(uint8_t **data, size_t *bytes, const char *path, size_t max_bytes);

/* True when both are there and are one file, by whatever names: what is written to one replaces the
 * other. */
bool file_is_same(const char *a, const char *b);

/* ERR_ARG when output, by whatever name, is the file input that a program reads; what says what
 * that is: "the store". NULL for either: nothing to refuse. */
int file_check_output(const char *output, const char *input, const char *what);

/* mkdir -p. */
int file_make_directory(const char *path);

/* fsync of the directory that holds path. */
int file_sync_directory_of(const char *path);

#endif

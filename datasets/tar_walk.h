/* SPDX-License-Identifier: Apache-2.0 */
/* Walking through the members of a tar, and of tars inside of it, without unpacking: what is not
 * compressed is read where it lies, now or later; what is goes through the spill (datasets/spill.h)
 * as far as it is wanted. */
#ifndef DATASETS_TAR_WALK_H
#define DATASETS_TAR_WALK_H

#include "datasets/source.h"

/* A tar on its way, at one of its members. */
struct tar_walk;

/* Called for every regular file that is not hidden; path: as the tar says, of any bytes. What it
 * returns other than 0 ends the walk. */
typedef int (*tar_visit)(struct tar_walk *walk, const char *path, void *user);

/* Walks through one of the source's files. ERR_DATA: damaged, sparse or linked members; ERR_IO; a
 * request to stop is ERR_STOPPED. */
int tar_walk_file(struct source *source, uint32_t file, tar_visit visit, void *user);

/* For use in a visit, at most one of them, and for one member once. */

/* Where the member's bytes are; spills them when they cannot be reached later. */
int tar_member_place(struct tar_walk *walk, struct source_place *place);
/* The member's content, at most room bytes of it. */
int tar_member_read(struct tar_walk *walk, void *dst, size_t room, size_t *bytes);
/* The member is a tar itself. name: of it, for messages. */
int tar_member_walk(struct tar_walk *walk, const char *name, tar_visit visit, void *user);

#endif

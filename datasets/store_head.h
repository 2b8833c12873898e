/* SPDX-License-Identifier: Apache-2.0 */
/* What is looked at before LMDB sees a file. */
#ifndef DATASETS_STORE_HEAD_H
#define DATASETS_STORE_HEAD_H

#include <sys/stat.h>

/* Is it an LMDB file that LMDB can be let near? Its status, too. ERR_IO, ERR_DATA. */
int store_check_head(struct stat *status, int fd, const char *path);

#endif

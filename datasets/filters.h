/* SPDX-License-Identifier: Apache-2.0 */
/* Which compressed archives are read. */
#ifndef DATASETS_FILTERS_H
#define DATASETS_FILTERS_H

struct archive;

/* The compressions that inputs may have: gzip, bzip2, xz, zstd. Not all that libarchive knows: for
 * some it would start programs that a hostile file chose. */
void filters_support(struct archive *archive);

#endif

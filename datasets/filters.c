/* SPDX-License-Identifier: Apache-2.0 */
#include "datasets/filters.h"

#include <archive.h>

void filters_support(struct archive *archive)
{
    archive_read_support_filter_gzip(archive);
    archive_read_support_filter_bzip2(archive);
    archive_read_support_filter_xz(archive);
    archive_read_support_filter_zstd(archive);
}

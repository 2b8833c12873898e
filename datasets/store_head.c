/* SPDX-License-Identifier: Apache-2.0 */
#include "datasets/store_head.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "common/bytes.h"
#include "common/err.h"

enum { HEAD_BYTES = 64 }; /* enough of a meta page */

/* Of a meta page. False: it is none of LMDB's, or there is not as much of the file. Offsets: page
 * header 16 bytes, then MDB_meta: magic, version, address, map size, and the page size as the first
 * field of the first database. */
static bool read_page_bytes(uint32_t *page_bytes, int fd, off_t at)
{
    uint8_t head[HEAD_BYTES];
    if (pread(fd, head, sizeof head, at) != (ssize_t)sizeof head ||
        bytes_get(head + 16, 4) != 0xBEEFC0DE)
        return false;
    *page_bytes = (uint32_t)bytes_get(head + 40, 4);
    return true;
}

/* LMDB itself trusts the page size of its meta pages (it divides by it, and finds pages by it; of
 * the two pages the newer one's counts), so those are looked at first. */
int store_check_head(struct stat *status, int fd, const char *path)
{
    uint32_t page_bytes, other;
    if (fstat(fd, status) != 0)
        return err_set(ERR_IO, "%s: %s", path, strerror(errno));
    if (!S_ISREG(status->st_mode))
        return err_set(ERR_IO, "%s: not a regular file; a store is one file", path);
    if (status->st_size == 0)
        return err_set(ERR_DATA, "%s: empty file, not a Satchel store", path);
    errno = 0;
    if (!read_page_bytes(&page_bytes, fd, 0))
        return errno ? err_set(ERR_IO, "%s: %s", path, strerror(errno))
                     : err_set(ERR_DATA, "%s: not a Satchel store (satchel-pack makes them)", path);
    if (page_bytes < 512 || page_bytes > 32768 || (page_bytes & (page_bytes - 1)))
        return err_set(ERR_DATA, "%s: damaged store: page size %" PRIu32, path, page_bytes);
    if (status->st_size < 2 * (off_t)page_bytes)
        return err_set(ERR_DATA, "%s: truncated: %jd bytes; copy or pack it again", path,
                       (intmax_t)status->st_size);
    errno = 0;
    if (!read_page_bytes(&other, fd, page_bytes))
        return errno ? err_set(ERR_IO, "%s: %s", path, strerror(errno))
                     : err_set(ERR_DATA, "%s: damaged store: no second meta page", path);
    if (other != page_bytes)
        return err_set(ERR_DATA, "%s: damaged store: page sizes %" PRIu32 " and %" PRIu32, path,
                       page_bytes, other);
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Memory files: what a loader writes is what a trainer reads, until it is stamped anew; nobody else
 * can write to one; and whatever else a process may have open in place of one is refused. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "common/err.h"
#include "proto/share.h"
#include "tests/unit/testing.h"

enum { BYTES = 100000, SERIAL = 77 };

static struct share_token token;

static int open_token(void **state)
{
    (void)state;
    return share_token_make(&token);
}

static void pixels_are_read(void **state)
{
    (void)state;
    struct share_file file;
    struct share_view view;
    assert_int_equal(share_create(&file, &token, SERIAL, BYTES), 0);
    share_stamp(&file, 5);
    memset(share_pixels(&file), 9, BYTES);
    assert_int_equal(share_open(&view, getpid(), (uint32_t)file.fd), 0);
    const struct share_token seen = share_view_token(&view);
    assert_true(share_token_equal(&seen, &token));
    assert_true(view.serial == SERIAL);
    assert_null(share_view_pixels(&view, BYTES + 1));
    assert_memory_equal(share_view_pixels(&view, BYTES), share_pixels(&file), BYTES);
    assert_true(share_is_current(&view, 5));
    share_stamp(&file, 6);
    assert_false(share_is_current(&view, 5));
    share_destroy(&file); /* the reader's map stays */
    assert_int_equal(((const uint8_t *)share_view_pixels(&view, BYTES))[BYTES - 1], 9);
    share_close(&view);
    share_close(&view);
    share_destroy(&file);
}

/* Not even its owner, but for the map that was there before. */
static void nobody_else_writes(void **state)
{
    (void)state;
    struct share_file file;
    char path[64];
    assert_int_equal(share_create(&file, &token, SERIAL, BYTES), 0);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", file.fd);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_true(pwrite(fd, "x", 1, SHARE_HEADER_BYTES) < 0);
    assert_ptr_equal(mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
    assert_true(ftruncate(fd, SHARE_HEADER_BYTES) != 0 && ftruncate(fd, 10 * BYTES) != 0);
    assert_true(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, BYTES) != 0);
    close(fd);
    share_destroy(&file);
}

static void refuse(int fd, int code, const char *why)
{
    struct share_view view;
    assert_int_equal(share_open(&view, getpid(), (uint32_t)fd), code);
    if (!strstr(err_message(), why))
        fail_msg("'%s' is not in: %s", why, err_message());
    close(fd);
}

static int memory(size_t bytes, int pages, int seals)
{
    int fd = memfd_create("other", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_true(fd >= 0);
    int made = pages ? posix_fallocate(fd, 0, (off_t)bytes) : ftruncate(fd, (off_t)bytes);
    assert_int_equal(made, 0);
    assert_true(!seals || fcntl(fd, F_ADD_SEALS, seals) == 0);
    return fd;
}

static void all_else_is_refused(void **state)
{
    (void)state;
    enum { SEALS = F_SEAL_SHRINK | F_SEAL_WRITE | 0x10 /* F_SEAL_FUTURE_WRITE */ };
    int ends[2];
    char path[TESTING_PATH_BYTES];
    struct share_view view;
    assert_int_equal(pipe(ends), 0);
    close(ends[1]);
    refuse(ends[0], ERR_IO, "cannot be opened");
    refuse(open("/dev/zero", O_RDWR | O_CLOEXEC), ERR_IO, "cannot be opened");
    testing_path(path, testing_directory(), "file");
    refuse(open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600), ERR_IO, "no memory file");
    refuse(memory(BYTES, 1, 0), ERR_PEER, "may become shorter");
    refuse(memory(BYTES, 1, F_SEAL_SHRINK), ERR_PEER, "may become shorter");
    refuse(memory(BYTES, 0, SEALS), ERR_PEER, "may become shorter");
    refuse(memory(SHARE_HEADER_BYTES - 1, 1, SEALS), ERR_PEER, "are possible");
    refuse(memory(SIZE_MAX / 4, 0, SEALS), ERR_PEER, "are possible");
    refuse(memory(BYTES, 1, SEALS), ERR_IO, "no memory file of a loader");
    assert_int_equal(share_open(&view, getpid(), 1000000), ERR_IO);
    assert_int_equal(share_open(&view, 0, 0), ERR_IO);
    assert_null(view.map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pixels_are_read),
        cmocka_unit_test(nobody_else_writes),
        cmocka_unit_test(all_else_is_refused),
    };
    return cmocka_run_group_tests(tests, open_token, NULL);
}

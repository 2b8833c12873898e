/* SPDX-License-Identifier: Apache-2.0 */
/* The built-in self-test: passes on this machine, agrees with itself on every path, and its images
 * are there. That a loader whose pixels differ does not start is tests/fault's business. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>

#include "common/err.h"
#include "loader/selftest.h"

static void passes(void **state)
{
    (void)state;
    struct hash128 hash;
    if (selftest_run(&hash))
        fail_msg("%s", err_message());
}

static void every_path_agrees(void **state)
{
    (void)state;
    struct hash128 first, other;
    assert_int_equal(selftest_path(&first, DECODER_REFERENCE, CPU_SCALAR), 0);
    for (enum cpu_level level = CPU_SCALAR; level <= cpu_level_of_machine(); level++) {
        for (int indexed = 0; indexed < 2; indexed++) {
            assert_int_equal(
                selftest_path(&other, indexed ? DECODER_INDEXED : DECODER_REFERENCE, level), 0);
            if (!hash128_equal(first, other))
                fail_msg("level %s, indexed %d differs", cpu_level_name(level), indexed);
        }
    }
}

static void images_are_files(void **state)
{
    (void)state;
    assert_true(selftest_image_count >= 12);
    for (size_t i = 0; i < selftest_image_count; i++) {
        const struct selftest_image *image = &selftest_images[i];
        assert_true(image->end - image->begin > 100);
        assert_true(image->begin[0] == 0xff || image->begin[0] == 0x89); /* JPEG or PNG */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(passes),
        cmocka_unit_test(every_path_agrees),
        cmocka_unit_test(images_are_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The memory that a process may count on, from files as machines and containers have them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <sys/stat.h>

#include "common/memory.h"
#include "tests/unit/testing.h"

static const char *root;

/* Makes the folders above it, too. */
static void put(const char *path, const char *content)
{
    char full[TESTING_PATH_BYTES];
    testing_path(full, root, path);
    for (char *slash = full + strlen(root) + 1; (slash = strchr(slash, '/')); *slash++ = '/') {
        *slash = '\0';
        mkdir(full, 0700);
    }
    FILE *file = fopen(full, "w");
    assert_non_null(file);
    fputs(content, file);
    assert_int_equal(fclose(file), 0);
}

static void nothing_known(void **state)
{
    (void)state;
    root = testing_directory();
    assert_true(memory_available(root) > UINT64_MAX / 2);
}

static void machine_alone(void **state)
{
    (void)state;
    root = testing_directory();
    put("proc/meminfo", "MemTotal:       9000 kB\nMemFree:  7 kB\nMemAvailable:   5000 kB\n");
    put("proc/self/cgroup", "0::/\n");
    assert_int_equal(memory_available(root), 5000 << 10);
}

/* The least of the group and those above it; "max" is none. */
static void version_2(void **state)
{
    (void)state;
    root = testing_directory();
    put("proc/meminfo", "MemAvailable:   5000 kB\n");
    put("proc/self/cgroup", "0::/work/job:3/step\n");
    put("sys/fs/cgroup/work/job:3/step/memory.max", "max\n");
    assert_int_equal(memory_available(root), 5000 << 10);
    put("sys/fs/cgroup/work/memory.max", "4000000\n");
    assert_int_equal(memory_available(root), 4000000);
    put("sys/fs/cgroup/work/job:3/memory.max", "3000000\n");
    assert_int_equal(memory_available(root), 3000000);
    put("sys/fs/cgroup/work/job:3/step/memory.max", "3500000\n");
    assert_int_equal(memory_available(root), 3000000);
}

static void version_1(void **state)
{
    (void)state;
    root = testing_directory();
    put("proc/meminfo", "MemAvailable:   5000 kB\n");
    put("proc/self/cgroup", "5:cpu,cpuacct:/a\n4:memory:/a/b\n0::/c\n");
    put("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "9223372036854771712\n");
    put("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "2000000\n");
    assert_int_equal(memory_available(root), 2000000);
}

/* A container whose own group is mounted as the root, under a path of the host's. */
static void container(void **state)
{
    (void)state;
    root = testing_directory();
    put("proc/meminfo", "MemAvailable:   5000 kB\n");
    put("proc/self/cgroup", "4:memory:/docker/0123abc\n");
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "1000000\n");
    assert_int_equal(memory_available(root), 1000000);
}

static void this_machine(void **state)
{
    (void)state;
    assert_in_range(memory_available(""), 1 << 20, UINT64_C(1) << 60);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_known), cmocka_unit_test(machine_alone),
        cmocka_unit_test(version_2),     cmocka_unit_test(version_1),
        cmocka_unit_test(container),     cmocka_unit_test(this_machine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

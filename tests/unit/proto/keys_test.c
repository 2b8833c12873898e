/* SPDX-License-Identifier: Apache-2.0 */
/* Key files: what was written comes back; whatever else a file holds, and whoever else may read it,
 * is refused by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/err.h"
#include "common/file.h"
#include "proto/keys.h"
#include "tests/unit/testing.h"

static char path[TESTING_PATH_BYTES];

static const char *in(const char *directory, const char *name)
{
    return testing_path(path, directory, name);
}

static void write_text(const char *file, const void *text, size_t bytes)
{
    assert_int_equal(file_write_atomic(file, text, bytes), 0);
    assert_int_equal(chmod(file, 0600), 0);
}

static void pairs_come_back(void **state)
{
    (void)state;
    const char *directory = testing_directory();
    char keys[TESTING_PATH_BYTES];
    testing_path(keys, directory, "keys");
    struct key_pair a, b, back;
    struct key public_key;
    assert_int_equal(key_pair_make(&a), 0);
    assert_int_equal(key_pair_make(&b), 0);
    assert_false(key_equal(&a.secret_key, &b.secret_key));
    assert_int_equal(key_pair_write(&a, keys, "loader-1.example:5555"), 0);
    struct stat facts;
    assert_int_equal(stat(keys, &facts), 0);
    assert_int_equal(facts.st_mode & 07777, 0700);
    assert_int_equal(stat(in(keys, "loader-1.example:5555.key"), &facts), 0);
    assert_int_equal(facts.st_mode & 07777, 0600);
    assert_int_equal(key_pair_read(&back, path), 0);
    assert_true(key_equal(&back.secret_key, &a.secret_key));
    assert_true(key_equal(&back.public_key, &a.public_key));
    assert_int_equal(key_read_public(&public_key, in(keys, "loader-1.example:5555.pub")), 0);
    assert_true(key_equal(&public_key, &a.public_key));
    assert_int_equal(key_pair_write(&b, keys, "loader-1.example:5555"), ERR_ARG);
    assert_int_equal(key_pair_read(&back, in(keys, "loader-1.example:5555.key")), 0);
    assert_true(key_equal(&back.secret_key, &a.secret_key)); /* it was not overwritten */
}

static void names(void **state)
{
    (void)state;
    const char *directory = testing_directory();
    struct key_pair pair;
    assert_int_equal(key_pair_make(&pair), 0);
    char longest[102];
    memset(longest, 'a', 101);
    longest[101] = 0;
    const char *const bad[] = {"", ".hidden", "a/b", "..", "-x", "a b", "a\n", longest};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (key_pair_write(&pair, directory, bad[i]) != ERR_ARG)
            fail_msg("the name '%s' is taken", bad[i]);
    assert_int_equal(key_pair_write(&pair, directory, longest + 1), 0);
}

static void others_may_not_read(void **state)
{
    (void)state;
    const char *directory = testing_directory();
    struct key_pair pair;
    assert_int_equal(key_pair_make(&pair), 0);
    assert_int_equal(key_pair_write(&pair, directory, "a"), 0);
    in(directory, "a.key");
    for (unsigned mode = 0; mode <= 0777; mode++) {
        if (!(mode & 0400))
            continue; /* root reads it all the same, others get the system's refusal */
        assert_int_equal(chmod(path, mode), 0);
        int code = key_pair_read(&pair, path);
        if (code != (mode & 077 ? ERR_DATA : 0))
            fail_msg("mode %04o: code %d", mode, code);
        if (code && (!strstr(err_message(), path) || !strstr(err_message(), "chmod 600")))
            fail_msg("mode %04o: %s", mode, err_message());
    }
}

static void garbage_is_refused(void **state)
{
    (void)state;
    const char *directory = testing_directory();
    struct key_pair pair;
    struct key key;
    char good[128], text[300];
    assert_int_equal(key_pair_make(&pair), 0);
    strcpy(good, "satchel-public-key ");
    key_to_text(good + 19, &pair.public_key);
    size_t length = strlen(good);
    in(directory, "x.pub");
    write_text(path, good, length);
    assert_int_equal(key_read_public(&key, path), 0); /* the newline may be missing */
    for (size_t i = 0; i < length; i++) { /* each letter broken: upper case is no key either */
        memcpy(text, good, length);
        text[i] ^= 0x20;
        write_text(path, text, length);
        if (key_read_public(&key, path) != ERR_DATA || !strstr(err_message(), path))
            fail_msg("letter %zu broken, and still a key: %s", i, text);
    }
    for (size_t bytes = 0; bytes <= length + 2; bytes++) { /* cut off, or with more behind */
        memset(text, 'a', sizeof(text));
        memcpy(text, good, length);
        write_text(path, text, bytes);
        assert_int_equal(key_read_public(&key, path), bytes == length ? 0 : ERR_DATA);
    }
    static const char zeros[65] =
        "0000000000000000000000000000000000000000000000000000000000000000";
    snprintf(text, sizeof(text), "satchel-public-key %s\n", zeros);
    write_text(path, text, strlen(text));
    assert_int_equal(key_read_public(&key, path), ERR_DATA);
    write_text(path, "", 0);
    assert_int_equal(key_read_public(&key, path), ERR_DATA);
    static const uint8_t binary[1 << 16];
    write_text(path, binary, sizeof(binary));
    assert_int_equal(key_read_public(&key, path), ERR_DATA);
}

static void kinds_are_not_mixed_up(void **state)
{
    (void)state;
    const char *directory = testing_directory();
    struct key_pair pair;
    struct key key;
    assert_int_equal(key_pair_make(&pair), 0);
    assert_int_equal(key_pair_write(&pair, directory, "a"), 0);
    assert_int_equal(key_read_public(&key, in(directory, "a.key")), ERR_DATA);
    assert_non_null(strstr(err_message(), "secret"));
    in(directory, "a.pub");
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(key_pair_read(&pair, path), ERR_DATA);
    assert_non_null(strstr(err_message(), "public"));
    assert_int_equal(key_pair_read(&pair, directory), ERR_DATA); /* a directory */
    assert_int_equal(mkfifo(in(directory, "pipe"), 0600), 0);
    assert_int_equal(key_pair_read(&pair, path), ERR_DATA); /* and it does not wait for a writer */
    assert_int_equal(key_pair_read(&pair, in(directory, "missing.key")), ERR_IO);
    assert_non_null(strstr(err_message(), path));
}

static void directories(void **state)
{
    (void)state;
    const char *directory = testing_directory();
    struct key_list list;
    assert_int_equal(key_list_read(&list, directory, NULL), 0);
    assert_int_equal(list.count, 0);
    struct key_pair pairs[5];
    for (int i = 4; i >= 0; i--) {
        const char name[] = {(char)('a' + i), 0};
        assert_int_equal(key_pair_make(&pairs[i]), 0);
        assert_int_equal(key_pair_write(&pairs[i], directory, name), 0);
    }
    write_text(in(directory, ".hidden.pub"), "x", 1);
    write_text(in(directory, "readme"), "x", 1);
    assert_int_equal(key_list_read(&list, directory, NULL), 0);
    assert_int_equal(list.count, 5);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(list.keys[i].name[0], 'a' + i);
        assert_ptr_equal(key_list_find(&list, &pairs[i].public_key), &list.keys[i]);
    }
    assert_null(key_list_find(&list, &pairs[0].secret_key));
    assert_ptr_equal(key_list_named(&list, "c"), &list.keys[2]);
    assert_null(key_list_named(&list, "f"));
    key_list_free(&list);
    write_text(in(directory, "c.pub"), "satchel-public-key", 18);
    assert_int_equal(key_list_read(&list, directory, NULL), ERR_DATA);
    assert_non_null(strstr(err_message(), path));
    assert_int_equal(list.count, 0);
    size_t bad;
    assert_int_equal(key_list_read(&list, directory, &bad), 0);
    assert_int_equal(bad, 1);
    assert_int_equal(list.count, 4);
    assert_null(key_list_find(&list, &pairs[2].public_key));
    key_list_free(&list);
    assert_int_equal(key_list_read(&list, in(directory, "missing"), &bad), ERR_IO);
}

int main(void)
{
    umask(0); /* permissions do not lean on it */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pairs_come_back),        cmocka_unit_test(names),
        cmocka_unit_test(others_may_not_read),    cmocka_unit_test(garbage_is_refused),
        cmocka_unit_test(kinds_are_not_mixed_up), cmocka_unit_test(directories),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

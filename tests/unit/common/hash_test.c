/* SPDX-License-Identifier: Apache-2.0 */
/* Hashes against the published values of xxHash, and the 128-bit arithmetic of receipts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "common/err.h"
#include "common/hash.h"
#include "tests/unit/testing.h"

static void assert_text(struct hash128 hash, const char *want)
{
    char text[33];
    hash128_to_text(text, hash);
    assert_string_equal(text, want);
}

/* What "xxhsum -H2" and "-H3" print. */
static void test_published_values(void **state)
{
    assert_text(hash128_of("", 0), "99aa06d3014798d86001c324468d497f");
    assert_true(hash64_of("", 0) == 0x2d06800538d394c2);
    assert_text(hash128_of("abc", 3), "06b05ab6733a618578af5f94892f3950");
    assert_true(hash64_of("abc", 3) == 0x78af5f94892f3950);
}

static void test_pieces_equal_the_whole(void **state)
{
    uint8_t data[3000];
    uint64_t random = testing_seed();
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)testing_random(&random);
    for (size_t size = 0; size <= sizeof data; size += 1 + size / 7) {
        size_t cut = size ? testing_random(&random) % size : 0;
        struct hash128 whole = hash128_of(data, size);
        struct hash_stream *stream = hash_stream_open();
        assert_non_null(stream);
        hash_stream_add(stream, data, cut);
        hash_stream_add(stream, NULL, 0);
        hash_stream_add(stream, data + cut, size - cut);
        assert_true(hash128_equal(hash_stream_end(stream), whole));
        hash_stream_close(stream);
        const struct hash_part parts[] = {{data, cut}, {NULL, 0}, {data + cut, size - cut}};
        assert_true(hash128_equal(hash128_of_parts(parts, 3), whole));
    }
    hash_stream_close(NULL);
}

static void test_addition_carries(void **state)
{
    struct hash128 all = {UINT64_MAX, UINT64_MAX}, one = {1, 0}, low = {UINT64_MAX, 4};
    assert_text(hash128_add(all, one), "00000000000000000000000000000000");
    assert_text(hash128_add(low, one), "00000000000000050000000000000000");
    assert_text(hash128_add(all, all), "fffffffffffffffffffffffffffffffe");
}

static void test_bytes_and_text(void **state)
{
    uint8_t bytes[16];
    struct hash128 value = {0x0706050403020100, 0x0f0e0d0c0b0a0908}, back;
    hash128_to_bytes(bytes, value);
    for (int i = 0; i < 16; i++)
        assert_int_equal(bytes[i], i);
    assert_true(hash128_equal(hash128_from_bytes(bytes), value));
    assert_text(value, "0f0e0d0c0b0a09080706050403020100");
    assert_int_equal(hash128_from_text(&back, "0F0e0d0c0b0a09080706050403020100"), 0);
    assert_true(hash128_equal(back, value));
    const char *bad[] = {"", "0f", "0f0e0d0c0b0a0908070605040302010g",
                         "0f0e0d0c0b0a09080706050403020100 ", "0f0e0d0c0b0a0908070605040302010"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(hash128_from_text(&back, bad[i]), ERR_DATA);
    assert_true(hash128_equal(back, value));
    value.high ^= 1;
    assert_false(hash128_equal(back, value));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_values),
        cmocka_unit_test(test_pieces_equal_the_whole),
        cmocka_unit_test(test_addition_carries),
        cmocka_unit_test(test_bytes_and_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

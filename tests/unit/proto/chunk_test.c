/* SPDX-License-Identifier: Apache-2.0 */
/* Which samples a chunk holds, who mixes with whom and how much, labels on the wire; receipts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "common/err.h"
#include "proto/chunk.h"
#include "proto/receipt.h"
#include "tests/unit/testing.h"

static struct spec mixing(enum spec_lam lam)
{
    return (struct spec){
        .seed = 5,
        .chunk_size = 8,
        .mixup_alpha = 0.2f,
        .mixup_off_epoch = 10,
        .mixup_lam = (uint8_t)lam,
        .chunks_per_batch = lam == SPEC_LAM_BATCH ? 4 : 0,
    };
}

static void test_counts(void **state)
{
    struct spec spec = {.chunk_size = 8};
    assert_int_equal(chunk_total(&spec, 0), 0);
    assert_int_equal(chunk_total(&spec, 16), 2);
    assert_int_equal(chunk_total(&spec, 17), 3);
    assert_int_equal(chunk_samples(&spec, 1, 17), 8);
    assert_int_equal(chunk_samples(&spec, 2, 17), 1);
    assert_int_equal(chunk_samples(&spec, 3, 17), 0);
    assert_int_equal(chunk_samples(&spec, 2, 16), 0);
    assert_int_equal(chunk_samples(&spec, UINT64_MAX, 17), 0);
    assert_int_equal(chunk_samples(&spec, 0, 0), 0);
    assert_int_equal(chunk_steps(1281167, 256), 5004);
    assert_int_equal(chunk_steps(255, 256), 0);
    assert_int_equal(chunk_steps(255, 0), 0);
    for (uint64_t count = 0; count < 40; count++) {
        uint64_t sum = 0;
        for (uint64_t i = 0; i < chunk_total(&spec, count); i++)
            sum += chunk_samples(&spec, i, count);
        assert_int_equal(sum, count);
    }
}

static void test_partners(void **state)
{
    for (uint32_t samples = 1; samples <= 9; samples++) {
        for (uint32_t i = 0; i < samples; i++) {
            uint32_t partner = chunk_partner(i, samples);
            assert_true(partner < samples);
            assert_int_equal(chunk_partner(partner, samples), i);
            assert_int_equal(partner == i, samples % 2 && i == samples / 2);
        }
    }
}

static void test_lam_per_pair(void **state)
{
    struct spec spec = mixing(SPEC_LAM_PAIR);
    float seen[64 * 4];
    int count = 0;
    for (uint64_t chunk = 0; chunk < 64; chunk++) {
        for (uint32_t i = 0; i < 4; i++) {
            float lam = chunk_lam(&spec, 3, chunk, i, 8);
            assert_true(lam >= 0 && lam <= 1);
            assert_true(chunk_lam(&spec, 3, chunk, 7 - i, 8) == lam);
            assert_true(chunk_lam(&spec, 4, chunk, i, 8) != lam);
            for (int j = 0; j < count; j++)
                assert_true(seen[j] != lam || lam < 1e-6f || lam > 1 - 1e-6f);
            seen[count++] = lam;
        }
    }
}

static void test_lam_per_batch(void **state)
{
    struct spec spec = mixing(SPEC_LAM_BATCH);
    for (uint64_t chunk = 0; chunk < 64; chunk++) {
        float lam = chunk_lam(&spec, 3, chunk / 4 * 4, 0, 8);
        for (uint32_t i = 0; i < 8; i++)
            assert_true(chunk_lam(&spec, 3, chunk, i, 8) == lam);
    }
    assert_true(chunk_lam(&spec, 3, 0, 0, 8) != chunk_lam(&spec, 3, 4, 0, 8));
}

static void test_lam_is_one(void **state)
{
    struct spec spec = mixing(SPEC_LAM_PAIR);
    assert_true(chunk_lam(&spec, 10, 0, 0, 8) == 1); /* mixup is off by then */
    assert_true(chunk_lam(&spec, 9, 0, 0, 8) != 1);
    assert_true(chunk_lam(&spec, 0, 0, 2, 5) == 1); /* its own partner */
    assert_true(chunk_lam(&spec, 0, 0, 1, 5) != 1);
    spec.mixup_alpha = 0;
    assert_true(chunk_lam(&spec, 0, 0, 0, 8) == 1);
}

static void test_these_very_weights(void **state)
{
    struct spec spec = mixing(SPEC_LAM_PAIR);
    static const float want[] = {0x1.ff5672p-1f, 0x1.9f02d2p-1f, 0x1.fe5918p-1f, 0x1.fffdd4p-1f};
    for (uint32_t i = 0; i < 4; i++)
        assert_true(chunk_lam(&spec, 1, 7, i, 8) == want[i]);
}

static void test_label_bytes(void **state)
{
    uint8_t bytes[CHUNK_LABEL_BYTES];
    const uint8_t want[] = {4, 3, 2, 1, 8, 7, 6, 5, 0, 0, 0x40, 0x3f};
    chunk_label_encode(bytes, (struct chunk_label){0x01020304, 0x05060708, 0.75f});
    assert_memory_equal(bytes, want, sizeof want);
    struct chunk_label label = chunk_label_decode(bytes);
    assert_int_equal(label.a, 0x01020304);
    assert_int_equal(label.b, 0x05060708);
    assert_true(label.lam == 0.75f);
}

static void test_label_check(void **state)
{
    struct spec spec = mixing(SPEC_LAM_PAIR), val = {.chunk_size = 8, .damaged_masked = 1};
    const uint32_t masked = CHUNK_LABEL_MASKED;
    const struct {
        struct chunk_label label;
        const struct spec *spec;
        uint32_t epoch;
        int code;
    } cases[] = {
        {{3, 9, 0.25f}, &spec, 0, 0},
        {{9, 9, 0}, &spec, 0, 0},
        {{10, 9, 0.25f}, &spec, 0, ERR_PEER},
        {{9, 10, 0.25f}, &spec, 0, ERR_PEER},
        {{3, 9, 1.25f}, &spec, 0, ERR_PEER},
        {{3, 9, -0.25f}, &spec, 0, ERR_PEER},
        {{3, 9, NAN}, &spec, 0, ERR_PEER},
        {{3, 9, 1}, &spec, 10, ERR_PEER}, /* mixup is off by then */
        {{3, 3, 0.5f}, &spec, 10, ERR_PEER},
        {{3, 3, 1}, &spec, 10, 0},
        {{masked, masked, 1}, &spec, 10, ERR_PEER},
        {{masked, masked, 1}, &val, 0, 0},
        {{masked, 3, 1}, &val, 0, ERR_PEER},
        {{masked, masked, 0.5f}, &val, 0, ERR_PEER},
        {{9, 9, 1}, &val, 0, 0},
        {{10, 10, 1}, &val, 0, ERR_PEER},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(chunk_label_check(cases[i].label, cases[i].spec, cases[i].epoch, 10),
                         cases[i].code);
}

/* The hashed bytes, put in a row as proto/receipt.h says. */
static void test_receipt(void **state)
{
    uint8_t row[4 + 8 + 16 + 3 + 5];
    struct hash128 name = {0x1112131415161718, 0x191a1b1c1d1e1f20};
    for (int i = 0; i < 4; i++)
        row[i] = (uint8_t)(0xa1b2c3d4u >> (8 * i));
    for (int i = 0; i < 8; i++)
        row[4 + i] = (uint8_t)(0x0102030405060708u >> (8 * i));
    hash128_to_bytes(row + 12, name);
    memcpy(row + 28, "lab", 3);
    memcpy(row + 31, "pixel", 5);
    struct hash128 got =
        receipt_of_chunk(name, 0xa1b2c3d4, 0x0102030405060708, "lab", 3, "pixel", 5);
    assert_true(hash128_equal(got, hash128_of(row, sizeof row)));
    got = receipt_of_chunk(name, 0xa1b2c3d4, 0x0102030405060708, NULL, 0, NULL, 0);
    assert_true(hash128_equal(got, hash128_of(row, 28)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts),       cmocka_unit_test(test_partners),
        cmocka_unit_test(test_lam_per_pair), cmocka_unit_test(test_lam_per_batch),
        cmocka_unit_test(test_lam_is_one),   cmocka_unit_test(test_these_very_weights),
        cmocka_unit_test(test_label_bytes),  cmocka_unit_test(test_label_check),
        cmocka_unit_test(test_receipt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

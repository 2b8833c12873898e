/* SPDX-License-Identifier: Apache-2.0 */
/* The spec's encoding, byte for byte, and its rules. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "common/err.h"
#include "proto/spec.h"
#include "tests/unit/baseline_spec.h"
#include "tests/unit/testing.h"

/* The paper's training stream with mixup. */
static struct spec full(void)
{
    struct spec spec = baseline_spec(0x0102030405060708, 224, 8);
    spec.aspect = SPEC_ASPECT_LOG;
    spec.mixup_lam = SPEC_LAM_BATCH;
    spec.wire = SPEC_WIRE_UINT8;
    spec.chunks_per_batch = 32;
    spec.mixup_off_epoch = 180;
    spec.mixup_alpha = 0.2f;
    return spec;
}

/* The validation stream of small grey images. */
static struct spec plain(void)
{
    return (struct spec){
        .store = "val",
        .damaged_masked = 1,
        .channels = 1,
        .size_px = 28,
        .resize_short_px = 32,
        .chunk_size = 64,
        .mean = {72.9f},
        .std = {90},
    };
}

static uint64_t load(const uint8_t *src, int bytes)
{
    uint64_t value = 0;
    for (int i = bytes - 1; i >= 0; i--)
        value = value << 8 | src[i];
    return value;
}

static float load_float(const uint8_t *src)
{
    uint32_t bits = (uint32_t)load(src, 4);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* The offsets of docs/protocol.md. */
static void test_layout(void **state)
{
    uint8_t b[SPEC_ENCODED_BYTES];
    struct spec spec = full();
    spec.resize_short_px = 0x0102;
    spec.pad_px = 0x0304;
    spec.interpolation = SPEC_BICUBIC;
    spec.damaged_masked = 1;
    spec_encode(b, &spec);
    assert_memory_equal(b, "SPEC\x01\0\x01\x01", 8);
    assert_true(load(b + 8, 8) == spec.seed);
    assert_memory_equal(b + 16, "train\0\0\0\0\0\0\0\0\0\0", 16);
    const uint8_t small[] = {3, 1, 1, 1, 1, 1, 1, 1};
    assert_memory_equal(b + 32, small, 8);
    assert_int_equal(load(b + 40, 2), 224);
    assert_int_equal(load(b + 42, 2), 0x0102);
    assert_int_equal(load(b + 44, 2), 0x0304);
    assert_int_equal(load(b + 46, 2), 0);
    assert_int_equal(load(b + 48, 4), 8);
    assert_int_equal(load(b + 52, 4), 32);
    assert_int_equal(load(b + 56, 4), 180);
    const float floats[] = {0.08f,   1,        0.75f,    4.0f / 3, 0.4f,   0.4f,    0.4f, 0.1f,
                            123.68f, 116.779f, 103.939f, 58.393f,  57.12f, 57.375f, 0.2f};
    for (int i = 0; i < 15; i++)
        assert_true(load_float(b + 60 + 4 * i) == floats[i]);
    for (int i = 120; i < SPEC_ENCODED_BYTES; i++)
        assert_int_equal(b[i], 0);
}

static void test_decode_gives_back(void **state)
{
    const struct spec specs[] = {full(), plain()};
    for (int i = 0; i < 2; i++) {
        uint8_t encoded[SPEC_ENCODED_BYTES], again[SPEC_ENCODED_BYTES];
        struct spec decoded;
        assert_int_equal(spec_check(&specs[i]), 0);
        spec_encode(encoded, &specs[i]);
        assert_int_equal(spec_decode(&decoded, encoded, sizeof encoded), 0);
        spec_encode(again, &decoded);
        assert_memory_equal(encoded, again, sizeof again);
        assert_string_equal(decoded.store, specs[i].store);
        assert_true(decoded.seed == specs[i].seed);
        assert_true(decoded.mixup_alpha == specs[i].mixup_alpha);
    }
}

/* These hashes name streams in checkpoints and receipts: they must not move. */
static void test_known_hashes(void **state)
{
    char text[33];
    struct spec spec = full();
    hash128_to_text(text, spec_hash(&spec));
    assert_string_equal(text, "ebb068bea12d48e53eb5ff6f28c38e74");
    spec = plain();
    hash128_to_text(text, spec_hash(&spec));
    assert_string_equal(text, "303e10176df7cbba4af20a913481f9f3");
    /* What stands behind the name's end does not count. */
    memcpy(spec.store, "val\0xyz", 7);
    hash128_to_text(text, spec_hash(&spec));
    assert_string_equal(text, "303e10176df7cbba4af20a913481f9f3");
}

static void test_decode_refuses(void **state)
{
    uint8_t encoded[SPEC_ENCODED_BYTES + 1] = {0};
    struct spec spec = full(), decoded = plain();
    spec_encode(encoded, &spec);
    assert_int_equal(spec_decode(&decoded, encoded, SPEC_ENCODED_BYTES - 1), ERR_PEER);
    assert_int_equal(spec_decode(&decoded, encoded, SPEC_ENCODED_BYTES + 1), ERR_PEER);
    assert_int_equal(spec_decode(&decoded, encoded, 0), ERR_PEER);
    const int offsets[] = {0, 3, 4, 5, 6, 7, 16 + 10, 32, 33, 36, 37, 39, 46, 47, 120, 159};
    for (size_t i = 0; i < sizeof offsets / sizeof offsets[0]; i++) {
        uint8_t *byte = &encoded[offsets[i]], before = *byte;
        *byte ^= 0x80;
        assert_int_equal(spec_decode(&decoded, encoded, SPEC_ENCODED_BYTES), ERR_PEER);
        *byte = before;
    }
    assert_string_equal(decoded.store, "val"); /* untouched */
    assert_int_equal(spec_decode(&decoded, encoded, SPEC_ENCODED_BYTES), 0);
}

/* Whatever is accepted is canonical and in range. */
static void test_damaged_encodings(void **state)
{
    uint64_t random = testing_seed();
    int accepted = 0;
    for (int i = 0; i < 20000; i++) {
        uint8_t encoded[SPEC_ENCODED_BYTES], again[SPEC_ENCODED_BYTES];
        struct spec spec = i & 1 ? full() : plain(), decoded;
        spec_encode(encoded, &spec);
        for (uint64_t n = 1 + testing_random(&random) % 2; n > 0; n--)
            encoded[testing_random(&random) % SPEC_ENCODED_BYTES] ^=
                (uint8_t)(1 << testing_random(&random) % 8);
        int code = spec_decode(&decoded, encoded, sizeof encoded);
        assert_true(code == 0 || code == ERR_PEER);
        if (code)
            continue;
        accepted++;
        assert_int_equal(spec_check(&decoded), 0);
        spec_encode(again, &decoded);
        assert_memory_equal(encoded, again, sizeof again);
        assert_true(spec_sample_bytes(&decoded) * decoded.chunk_size <= SPEC_MAX_CHUNK_BYTES);
    }
    assert_true(accepted > 100); /* a seed's or a mean's bit, say */
}

static void assert_refused(struct spec spec, const char *field)
{
    assert_int_equal(spec_check(&spec), ERR_ARG);
    if (!strstr(err_message(), field))
        fail_msg("'%s' does not name %s", err_message(), field);
}

/* One field of full() set to a value that must be refused, the field named. */
#define REFUSE(change, field)                                                                      \
    do {                                                                                           \
        struct spec s = full();                                                                    \
        change;                                                                                    \
        assert_refused(s, field);                                                                  \
    } while (0)

static void test_ranges(void **state)
{
    REFUSE(s.store[0] = '\0', "store");
    REFUSE(memset(s.store, 'a', sizeof s.store), "store");
    REFUSE(s.store[1] = '/', "store");
    REFUSE(s.order = 2, "order");
    REFUSE(s.damaged_masked = 2, "damaged_masked");
    REFUSE(s.channels = 2, "channels");
    REFUSE(s.crop = 3, "crop");
    REFUSE(s.aspect = 2, "aspect");
    REFUSE(s.interpolation = 2, "interpolation");
    REFUSE(s.flip = 2, "flip");
    REFUSE(s.jitter = 3, "jitter");
    REFUSE(s.mixup_lam = 2, "mixup_lam");
    REFUSE(s.wire = 2, "wire");
    REFUSE(s.size_px = 0, "size_px");
    REFUSE(s.size_px = 1025, "size_px");
    REFUSE(s.chunk_size = 0, "chunk_size");
    REFUSE(s.chunk_size = 4097, "chunk_size");
    REFUSE(s.chunk_size = 7, "chunk_size must be even");
    REFUSE((s.size_px = 1024, s.chunk_size = 12), "32 MiB");
    REFUSE(s.area_min = 0, "area");
    REFUSE(s.area_max = 1.01f, "area");
    REFUSE(s.area_min = NAN, "area");
    REFUSE((s.area_min = 0.5f, s.area_max = 0.4f), "area");
    REFUSE(s.aspect_min = 2, "aspect");
    REFUSE(s.aspect_max = INFINITY, "aspect");
    REFUSE(s.jitter_strength[1] = -0.1f, "jitter_strength");
    REFUSE(s.jitter_strength[2] = 1.1f, "jitter_strength");
    REFUSE(s.pca_sigma = -0.0f, "pca_sigma");
    REFUSE(s.pca_sigma = NAN, "pca_sigma");
    REFUSE(s.mean[2] = 256, "mean");
    REFUSE(s.std[0] = 0, "std");
    REFUSE(s.std[1] = NAN, "std");
    REFUSE(s.mixup_alpha = 1e-4f, "mixup_alpha");
    REFUSE(s.mixup_alpha = 2000, "mixup_alpha");
    REFUSE(s.mixup_alpha = NAN, "mixup_alpha");
    REFUSE(s.mixup_off_epoch = 0, "mixup_off_epoch");
    REFUSE(s.chunks_per_batch = 0, "chunks_per_batch");
}

static void test_meaningless_fields_are_zero(void **state)
{
    REFUSE(s.pad_px = 4, "pad_px");
    REFUSE(s.resize_short_px = 256, "resize_short_px");
    REFUSE(s.mixup_alpha = 0, "mixup_off_epoch");
    REFUSE(s.mixup_lam = SPEC_LAM_PAIR, "chunks_per_batch");
    REFUSE(s.jitter = 0, "jitter_strength");
    REFUSE(memset(s.jitter_strength, 0, sizeof s.jitter_strength), "jitter");
    REFUSE((s.crop = SPEC_CROP_NONE, s.resize_short_px = 256), "area");
    REFUSE(s.channels = 1, "jitter and pca_sigma");
    struct spec spec = plain();
    spec.mean[1] = 1;
    assert_refused(spec, "mean");
    spec = plain();
    spec.std[2] = 1;
    assert_refused(spec, "std");
    spec = plain();
    spec.seed = 1;
    assert_refused(spec, "seed");
    spec.flip = 1; /* now something is drawn */
    assert_int_equal(spec_check(&spec), 0);
    spec = plain();
    spec.aspect = 1;
    assert_refused(spec, "aspect");
    spec = plain();
    spec.resize_short_px = 27;
    assert_refused(spec, "resize_short_px");
    spec = plain();
    spec.crop = SPEC_CROP_PAD;
    assert_refused(spec, "pad_px");
    spec.pad_px = 4;
    assert_int_equal(spec_check(&spec), 0);
    spec.pad_px = 29;
    assert_refused(spec, "pad_px");
}

static void test_sample_bytes(void **state)
{
    struct spec spec = full();
    assert_int_equal(spec_sample_bytes(&spec), 224 * 224 * 3);
    spec.wire = SPEC_WIRE_FP16;
    assert_int_equal(spec_sample_bytes(&spec), 224 * 224 * 6);
    spec = plain();
    assert_int_equal(spec_sample_bytes(&spec), 28 * 28 * 2);
}

static void test_default_chunk_size(void **state)
{
    assert_int_equal(spec_default_chunk_size(32, 224, 3, SPEC_WIRE_FP16), 8);
    assert_int_equal(spec_default_chunk_size(128, 224, 3, SPEC_WIRE_FP16), 8);
    assert_int_equal(spec_default_chunk_size(12, 224, 3, SPEC_WIRE_FP16), 4);
    assert_int_equal(spec_default_chunk_size(33, 224, 3, SPEC_WIRE_FP16), 1);
    assert_int_equal(spec_default_chunk_size(128, 28, 1, SPEC_WIRE_FP16), 64);
    assert_int_equal(spec_default_chunk_size(96, 64, 3, SPEC_WIRE_FP16), 32);
    assert_int_equal(spec_default_chunk_size(32, 65, 3, SPEC_WIRE_FP16), 8);
    /* 8 of 299 px are 4,291,248 bytes, more than 4 MiB; 4 of 418 px are 4,193,376, just less. */
    assert_int_equal(spec_default_chunk_size(32, 299, 3, SPEC_WIRE_FP16), 4);
    assert_int_equal(spec_default_chunk_size(32, 299, 3, SPEC_WIRE_UINT8), 8);
    assert_int_equal(spec_default_chunk_size(32, 418, 3, SPEC_WIRE_FP16), 4);
    assert_int_equal(spec_default_chunk_size(32, 1024, 3, SPEC_WIRE_FP16), 1);
    assert_int_equal(spec_default_chunk_size(0, 224, 3, SPEC_WIRE_FP16), 1);
}

static void test_mixes(void **state)
{
    struct spec spec = full();
    assert_true(spec_mixes(&spec, 0) && spec_mixes(&spec, 179) && !spec_mixes(&spec, 180));
    spec.mixup_off_epoch = UINT32_MAX;
    assert_true(spec_mixes(&spec, UINT32_MAX - 1));
    spec = plain();
    assert_false(spec_mixes(&spec, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layout),
        cmocka_unit_test(test_decode_gives_back),
        cmocka_unit_test(test_known_hashes),
        cmocka_unit_test(test_decode_refuses),
        cmocka_unit_test(test_damaged_encodings),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_meaningless_fields_are_zero),
        cmocka_unit_test(test_sample_bytes),
        cmocka_unit_test(test_default_chunk_size),
        cmocka_unit_test(test_mixes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

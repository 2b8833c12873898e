/* SPDX-License-Identifier: Apache-2.0 */
/* The two wire formats carry the same stream: what a trainer unpacks from bytes is what the loader
 * sends as half floats, up to the rounding of a pixel to a byte and of a value to a half. */
#include <math.h>

#include "common/half.h"
#include "loader/sample.h"
#include "tests/unit/baseline_spec.h"
#include "tests/unit/loader/stores.h"
#include "trainer/unpack.h"

enum { SIZE = 16, VALUES = SIZE * SIZE * 3, CHUNK = 4, BATCH = 2 * CHUNK };

static const float std_of[3] = {58.393f, 57.12f, 57.375f};

static struct spec training_spec(enum spec_wire wire)
{
    struct spec spec = baseline_spec(21, SIZE, CHUNK);
    spec.wire = (uint8_t)wire;
    spec.mixup_alpha = 1;
    spec.mixup_off_epoch = 3;
    return spec;
}

/* A micro-batch as a feed hands it out. */
struct built {
    uint8_t pixels[BATCH * VALUES * sizeof(uint16_t)];
    struct chunk_label labels[BATCH];
    float offsets[BATCH][3];
    struct batch batch;
    uint32_t masked;
};

static void build(struct built *built, const struct store *store, const struct spec *spec,
                  uint32_t epoch)
{
    struct builder *builder;
    assert_int_equal(builder_open(&builder, DECODER_AUTO), 0);
    size_t stride = chunk_label_bytes_of(spec);
    built->batch = (struct batch){built->pixels, built->labels,
                                  spec->wire == SPEC_WIRE_UINT8 ? built->offsets : NULL, 0};
    built->masked = 0;
    for (uint32_t i = 0; i < BATCH / CHUNK; i++) {
        uint8_t labels[CHUNK * CHUNK_LABEL_UINT8_BYTES];
        uint32_t ids[CHUNK], first = i * CHUNK;
        struct chunk_build chunk = {.labels = labels,
                                    .pixels = built->pixels + first * spec_sample_bytes(spec),
                                    .ids = ids};
        assert_int_equal(builder_chunk(builder, &chunk, store, spec, epoch, i, false), 0);
        for (uint32_t n = 0; n < chunk.samples; n++) {
            built->labels[first + n] = chunk_label_decode(labels + n * stride);
            if (spec->wire == SPEC_WIRE_UINT8)
                memcpy(built->offsets[first + n], labels + n * stride + CHUNK_LABEL_BYTES,
                       sizeof built->offsets[0]);
        }
        built->batch.samples += (int)chunk.samples;
        built->masked += chunk.masked;
    }
    builder_close(builder);
}

/* The largest difference allowed: half a step of a byte, half a unit of a half's last place, and
 * the roundings of the float32 sums. */
static double allowed(double value, int channel)
{
    return 0.5 / std_of[channel] + fabs(value) * (0x1p-11 + 0x1p-20) + 0x1p-24;
}

static void compare(const struct built *halves, const struct built *bytes, const struct spec *spec)
{
    const struct net net = {.size_px = SIZE, .channels = 3};
    const struct input_format format = unpack_format(spec), plain = {.bytes = false};
    assert_int_equal(unpack_check(&bytes->batch, &format), 0);
    assert_int_equal(halves->batch.samples, bytes->batch.samples);
    double worst = 0;
    for (int n = 0; n < bytes->batch.samples; n++) {
        float expected[VALUES], got[VALUES];
        assert_memory_equal(&halves->labels[n], &bytes->labels[n], sizeof halves->labels[n]);
        unpack_pixels(expected, &halves->batch, &plain, &net, n, 0, SIZE * SIZE);
        for (size_t row = 0; row < SIZE; row++)
            unpack_pixels(got + row * SIZE * 3, &bytes->batch, &format, &net, n, row * SIZE, SIZE);
        for (int i = 0; i < VALUES; i++) {
            double difference = fabs((double)got[i] - expected[i]);
            if (!(difference <= allowed(expected[i], i % 3)))
                fail_msg("sample %d, value %d: %g from bytes, %g from halves", n, i, got[i],
                         expected[i]);
            worst = difference > worst ? difference : worst;
        }
    }
    assert_true(worst >
                0); /* they are rounded: equal values would mean that nothing was compared */
}

static void training_agrees(void **state)
{
    (void)state;
    struct store *store = make_store(0);
    static struct built halves, bytes;
    for (uint32_t epoch = 0; epoch < 4; epoch++) { /* the last one does not mix */
        const struct spec fp16 = training_spec(SPEC_WIRE_FP16),
                          uint8 = training_spec(SPEC_WIRE_UINT8);
        build(&halves, store, &fp16, epoch);
        build(&bytes, store, &uint8, epoch);
        int mixed = 0;
        for (int n = 0; n < BATCH; n++)
            mixed += bytes.labels[n].lam != 1;
        assert_int_equal(mixed > 0, epoch < 3);
        compare(&halves, &bytes, &uint8);
    }
    store_close(store);
}

/* Masked samples are zeros, which is not what bytes of zero would normalise to. */
static void masked_samples_agree(void **state)
{
    (void)state;
    struct store *store = make_store(1 << 1 | 1 << 6);
    static struct built halves, bytes;
    struct spec spec = {.store = "train",
                        .damaged_masked = 1,
                        .channels = 3,
                        .size_px = SIZE,
                        .resize_short_px = SIZE,
                        .chunk_size = CHUNK,
                        .mean = {123.68f, 116.779f, 103.939f},
                        .std = {std_of[0], std_of[1], std_of[2]}};
    build(&halves, store, &spec, 0);
    spec.wire = SPEC_WIRE_UINT8;
    build(&bytes, store, &spec, 0);
    assert_int_equal(bytes.masked, 2);
    compare(&halves, &bytes, &spec);
    store_close(store);
}

static void impossible_batches_are_refused(void **state)
{
    (void)state;
    const struct spec spec = training_spec(SPEC_WIRE_UINT8);
    const struct input_format format = unpack_format(&spec);
    struct chunk_label labels[CHUNK] = {{0, 1, 0.5f}, {0, 0, 1}, {0, 0, 1}, {1, 0, 0.5f}};
    const float offsets[CHUNK][3] = {{0}};
    struct batch batch = {NULL, labels, offsets, CHUNK};
    assert_int_equal(unpack_check(&batch, &format), 0);
    batch.samples = 2; /* sample 0 mixes with sample 3 */
    assert_int_not_equal(unpack_check(&batch, &format), 0);
    batch.samples = CHUNK;
    batch.offsets = NULL;
    assert_int_not_equal(unpack_check(&batch, &format), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(training_agrees),
        cmocka_unit_test(masked_samples_agree),
        cmocka_unit_test(impossible_batches_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

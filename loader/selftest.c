/* SPDX-License-Identifier: Apache-2.0 */
/* The self-test: the same images through every decoder and instruction set. */
#include "loader/selftest.h"

#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "loader/decode.h"
#include "loader/jpeg/jpeg_index.h"
#include "loader/render.h"

enum {
    SIZE_PX = 33, /* no multiple of a vector */
    VALUES = SIZE_PX * SIZE_PX * 3,
    EPOCHS = 3, /* as many different crops of each image */
    INDEX_MCUS = 2,
};

/* What all paths agreed on when this version was made. The stream's definition decides it: another
 * value is another stream. */
static const struct hash128 expected = {0x8acbfdb766fdf099, 0x1913864218f84a32};

static const struct spec training = {.store = "train",
                                     .seed = 1,
                                     .order = SPEC_ORDER_SHUFFLED,
                                     .channels = 3,
                                     .crop = SPEC_CROP_RRC,
                                     .flip = 1,
                                     .jitter = SPEC_JITTER_HSV,
                                     .size_px = SIZE_PX,
                                     .chunk_size = 2,
                                     .area_min = 0.08f,
                                     .area_max = 1,
                                     .aspect_min = 0.75f,
                                     .aspect_max = 4.f / 3,
                                     .jitter_strength = {0.4f, 0.4f, 0.4f},
                                     .pca_sigma = 0.1f,
                                     .mean = {123.68f, 116.779f, 103.939f},
                                     .std = {58.393f, 57.12f, 57.375f}};

static const struct spec validation = {.store = "val",
                                       .damaged_masked = 1,
                                       .channels = 3,
                                       .size_px = SIZE_PX,
                                       .resize_short_px = SIZE_PX + 5,
                                       .chunk_size = 2,
                                       .mean = {123.68f, 116.779f, 103.939f},
                                       .std = {58.393f, 57.12f, 57.375f}};

struct test {
    struct render *render;
    struct decoder *sizes; /* tells width and height */
    struct jpeg_indexer *indexer;
    struct hash_stream *hash;
    uint8_t *padded; /* an image with the padding of a record behind it, then its index likewise */
};

static void test_close(struct test *test)
{
    render_close(test->render);
    decoder_close(test->sizes);
    jpeg_indexer_close(test->indexer);
    hash_stream_close(test->hash);
    free(test->padded);
}

static int test_open(struct test *test, enum decoder_choice decoder, enum cpu_level level)
{
    int code = render_open(&test->render, decoder, level);
    if (!code)
        code = decoder_open(&test->sizes);
    if (!code)
        code = jpeg_indexer_open(&test->indexer);
    test->hash = hash_stream_open();
    return code || test->hash ? code : err_set(ERR_NOMEM, "self-test: out of memory");
}

/* The image as the store would hand it out; valid until the next call. */
static int make_record(struct store_record *record, struct test *test, size_t number)
{
    const struct selftest_image *image = &selftest_images[number];
    size_t bytes = (size_t)(image->end - image->begin);
    uint32_t width, height, channels;
    enum jpeg_refusal refusal;
    const uint8_t *index;
    size_t index_bytes;
    int code = decode_check(test->sizes, &width, &height, &channels, image->begin, bytes);
    if (!code)
        code = jpeg_index_build(test->indexer, &index, &index_bytes, &refusal, image->begin, bytes,
                                INDEX_MCUS);
    if (code)
        return code;
    if (refusal != JPEG_TAKEN)
        index_bytes = 0;
    free(test->padded);
    test->padded = calloc(1, bytes + index_bytes + 2 * (size_t)STORE_PADDING_BYTES);
    if (!test->padded)
        return err_set(ERR_NOMEM, "self-test: out of memory");
    memcpy(test->padded, image->begin, bytes);
    uint8_t *behind = test->padded + bytes + STORE_PADDING_BYTES;
    if (index_bytes)
        memcpy(behind, index, index_bytes);
    *record = (struct store_record){.id = SELFTEST_FIRST_ID + (uint32_t)number,
                                    .width = width,
                                    .height = height,
                                    .encoding = STORE_JPEG,
                                    .channels = channels,
                                    .image = test->padded,
                                    .image_bytes = bytes,
                                    .index = index_bytes ? behind : NULL,
                                    .index_bytes = index_bytes};
    return 0;
}

/* Adds what is made of the pictures in both slots. */
static void add_pixels(struct test *test)
{
    uint16_t halves[2][VALUES];
    uint16_t *const both[2] = {halves[0], halves[1]};
    uint8_t bytes[VALUES];
    float offsets[3];
    render_halves(test->render, halves[1], 1);
    hash_stream_add(test->hash, halves[1], sizeof halves[1]);
    render_halves_mixed(test->render, both, 0.3f);
    hash_stream_add(test->hash, halves, sizeof halves);
    render_bytes(test->render, bytes, offsets, 1);
    hash_stream_add(test->hash, bytes, sizeof bytes);
    hash_stream_add(test->hash, offsets, sizeof offsets);
}

/* Each image is mixed with the one before it, the first with itself. */
static int add_images(struct test *test, const struct spec *spec, uint32_t epoch)
{
    struct store_record record;
    int code = make_record(&record, test, 0);
    if (!code)
        code = render_cut(test->render, 0, &record, spec, epoch);
    for (size_t i = 0; i < selftest_image_count && !code; i++) {
        code = make_record(&record, test, i);
        if (!code)
            code = render_cut(test->render, 1, &record, spec, epoch);
        if (code)
            return err_wrap(code, "self-test: %s", selftest_images[i].name);
        add_pixels(test);
        code = render_cut(test->render, 0, &record, spec, epoch + EPOCHS);
    }
    return code;
}

int selftest_path(struct hash128 *hash, enum decoder_choice decoder, enum cpu_level level)
{
    struct test test = {0};
    int code = test_open(&test, decoder, level);
    for (uint32_t epoch = 0; epoch < EPOCHS && !code; epoch++)
        code = add_images(&test, &training, epoch);
    if (!code)
        code = add_images(&test, &validation, 0);
    if (!code)
        *hash = hash_stream_end(test.hash);
    test_close(&test);
    return code;
}

int selftest_run(struct hash128 *hash)
{
    static const struct {
        enum decoder_choice choice;
        const char *name;
    } decoders[] = {{DECODER_REFERENCE, "reference"}, {DECODER_INDEXED, "indexed"}};
    enum cpu_level best = cpu_level_of_machine();
    for (enum cpu_level level = CPU_SCALAR; level <= best; level++) {
        for (size_t i = 0; i < sizeof decoders / sizeof decoders[0]; i++) {
            int code = selftest_path(hash, decoders[i].choice, level);
            if (code)
                return code;
            if (hash128_equal(*hash, expected))
                continue;
            char made[33], right[33];
            hash128_to_text(made, *hash);
            hash128_to_text(right, expected);
            return err_set(ERR_UNSUPPORTED,
                           "self-test: the %s decoder at level %s makes other pixels than every "
                           "other loader (%s, not %s): this build, or its libjpeg-turbo, may not "
                           "serve",
                           decoders[i].name, cpu_level_name(level), made, right);
        }
    }
    return 0;
}

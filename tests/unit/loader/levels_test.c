/* SPDX-License-Identifier: Apache-2.0 */
/* Resize and colour at every instruction set level that this machine has, against the scalar
 * definition: the same bits, and nothing written outside. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "loader/colour_ops.h"
#include "loader/resize.h"
#include "tests/unit/testing.h"

enum {
    CANARY = 0x5a,
    CANARY_BYTES = 64,
    SIZE_MOST = 260,
    SIDE_MOST = 1500,
};

static enum cpu_level best;

static int find_levels(void **state)
{
    best = cpu_level_of_machine();
    fprintf(stderr, "levels up to %s\n", cpu_level_name(best));
    if (best < CPU_AVX512)
        fprintf(stderr, "skipped: this machine has no AVX-512\n");
    return 0;
}

/* A buffer with canaries on both sides. */
struct guarded {
    uint8_t *memory;
    size_t bytes;
};

static struct guarded guarded_make(size_t bytes)
{
    struct guarded guarded = {malloc(bytes + 2 * CANARY_BYTES), bytes};
    memset(guarded.memory, CANARY, bytes + 2 * CANARY_BYTES);
    return guarded;
}

static void *guarded_data(const struct guarded *guarded)
{
    return guarded->memory + CANARY_BYTES;
}

static void guarded_check(const struct guarded *guarded)
{
    for (int i = 0; i < CANARY_BYTES; i++) {
        assert_int_equal(guarded->memory[i], CANARY);
        assert_int_equal(guarded->memory[CANARY_BYTES + guarded->bytes + i], CANARY);
    }
}

static uint32_t between(uint64_t *random, uint32_t least, uint32_t most)
{
    return least + (uint32_t)(testing_random(random) % (most - least + 1));
}

/* ---- resize ---- */

enum fill { FILL_RANDOM, FILL_BLACK, FILL_WHITE, FILL_ALTERNATING, FILLS };

/* Exactly as many bytes as a plane promises: the sanitizer looks on. */
static uint8_t *make_plane(uint64_t *random, uint32_t width, uint32_t height, enum fill fill)
{
    size_t count = (size_t)width * height;
    uint8_t *pixels = malloc(count + PLANES_PADDING_BYTES);
    for (size_t i = 0; i < count; i++)
        pixels[i] = fill == FILL_RANDOM        ? (uint8_t)testing_random(random)
                    : fill == FILL_ALTERNATING ? (uint8_t)(i % 2 ? 255 : 0)
                    : fill == FILL_WHITE       ? 255
                                               : 0;
    memset(pixels + count, 0xee, PLANES_PADDING_BYTES);
    return pixels;
}

static struct planes make_planes(uint64_t *random, uint32_t width, uint32_t height, enum fill fill)
{
    uint32_t h = between(random, 1, 2), v = between(random, 1, 2);
    bool grey = between(random, 0, 4) == 0;
    struct planes planes = {.colour = grey ? PLANES_GREY : PLANES_YCC,
                            .width = width,
                            .height = height,
                            .h_max = grey ? 1 : h,
                            .v_max = grey ? 1 : v};
    for (int i = 0; i < (grey ? 1 : 3); i++) {
        struct plane *plane = &planes.plane[i];
        plane->h_factor = i == 0 ? planes.h_max : 1;
        plane->v_factor = i == 0 ? planes.v_max : 1;
        plane->full_width = (width * plane->h_factor + planes.h_max - 1) / planes.h_max;
        plane->full_height = (height * plane->v_factor + planes.v_max - 1) / planes.v_max;
        plane->width = plane->stride = plane->full_width;
        plane->height = plane->full_height;
        plane->pixels = make_plane(random, plane->full_width, plane->full_height, fill);
    }
    return planes;
}

static struct crop_axis make_crop_axis(uint64_t *random, uint32_t side)
{
    uint32_t extent = between(random, 0, 3) ? between(random, 1, side) : side;
    uint32_t begin = between(random, 0, side - extent);
    return (struct crop_axis){
        .begin = begin, .extent = extent, .denominator = 1, .low = begin, .high = begin + extent};
}

static void resize_with(int16_t *const dst[3], enum cpu_level level, const struct planes *planes,
                        const struct crop *crop, uint32_t size, uint32_t rows)
{
    struct resize *resize;
    if (resize_open(&resize, level) || resize_begin(resize, planes, crop, size, size))
        fail_msg("%s", err_message());
    for (uint32_t row = 0; row < size; row += rows) {
        int16_t *at[3];
        for (int i = 0; i < 3; i++)
            at[i] = dst[i] + (size_t)row * size;
        resize_rows(resize, at, size - row < rows ? size - row : rows);
    }
    resize_close(resize);
}

static void compare_resize(const struct planes *planes, const struct crop *crop, uint32_t size,
                           uint32_t rows)
{
    struct guarded expected[3], got[3];
    int16_t *to[3], *as[3];
    size_t bytes = (size_t)size * size * sizeof(int16_t);
    for (int i = 0; i < 3; i++) {
        expected[i] = guarded_make(bytes);
        got[i] = guarded_make(bytes);
        to[i] = guarded_data(&expected[i]);
        as[i] = guarded_data(&got[i]);
    }
    resize_with(to, CPU_SCALAR, planes, crop, size, size);
    for (enum cpu_level level = CPU_AVX2; level <= best; level++) {
        resize_with(as, level, planes, crop, size, rows);
        for (int i = 0; i < 3; i++) {
            guarded_check(&got[i]);
            if (memcmp(to[i], as[i], bytes) != 0)
                fail_msg("%s: plane %d of %u x %u to %u differs", cpu_level_name(level), i,
                         planes->width, planes->height, size);
        }
    }
    for (int i = 0; i < 3; i++) {
        free(expected[i].memory);
        free(got[i].memory);
    }
}

static void resize_is_the_same_at_every_level(void **state)
{
    static const uint32_t sizes[] = {1, 7, 28, 31, 32, 33, 64, 96, 224, 225, SIZE_MOST};
    uint64_t random = testing_seed();
    for (int round = 0; round < 240; round++) {
        bool large = round % 8 == 0; /* many taps, also more than the narrow kernels take */
        uint32_t width = between(&random, 1, large ? SIDE_MOST : 300);
        uint32_t height = between(&random, 1, large ? SIDE_MOST / 4 : 300);
        struct planes planes =
            make_planes(&random, width, height, (enum fill)(round % 3 ? 0 : round / 3 % FILLS));
        struct crop crop = {make_crop_axis(&random, width), make_crop_axis(&random, height),
                            (int)between(&random, 0, 1)};
        uint32_t size = sizes[between(&random, 0, sizeof sizes / sizeof sizes[0] - 1)];
        compare_resize(&planes, &crop, large ? between(&random, 1, 40) : size,
                       between(&random, 1, 9));
        for (int i = 0; i < 3; i++)
            free((void *)planes.plane[i].pixels);
    }
}

/* From four samples an output on, 32 outputs reach further than AVX-512's two windows; four still
 * fit into one of AVX2's up to five samples. Both sides of both limits, plain and mirrored. */
static void wide_images_are_resized_the_same_at_every_level(void **state)
{
    static const uint32_t widths[] = {3 * 224 + 112, 4 * 224 - 1, 4 * 224,     4 * 224 + 1,
                                      4 * 224 + 112, 5 * 224,     5 * 224 + 1, 5 * 224 + 112};
    uint64_t random = testing_seed();
    for (size_t i = 0; i < 2 * sizeof widths / sizeof widths[0]; i++) {
        uint32_t width = widths[i / 2], height = 300;
        struct planes planes = make_planes(&random, width, height, (enum fill)0);
        struct crop crop = {.x = {.denominator = 1, .extent = width, .high = width},
                            .y = {.denominator = 1, .extent = height, .high = height},
                            .flip = i % 2};
        compare_resize(&planes, &crop, 224, 8);
        for (int c = 0; c < 3; c++)
            free((void *)planes.plane[c].pixels);
    }
}

/* ---- colour ---- */

/* count pixels of three planes within 0..RESIZE_ONE: extremes, greys, ties and anything. */
static void make_pixels(int16_t *plane[3], uint64_t *random, size_t count)
{
    static const int16_t special[] = {0, 1, 127, 128, 16384, 32639, RESIZE_ONE};
    for (size_t i = 0; i < count; i++) {
        uint32_t kind = between(random, 0, 3);
        for (int c = 0; c < 3; c++)
            plane[c][i] = kind == 0   ? special[between(random, 0, 6)]
                          : kind == 1 ? (int16_t)between(random, 0, RESIZE_ONE)
                          : c == 0    ? (int16_t)between(random, 0, RESIZE_ONE)
                          : kind == 2 ? plane[0][i]
                          : c == 1    ? plane[0][i]
                                      : (int16_t)between(random, 0, RESIZE_ONE);
    }
}

static struct colour_params make_params(uint64_t *random, bool jitter)
{
    static const float ends[] = {0, 0x1p-20f, 1, 0x1.fffffep0f, 2};
    struct colour_params params = {.channels = 3, .jitter = jitter};
    float *factors[] = {&params.hue, &params.saturation, &params.value};
    for (int c = 0; c < 3; c++) {
        uint32_t kind = between(random, 0, 3);
        *factors[c] = kind == 0   ? ends[between(random, 0, 4)]
                      : kind == 1 ? (float)between(random, 0, 2000) / 1000
                                  : (float)between(random, 600, 1400) / 1000;
        params.offset[c] = ((float)between(random, 0, 2000) - 1000) / 100;
        params.shift[c] = params.offset[c] - (float)between(random, 90, 130);
        params.scale[c] = 1 / (float)between(random, 50, 60);
    }
    return params;
}

struct colour_case {
    int16_t *plane[2][3];
    struct colour_params params[2];
    struct colour_source source[2];
    size_t count;
};

static void case_make(struct colour_case *what, uint64_t *random, size_t count, bool jitter)
{
    what->count = count;
    for (int k = 0; k < 2; k++) {
        for (int c = 0; c < 3; c++)
            what->plane[k][c] = malloc((count ? count : 1) * sizeof(int16_t));
        make_pixels(what->plane[k], random, count);
        what->params[k] = make_params(random, jitter);
        what->source[k] = (struct colour_source){
            {what->plane[k][0], what->plane[k][1], what->plane[k][2]}, &what->params[k]};
    }
}

static void case_free(struct colour_case *what)
{
    for (int k = 0; k < 2; k++)
        for (int c = 0; c < 3; c++)
            free(what->plane[k][c]);
}

enum { OUT_HALVES, OUT_MIXED_A, OUT_MIXED_B, OUT_BYTES, OUT_R, OUT_G, OUT_B, OUTS };

static void run_colour(struct guarded out[OUTS], enum cpu_level level,
                       const struct colour_case *what)
{
    const struct colour_ops *ops = colour_ops_of(level);
    size_t plane_bytes = what->count * sizeof(int16_t);
    for (int i = 0; i < OUTS; i++)
        out[i] = guarded_make(i >= OUT_R       ? plane_bytes
                              : i == OUT_BYTES ? 3 * what->count
                                               : 3 * plane_bytes);
    ops->halves(guarded_data(&out[OUT_HALVES]), &what->source[0], what->count);
    ops->halves_mixed(guarded_data(&out[OUT_MIXED_A]), guarded_data(&out[OUT_MIXED_B]),
                      &what->source[0], &what->source[1], 0.3f, what->count);
    ops->bytes(guarded_data(&out[OUT_BYTES]), &what->source[0], what->count);
    for (int c = 0; c < 3; c++)
        memcpy(guarded_data(&out[OUT_R + c]), what->plane[1][c], plane_bytes);
    ops->ycc_to_rgb(guarded_data(&out[OUT_R]), guarded_data(&out[OUT_G]), guarded_data(&out[OUT_B]),
                    what->count);
}

static void compare_colour(const struct colour_case *what)
{
    struct guarded expected[OUTS], got[OUTS];
    run_colour(expected, CPU_SCALAR, what);
    for (enum cpu_level level = CPU_AVX2; level <= best; level++) {
        run_colour(got, level, what);
        for (int i = 0; i < OUTS; i++) {
            guarded_check(&got[i]);
            if (memcmp(guarded_data(&expected[i]), guarded_data(&got[i]), got[i].bytes) != 0)
                fail_msg("%s: output %d of %zu pixels differs", cpu_level_name(level), i,
                         what->count);
            free(got[i].memory);
        }
    }
    for (int i = 0; i < OUTS; i++)
        free(expected[i].memory);
}

static void colour_is_the_same_at_every_level(void **state)
{
    uint64_t random = testing_seed();
    for (int round = 0; round < 300; round++) {
        struct colour_case what;
        case_make(&what, &random, round < 70 ? (size_t)round : between(&random, 70, 2000),
                  round % 3 != 0);
        compare_colour(&what);
        case_free(&what);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resize_is_the_same_at_every_level),
        cmocka_unit_test(wide_images_are_resized_the_same_at_every_level),
        cmocka_unit_test(colour_is_the_same_at_every_level),
    };
    return cmocka_run_group_tests(tests, find_levels, NULL);
}

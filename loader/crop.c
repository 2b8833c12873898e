/* SPDX-License-Identifier: Apache-2.0 */
/* The geometry of a sample: training crop, validation crop, padded crop. */
#include "loader/crop.h"

#include <math.h>

#include "proto/draw.h"

enum { CROP_TRIES = 10 };

/* Words of a try's DRAW_CROP block. */
enum { WORD_AREA, WORD_ASPECT, WORD_X, WORD_Y };

struct box {
    uint32_t x, y, width, height;
};

static double draw_aspect(const struct spec *spec, uint32_t word)
{
    if (spec->aspect == SPEC_ASPECT_LOG)
        return draw_exp(draw_uniform(word, draw_log(spec->aspect_min), draw_log(spec->aspect_max)));
    return draw_uniform(word, spec->aspect_min, spec->aspect_max);
}

/* One try; 0 when the drawn box does not fit into the image. */
static int try_box(struct box *box, const struct spec *spec, struct philox_block draws,
                   uint32_t width, uint32_t height)
{
    double share = draw_uniform(draws.word[WORD_AREA], spec->area_min, spec->area_max);
    double area = share * ((double)width * (double)height);
    double aspect = draw_aspect(spec, draws.word[WORD_ASPECT]);
    double w = floor(sqrt(area * aspect) + 0.5), h = floor(sqrt(area / aspect) + 0.5);
    if (!(w >= 1 && w <= width && h >= 1 && h <= height))
        return 0;
    box->width = (uint32_t)w;
    box->height = (uint32_t)h;
    box->x = draw_below(draws.word[WORD_X], width - box->width + 1);
    box->y = draw_below(draws.word[WORD_Y], height - box->height + 1);
    return 1;
}

static uint32_t clamp_px(double value, uint32_t most)
{
    return value < 1 ? 1 : value > most ? most : (uint32_t)value;
}

/* torchvision's RandomResizedCrop.get_params: the largest centred box of an allowed aspect. Its
 * round() is Python's, halves to even, which rint gives in the default rounding mode. */
static void centre_box(struct box *box, const struct spec *spec, uint32_t width, uint32_t height)
{
    double aspect = (double)width / height;
    box->width = width;
    box->height = height;
    if (aspect < spec->aspect_min)
        box->height = clamp_px(rint(width / (double)spec->aspect_min), height);
    else if (aspect > spec->aspect_max)
        box->width = clamp_px(rint(height * (double)spec->aspect_max), width);
    box->x = (width - box->width) / 2;
    box->y = (height - box->height) / 2;
}

static struct crop_axis box_axis(uint32_t begin, uint32_t extent)
{
    return (struct crop_axis){
        .begin = begin, .extent = extent, .denominator = 1, .low = begin, .high = begin + extent};
}

static void random_box(struct crop *crop, const struct spec *spec, struct draw_key key, uint32_t id,
                       uint32_t width, uint32_t height)
{
    struct box box;
    uint32_t attempt = 0;
    while (attempt < CROP_TRIES &&
           !try_box(&box, spec, draw_block(key, DRAW_CROP, id, attempt), width, height))
        attempt++;
    if (attempt == CROP_TRIES)
        centre_box(&box, spec, width, height);
    crop->x = box_axis(box.x, box.width);
    crop->y = box_axis(box.y, box.height);
}

/* value / 2, halves to even; value >= 0. */
static int64_t half_to_even(int64_t value)
{
    int64_t half = value / 2;
    return half + (value & 1 & half);
}

/* The image's side of `source` px becomes `resized` px, of which `size` in the middle are taken,
 * moved by `shift`. */
static struct crop_axis centre_axis(uint32_t source, int64_t resized, uint32_t size, int64_t shift)
{
    int64_t offset = half_to_even(resized - size) + shift;
    return (struct crop_axis){.begin = offset * source,
                              .extent = (int64_t)size * source,
                              .denominator = resized,
                              .high = source,
                              .zero_before = shift < 0 ? (int32_t)-shift : 0,
                              .zero_after = shift > 0 ? (int32_t)shift : 0};
}

/* Side `side` of an image whose other side is `other`, after its short side became R. */
static int64_t resized_side(const struct spec *spec, uint32_t side, uint32_t other)
{
    if (side <= other)
        return spec->resize_short_px;
    return (int64_t)spec->resize_short_px * side / other;
}

static void centre_window(struct crop *crop, const struct spec *spec, int64_t shift_x,
                          int64_t shift_y, uint32_t width, uint32_t height)
{
    uint32_t size = spec->size_px;
    crop->x = centre_axis(width, resized_side(spec, width, height), size, shift_x);
    crop->y = centre_axis(height, resized_side(spec, height, width), size, shift_y);
}

void crop_draw(struct crop *crop, const struct spec *spec, uint32_t epoch, uint32_t id,
               uint32_t width, uint32_t height)
{
    struct draw_key key = {spec->seed, epoch};
    if (spec->crop == SPEC_CROP_RRC) {
        random_box(crop, spec, key, id, width, height);
    } else if (spec->crop == SPEC_CROP_PAD) {
        struct philox_block draws = draw_block(key, DRAW_CROP, id, 0);
        int64_t pad = spec->pad_px;
        uint32_t places = 2 * (uint32_t)pad + 1;
        int64_t shift_x = draw_below(draws.word[WORD_X], places) - pad;
        int64_t shift_y = draw_below(draws.word[WORD_Y], places) - pad;
        centre_window(crop, spec, shift_x, shift_y, width, height);
    } else {
        centre_window(crop, spec, 0, 0, width, height);
    }
    crop->flip = spec->flip && draw_unit(draw_block(key, DRAW_FLIP, id, 0).word[0]) < 0.5;
}

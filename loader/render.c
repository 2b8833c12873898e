/* SPDX-License-Identifier: Apache-2.0 */
#include "loader/render.h"

#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "loader/crop.h"
#include "loader/decode.h"
#include "loader/resize.h"

enum { ROWS = 8 }; /* that are resized and converted together, in the first cache */

/* A sample before the jitter. */
struct picture {
    int16_t *plane[3]; /* [size][size] each, Q7, one allocation */
    size_t room;       /* values in each */
    size_t count;      /* values in use */
    struct colour_params params;
    struct colour_source source; /* of the above */
};

struct render {
    struct decoder *decoder;
    struct resize *resize;
    const struct colour_ops *ops;
    struct picture picture[RENDER_SLOTS];
};

int render_open(struct render **out, enum decoder_choice decoder, enum cpu_level level)
{
    struct render *render = calloc(1, sizeof *render);
    int code = render ? decoder_open(&render->decoder)
                      : err_set(ERR_NOMEM, "out of memory for a sample's scratch");
    if (!code && decoder != DECODER_REFERENCE)
        code = decoder_use_index(render->decoder, level);
    if (!code)
        code = resize_open(&render->resize, level);
    if (code) {
        render_close(render);
        return code;
    }
    render->ops = colour_ops_of(level);
    *out = render;
    return 0;
}

void render_close(struct render *render)
{
    if (!render)
        return;
    decoder_close(render->decoder);
    resize_close(render->resize);
    for (int slot = 0; slot < RENDER_SLOTS; slot++)
        free(render->picture[slot].plane[0]);
    free(render);
}

static int reserve(struct picture *picture, size_t values)
{
    picture->count = values;
    if (values <= picture->room)
        return 0;
    free(picture->plane[0]);
    picture->room = 0;
    picture->plane[0] = malloc(3 * values * sizeof *picture->plane[0]);
    if (!picture->plane[0])
        return err_set(ERR_NOMEM, "out of memory for %zu px", values);
    picture->plane[1] = picture->plane[0] + values;
    picture->plane[2] = picture->plane[1] + values;
    picture->room = values;
    return 0;
}

/* Rows of resized planes become R, G, B, or grey in the first. */
static void convert(const struct colour_ops *ops, int16_t *const rows[3], size_t count,
                    enum planes_colour colour, const struct spec *spec)
{
    if (colour == PLANES_YCC && spec->channels == 3) {
        ops->ycc_to_rgb(rows[0], rows[1], rows[2], count);
        return;
    }
    colour_clamp(rows[0], count);
    if (colour == PLANES_RGB) {
        colour_clamp(rows[1], count);
        colour_clamp(rows[2], count);
        if (spec->channels == 1)
            colour_luma(rows[0], rows[1], rows[2], count);
    } else if (spec->channels == 3) {
        memcpy(rows[1], rows[0], count * sizeof *rows[0]);
        memcpy(rows[2], rows[0], count * sizeof *rows[0]);
    }
}

static int64_t window_end(const struct crop_axis *axis, int64_t size)
{
    return axis->zero_after < size ? size - axis->zero_after : 0;
}

/* Crop pad: what lies outside the image is black. */
static void blacken_padding(struct picture *picture, const struct crop *crop,
                            const struct spec *spec)
{
    const struct crop_axis *x = &crop->x, *y = &crop->y;
    if (!x->zero_before && !x->zero_after && !y->zero_before && !y->zero_after)
        return;
    int64_t size = spec->size_px, x_end = window_end(x, size), y_end = window_end(y, size);
    for (int64_t row = 0; row < size; row++) {
        for (int64_t column = 0; column < size; column++) {
            int64_t straight = crop->flip ? size - 1 - column : column;
            if (straight >= x->zero_before && straight < x_end && row >= y->zero_before &&
                row < y_end)
                continue;
            for (unsigned channel = 0; channel < spec->channels; channel++)
                picture->plane[channel][row * size + column] = 0;
        }
    }
}

/* Rows of the result from `row` on; count: at most ROWS. */
static void make_rows(struct render *render, struct picture *picture, uint32_t row, uint32_t count,
                      enum planes_colour colour, const struct spec *spec)
{
    int16_t *rows[3];
    for (int i = 0; i < 3; i++)
        rows[i] = picture->plane[i] + (size_t)row * spec->size_px;
    resize_rows(render->resize, rows, count);
    convert(render->ops, rows, (size_t)count * spec->size_px, colour, spec);
}

static int resize_and_convert(struct render *render, struct picture *picture, struct planes *planes,
                              const struct crop *crop, const struct spec *spec)
{
    uint32_t size = spec->size_px, row = 0;
    resize_use_cubic(render->resize, spec->interpolation == SPEC_BICUBIC);
    int code = resize_begin(render->resize, planes, crop, size, size);
    while (!code && row < size) {
        uint32_t end = row + resize_ready(render->resize);
        if (row == end)
            code = decode_next_band(render->decoder, planes);
        for (; row < end; row += ROWS)
            make_rows(render, picture, row, end - row < ROWS ? end - row : ROWS, planes->colour,
                      spec);
        row = end;
    }
    if (!code)
        blacken_padding(picture, crop, spec);
    return code;
}

static void draw(struct picture *picture, const struct spec *spec, uint32_t epoch, uint32_t id)
{
    colour_draw(&picture->params, spec, epoch, id);
    if (spec->jitter == SPEC_JITTER_BCS)
        colour_bcs(picture->plane[0], picture->plane[1], picture->plane[2], picture->count, spec,
                   epoch, id);
    picture->source = (struct colour_source){
        {picture->plane[0], picture->plane[1], picture->plane[2]}, &picture->params};
}

int render_cut(struct render *render, int slot, const struct store_record *record,
               const struct spec *spec, uint32_t epoch)
{
    struct picture *picture = &render->picture[slot];
    int code = decode_check_size(record->width, record->height);
    if (!code)
        code = reserve(picture, (size_t)spec->size_px * spec->size_px);
    if (code)
        return code;
    struct crop crop;
    struct planes planes = {0}; /* a decoder that fails may leave it as it is */
    crop_draw(&crop, spec, epoch, record->id, record->width, record->height);
    struct store_record whole = *record;
    if (spec->interpolation == SPEC_BICUBIC) /* bands are laid out for the triangle's reach */
        whole.index = NULL;
    code = decode_record(render->decoder, &planes, &whole, &crop);
    if (!code)
        code = resize_and_convert(render, picture, &planes, &crop, spec);
    if (code == ERR_DATA && planes.plane[0].rows_kept) { /* a wrong index */
        code = decode_record_again(render->decoder, &planes, record);
        if (!code)
            code = resize_and_convert(render, picture, &planes, &crop, spec);
    }
    if (code)
        return code;
    draw(picture, spec, epoch, record->id);
    return 0;
}

int render_take(struct render *render, int slot, const int16_t *planes, const struct spec *spec,
                uint32_t epoch, uint32_t id)
{
    struct picture *picture = &render->picture[slot];
    size_t values = (size_t)spec->size_px * spec->size_px;
    int code = reserve(picture, values);
    for (unsigned i = 0; i < spec->channels && !code; i++)
        memcpy(picture->plane[i], planes + i * values, values * sizeof *planes);
    if (!code)
        draw(picture, spec, epoch, id);
    return code;
}

const struct colour_source *render_source(const struct render *render, int slot)
{
    return &render->picture[slot].source;
}

void render_halves(const struct render *render, uint16_t *dst, int slot)
{
    const struct picture *picture = &render->picture[slot];
    render->ops->halves(dst, &picture->source, picture->count);
}

void render_halves_mixed(const struct render *render, uint16_t *const dst[RENDER_SLOTS], float lam)
{
    const struct picture *picture = render->picture;
    render->ops->halves_mixed(dst[0], dst[1], &picture[0].source, &picture[1].source, lam,
                              picture->count);
}

void render_bytes(const struct render *render, uint8_t *dst, float offsets[3], int slot)
{
    const struct picture *picture = &render->picture[slot];
    render->ops->bytes(dst, &picture->source, picture->count);
    memcpy(offsets, picture->params.offset, sizeof picture->params.offset);
}

size_t render_keeps(const struct spec *spec)
{
    /* Huffman tables, two bands of planes, rows on their way through the resize: measured on images
       of 500 px; they grow with the width alone. */
    enum { ROWS_BYTES = 460 << 10 };
    return ROWS_BYTES + (size_t)spec->size_px * spec->size_px * 3 * sizeof(int16_t) * RENDER_SLOTS;
}

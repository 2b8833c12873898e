/* SPDX-License-Identifier: Apache-2.0 */
#include "loader/render.h"

#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "loader/colour.h"
#include "loader/crop.h"
#include "loader/decode.h"
#include "loader/resize.h"

struct render {
    struct decoder *decoder;
    struct resize *resize;
    int16_t *resized[3]; /* [size][size] each, Q7, one allocation */
    size_t room;         /* values in each */
};

int render_open(struct render **out, enum decoder_choice decoder)
{
    struct render *render = calloc(1, sizeof *render);
    int code = render ? decoder_open(&render->decoder)
                      : err_set(ERR_NOMEM, "out of memory for a sample's scratch");
    if (!code && decoder != DECODER_REFERENCE)
        code = decoder_use_index(render->decoder);
    if (!code)
        code = resize_open(&render->resize);
    if (code) {
        render_close(render);
        return code;
    }
    *out = render;
    return 0;
}

void render_close(struct render *render)
{
    if (!render)
        return;
    decoder_close(render->decoder);
    resize_close(render->resize);
    free(render->resized[0]);
    free(render);
}

static int reserve(struct render *render, size_t values)
{
    if (values <= render->room)
        return 0;
    free(render->resized[0]);
    render->room = 0;
    render->resized[0] = malloc(3 * values * sizeof *render->resized[0]);
    if (!render->resized[0])
        return err_set(ERR_NOMEM, "out of memory for %zu px", values);
    render->resized[1] = render->resized[0] + values;
    render->resized[2] = render->resized[1] + values;
    render->room = values;
    return 0;
}

/* The resized planes become R, G, B, or grey in the first. */
static void convert(struct render *render, enum planes_colour colour, const struct spec *spec)
{
    size_t count = (size_t)spec->size_px * spec->size_px;
    int16_t *const *values = render->resized;
    if (colour == PLANES_YCC && spec->channels == 3) {
        colour_ycc_to_rgb(values[0], values[1], values[2], count);
        return;
    }
    colour_clamp(values[0], count);
    if (colour == PLANES_RGB) {
        colour_clamp(values[1], count);
        colour_clamp(values[2], count);
        if (spec->channels == 1)
            colour_luma(values[0], values[1], values[2], count);
    } else if (spec->channels == 3) {
        memcpy(values[1], values[0], count * sizeof *values[0]);
        memcpy(values[2], values[0], count * sizeof *values[0]);
    }
}

static int64_t window_end(const struct crop_axis *axis, int64_t size)
{
    return axis->zero_after < size ? size - axis->zero_after : 0;
}

/* Crop pad: what lies outside the image is black. */
static void blacken_padding(struct render *render, const struct crop *crop, const struct spec *spec)
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
                render->resized[channel][row * size + column] = 0;
        }
    }
}

/* Everything up to R, G, B in Q7. */
static int cut_out(struct render *render, const struct store_record *record,
                   const struct spec *spec, uint32_t epoch)
{
    int code = decode_check_size(record->width, record->height);
    if (!code)
        code = reserve(render, (size_t)spec->size_px * spec->size_px);
    if (code)
        return code;
    struct crop crop;
    crop_draw(&crop, spec, epoch, record->id, record->width, record->height);
    struct planes planes;
    code = decode_record(render->decoder, &planes, record, &crop);
    if (!code)
        code = resize_planes(render->resize, render->resized, &planes, &crop, spec->size_px);
    if (code)
        return code;
    convert(render, planes.colour, spec);
    blacken_padding(render, &crop, spec);
    return 0;
}

int render_floats(struct render *render, float *dst, const struct store_record *record,
                  const struct spec *spec, uint32_t epoch)
{
    int code = cut_out(render, record, spec, epoch);
    if (code)
        return code;
    struct colour_params params;
    colour_draw(&params, spec, epoch, record->id);
    colour_normalise(dst, render->resized[0], render->resized[1], render->resized[2],
                     (size_t)spec->size_px * spec->size_px, &params);
    return 0;
}

int render_bytes(struct render *render, uint8_t *dst, float offsets[3],
                 const struct store_record *record, const struct spec *spec, uint32_t epoch)
{
    int code = cut_out(render, record, spec, epoch);
    if (code)
        return code;
    struct colour_params params;
    colour_draw(&params, spec, epoch, record->id);
    colour_bytes(dst, render->resized[0], render->resized[1], render->resized[2],
                 (size_t)spec->size_px * spec->size_px, &params);
    memcpy(offsets, params.offset, sizeof params.offset);
    return 0;
}

size_t render_keeps(const struct spec *spec)
{
    /* Tables and rows of the resize: with a crop of 16 Mpx, far from most. */
    enum { RESIZE_BYTES = 4 << 20 };
    return DECODE_KEEP_BYTES + RESIZE_BYTES +
           (size_t)spec->size_px * spec->size_px * 3 * sizeof(int16_t);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The two passes of the resize, in plain C. */
#include "loader/resize.h"

#include <stdlib.h>

#include "common/err.h"

struct resize {
    struct resize_axis x[3], y[3]; /* of each plane; planes of equal factors use the first's */
    int16_t *ring;                 /* [taps of y][size]: row r of the x pass is at r % taps */
    const int16_t **rows;          /* [taps of y]: the ring in reading order */
    size_t ring_room, row_room;    /* elements */
};

static void row_x_narrow(int16_t *dst, const uint8_t *source, const struct resize_axis *x)
{
    const uint16_t *weight = x->weights;
    for (uint32_t output = 0; output < x->outputs; output++, weight += x->taps) {
        const uint8_t *sample = source + (x->first[output] - x->low);
        uint32_t sum = x->taps / 2;
        for (uint32_t tap = 0; tap < x->taps; tap++)
            sum += ((uint32_t)sample[tap] << 8) * weight[tap] >> 16;
        dst[output] = (int16_t)sum;
    }
}

static void row_x_wide(int16_t *dst, const uint8_t *source, const struct resize_axis *x)
{
    const uint16_t *weight = x->weights;
    for (uint32_t output = 0; output < x->outputs; output++, weight += x->taps) {
        const uint8_t *sample = source + (x->first[output] - x->low);
        uint32_t sum = 0x100;
        for (uint32_t tap = 0; tap < x->taps; tap++)
            sum += (uint32_t)sample[tap] * weight[tap];
        dst[output] = (int16_t)(sum >> 9);
    }
}

void resize_row_x(int16_t *dst, const uint8_t *source, const struct resize_axis *x)
{
    (x->wide ? row_x_wide : row_x_narrow)(dst, source, x);
}

static void row_y_narrow(int16_t *dst, const int16_t *const *rows, const uint16_t *weights,
                         uint32_t taps, uint32_t columns)
{
    for (uint32_t tap = 0; tap < taps; tap++) {
        const int16_t *row = rows[tap];
        int32_t weight = weights[tap] < INT16_MAX ? weights[tap] : INT16_MAX;
        for (uint32_t column = 0; column < columns; column++) {
            int16_t product = (int16_t)((row[column] * weight + 0x4000) >> 15);
            dst[column] = (int16_t)(tap ? dst[column] + product : product);
        }
    }
}

static void row_y_wide(int16_t *dst, const int16_t *const *rows, const uint16_t *weights,
                       uint32_t taps, uint32_t columns)
{
    for (uint32_t column = 0; column < columns; column++) {
        int32_t sum = 0x8000;
        for (uint32_t tap = 0; tap < taps; tap++)
            sum += rows[tap][column] * (int32_t)weights[tap];
        dst[column] = (int16_t)(sum >> 16);
    }
}

void resize_row_y(int16_t *dst, const int16_t *const *rows, const struct resize_axis *y,
                  uint32_t output, uint32_t columns)
{
    const uint16_t *weights = y->weights + (size_t)output * y->taps;
    (y->wide ? row_y_wide : row_y_narrow)(dst, rows, weights, y->taps, columns);
}

int resize_open(struct resize **out)
{
    *out = calloc(1, sizeof **out);
    return *out ? 0 : err_set(ERR_NOMEM, "out of memory for a resizer");
}

void resize_close(struct resize *resize)
{
    if (!resize)
        return;
    for (int i = 0; i < 3; i++) {
        resize_axis_free(&resize->x[i]);
        resize_axis_free(&resize->y[i]);
    }
    free(resize->ring);
    free(resize->rows);
    free(resize);
}

static int reserve_rows(struct resize *resize, uint32_t taps, uint32_t size)
{
    size_t room = (size_t)taps * size;
    if (room > resize->ring_room) {
        free(resize->ring);
        resize->ring = malloc(room * sizeof *resize->ring);
        resize->ring_room = resize->ring ? room : 0;
    }
    if (taps > resize->row_room) {
        free(resize->rows);
        resize->rows = malloc(taps * sizeof *resize->rows);
        resize->row_room = resize->rows ? taps : 0;
    }
    return resize->ring && resize->rows ? 0 : err_set(ERR_NOMEM, "out of memory for resize rows");
}

static int resize_plane(struct resize *resize, int16_t *dst, const struct plane *plane,
                        const struct resize_axis *x, const struct resize_axis *y)
{
    uint32_t size = x->outputs, taps = y->taps;
    int code = reserve_rows(resize, taps, size);
    if (code)
        return code;
    uint32_t next = y->first[0]; /* the first row of samples that is not in the ring yet */
    for (uint32_t output = 0; output < size; output++) {
        uint32_t first = y->first[output];
        for (next = next > first ? next : first; next < first + taps; next++) {
            const uint8_t *row = plane->pixels + (size_t)(next - plane->y0) * plane->stride;
            resize_row_x(resize->ring + (size_t)(next % taps) * size, row + (x->low - plane->x0),
                         x);
        }
        for (uint32_t tap = 0; tap < taps; tap++)
            resize->rows[tap] = resize->ring + (size_t)((first + tap) % taps) * size;
        resize_row_y(dst + (size_t)output * size, resize->rows, y, output, size);
    }
    return 0;
}

/* Which plane's tables plane i uses: its own, or those of plane 0 or 1 when they are the same. */
static int table_of(const struct planes *planes, int i)
{
    for (int other = 0; other < i; other++)
        if (planes->plane[other].h_factor == planes->plane[i].h_factor &&
            planes->plane[other].v_factor == planes->plane[i].v_factor)
            return other;
    return i;
}

int resize_planes(struct resize *resize, int16_t *const dst[3], const struct planes *planes,
                  const struct crop *crop, uint32_t size)
{
    int count = planes->colour == PLANES_GREY ? 1 : 3;
    for (int i = 0; i < count; i++) {
        const struct plane *plane = &planes->plane[i];
        int table = table_of(planes, i), code = 0;
        struct resize_axis *x = &resize->x[table], *y = &resize->y[table];
        if (table == i)
            code = resize_axis_build(x, &crop->x, size, plane->h_factor, planes->h_max,
                                     plane->full_width, crop->flip);
        if (!code && table == i)
            code = resize_axis_build(y, &crop->y, size, plane->v_factor, planes->v_max,
                                     plane->full_height, false);
        if (!code)
            code = resize_plane(resize, dst[i], plane, x, y);
        if (code)
            return code;
    }
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The resize row by row: of each plane a ring of rows that went through the x pass, from which the
 * y pass makes the next row. */
#include "loader/resize.h"

#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "loader/resize_ops.h"

enum { ALIGNMENT = 64 };

/* Tables of planes with the same sampling factors. */
struct tables {
    struct resize_axis x, y;
    struct resize_windows windows;
};

/* One plane on its way. Rows are counted from first[0] of the y axis on. */
struct source {
    const struct tables *tables;
    const struct plane *plane;
    const uint8_t *pixels; /* of the plane's first row, from the axis' low on */
    uint32_t top;          /* row 0 in the plane */
    uint32_t rows;         /* that may be read */
    uint32_t ready;        /* rows before it are or were in the ring */
    uint32_t ring_rows;    /* a multiple of RESIZE_BLOCK: row r is at r % ring_rows */
    int16_t *ring;         /* [ring_rows][stride of x] */
    size_t ring_room;      /* elements */
};

struct resize {
    const struct resize_ops *ops;
    struct tables tables[3];
    struct source source[3];
    int count; /* planes */
    bool cubic;
    uint32_t width, height, next; /* of the result, and its next row */
    const int16_t **rows;         /* a ring in reading order */
    int16_t *spill;               /* a row with its padding */
    size_t row_room, spill_room;
};

int resize_open(struct resize **out, enum cpu_level level)
{
    if (level > cpu_level_of_machine())
        return err_set(ERR_UNSUPPORTED, "this machine has no %s", cpu_level_name(level));
    *out = calloc(1, sizeof **out);
    if (!*out)
        return err_set(ERR_NOMEM, "out of memory for a resizer");
    (*out)->ops = resize_ops_of(level);
    return 0;
}

void resize_close(struct resize *resize)
{
    if (!resize)
        return;
    for (int i = 0; i < 3; i++) {
        resize_axis_free(&resize->tables[i].x);
        resize_axis_free(&resize->tables[i].y);
        free(resize->tables[i].windows.base);
        free(resize->tables[i].windows.index);
        free(resize->source[i].ring);
    }
    free(resize->rows);
    free(resize->spill);
    free(resize);
}

void resize_use_cubic(struct resize *resize, bool cubic)
{
    resize->cubic = cubic;
}

static void *grown(void *memory, size_t *room, size_t count, size_t element_bytes)
{
    if (count <= *room)
        return memory;
    size_t bytes = (count * element_bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    free(memory);
    memory = aligned_alloc(ALIGNMENT, bytes);
    *room = memory ? count : 0;
    return memory;
}

static int plan(struct resize *resize, struct tables *tables)
{
    struct resize_windows *windows = &tables->windows;
    const struct resize_axis *x = &tables->x;
    windows->kind = 0;
    if (!resize->ops->plan_x || x->wide || x->cubic)
        return 0;
    size_t base_room = windows->room, index_room = windows->room;
    windows->base = grown(windows->base, &base_room, x->stride, sizeof *windows->base / 4);
    windows->index = grown(windows->index, &index_room, x->stride, 4);
    windows->room = windows->base && windows->index ? (uint32_t)base_room : 0;
    if (!windows->room)
        return err_set(ERR_NOMEM, "out of memory for resize windows");
    resize->ops->plan_x(windows, x);
    return 0;
}

/* Rows that the ring must hold: the taps of an output, and what the x pass is ahead of them. */
static int reserve_rows(struct resize *resize, struct source *source)
{
    const struct resize_axis *x = &source->tables->x, *y = &source->tables->y;
    source->ring_rows = (y->taps + 2 * RESIZE_BLOCK - 1) / RESIZE_BLOCK * RESIZE_BLOCK;
    source->ring = grown(source->ring, &source->ring_room, (size_t)source->ring_rows * x->stride,
                         sizeof *source->ring);
    resize->rows = grown(resize->rows, &resize->row_room, y->taps, sizeof *resize->rows);
    resize->spill = grown(resize->spill, &resize->spill_room, x->stride, sizeof *resize->spill);
    return source->ring && resize->rows && resize->spill
               ? 0
               : err_set(ERR_NOMEM, "out of memory for resize rows");
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

/* ops: NULL for the bicubic filter. */
static int build(struct resize_axis *axis, const struct resize_ops *ops,
                 const struct crop_axis *crop, uint32_t outputs, uint32_t factor,
                 uint32_t factor_max, uint32_t samples, bool mirrored)
{
    if (!ops)
        return resize_axis_build_cubic(axis, crop, outputs, factor, factor_max, samples, mirrored);
    return resize_axis_build(axis, ops, crop, outputs, factor, factor_max, samples, mirrored);
}

static int build_tables(struct resize *resize, struct tables *tables, const struct planes *planes,
                        const struct plane *plane, const struct crop *crop)
{
    const struct resize_ops *ops = resize->cubic ? NULL : resize->ops;
    int code = build(&tables->x, ops, &crop->x, resize->width, plane->h_factor, planes->h_max,
                     plane->full_width, crop->flip);
    if (!code)
        code = build(&tables->y, ops, &crop->y, resize->height, plane->v_factor, planes->v_max,
                     plane->full_height, false);
    return code ? code : plan(resize, tables);
}

static int begin_plane(struct resize *resize, struct source *source, const struct plane *plane)
{
    const struct resize_axis *x = &source->tables->x, *y = &source->tables->y;
    source->plane = plane;
    source->pixels = plane->pixels + (x->low - plane->x0);
    source->top = y->first[0] - plane->y0;
    source->rows = y->high - y->first[0];
    source->ready = 0;
    return reserve_rows(resize, source);
}

int resize_begin(struct resize *resize, const struct planes *planes, const struct crop *crop,
                 uint32_t width, uint32_t height)
{
    int code = 0;
    resize->count = planes->colour == PLANES_GREY ? 1 : 3;
    resize->width = width;
    resize->height = height;
    resize->next = 0;
    for (int i = 0; !code && i < resize->count; i++) {
        int table = table_of(planes, i);
        resize->source[i].tables = &resize->tables[table];
        if (table == i)
            code = build_tables(resize, &resize->tables[i], planes, &planes->plane[i], crop);
        if (!code)
            code = begin_plane(resize, &resize->source[i], &planes->plane[i]);
    }
    return code;
}

/* Where a block's rows are; behind the last one comes the last one again. */
static void find_rows(const uint8_t *rows[RESIZE_BLOCK], const struct source *source)
{
    const struct plane *plane = source->plane;
    uint32_t last = source->rows - 1, at = source->top + source->ready;
    if (plane->rows_kept)
        at %= plane->rows_kept;
    for (uint32_t i = 0; i < RESIZE_BLOCK; i++) {
        rows[i] = source->pixels + at * plane->stride;
        if (source->ready + i < last && ++at == plane->rows_kept)
            at = 0;
    }
}

/* The x pass, until rows before `end` are there. */
static void advance(const struct resize *resize, struct source *source, uint32_t end)
{
    const struct resize_axis *x = &source->tables->x;
    const struct resize_windows *windows = &source->tables->windows;
    const struct resize_ops *ops = windows->kind ? resize->ops : &resize_ops_scalar;
    for (; source->ready < end; source->ready += RESIZE_BLOCK) {
        const uint8_t *rows[RESIZE_BLOCK];
        find_rows(rows, source);
        int16_t *dst = source->ring + (size_t)(source->ready % source->ring_rows) * x->stride;
        ops->rows_x(dst, rows, x, windows);
    }
}

/* Rows that have come, of those that may be read. */
static uint32_t rows_come(const struct source *source)
{
    const struct plane *plane = source->plane;
    if (!plane->rows_kept)
        return source->rows;
    uint32_t come = plane->rows_ready > source->top ? plane->rows_ready - source->top : 0;
    return come < source->rows ? come : source->rows;
}

static uint32_t whole_blocks(uint32_t rows)
{
    return rows / RESIZE_BLOCK * RESIZE_BLOCK;
}

/* Whether all blocks that a row of the result needs have come. */
static bool can_make(const struct source *source, uint32_t row)
{
    const struct resize_axis *y = &source->tables->y;
    uint32_t come = rows_come(source), need = y->first[row] - y->first[0] + y->taps;
    return come == source->rows || need <= whole_blocks(come);
}

/* Puts into the ring what has come, as far as the next row of the result lets it. What stays out is
 * of the last band: planes of a lower resolution hold the result back by a block and a tap of
 * theirs, and a band is at least twice as high. */
static void take_rest(const struct resize *resize, struct source *source)
{
    const struct resize_axis *y = &source->tables->y;
    uint32_t come = rows_come(source);
    uint32_t room = y->first[resize->next] - y->first[0] + source->ring_rows;
    advance(resize, source, whole_blocks(come < room ? come : room));
}

uint32_t resize_ready(struct resize *resize)
{
    uint32_t end = resize->next;
    for (bool all = true; all && end < resize->height; end += all)
        for (int i = 0; all && i < resize->count; i++)
            all = can_make(&resize->source[i], end);
    if (end == resize->next && end < resize->height)
        for (int i = 0; i < resize->count; i++)
            take_rest(resize, &resize->source[i]);
    return end - resize->next;
}

static void make_row(struct resize *resize, struct source *source, int16_t *dst)
{
    const struct resize_axis *y = &source->tables->y;
    uint32_t stride = source->tables->x.stride;
    uint32_t first = y->first[resize->next] - y->first[0], slot = first % source->ring_rows;
    advance(resize, source, first + y->taps);
    for (uint32_t tap = 0; tap < y->taps; tap++) {
        resize->rows[tap] = source->ring + (size_t)slot * stride;
        slot = slot + 1 < source->ring_rows ? slot + 1 : 0;
    }
    const struct resize_ops *ops = y->wide || y->cubic ? &resize_ops_scalar : resize->ops;
    bool padded = stride != resize->width;
    ops->row_y(padded ? resize->spill : dst, resize->rows, y, resize->next, stride);
    if (padded)
        memcpy(dst, resize->spill, resize->width * sizeof *dst);
}

void resize_rows(struct resize *resize, int16_t *const dst[3], uint32_t count)
{
    for (uint32_t row = 0; row < count; row++, resize->next++)
        for (int i = 0; i < resize->count; i++)
            make_row(resize, &resize->source[i], dst[i] + (size_t)row * resize->width);
}

int resize_planes(struct resize *resize, int16_t *const dst[3], const struct planes *planes,
                  const struct crop *crop, uint32_t size)
{
    int code = resize_begin(resize, planes, crop, size, size);
    if (!code)
        resize_rows(resize, dst, size);
    return code;
}

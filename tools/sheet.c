/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/sheet.h"

#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/file.h"
#include "tools/font.h"
#include "tools/png.h"

enum {
    LEAST_PX = 126, /* of a cell's picture: 18 characters stand below it */
    GAP_PX = 14,
    LINE_PX = FONT_HEIGHT + 3,
    SHEET_PX = 1300, /* about as wide as a screen */
};

static const uint8_t paper[3] = {24, 27, 32}, ink[3] = {232, 235, 240}, soft[3] = {152, 162, 176};

/* Where things stand. */
struct layout {
    uint32_t scale, side; /* side: of a picture, enlarged */
    uint32_t columns, rows;
    uint32_t width, height; /* of the sheet */
};

struct canvas {
    uint8_t *pixels; /* [height][width][3] */
    uint32_t width, height;
};

static struct layout lay_out(const struct sheet *sheet)
{
    struct layout layout;
    layout.scale = (LEAST_PX + sheet->size_px - 1) / sheet->size_px;
    layout.side = layout.scale * sheet->size_px;
    layout.columns = (SHEET_PX - GAP_PX) / (layout.side + GAP_PX);
    if (layout.columns < 1)
        layout.columns = 1;
    layout.rows = (sheet->count + layout.columns - 1) / layout.columns;
    /* Equally full rows: 8 pictures as 4 and 4, not as 5 and 3. */
    layout.columns = (sheet->count + layout.rows - 1) / layout.rows;
    layout.width = GAP_PX + layout.columns * (layout.side + GAP_PX);
    layout.height = 2 * GAP_PX + LINE_PX + layout.rows * (layout.side + 2 * LINE_PX + GAP_PX);
    return layout;
}

static void put(const struct canvas *canvas, uint32_t x, uint32_t y, const uint8_t colour[3])
{
    memcpy(canvas->pixels + ((size_t)y * canvas->width + x) * 3, colour, 3);
}

/* Within width px; cut text ends with two dots. */
static void draw_text(const struct canvas *canvas, uint32_t x, uint32_t y, uint32_t width,
                      const char *text, const uint8_t colour[3])
{
    uint32_t room = width / FONT_WIDTH, length = 0;
    for (const char *at = text; *at; length++)
        font_next(&at);
    for (uint32_t n = 0; *text && n < room; n++) {
        uint32_t code = font_next(&text);
        const uint8_t *rows = font_glyph(length > room && n + 2 >= room ? '.' : code);
        for (uint32_t row = 0; row < FONT_HEIGHT; row++)
            for (uint32_t column = 0; column < FONT_WIDTH; column++)
                if (rows[row] & 0x80 >> column)
                    put(canvas, x + n * FONT_WIDTH + column, y + row, colour);
    }
}

static void draw_picture(const struct canvas *canvas, uint32_t x, uint32_t y,
                         const struct sheet *sheet, uint32_t index, const struct layout *layout)
{
    size_t size = sheet->size_px, channels = sheet->channels;
    const uint8_t *from = sheet->pixels + index * size * size * channels;
    for (uint32_t row = 0; row < layout->side; row++) {
        for (uint32_t column = 0; column < layout->side; column++) {
            const uint8_t *pixel =
                from + (row / layout->scale * size + column / layout->scale) * channels;
            uint8_t colour[3] = {pixel[0], pixel[channels > 1 ? 1 : 0],
                                 pixel[channels > 1 ? 2 : 0]};
            put(canvas, x + column, y + row, colour);
        }
    }
}

static void draw(const struct canvas *canvas, const struct sheet *sheet,
                 const struct layout *layout)
{
    for (uint32_t y = 0; y < canvas->height; y++)
        for (uint32_t x = 0; x < canvas->width; x++)
            put(canvas, x, y, paper);
    draw_text(canvas, GAP_PX, GAP_PX, layout->width - 2 * GAP_PX, sheet->title, soft);
    for (uint32_t i = 0; i < sheet->count; i++) {
        uint32_t x = GAP_PX + i % layout->columns * (layout->side + GAP_PX);
        uint32_t y =
            2 * GAP_PX + LINE_PX + i / layout->columns * (layout->side + 2 * LINE_PX + GAP_PX);
        draw_picture(canvas, x, y, sheet, i, layout);
        draw_text(canvas, x, y + layout->side + 4, layout->side, sheet->cells[i].lines[0], ink);
        draw_text(canvas, x, y + layout->side + 4 + LINE_PX, layout->side, sheet->cells[i].lines[1],
                  soft);
    }
}

int sheet_write(const struct sheet *sheet, const char *path)
{
    struct layout layout = lay_out(sheet);
    struct canvas canvas = {malloc((size_t)layout.width * layout.height * 3), layout.width,
                            layout.height};
    uint8_t *png = NULL;
    size_t bytes;
    if (!canvas.pixels)
        return err_set(ERR_NOMEM, "%s: out of memory for %u x %u pixels", path, layout.width,
                       layout.height);
    draw(&canvas, sheet, &layout);
    int code = png_encode(&png, &bytes, canvas.pixels, layout.width, layout.height, 3);
    if (!code)
        code = file_write_atomic(path, png, bytes);
    free(png);
    free(canvas.pixels);
    return code;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* A contact sheet: pictures in rows, each with two lines of text below it. */
#ifndef TOOLS_SHEET_H
#define TOOLS_SHEET_H

#include <stddef.h>
#include <stdint.h>

struct sheet_cell {
    char lines[2][80]; /* UTF-8; what does not fit is cut */
};

struct sheet {
    const char *title;
    const uint8_t *pixels; /* [count][size_px][size_px][channels] */
    const struct sheet_cell *cells;
    uint32_t count, size_px;
    unsigned channels; /* 1 or 3 */
};

/* Writes a PNG atomically. Small pictures are enlarged by a whole factor. ERR_IO, ERR_NOMEM. */
int sheet_write(const struct sheet *sheet, const char *path);

#endif

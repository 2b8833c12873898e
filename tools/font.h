/* SPDX-License-Identifier: Apache-2.0 */
/* A small bitmap font for pictures that must not depend on what fonts a machine has. */
#ifndef TOOLS_FONT_H
#define TOOLS_FONT_H

#include <stdint.h>

enum { FONT_WIDTH = 7, FONT_HEIGHT = 13 }; /* px of every glyph */

/* FONT_HEIGHT rows from the top, the leftmost pixel the highest bit. Characters that the font has
 * not (it has ASCII and Latin-1) are question marks. */
const uint8_t *font_glyph(uint32_t code);

/* The character at *text (UTF-8), which is moved behind it. */
uint32_t font_next(const char **text);

#endif

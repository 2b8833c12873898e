/* SPDX-License-Identifier: Apache-2.0 */
/* Pixels as a PNG file in memory. */
#ifndef TOOLS_PNG_H
#define TOOLS_PNG_H

#include <stddef.h>
#include <stdint.h>

/* pixels: [height][width][channels], channels 1 (grey) or 3 (RGB). *png is malloc'ed. ERR_NOMEM,
 * ERR_INTERNAL with the library's word. */
int png_encode(uint8_t **png, size_t *bytes, const uint8_t *pixels, uint32_t width, uint32_t height,
               unsigned channels);

#endif

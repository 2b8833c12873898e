/* SPDX-License-Identifier: Apache-2.0 */
/* A decoded image, or the part of it around a crop, as planes at their own resolution. Every
 * decoder gives these very bytes: the exact integers of libjpeg-turbo's ISLOW inverse DCT. */
#ifndef LOADER_PLANES_H
#define LOADER_PLANES_H

#include <stddef.h>
#include <stdint.h>

enum planes_colour {
    PLANES_GREY, /* one plane */
    PLANES_YCC,  /* Y, Cb, Cr: full-range BT.601 of JFIF, Cb and Cr centred on 128 */
    PLANES_RGB,  /* R, G, B */
};

enum {
    /* Readable bytes behind the last row of each plane, for vector loads; content is arbitrary and
       never matters. */
    PLANES_PADDING_BYTES = 64,
};

struct plane {
    const uint8_t *pixels; /* sample (x, y) of the whole plane is at pixels[(y - y0) * stride +
                              (x - x0)], or (y - y0) % rows_kept where that is not 0 */
    size_t stride;
    uint32_t x0, y0;        /* first decoded sample: multiples of the decoder's block */
    uint32_t width, height; /* decoded samples from x0, y0 on; cover the crop's box */
    uint32_t full_width,
        full_height;             /* of the whole plane: ceil(image * factor / largest factor) */
    uint32_t h_factor, v_factor; /* sampling factors (1..4) */
    uint32_t rows_kept;  /* 0: all rows are there; else the plane comes in bands of half as many
                            rows, and the last two bands are there */
    uint32_t rows_ready; /* in bands: rows from y0 on that have come */
};

struct planes {
    enum planes_colour colour;
    uint32_t width, height; /* of the image, px */
    uint32_t h_max, v_max;  /* largest sampling factors: image x is plane x * h_factor / h_max */
    struct plane plane[3];
};

#endif

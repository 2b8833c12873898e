/* SPDX-License-Identifier: Apache-2.0 */
/* What the decoders share: the decoder's scratch memory. Only for loader/decode*.c. */
#ifndef LOADER_DECODE_PARTS_H
#define LOADER_DECODE_PARTS_H

#include "loader/decode.h"

struct decode_jpeg; /* libjpeg's state */

struct decode_indexed;

struct decoder {
    struct decode_jpeg *jpeg;
    struct decode_indexed *indexed; /* NULL: not used */
    uint8_t *scratch;               /* the planes, 64-byte aligned */
    size_t scratch_bytes;
};

/* The plane's first sample, to be written; the plane must lie in the scratch. */
static inline uint8_t *decode_pixels(const struct decoder *decoder, const struct plane *plane)
{
    return decoder->scratch + (plane->pixels - decoder->scratch);
}

/* At least bytes of scratch, 64-byte aligned; the old content is lost. ERR_NOMEM. */
int decode_reserve(struct decoder *decoder, size_t bytes);

/* Lays out count planes of width x height in the scratch, full resolution. */
int decode_plain_planes(struct decoder *decoder, struct planes *planes, enum planes_colour colour,
                        uint32_t width, uint32_t height);

int decode_jpeg_open(struct decode_jpeg **out);
void decode_jpeg_close(struct decode_jpeg *jpeg); /* accepts NULL */
int decode_jpeg(struct decoder *decoder, struct planes *planes, const uint8_t *file, size_t bytes);

int decode_png(struct decoder *decoder, struct planes *planes, const uint8_t *file, size_t bytes);

#endif

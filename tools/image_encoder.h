/* SPDX-License-Identifier: Apache-2.0 */
/* Decoded images shrunk and written as baseline JPEG: what --resize-short and its kin do. Colour
 * stays in planes where it comes in planes: each is resampled straight to its place in a 4:2:0 file
 * by the loader's own resize (loader/resize.h), so nothing goes through RGB and back. The same
 * bytes on every instruction set. */
#ifndef TOOLS_IMAGE_ENCODER_H
#define TOOLS_IMAGE_ENCODER_H

#include "datasets/pack.h"
#include "loader/planes.h"

/* One thread's. */
struct image_encoder;

int image_encoder_open(struct image_encoder **out);
void image_encoder_close(struct image_encoder *encoder); /* accepts NULL */

/* *jpeg is malloc'ed, of *width x *height px. ERR_NOMEM, ERR_DATA. */
int image_encode(struct image_encoder *encoder, uint8_t **jpeg, size_t *jpeg_bytes, uint32_t *width,
                 uint32_t *height, const struct planes *planes, const struct pack_recode *recode);

/* The size that an image of *width x *height gets: the bounded side is cut to its bound, the other
 * one by the same ratio, rounded down, at least 1. Smaller images keep their size. */
void image_shrunk_size(uint32_t *width, uint32_t *height, const struct pack_recode *recode);

#endif

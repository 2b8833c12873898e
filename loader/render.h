/* SPDX-License-Identifier: Apache-2.0 */
/* One record to one sample's pixels: decode, crop and resize, flip, jitter, PCA, normalise. */
#ifndef LOADER_RENDER_H
#define LOADER_RENDER_H

#include <stddef.h>
#include <stdint.h>

#include "datasets/store.h"
#include "loader/sample.h"
#include "proto/spec.h"

struct render; /* scratch memory of one thread */

/* Errors: ERR_NOMEM, and those of decoder_use_index(). */
int render_open(struct render **out, enum decoder_choice decoder);
void render_close(struct render *render); /* accepts NULL */

/* dst [size][size][channels] float32, normalised (fp16 wire, before mixup). ERR_DATA when the
 * record is undecodable. */
int render_floats(struct render *render, float *dst, const struct store_record *record,
                  const struct spec *spec, uint32_t epoch);

/* dst [size][size][channels] bytes after the jitter, and the PCA offsets (uint8 wire). */
int render_bytes(struct render *render, uint8_t *dst, float offsets[3],
                 const struct store_record *record, const struct spec *spec, uint32_t epoch);

/* Most bytes that render_* keeps between samples for this spec. */
size_t render_keeps(const struct spec *spec);

#endif

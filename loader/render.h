/* SPDX-License-Identifier: Apache-2.0 */
/* One record to one sample's pixels: decode, crop and resize, flip, jitter, PCA, normalise. Two
 * samples at a time, so that pairs are mixed where they are. */
#ifndef LOADER_RENDER_H
#define LOADER_RENDER_H

#include <stddef.h>
#include <stdint.h>

#include "datasets/store.h"
#include "loader/colour_ops.h"
#include "loader/cpu.h"
#include "loader/sample.h"
#include "proto/spec.h"

enum { RENDER_SLOTS = 2 };

struct render; /* scratch memory of one thread */

/* level: at most that of the machine (cpu.h). Errors: ERR_NOMEM, and those of decoder_use_index().
 */
int render_open(struct render **out, enum decoder_choice decoder, enum cpu_level level);
void render_close(struct render *render); /* accepts NULL */

/* Cuts a record's sample out into a slot: R, G, B (or grey) of size x size, before the jitter, and
 * draws its colour. ERR_DATA when the record is undecodable; ERR_NOMEM. */
int render_cut(struct render *render, int slot, const struct store_record *record,
               const struct spec *spec, uint32_t epoch);

/* Puts into a slot what render_cut() made elsewhere: planes [channels][size][size], as in
 * render_source(). ERR_NOMEM. */
int render_take(struct render *render, int slot, const int16_t *planes, const struct spec *spec,
                uint32_t epoch, uint32_t id);

/* What render_cut() left in a slot, until the next one there. */
const struct colour_source *render_source(const struct render *render, int slot);

/* dst [size][size][channels] half floats, normalised. */
void render_halves(const struct render *render, uint16_t *dst, int slot);

/* Both slots, mixed with each other: dst[0] is lam of slot 0 and the rest of slot 1, dst[1] the
 * other way round. The slots' specs must be the same. */
void render_halves_mixed(const struct render *render, uint16_t *const dst[RENDER_SLOTS], float lam);

/* dst [size][size][channels] bytes after the jitter, and the PCA offsets (uint8 wire). */
void render_bytes(const struct render *render, uint8_t *dst, float offsets[3], int slot);

/* About the bytes that a render keeps between samples for this spec. An image that is decoded whole
 * (without its side index) needs its planes more, of which DECODE_KEEP_BYTES are kept. */
size_t render_keeps(const struct spec *spec);

#endif

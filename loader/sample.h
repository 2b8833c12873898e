/* SPDX-License-Identifier: Apache-2.0 */
/* Chunks: which records, what stands in for a damaged one, who is mixed with whom, and the bytes
 * that go out. A sample's own pixels are loader/render.h's. */
#ifndef LOADER_SAMPLE_H
#define LOADER_SAMPLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "datasets/store.h"
#include "proto/chunk.h"
#include "proto/spec.h"

enum { CHUNK_CULPRITS = 8 }; /* named; more are only counted */

/* A chunk on its way out: the buffers are the caller's, for spec->chunk_size samples. */
struct chunk_build {
    uint8_t *labels; /* [samples x chunk_label_bytes_of()], encoded as the labels frame */
    void *pixels;    /* [samples][S][S][channels] half floats or uint8, NHWC, 4-byte aligned */
    uint32_t samples;
    uint32_t *ids;        /* [chunk_size]: the ids at the chunk's positions, after substitution */
    uint32_t substituted; /* how many were replaced */
    uint32_t masked;      /* how many were masked out */

    struct ahead
        *ahead; /* in: begun with builder_ids(); NULL: records are read when their turn comes */

    /* Each sample is decoded in a process of its own (loader/isolate.h); records that end it count
     * as damaged and are named here, once each. */
    bool isolate; /* in */
    uint32_t culprit_count;
    uint32_t culprits[CHUNK_CULPRITS];
};

struct ahead;
struct render;
struct builder; /* one worker's scratch memory; one thread at a time */

/* Which decoder JPEG records with a side index go through; the pixels are the same. AUTO and
 * INDEXED: the indexed one; what it does not take goes to the reference decoder. */
enum decoder_choice { DECODER_AUTO, DECODER_REFERENCE, DECODER_INDEXED };

/* From the option's text: auto, reference or indexed. */
enum decoder_choice builder_decoder_of(const char *name);

int builder_open(struct builder **out, enum decoder_choice decoder);
void builder_close(struct builder *builder); /* accepts NULL */

size_t chunk_label_bytes_of(const struct spec *spec); /* per sample */

/* About the bytes of scratch that a builder keeps for this spec, for the line printed at start; see
 * render_keeps(). */
size_t builder_bytes(const struct spec *spec);

/* The ids that builder_chunk reads of an undamaged store, in its order; returns how many. ids has
 * room for spec->chunk_size. */
size_t builder_ids(uint32_t *ids, const struct spec *spec, uint32_t epoch, uint64_t chunk,
                   uint32_t sample_count);

/* Cuts record id, read through the window where there is one, into a slot of the render. ERR_DATA
 * names store, id and class: it is damaged, undecodable, or of no class. */
int sample_cut(struct render *render, int slot, uint32_t *label, const struct store *store,
               struct ahead *ahead, const struct spec *spec, uint32_t epoch, uint32_t id);

/* Builds chunk `chunk` of `epoch`. A damaged or undecodable record is replaced by the next good
 * position of the order (wrapping; its draws are those of its own id), or masked, as the spec says,
 * counted and logged with store, id and class; strict: an error instead. Where the epoch mixes,
 * position n and samples - 1 - n are mixed with the same lam, except with a masked one. ERR_ARG: no
 * such chunk, or channels that the store does not have; ERR_DATA: strict, or no good record at all;
 * ERR_STOPPED: asked to stop while many records in a row were damaged. */
int builder_chunk(struct builder *builder, struct chunk_build *out, const struct store *store,
                  const struct spec *spec, uint32_t epoch, uint64_t chunk, bool strict);

#endif

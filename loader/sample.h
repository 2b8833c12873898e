/* SPDX-License-Identifier: Apache-2.0 */
/* The whole path of one sample: record -> planes -> crop and resize -> flip -> jitter -> PCA ->
 * normalise (-> mixup -> half floats), and of one chunk. This is the definition of a pixel. */
#ifndef LOADER_SAMPLE_H
#define LOADER_SAMPLE_H

#include <stdint.h>

#include "datasets/store.h"
#include "proto/chunk.h"
#include "proto/spec.h"

/* A chunk on its way out: both buffers are the caller's, sizes from chunk_pixels_bytes(). */
struct chunk_build {
    uint8_t *labels; /* [samples x label bytes], encoded as the labels frame */
    void *pixels;    /* [samples][S][S][channels] half floats or uint8, NHWC */
    uint32_t samples;
    uint32_t *ids;        /* [chunk_size]: the ids at the chunk's positions, after substitution */
    uint32_t substituted; /* how many were replaced */
    uint32_t masked;      /* how many were masked out */
};

struct builder; /* one worker's scratch memory; one thread at a time */

enum decoder_choice { DECODER_AUTO, DECODER_REFERENCE, DECODER_INDEXED };

int builder_open(struct builder **out, enum decoder_choice decoder);
void builder_close(struct builder *builder);

size_t chunk_label_bytes_of(const struct spec *spec); /* per sample */

/* Bytes of scratch that a builder will need at most for this spec, for the budget printed at start.
 */
size_t builder_bytes(const struct spec *spec);

/* Builds chunk `chunk` of `epoch`. A damaged or undecodable record is replaced by the next good
 * position of the order (counted, logged with store, id and class), or masked, as the spec says;
 * strict: an error instead. ERR_ARG: no such chunk; ERR_DATA: strict, or no good record at all. */
int builder_chunk(struct builder *builder, struct chunk_build *out, const struct store *store,
                  const struct spec *spec, uint32_t epoch, uint64_t chunk, bool strict);

#endif

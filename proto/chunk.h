/* SPDX-License-Identifier: Apache-2.0 */
/* Chunk arithmetic: which positions a chunk holds, which chunks a step holds, who mixes with whom.
 * Epochs, steps and chunks count from 0. */
#ifndef PROTO_CHUNK_H
#define PROTO_CHUNK_H

#include <stdint.h>

#include "proto/spec.h"

/* One sample's label on the wire: 12 bytes little-endian, in sample order (the labels frame). */
struct chunk_label {
    uint32_t a, b; /* class indices; b = a when unmixed */
    float lam;     /* weight of a; 1 when unmixed */
};

enum {
    CHUNK_LABEL_BYTES = 12,       /* encoded; fp16 wire */
    CHUNK_LABEL_UINT8_BYTES = 24, /* encoded; uint8 wire: 3 f32 PCA offsets behind */
};

/* Labels a and b of a sample that is masked out (damaged in evaluation), with lam 1: pixels are
 * zero, nothing is counted. */
#define CHUNK_LABEL_MASKED UINT32_MAX

/* Chunks that hold all count samples; the last may be short. */
uint64_t chunk_total(const struct spec *spec, uint64_t sample_count);

/* Samples of chunk `chunk`: chunk_size, fewer for the last, 0 past the end. */
uint32_t chunk_samples(const struct spec *spec, uint64_t chunk, uint64_t sample_count);

/* Steps of a training epoch: floor(count / total_batch). */
uint64_t chunk_steps(uint64_t sample_count, uint64_t total_batch);

/* Position within the chunk that position mixes with: samples - 1 - position. */
uint32_t chunk_partner(uint32_t position, uint32_t samples);

/* lam of position within the chunk for this epoch: the weight of its own image. Partners have the
 * same lam. 1 when the spec does not mix in this epoch, and for a sample that is its own partner.
 */
float chunk_lam(const struct spec *spec, uint32_t epoch, uint64_t chunk, uint32_t position,
                uint32_t samples);

void chunk_label_encode(uint8_t dst[CHUNK_LABEL_BYTES], struct chunk_label label);
struct chunk_label chunk_label_decode(const uint8_t src[CHUNK_LABEL_BYTES]);

/* Checks a label that came over the wire: a, b < class_count (or masked, only where allowed), lam
 * finite within [0, 1], b = a and lam = 1 when the epoch is not mixed. ERR_PEER. */
int chunk_label_check(struct chunk_label label, const struct spec *spec, uint32_t epoch,
                      uint32_t class_count);

#endif

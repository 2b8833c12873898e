/* SPDX-License-Identifier: Apache-2.0 */
/* The paper's training stream, written out. */
#ifndef TESTS_UNIT_BASELINE_SPEC_H
#define TESTS_UNIT_BASELINE_SPEC_H

#include "proto/spec.h"

static inline struct spec baseline_spec(uint64_t seed, uint16_t size_px, uint32_t chunk_size)
{
    return (struct spec){.store = "train",
                         .seed = seed,
                         .order = SPEC_ORDER_SHUFFLED,
                         .channels = 3,
                         .crop = SPEC_CROP_RRC,
                         .flip = 1,
                         .jitter = SPEC_JITTER_HSV,
                         .size_px = size_px,
                         .chunk_size = chunk_size,
                         .area_min = 0.08f,
                         .area_max = 1,
                         .aspect_min = 0.75f,
                         .aspect_max = 4.0f / 3,
                         .jitter_strength = {0.4f, 0.4f, 0.4f},
                         .pca_sigma = 0.1f,
                         .mean = {123.68f, 116.779f, 103.939f},
                         .std = {58.393f, 57.12f, 57.375f}};
}

#endif

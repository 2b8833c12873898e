/* SPDX-License-Identifier: Apache-2.0 */
/* The augmentation spec: everything that shapes a pixel or a label of the stream.
 *
 * Chunk (spec, epoch, index) of a dataset is a pure function of (dataset fingerprint, spec, epoch,
 * index): bit for bit, on any loader, host, worker count and instruction set. The spec has one
 * canonical encoding, fixed little-endian (spec_encode); its XXH3-128 names the spec on the wire.
 */
#ifndef PROTO_SPEC_H
#define PROTO_SPEC_H

#include <stddef.h>
#include <stdint.h>

#include "common/hash.h"

enum spec_order { SPEC_ORDER_IDENTITY = 0, SPEC_ORDER_SHUFFLED = 1 };
enum spec_crop {
    SPEC_CROP_NONE = 0 /* validation geometry */,
    SPEC_CROP_RRC = 1,
    SPEC_CROP_PAD = 2
};
enum spec_aspect { SPEC_ASPECT_UNIFORM = 0, SPEC_ASPECT_LOG = 1 };
enum spec_interpolation { SPEC_BILINEAR = 0 /* triangle, antialiased */, SPEC_BICUBIC = 1 };
enum spec_jitter { SPEC_JITTER_NONE = 0, SPEC_JITTER_HSV = 1, SPEC_JITTER_BCS = 2 };
enum spec_lam { SPEC_LAM_PAIR = 0, SPEC_LAM_BATCH = 1 };
enum spec_wire { SPEC_WIRE_FP16 = 0, SPEC_WIRE_UINT8 = 1 };

enum {
    SPEC_STORE_NAME_BYTES = 16, /* with the final NUL */
    SPEC_ENCODED_BYTES = 160,
    SPEC_MAX_SIZE_PX = 1024,
    SPEC_MAX_CHUNK_SIZE = 4096,
    SPEC_MAX_CHUNK_BYTES = 32 << 20, /* of the pixels frame; past this receivers refuse */
    SPEC_AIM_CHUNK_BYTES = 4 << 20,  /* larger messages starve heartbeats on slow links */
};

struct spec {
    char store[SPEC_STORE_NAME_BYTES]; /* name of the store at the loader: "train", "val" */
    uint64_t seed;
    uint8_t order; /* enum spec_order */
    uint8_t
        damaged_masked; /* 1: a damaged record is masked (evaluation); 0: substituted (training) */
    uint8_t channels;   /* 1 or 3; one channel: jitter and pca are off */
    uint8_t crop;       /* enum spec_crop */
    uint8_t aspect;     /* enum spec_aspect */
    uint8_t interpolation;    /* enum spec_interpolation */
    uint8_t flip;             /* 1: horizontal flip with probability 1/2 */
    uint8_t jitter;           /* enum spec_jitter */
    uint8_t mixup_lam;        /* enum spec_lam */
    uint8_t wire;             /* enum spec_wire */
    uint16_t size_px;         /* S: output is S x S */
    uint16_t resize_short_px; /* R, crop none and pad: short side before the centre crop, R >= S */
    uint16_t pad_px;          /* crop pad: zeros on each side */
    uint32_t chunk_size;
    uint32_t chunks_per_batch; /* lam per batch: which chunks share it; else 0 */
    uint32_t mixup_off_epoch;  /* absolute epoch from which mixup is off; UINT32_MAX: never */
    float area_min, area_max;  /* crop rrc: share of the image's area */
    float aspect_min, aspect_max;
    float jitter_strength[3]; /* factors are U(1-x, 1+x) */
    float pca_sigma;          /* 0: off */
    float mean[3], std[3];    /* 0..255 scale, R G B; only [0] for one channel, the others 0 */
    float mixup_alpha;        /* 0: off */
};

/* Ranges, finiteness, enumerations, zeros where a field has no meaning (so that equal streams have
 * equal hashes). ERR_ARG with one line that names the field. */
int spec_check(const struct spec *spec);

/* Writes exactly SPEC_ENCODED_BYTES bytes. */
void spec_encode(uint8_t dst[SPEC_ENCODED_BYTES], const struct spec *spec);

/* Reads and checks an encoding that came from somewhere else. ERR_PEER when it is not exactly what
 * spec_encode would write. */
int spec_decode(struct spec *spec, const uint8_t *src, size_t bytes);

struct hash128 spec_hash(const struct spec *spec);

/* Bytes of one sample's pixels on the wire: S * S * channels * (2 for fp16, 1 for uint8). */
size_t spec_sample_bytes(const struct spec *spec);

/* The largest power of two that divides micro_batch, is at most 8 (64 for images of 64 px and less)
 * and whose message stays under SPEC_AIM_CHUNK_BYTES; at least 1. */
uint32_t spec_default_chunk_size(uint64_t micro_batch, unsigned size_px, unsigned channels,
                                 enum spec_wire wire);

/* True when pairs are mixed in this epoch. */
int spec_mixes(const struct spec *spec, uint32_t epoch);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* What the targets of the indexed decoder share: one decoder of every level of this machine beside
 * the reference, and the comparison of a region, whole and in bands. */
#ifndef TESTS_FUZZ_FUZZ_JPEG_H
#define TESTS_FUZZ_FUZZ_JPEG_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "loader/decode.h"
#include "loader/jpeg/decode_indexed.h"
#include "loader/jpeg/jpeg_index.h"

enum { FUZZ_LEVELS = CPU_AVX512 + 1, FUZZ_MAX_PIXELS = 1 << 20 };

struct fuzz {
    struct decoder *reference;
    struct decode_indexed *indexed[FUZZ_LEVELS];
    struct jpeg_indexer *indexer, *plain;
    int levels;
};

/* A JPEG with an index, true or not. */
struct fuzz_image {
    const uint8_t *jpeg, *index;
    size_t jpeg_bytes, index_bytes;
};

static inline void fuzz_open(struct fuzz *fuzz)
{
    if (decoder_open(&fuzz->reference) || jpeg_indexer_open(&fuzz->indexer) ||
        jpeg_indexer_open(&fuzz->plain))
        abort();
    jpeg_indexer_use(fuzz->plain, CPU_SCALAR, true);
    for (; fuzz->levels <= (int)cpu_level(); fuzz->levels++)
        if (decode_indexed_open(&fuzz->indexed[fuzz->levels], (enum cpu_level)fuzz->levels))
            abort();
}

/* The true index of bytes that may be anything, which every level makes as it is made symbol by
 * symbol. False: not taken, or too large for a fuzzer. */
static inline bool fuzz_index(struct fuzz *fuzz, struct fuzz_image *image,
                              struct jpeg_header *header, uint32_t mcus)
{
    const uint8_t *plain;
    size_t plain_bytes;
    enum jpeg_refusal refusal, plain_refusal;
    if (jpeg_header_parse(header, image->jpeg, image->jpeg_bytes) ||
        (uint64_t)header->width * header->height > FUZZ_MAX_PIXELS)
        return false;
    if (jpeg_index_build(fuzz->plain, &plain, &plain_bytes, &plain_refusal, image->jpeg,
                         image->jpeg_bytes, mcus))
        abort();
    for (int level = 0; level < fuzz->levels; level++) {
        jpeg_indexer_use(fuzz->indexer, (enum cpu_level)level, false);
        if (jpeg_index_build(fuzz->indexer, &image->index, &image->index_bytes, &refusal,
                             image->jpeg, image->jpeg_bytes, mcus) ||
            refusal != plain_refusal)
            abort();
        if (!refusal &&
            (image->index_bytes != plain_bytes || memcmp(image->index, plain, plain_bytes) != 0))
            abort();
    }
    return refusal == JPEG_TAKEN;
}

/* A region out of two bytes for each axis. */
static inline struct decode_region fuzz_region(const uint8_t control[4], uint32_t width,
                                               uint32_t height)
{
    struct decode_region region = {.x0 = control[0] * width / 256, .y0 = control[2] * height / 256};
    region.x1 = region.x0 + 1 + control[1] * (width - region.x0 - 1) / 255;
    region.y1 = region.y0 + 1 + control[3] * (height - region.y0 - 1) / 255;
    return region;
}

/* Rows [from, to) of a plane, counted from its y0, against the same of the whole image. */
static inline void fuzz_compare_rows(const struct plane *a, const struct plane *whole,
                                     uint32_t from, uint32_t to)
{
    if (a->full_width != whole->full_width || a->full_height != whole->full_height)
        abort();
    for (uint32_t y = from; y < to; y++) {
        size_t row = a->rows_kept ? y % a->rows_kept : y;
        if (memcmp(a->pixels + row * a->stride, whole->pixels + (a->y0 + y) * whole->stride + a->x0,
                   a->width) != 0)
            abort();
    }
}

/* Decodes a region at one level, at once and then in bands; with `whole`, each must succeed and
 * equal it. */
static inline void fuzz_decode(struct fuzz *fuzz, int level, const struct fuzz_image *image,
                               const struct decode_region *region, const struct planes *whole)
{
    struct decode_indexed *decoder = fuzz->indexed[level];
    struct planes planes;
    int code = decode_indexed_region(decoder, &planes, image->jpeg, image->jpeg_bytes, image->index,
                                     image->index_bytes, region);
    if (whole && code)
        abort();
    int count = code ? 0 : planes.colour == PLANES_GREY ? 1 : 3;
    for (int c = 0; whole && c < count; c++)
        fuzz_compare_rows(&planes.plane[c], &whole->plane[c], 0, planes.plane[c].height);

    code = decode_indexed_begin(decoder, &planes, image->jpeg, image->jpeg_bytes, image->index,
                                image->index_bytes, region);
    while (!code && planes.plane[0].rows_ready < planes.plane[0].height) {
        uint32_t before[3];
        for (int c = 0; c < 3; c++)
            before[c] = planes.plane[c].rows_ready;
        code = decode_indexed_next_band(decoder, &planes);
        for (int c = 0; whole && !code && c < count; c++)
            fuzz_compare_rows(&planes.plane[c], &whole->plane[c], before[c],
                              planes.plane[c].rows_ready);
    }
    if (whole && code)
        abort();
}

#endif

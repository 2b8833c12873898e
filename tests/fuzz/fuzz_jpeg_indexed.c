/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer: any bytes as a JPEG. Either the file gets no side index, or every level decodes it to
 * the reference's very samples. The first bytes also choose the index's step and a region, and the
 * file is decoded once more with an index that the fuzzer has bent. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "loader/decode.h"
#include "loader/jpeg/decode_indexed.h"
#include "loader/jpeg/jpeg_index.h"

enum { LEVELS = CPU_AVX512 + 1, CONTROL_BYTES = 8, MAX_PIXELS = 1 << 20 };

static struct decoder *reference;
static struct decode_indexed *indexed[LEVELS];
static struct jpeg_indexer *indexer;
static int levels;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    if (decoder_open(&reference) || jpeg_indexer_open(&indexer))
        abort();
    for (levels = 0; levels <= (int)cpu_level(); levels++)
        if (decode_indexed_open(&indexed[levels], (enum cpu_level)levels))
            abort();
    return 0;
}

static void compare(const struct planes *part, const struct planes *whole)
{
    if (part->colour != whole->colour)
        abort();
    for (int c = 0; c < (part->colour == PLANES_GREY ? 1 : 3); c++) {
        const struct plane *a = &part->plane[c], *b = &whole->plane[c];
        if (a->full_width != b->full_width || a->full_height != b->full_height)
            abort();
        for (uint32_t y = 0; y < a->height; y++)
            if (memcmp(a->pixels + y * a->stride, b->pixels + (a->y0 + y) * b->stride + a->x0,
                       a->width) != 0)
                abort();
    }
}

/* A region out of two control bytes a side. */
static void choose(uint32_t *low, uint32_t *high, const uint8_t *control, uint32_t side)
{
    *low = control[0] * side / 256;
    *high = *low + 1 + control[1] * (side - *low - 1) / 255;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes < CONTROL_BYTES)
        return 0;
    const uint8_t *control = data, *jpeg = data + CONTROL_BYTES;
    size_t jpeg_bytes = bytes - CONTROL_BYTES, index_bytes;
    const uint8_t *index;
    enum jpeg_refusal refusal;
    struct jpeg_header header;
    struct planes whole, part;
    if (jpeg_header_parse(&header, jpeg, jpeg_bytes) ||
        (uint64_t)header.width * header.height > MAX_PIXELS)
        return 0;
    if (jpeg_index_build(indexer, &index, &index_bytes, &refusal, jpeg, jpeg_bytes, control[0]))
        abort();
    if (refusal)
        return 0;
    if (decode_file(reference, &whole, jpeg, jpeg_bytes))
        abort();
    struct decode_region region, all = {0, header.width, 0, header.height};
    choose(&region.x0, &region.x1, control + 1, header.width);
    choose(&region.y0, &region.y1, control + 3, header.height);
    uint8_t *bent = malloc(index_bytes);
    if (!bent)
        return 0;
    memcpy(bent, index, index_bytes);
    bent[(control[5] | (size_t)control[6] << 8) % index_bytes] ^= control[7];
    for (int level = 0; level < levels; level++) {
        if (decode_indexed_region(indexed[level], &part, jpeg, jpeg_bytes, index, index_bytes,
                                  &all))
            abort();
        compare(&part, &whole);
        if (decode_indexed_region(indexed[level], &part, jpeg, jpeg_bytes, index, index_bytes,
                                  &region))
            abort();
        compare(&part, &whole);
        decode_indexed_region(indexed[level], &part, jpeg, jpeg_bytes, bent, index_bytes, &region);
    }
    free(bent);
    return 0;
}

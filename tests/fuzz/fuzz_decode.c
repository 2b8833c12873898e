/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer: any bytes as an image file for the reference decoder: JPEGs of every kind, PNGs.
 * Refused, or planes that hold what they promise. */
#include <stdint.h>
#include <stdlib.h>

#include "loader/decode.h"

enum { MAX_PIXELS = 1 << 20 };

static struct decoder *decoder;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    if (decoder_open(&decoder))
        abort();
    return 0;
}

/* Reads every sample, for the sanitizer to see. */
static void read_all(const struct planes *planes)
{
    volatile uint32_t sum = 0;
    for (int c = 0; c < (planes->colour == PLANES_GREY ? 1 : 3); c++) {
        const struct plane *plane = &planes->plane[c];
        if (plane->x0 || plane->y0 || plane->rows_kept || plane->width != plane->full_width ||
            plane->height != plane->full_height)
            abort();
        for (uint32_t y = 0; y < plane->height; y++)
            for (uint32_t x = 0; x < plane->width + PLANES_PADDING_BYTES * (y + 1 == plane->height);
                 x++)
                sum = sum + plane->pixels[y * plane->stride + x];
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct planes planes;
    if (!decode_file(decoder, &planes, data, bytes) &&
        (uint64_t)planes.width * planes.height <= MAX_PIXELS)
        read_all(&planes);
    return 0;
}

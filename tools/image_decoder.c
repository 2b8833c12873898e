/* SPDX-License-Identifier: Apache-2.0 */
/* The loader's decoder behind struct image_decoder, and its planes made R, G, B at full size for
 * raw stores: chroma is interpolated linearly between the centres of its samples, then JFIF's
 * matrix (ITU-T T.871). */
#include "tools/image_decoder.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "loader/decode.h"
#include "loader/jpeg/jpeg_index.h"
#include "tools/image_encoder.h"

/* One thread's. */
struct tools_of_thread {
    struct decoder *decoder;
    struct jpeg_indexer *indexer;
    struct image_encoder *encoder; /* NULL until needed */
};

static void close_decoder(void *state)
{
    struct tools_of_thread *tools = state;
    if (!tools)
        return;
    decoder_close(tools->decoder);
    jpeg_indexer_close(tools->indexer);
    image_encoder_close(tools->encoder);
    free(tools);
}

static int open_decoder(void **state)
{
    struct tools_of_thread *tools = calloc(1, sizeof *tools);
    *state = NULL;
    if (!tools)
        return err_set(ERR_NOMEM, "out of memory for a decoder");
    int code = decoder_open(&tools->decoder);
    if (!code)
        code = jpeg_indexer_open(&tools->indexer);
    if (code)
        close_decoder(tools);
    else
        *state = tools;
    return code;
}

static int check(void *state, uint32_t *width, uint32_t *height, const uint8_t *file, size_t bytes)
{
    const struct tools_of_thread *tools = state;
    uint32_t components;
    return decode_check(tools->decoder, width, height, &components, file, bytes);
}

static int make_index(void *state, const uint8_t **index, size_t *index_bytes, uint32_t *width,
                      uint32_t *height, const uint8_t *file, size_t bytes, uint32_t mcus)
{
    const struct tools_of_thread *tools = state;
    struct jpeg_header header;
    enum jpeg_refusal refusal = jpeg_header_parse(&header, file, bytes);
    *index = NULL;
    if (refusal != JPEG_TAKEN)
        return 0;
    int code = jpeg_index_build(tools->indexer, index, index_bytes, &refusal, file, bytes, mcus);
    if (refusal != JPEG_TAKEN)
        *index = NULL;
    *width = header.width;
    *height = header.height;
    return code;
}

/* Where image sample i falls on an axis of a plane: between samples low and low + 1, share/scale of
 * the way. */
struct tap {
    uint32_t low, high;
    uint32_t share;
};

static struct tap tap_at(uint32_t i, uint32_t factor, uint32_t factor_max, uint32_t count)
{
    int64_t scale = 2 * (int64_t)factor_max;
    int64_t at = (2 * (int64_t)i + 1) * factor - factor_max; /* in 1/scale samples */
    if (at < 0)
        at = 0;
    struct tap tap = {(uint32_t)(at / scale), (uint32_t)(at / scale) + 1, (uint32_t)(at % scale)};
    if (tap.low > count - 1)
        tap.low = count - 1;
    if (tap.high > count - 1)
        tap.high = count - 1;
    return tap;
}

static int sample_at(const struct planes *planes, const struct plane *plane, uint32_t x, uint32_t y)
{
    struct tap tx = tap_at(x, plane->h_factor, planes->h_max, plane->full_width);
    struct tap ty = tap_at(y, plane->v_factor, planes->v_max, plane->full_height);
    const uint8_t *upper = plane->pixels + ty.low * plane->stride;
    const uint8_t *lower = plane->pixels + ty.high * plane->stride;
    int sx = 2 * (int)planes->h_max, sy = 2 * (int)planes->v_max;
    int a = upper[tx.low] * (sx - (int)tx.share) + upper[tx.high] * (int)tx.share;
    int b = lower[tx.low] * (sx - (int)tx.share) + lower[tx.high] * (int)tx.share;
    return (a * (sy - (int)ty.share) + b * (int)ty.share + sx * sy / 2) / (sx * sy);
}

static uint8_t clamp(double value)
{
    return value <= 0 ? 0 : value >= 255 ? 255 : (uint8_t)(value + 0.5);
}

static void to_rgb(uint8_t *dst, size_t count, enum planes_colour colour, const int sample[3])
{
    if (colour != PLANES_YCC) {
        for (int c = 0; c < 3; c++)
            dst[c * count] = (uint8_t)sample[colour == PLANES_GREY ? 0 : c];
        return;
    }
    double y = sample[0], cb = sample[1] - 128, cr = sample[2] - 128;
    dst[0] = clamp(y + 1.402 * cr);
    dst[count] = clamp(y - 0.344136286 * cb - 0.714136286 * cr);
    dst[2 * count] = clamp(y + 1.772 * cb);
}

static int planes_of(void *state, uint8_t **out, uint32_t *width, uint32_t *height,
                     const uint8_t *file, size_t bytes)
{
    const struct tools_of_thread *tools = state;
    struct planes planes;
    int code = decode_file(tools->decoder, &planes, file, bytes);
    if (code)
        return code;
    size_t count = (size_t)planes.width * planes.height;
    if (count > STORE_RECORD_BYTES_MAX / 3)
        return err_set(ERR_DATA, "%u x %u px are larger than a record's 64 MiB", planes.width,
                       planes.height);
    uint8_t *rgb = malloc(3 * count);
    if (!rgb)
        return err_set(ERR_NOMEM, "out of memory for a raw image");
    int channels = planes.colour == PLANES_GREY ? 1 : 3;
    for (uint32_t y = 0; y < planes.height; y++) {
        for (uint32_t x = 0; x < planes.width; x++) {
            int sample[3] = {0};
            for (int c = 0; c < channels; c++)
                sample[c] = sample_at(&planes, &planes.plane[c], x, y);
            to_rgb(rgb + (size_t)y * planes.width + x, count, planes.colour, sample);
        }
    }
    *out = rgb;
    *width = planes.width;
    *height = planes.height;
    return 0;
}

static int recode(void *state, uint8_t **jpeg, size_t *jpeg_bytes, uint32_t *width,
                  uint32_t *height, const uint8_t *file, size_t bytes,
                  const struct pack_recode *how)
{
    struct tools_of_thread *tools = state;
    struct planes planes;
    *jpeg = NULL;
    int code = tools->encoder ? 0 : image_encoder_open(&tools->encoder);
    if (!code)
        code = decode_file(tools->decoder, &planes, file, bytes);
    return code ? code
                : image_encode(tools->encoder, jpeg, jpeg_bytes, width, height, &planes, how);
}

const struct image_decoder image_decoder = {open_decoder, close_decoder, check,
                                            make_index,   planes_of,     recode};

int image_decoder_jobs(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    int count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return count > 0 ? count : 1;
}

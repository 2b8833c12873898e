/* SPDX-License-Identifier: Apache-2.0 */
/* PNG by libspng: ImageNet holds one that calls itself JPEG. Rare, so clear rather than fast. */
#include <spng.h>
#include <stdlib.h>

#include "common/err.h"
#include "loader/decode_parts.h"

enum { CHUNK_BYTES_MOST = 64 << 20 }; /* of one chunk, and of all that libspng keeps */

static int refuse(int result)
{
    if (result == SPNG_EMEM)
        return err_set(ERR_NOMEM, "out of memory for a PNG");
    return err_set(ERR_DATA, "PNG: %s", spng_strerror(result));
}

/* The header, with the limits set before anything is believed. */
static int read_header(spng_ctx *context, struct spng_ihdr *header, const uint8_t *file,
                       size_t bytes)
{
    int result = spng_set_image_limits(context, DECODE_MAX_SIDE_PX, DECODE_MAX_SIDE_PX);
    if (!result)
        result = spng_set_chunk_limits(context, CHUNK_BYTES_MOST, CHUNK_BYTES_MOST);
    if (!result)
        result = spng_set_crc_action(context, SPNG_CRC_ERROR, SPNG_CRC_DISCARD);
    if (!result)
        result = spng_set_png_buffer(context, file, bytes);
    if (!result)
        result = spng_get_ihdr(context, header);
    if (result)
        return refuse(result);
    return decode_check_size(header->width, header->height);
}

/* Interleaved RGB to planes; of grey, which libspng expanded, one. */
static int split(struct decoder *decoder, struct planes *planes, const struct spng_ihdr *header,
                 const uint8_t *rgb)
{
    bool grey = header->color_type == SPNG_COLOR_TYPE_GRAYSCALE ||
                header->color_type == SPNG_COLOR_TYPE_GRAYSCALE_ALPHA;
    int code = decode_plain_planes(decoder, planes, grey ? PLANES_GREY : PLANES_RGB, header->width,
                                   header->height);
    if (code)
        return code;
    size_t count = (size_t)header->width * header->height;
    for (int channel = 0; channel < (grey ? 1 : 3); channel++) {
        uint8_t *dst = decode_pixels(decoder, &planes->plane[channel]);
        for (size_t i = 0; i < count; i++)
            dst[i] = rgb[3 * i + (size_t)channel];
    }
    return 0;
}

int decode_png(struct decoder *decoder, struct planes *planes, const uint8_t *file, size_t bytes)
{
    uint8_t *rgb = NULL;
    struct spng_ihdr header;
    spng_ctx *context = spng_ctx_new(0);
    if (!context)
        return err_set(ERR_NOMEM, "out of memory for a PNG");
    int code = read_header(context, &header, file, bytes);
    if (code)
        goto done;
    size_t rgb_bytes = (size_t)header.width * header.height * 3;
    if (2 * rgb_bytes > DECODE_MAX_BYTES) { /* interleaved, then planes */
        code = err_set(ERR_DATA, "PNG: %u x %u px would take %zu MB of memory (at most %d)",
                       header.width, header.height, 2 * rgb_bytes / 1000000,
                       DECODE_MAX_BYTES / 1000000);
        goto done;
    }
    rgb = malloc(rgb_bytes);
    if (!rgb) {
        code = err_set(ERR_NOMEM, "out of memory for a PNG of %zu bytes", rgb_bytes);
        goto done;
    }
    int result = spng_decode_image(context, rgb, rgb_bytes, SPNG_FMT_RGB8, 0);
    if (!result)
        result = spng_decode_chunks(context); /* to its end: a cut file is undecodable */
    code = result ? refuse(result) : split(decoder, planes, &header, rgb);
done:
    free(rgb);
    spng_ctx_free(context);
    return code;
}

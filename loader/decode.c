/* SPDX-License-Identifier: Apache-2.0 */
/* Decoding: scratch memory, which format it is, raw records. */
#include "loader/decode.h"

#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "loader/jpeg/decode_indexed.h"
#include "loader/decode_parts.h"

enum { ALIGNMENT = 64 };

int decoder_open(struct decoder **out)
{
    struct decoder *decoder = calloc(1, sizeof *decoder);
    if (!decoder)
        return err_set(ERR_NOMEM, "out of memory for a decoder");
    int code = decode_jpeg_open(&decoder->jpeg);
    if (code) {
        decoder_close(decoder);
        return code;
    }
    *out = decoder;
    return 0;
}

void decoder_close(struct decoder *decoder)
{
    if (!decoder)
        return;
    decode_jpeg_close(decoder->jpeg);
    decode_indexed_close(decoder->indexed);
    free(decoder->scratch);
    free(decoder);
}

int decoder_use_index(struct decoder *decoder, enum cpu_level level)
{
    return decoder->indexed ? 0 : decode_indexed_open(&decoder->indexed, level);
}

int decode_reserve(struct decoder *decoder, size_t bytes)
{
    bytes = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    bool shrinks = decoder->scratch_bytes > DECODE_KEEP_BYTES && bytes <= DECODE_KEEP_BYTES;
    if (bytes <= decoder->scratch_bytes && !shrinks)
        return 0;
    free(decoder->scratch);
    decoder->scratch_bytes = 0;
    decoder->scratch = aligned_alloc(ALIGNMENT, bytes);
    if (!decoder->scratch)
        return err_set(ERR_NOMEM, "out of memory for an image of %zu bytes", bytes);
    decoder->scratch_bytes = bytes;
    return 0;
}

int decode_plain_planes(struct decoder *decoder, struct planes *planes, enum planes_colour colour,
                        uint32_t width, uint32_t height)
{
    int count = colour == PLANES_GREY ? 1 : 3;
    size_t plane_bytes = (size_t)width * height + PLANES_PADDING_BYTES;
    int code = decode_reserve(decoder, plane_bytes * (size_t)count);
    if (code)
        return code;
    *planes =
        (struct planes){.colour = colour, .width = width, .height = height, .h_max = 1, .v_max = 1};
    for (int i = 0; i < count; i++)
        planes->plane[i] = (struct plane){.pixels = decoder->scratch + plane_bytes * (size_t)i,
                                          .stride = width,
                                          .width = width,
                                          .height = height,
                                          .full_width = width,
                                          .full_height = height,
                                          .h_factor = 1,
                                          .v_factor = 1};
    return 0;
}

int decode_check_size(uint64_t width, uint64_t height)
{
    if (width < 1 || height < 1)
        return err_set(ERR_DATA, "the image has no pixels");
    if (width > DECODE_MAX_SIDE_PX || height > DECODE_MAX_SIDE_PX ||
        width * height > DECODE_MAX_PIXELS)
        return err_set(ERR_DATA, "the image has %llu x %llu px, too many (at most %d, %d a side)",
                       (unsigned long long)width, (unsigned long long)height, DECODE_MAX_PIXELS,
                       DECODE_MAX_SIDE_PX);
    return 0;
}

/* Copied, because a record need not have PLANES_PADDING_BYTES behind it. */
static int decode_raw(struct decoder *decoder, struct planes *planes,
                      const struct store_record *record)
{
    int code = decode_check_size(record->width, record->height);
    if (code)
        return code;
    if (record->channels != 1 && record->channels != 3)
        return err_set(ERR_DATA, "a raw image of %u channels, not 1 or 3",
                       (unsigned)record->channels);
    size_t plane_bytes = (size_t)record->width * record->height;
    if (record->image_bytes != plane_bytes * record->channels)
        return err_set(ERR_DATA, "a raw image of %u x %u x %u takes %zu bytes, not %zu",
                       (unsigned)record->channels, (unsigned)record->height,
                       (unsigned)record->width, plane_bytes * record->channels,
                       record->image_bytes);
    enum planes_colour colour = record->channels == 1 ? PLANES_GREY : PLANES_RGB;
    code = decode_plain_planes(decoder, planes, colour, record->width, record->height);
    if (code)
        return code;
    for (uint32_t i = 0; i < record->channels; i++) {
        uint8_t *plane = decode_pixels(decoder, &planes->plane[i]);
        memcpy(plane, record->image + plane_bytes * i, plane_bytes);
    }
    return 0;
}

int decode_file(struct decoder *decoder, struct planes *planes, const uint8_t *file, size_t bytes)
{
    static const uint8_t jpeg[] = {0xff, 0xd8}, png[] = {0x89, 'P', 'N', 'G', 13, 10, 26, 10};
    if (bytes >= sizeof png && !memcmp(file, png, sizeof png))
        return decode_png(decoder, planes, file, bytes);
    if (bytes >= sizeof jpeg && !memcmp(file, jpeg, sizeof jpeg))
        return decode_jpeg(decoder, planes, file, bytes);
    if (bytes < 4)
        return err_set(ERR_DATA, "neither a JPEG nor a PNG: %zu bytes long", bytes);
    return err_set(ERR_DATA, "neither a JPEG nor a PNG: begins with %02x %02x %02x %02x", file[0],
                   file[1], file[2], file[3]);
}

static int decode_by_index(struct decoder *decoder, struct planes *planes,
                           const struct store_record *record, const struct crop *crop)
{
    struct decode_region region = {crop->x.low, crop->x.high, crop->y.low, crop->y.high};
    return decode_indexed_begin(decoder->indexed, planes, record->image, record->image_bytes,
                                record->index, record->index_bytes, &region);
}

static int check_record(const struct planes *planes, const struct store_record *record)
{
    if (planes->width == record->width && planes->height == record->height)
        return 0;
    return err_set(ERR_DATA, "the image has %u x %u px, its record says %u x %u",
                   (unsigned)planes->width, (unsigned)planes->height, (unsigned)record->width,
                   (unsigned)record->height);
}

int decode_record_again(struct decoder *decoder, struct planes *planes,
                        const struct store_record *record)
{
    int code = decode_file(decoder, planes, record->image, record->image_bytes);
    return code ? code : check_record(planes, record);
}

int decode_next_band(struct decoder *decoder, struct planes *planes)
{
    return decode_indexed_next_band(decoder->indexed, planes);
}

int decode_record(struct decoder *decoder, struct planes *planes, const struct store_record *record,
                  const struct crop *crop)
{
    if (record->encoding == STORE_RAW)
        return decode_raw(decoder, planes, record);
    int code = ERR_UNSUPPORTED;
    if (decoder->indexed && record->index)
        code = decode_by_index(decoder, planes, record, crop);
    if (code && code != ERR_NOMEM) /* what it does not take, the reference decoder judges */
        return decode_record_again(decoder, planes, record);
    return code ? code : check_record(planes, record);
}

int decode_check(struct decoder *decoder, uint32_t *width, uint32_t *height, uint32_t *components,
                 const uint8_t *file, size_t bytes)
{
    struct planes planes;
    int code = decode_file(decoder, &planes, file, bytes);
    if (code)
        return code;
    *width = planes.width;
    *height = planes.height;
    *components = planes.colour == PLANES_GREY ? 1 : 3;
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/image_encoder.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>

#include "common/err.h"
#include "loader/resize.h"

enum {
    ROWS = 8,               /* resampled at a time */
    ALIGN_PX = 2 * DCTSIZE, /* columns that libjpeg may read: to the end of the last MCU */
    KEEP_BYTES = 16 << 20,  /* larger buffers are freed after use */
    FILE_BYTES = 64 << 10,  /* room for a file, doubled as needed */
};

/* Samples as they go into the file. */
struct samples {
    uint32_t width, height;
    size_t stride;
    uint8_t *pixels; /* [height][stride], edges repeated up to the stride */
    size_t room;
};

struct image_encoder {
    struct resize *resize;
    struct samples component[3];
    int16_t *rows; /* [ROWS][width], Q7 */
    size_t row_room;
    struct jpeg_compress_struct info;
    struct jpeg_error_mgr errors;
    struct jpeg_destination_mgr output;
    uint8_t *file; /* malloc'ed, given away when complete */
    size_t file_room;
    jmp_buf failed;
};

/* libjpeg's own memory destination loses its buffer when compressing fails. */
static void output_begin(j_compress_ptr info)
{
    struct image_encoder *encoder = info->client_data;
    encoder->file_room = FILE_BYTES;
    encoder->file = malloc(encoder->file_room);
    if (!encoder->file)
        ERREXIT1(info, JERR_OUT_OF_MEMORY, 0);
    encoder->output.next_output_byte = encoder->file;
    encoder->output.free_in_buffer = encoder->file_room;
}

static boolean output_grow(j_compress_ptr info)
{
    struct image_encoder *encoder = info->client_data;
    uint8_t *grown = realloc(encoder->file, 2 * encoder->file_room);
    if (!grown)
        ERREXIT1(info, JERR_OUT_OF_MEMORY, 1);
    encoder->file = grown;
    encoder->output.next_output_byte = grown + encoder->file_room;
    encoder->output.free_in_buffer = encoder->file_room;
    encoder->file_room *= 2;
    return TRUE;
}

static void output_end(j_compress_ptr info)
{
    (void)info;
}

static void fail(j_common_ptr info)
{
    char text[JMSG_LENGTH_MAX];
    struct image_encoder *encoder = info->client_data;
    info->err->format_message(info, text);
    err_set(info->err->msg_code == JERR_OUT_OF_MEMORY ? ERR_NOMEM : ERR_DATA, "%s", text);
    longjmp(encoder->failed, 1);
}

int image_encoder_open(struct image_encoder **out)
{
    struct image_encoder *encoder = calloc(1, sizeof *encoder);
    *out = NULL;
    if (!encoder)
        return err_set(ERR_NOMEM, "out of memory for an encoder");
    encoder->info.err = jpeg_std_error(&encoder->errors);
    encoder->errors.error_exit = fail;
    encoder->info.client_data = encoder;
    int code = 0;
    if (setjmp(encoder->failed))
        code = ERR_NOMEM;
    else
        jpeg_create_compress(&encoder->info);
    encoder->output = (struct jpeg_destination_mgr){.init_destination = output_begin,
                                                    .empty_output_buffer = output_grow,
                                                    .term_destination = output_end};
    encoder->info.dest = &encoder->output;
    if (!code)
        code = resize_open(&encoder->resize, cpu_level());
    if (code)
        image_encoder_close(encoder);
    else
        *out = encoder;
    return code;
}

void image_encoder_close(struct image_encoder *encoder)
{
    if (!encoder)
        return;
    jpeg_destroy_compress(&encoder->info);
    resize_close(encoder->resize);
    for (int i = 0; i < 3; i++)
        free(encoder->component[i].pixels);
    free(encoder->rows);
    free(encoder);
}

void image_shrunk_size(uint32_t *width, uint32_t *height, const struct pack_recode *recode)
{
    uint32_t *shorter = *width < *height ? width : height;
    uint32_t *longer = shorter == width ? height : width;
    uint32_t *bounded = recode->short_px ? shorter : longer;
    uint32_t *other = bounded == shorter ? longer : shorter;
    uint32_t bound = recode->short_px ? recode->short_px : recode->long_px;
    if (bound == 0 || *bounded <= bound)
        return;
    *other = (uint32_t)((uint64_t)*other * bound / *bounded);
    if (*other == 0)
        *other = 1;
    *bounded = bound;
}

static int reserve(struct image_encoder *encoder, struct samples *samples, uint32_t width,
                   uint32_t height)
{
    samples->width = width;
    samples->height = height;
    samples->stride = ((size_t)width + ALIGN_PX - 1) / ALIGN_PX * ALIGN_PX;
    size_t wanted = samples->stride * height;
    if (wanted > samples->room) {
        free(samples->pixels);
        samples->pixels = malloc(wanted);
        samples->room = samples->pixels ? wanted : 0;
    }
    if (width > encoder->row_room) {
        free(encoder->rows);
        encoder->rows = malloc(ROWS * (size_t)width * sizeof *encoder->rows);
        encoder->row_room = encoder->rows ? width : 0;
    }
    return samples->pixels && encoder->rows
               ? 0
               : err_set(ERR_NOMEM, "out of memory for an image of %u x %u px", width, height);
}

static void store_row(uint8_t *dst, const int16_t *row, const struct samples *samples)
{
    for (uint32_t x = 0; x < samples->width; x++) {
        int value = (row[x] + (1 << 6)) >> 7;
        dst[x] = (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
    }
    memset(dst + samples->width, dst[samples->width - 1], samples->stride - samples->width);
}

/* The image's side seen by the outputs: step output px each, which may reach beyond the image. */
static struct crop_axis axis_of(uint32_t side, uint32_t target, uint32_t outputs, uint32_t step)
{
    return (struct crop_axis){.begin = 0,
                              .extent = (int64_t)side * outputs * step,
                              .denominator = target,
                              .low = 0,
                              .high = side};
}

/* Plane i to its own resolution in an image of width x height px: every step-th sample. */
static int resample(struct image_encoder *encoder, int i, const struct planes *planes,
                    uint32_t width, uint32_t height, uint32_t step)
{
    struct samples *samples = &encoder->component[i];
    uint32_t columns = (width + step - 1) / step, lines = (height + step - 1) / step;
    struct planes alone = *planes;
    const struct crop whole = {.x = axis_of(planes->width, width, columns, step),
                               .y = axis_of(planes->height, height, lines, step)};
    alone.colour = PLANES_GREY;
    alone.plane[0] = planes->plane[i];
    int code = reserve(encoder, samples, columns, lines);
    if (!code)
        code = resize_begin(encoder->resize, &alone, &whole, columns, lines);
    for (uint32_t y = 0; !code && y < lines; y += ROWS) {
        uint32_t count = lines - y < ROWS ? lines - y : ROWS;
        int16_t *const dst[3] = {encoder->rows};
        resize_rows(encoder->resize, dst, count);
        for (uint32_t row = 0; row < count; row++)
            store_row(samples->pixels + (y + row) * samples->stride,
                      encoder->rows + (size_t)row * columns, samples);
    }
    return code;
}

/* Y, Cb, Cr or grey as they are: an MCU row at a time. */
static void write_planes(struct image_encoder *encoder)
{
    struct jpeg_compress_struct *info = &encoder->info;
    JSAMPROW rows[3][2 * DCTSIZE];
    JSAMPARRAY arrays[3] = {rows[0], rows[1], rows[2]};
    int lines = info->max_v_samp_factor * DCTSIZE;
    while (info->next_scanline < info->image_height) {
        for (int c = 0; c < info->num_components; c++) {
            const struct samples *samples = &encoder->component[c];
            int count = info->comp_info[c].v_samp_factor * DCTSIZE;
            uint32_t first = info->next_scanline / (uint32_t)lines * (uint32_t)count;
            for (int i = 0; i < count; i++) {
                uint32_t row = first + (uint32_t)i;
                row = row < samples->height ? row : samples->height - 1;
                rows[c][i] = samples->pixels + row * samples->stride;
            }
        }
        jpeg_write_raw_data(info, arrays, (JDIMENSION)lines);
    }
}

/* libjpeg converts and subsamples. */
static void write_rgb(struct image_encoder *encoder, uint8_t *row)
{
    struct jpeg_compress_struct *info = &encoder->info;
    const struct samples *planes = encoder->component;
    while (info->next_scanline < info->image_height) {
        size_t at = info->next_scanline * planes[0].stride;
        for (uint32_t x = 0; x < info->image_width; x++)
            for (int c = 0; c < 3; c++)
                row[3 * x + (uint32_t)c] = planes[c].pixels[at + x];
        jpeg_write_scanlines(info, &row, 1);
    }
}

static void begin_file(struct image_encoder *encoder, enum planes_colour colour, int quality)
{
    struct jpeg_compress_struct *info = &encoder->info;
    info->image_width = encoder->component[0].width;
    info->image_height = encoder->component[0].height;
    info->input_components = colour == PLANES_GREY ? 1 : 3;
    info->in_color_space = colour == PLANES_GREY  ? JCS_GRAYSCALE
                           : colour == PLANES_YCC ? JCS_YCbCr
                                                  : JCS_RGB;
    jpeg_set_defaults(info); /* colour: YCbCr, 4:2:0 */
    jpeg_set_quality(info, quality, TRUE);
    info->dct_method = JDCT_ISLOW;
    info->optimize_coding = TRUE;
    info->raw_data_in = colour != PLANES_RGB;
    jpeg_start_compress(info, TRUE);
}

static int write_file(struct image_encoder *encoder, uint8_t **jpeg, size_t *jpeg_bytes,
                      enum planes_colour colour, int quality)
{
    uint8_t *volatile row = NULL;
    int code = 0;
    if (colour == PLANES_RGB && !(row = malloc(3 * (size_t)encoder->component[0].width)))
        return err_set(ERR_NOMEM, "out of memory for a row");
    if (setjmp(encoder->failed)) {
        jpeg_abort_compress(&encoder->info);
        code = encoder->errors.msg_code == JERR_OUT_OF_MEMORY ? ERR_NOMEM : ERR_DATA;
        free(encoder->file);
        goto end;
    }
    begin_file(encoder, colour, quality);
    if (colour == PLANES_RGB)
        write_rgb(encoder, row);
    else
        write_planes(encoder);
    jpeg_finish_compress(&encoder->info);
    *jpeg = encoder->file;
    *jpeg_bytes = encoder->file_room - encoder->output.free_in_buffer;
end:
    encoder->file = NULL;
    free(row);
    return code;
}

static void forget_large(struct image_encoder *encoder)
{
    for (int i = 0; i < 3; i++) {
        struct samples *samples = &encoder->component[i];
        if (samples->room <= KEEP_BYTES)
            continue;
        free(samples->pixels);
        samples->pixels = NULL;
        samples->room = 0;
    }
}

int image_encode(struct image_encoder *encoder, uint8_t **jpeg, size_t *jpeg_bytes, uint32_t *width,
                 uint32_t *height, const struct planes *planes, const struct pack_recode *recode)
{
    int count = planes->colour == PLANES_GREY ? 1 : 3, code = 0;
    *jpeg = NULL;
    *width = planes->width;
    *height = planes->height;
    image_shrunk_size(width, height, recode);
    for (int i = 0; !code && i < count; i++) {
        uint32_t step = planes->colour == PLANES_YCC && i > 0 ? 2 : 1;
        code = resample(encoder, i, planes, *width, *height, step);
    }
    if (!code)
        code = write_file(encoder, jpeg, jpeg_bytes, planes->colour, recode->quality);
    forget_large(encoder);
    return code;
}

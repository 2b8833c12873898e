/* SPDX-License-Identifier: Apache-2.0 */
/* The reference decoder: libjpeg-turbo, the whole image, planar. Handles everything that JPEG files
 * in the wild are (progressive, restart markers, CMYK, damage) and defines what other decoders must
 * give. */
#include <stdio.h>

#include <jpeglib.h>
#include <jerror.h>
#include <setjmp.h>
#include <stdlib.h>

#include "common/err.h"
#include "loader/decode_parts.h"

enum {
    BLOCK = DCTSIZE,
    FACTOR_MOST = MAX_SAMP_FACTOR,
    ROW_ALIGNMENT = 64,
    MARKER_EOI = JPEG_EOI,
};

/* libjpeg reports through these; jpeg comes first in each, so that its pointers lead back here. */
struct decode_jpeg {
    struct jpeg_decompress_struct info;
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    jmp_buf escape;
    bool ended_early;
    bool too_many_scans;
    char message[JMSG_LENGTH_MAX];
};

static struct decode_jpeg *owner(j_common_ptr info)
{
    return info->client_data;
}

static void on_error(j_common_ptr info)
{
    struct decode_jpeg *jpeg = owner(info);
    info->err->format_message(info, jpeg->message);
    longjmp(jpeg->escape, 1);
}

/* Warnings have level -1. Only those that mean "the data ends here" matter: the file's end, or the
 * end-of-image marker in the middle of entropy-coded data. */
static void on_message(j_common_ptr info, int level)
{
    if (level >= 0)
        return;
    struct decode_jpeg *jpeg = owner(info);
    int what = info->err->msg_code;
    if (what == JWRN_JPEG_EOF ||
        (what == JWRN_HIT_MARKER && jpeg->info.unread_marker == MARKER_EOI))
        jpeg->ended_early = true;
}

static void say_nothing(j_common_ptr info)
{
    (void)info;
}

/* libjpeg calls this as it goes through the scans of a file that must be read whole first. */
static void on_progress(j_common_ptr info)
{
    struct decode_jpeg *jpeg = owner(info);
    double scans = jpeg->info.input_scan_number;
    double pixels = (double)jpeg->info.image_width * jpeg->info.image_height;
    if (scans <= DECODE_MAX_SCANS && scans * pixels <= DECODE_MAX_SCAN_MPIXELS * 1e6)
        return;
    jpeg->too_many_scans = true;
    longjmp(jpeg->escape, 1);
}

int decode_jpeg_open(struct decode_jpeg **out)
{
    struct decode_jpeg *jpeg = calloc(1, sizeof *jpeg);
    if (!jpeg)
        return err_set(ERR_NOMEM, "out of memory for a JPEG decoder");
    jpeg->info.err = jpeg_std_error(&jpeg->errors);
    jpeg->errors.error_exit = on_error;
    jpeg->errors.emit_message = on_message;
    jpeg->errors.output_message = say_nothing;
    jpeg->info.client_data = jpeg;
    if (setjmp(jpeg->escape)) {
        int code = err_set(ERR_INTERNAL, "libjpeg does not start: %s", jpeg->message);
        free(jpeg);
        return code;
    }
    jpeg_create_decompress(&jpeg->info);
    jpeg->progress.progress_monitor = on_progress;
    jpeg->info.progress = &jpeg->progress;
    *out = jpeg;
    return 0;
}

void decode_jpeg_close(struct decode_jpeg *jpeg)
{
    if (!jpeg)
        return;
    jpeg_destroy_decompress(&jpeg->info);
    free(jpeg);
}

static size_t row_stride(const jpeg_component_info *component)
{
    size_t bytes = (size_t)component->width_in_blocks * BLOCK;
    return (bytes + ROW_ALIGNMENT - 1) / ROW_ALIGNMENT * ROW_ALIGNMENT;
}

/* Rows that libjpeg fills in, whole MCU rows. */
static size_t row_count(const struct jpeg_decompress_struct *info,
                        const jpeg_component_info *component)
{
    return (size_t)info->total_iMCU_rows * (size_t)component->v_samp_factor * BLOCK;
}

static int lay_out(struct decoder *decoder, struct planes *planes,
                   const struct jpeg_decompress_struct *info)
{
    size_t begin[3] = {0}, total = 0;
    for (int i = 0; i < info->num_components; i++) {
        begin[i] = total;
        total += row_stride(&info->comp_info[i]) * row_count(info, &info->comp_info[i]) +
                 PLANES_PADDING_BYTES;
    }
    int code = decode_reserve(decoder, total);
    if (code)
        return code;
    for (int i = 0; i < info->num_components; i++) {
        const jpeg_component_info *component = &info->comp_info[i];
        planes->plane[i] = (struct plane){
            .pixels = decoder->scratch + begin[i],
            .stride = row_stride(component),
            .width = component->downsampled_width,
            .height = component->downsampled_height,
            .full_width = component->downsampled_width,
            .full_height = component->downsampled_height,
            .h_factor = (uint32_t)component->h_samp_factor,
            .v_factor = (uint32_t)component->v_samp_factor,
        };
    }
    return 0;
}

/* Planes, and the coefficients of all of a file of several scans. */
static int check_memory(struct jpeg_decompress_struct *info)
{
    uint64_t bytes = 0;
    for (int i = 0; i < info->num_components; i++) {
        uint64_t samples = row_stride(&info->comp_info[i]) * row_count(info, &info->comp_info[i]);
        bytes += samples * (jpeg_has_multiple_scans(info) ? 1 + sizeof(JCOEF) : 1);
    }
    if (bytes <= DECODE_MAX_BYTES)
        return 0;
    return err_set(ERR_DATA, "JPEG: %u x %u px%s would take %llu MB of memory (at most %d)",
                   info->image_width, info->image_height,
                   jpeg_has_multiple_scans(info) ? " in several scans" : "",
                   (unsigned long long)(bytes / 1000000), DECODE_MAX_BYTES / 1000000);
}

/* Grey, YCbCr, RGB: every component at its own resolution. */
static int read_planes(struct decoder *decoder, struct planes *planes)
{
    struct jpeg_decompress_struct *info = &decoder->jpeg->info;
    info->out_color_space = info->jpeg_color_space;
    info->raw_data_out = TRUE;
    jpeg_start_decompress(info);
    int code = lay_out(decoder, planes, info);
    if (code)
        return code;
    planes->h_max = (uint32_t)info->max_h_samp_factor;
    planes->v_max = (uint32_t)info->max_v_samp_factor;

    JSAMPROW rows[3][FACTOR_MOST * BLOCK];
    JSAMPARRAY lists[3] = {rows[0], rows[1], rows[2]};
    for (size_t mcu_row = 0; info->output_scanline < info->output_height; mcu_row++) {
        for (int i = 0; i < info->num_components; i++) {
            size_t per_mcu = (size_t)info->comp_info[i].v_samp_factor * BLOCK;
            size_t stride = planes->plane[i].stride;
            uint8_t *plane = decode_pixels(decoder, &planes->plane[i]);
            for (size_t row = 0; row < per_mcu; row++)
                rows[i][row] = plane + (mcu_row * per_mcu + row) * stride;
        }
        jpeg_read_raw_data(info, lists, (JDIMENSION)(info->max_v_samp_factor * BLOCK));
    }
    return 0;
}

static uint8_t multiply_255(unsigned a, unsigned b)
{
    return (uint8_t)((a * b * 2 + 255) / 510); /* round(a b / 255) */
}

/* CMYK, and YCCK by libjpeg's conversion. Adobe's files hold 255 - ink. */
static int read_cmyk(struct decoder *decoder, struct planes *planes)
{
    struct jpeg_decompress_struct *info = &decoder->jpeg->info;
    info->out_color_space = JCS_CMYK;
    jpeg_start_decompress(info);
    int code =
        decode_plain_planes(decoder, planes, PLANES_RGB, info->output_width, info->output_height);
    if (code)
        return code;
    unsigned flip = info->saw_Adobe_marker ? 0 : 255;
    JSAMPARRAY row =
        info->mem->alloc_sarray((j_common_ptr)info, JPOOL_IMAGE, info->output_width * 4, 1);
    while (info->output_scanline < info->output_height) {
        size_t begin = (size_t)info->output_scanline * info->output_width;
        jpeg_read_scanlines(info, row, 1);
        for (int channel = 0; channel < 3; channel++) {
            uint8_t *dst = decode_pixels(decoder, &planes->plane[channel]) + begin;
            for (size_t x = 0; x < info->output_width; x++)
                dst[x] =
                    multiply_255(row[0][4 * x + (size_t)channel] ^ flip, row[0][4 * x + 3] ^ flip);
        }
    }
    return 0;
}

static int read_image(struct decoder *decoder, struct planes *planes, const uint8_t *file,
                      size_t bytes)
{
    struct jpeg_decompress_struct *info = &decoder->jpeg->info;
    jpeg_mem_src(info, file, bytes);
    jpeg_read_header(info, TRUE);
    int code = decode_check_size(info->image_width, info->image_height);
    if (!code)
        code = check_memory(info);
    if (code)
        return code;
    if (info->arith_code)
        return err_set(ERR_DATA, "JPEG: arithmetic coding is not supported");
    info->dct_method = JDCT_ISLOW;
    info->do_block_smoothing = FALSE;
    *planes = (struct planes){.width = info->image_width, .height = info->image_height};
    switch (info->jpeg_color_space) {
    case JCS_GRAYSCALE:
        planes->colour = PLANES_GREY;
        code = read_planes(decoder, planes);
        break;
    case JCS_YCbCr:
        planes->colour = PLANES_YCC;
        code = read_planes(decoder, planes);
        break;
    case JCS_RGB:
        planes->colour = PLANES_RGB;
        code = read_planes(decoder, planes);
        break;
    case JCS_CMYK:
    case JCS_YCCK:
        code = read_cmyk(decoder, planes);
        break;
    default:
        return err_set(ERR_DATA, "JPEG: %d components of unknown colours", info->num_components);
    }
    if (!code)
        jpeg_finish_decompress(info);
    return code;
}

int decode_jpeg(struct decoder *decoder, struct planes *planes, const uint8_t *file, size_t bytes)
{
    struct decode_jpeg *jpeg = decoder->jpeg;
    jpeg->ended_early = jpeg->too_many_scans = false;
    int code;
    if (!setjmp(jpeg->escape))
        code = read_image(decoder, planes, file, bytes);
    else if (jpeg->too_many_scans)
        code = err_set(ERR_DATA, "JPEG: too many scans for %u x %u px", jpeg->info.image_width,
                       jpeg->info.image_height);
    else
        code = err_set(jpeg->errors.msg_code == JERR_OUT_OF_MEMORY ? ERR_NOMEM : ERR_DATA,
                       "JPEG: %s", jpeg->message);
    jpeg_abort_decompress(&jpeg->info);
    if (!code && jpeg->ended_early)
        code = err_set(ERR_DATA, "JPEG: the file ends early");
    return code;
}

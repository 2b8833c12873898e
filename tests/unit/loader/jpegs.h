/* SPDX-License-Identifier: Apache-2.0 */
/* JPEGs for the tests of the indexed decoder: any sampling, quality and tables, from pixels or from
 * bare coefficients, written by libjpeg into memory. */
#ifndef TESTS_UNIT_LOADER_JPEGS_H
#define TESTS_UNIT_LOADER_JPEGS_H

#include <stdio.h>

#include <jpeglib.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/testing.h"

struct jpeg_bytes {
    uint8_t *data; /* free() */
    size_t count;
};

struct jpeg_recipe {
    uint32_t width, height;
    int components; /* 1, 3 or 4 (CMYK) */
    int h[3], v[3]; /* sampling factors; 0: 1 */
    int quality;    /* 1..100 */
    bool optimise;  /* Huffman tables of its own */
    bool rgb;       /* components are R, G, B */
    bool progressive, arithmetic, separate_scans;
    unsigned restart_mcus;
    int noise; /* amplitude 0..255 over a smooth picture */
};

/* info->err is set. data, count: as jpeg_mem_dest fills them. */
static inline void jpegs_begin(struct jpeg_compress_struct *info, const struct jpeg_recipe *recipe,
                               unsigned char **data, unsigned long *count)
{
    jpeg_create_compress(info);
    jpeg_mem_dest(info, data, count);
    info->image_width = recipe->width;
    info->image_height = recipe->height;
    info->input_components = recipe->components;
    info->in_color_space = recipe->components == 1   ? JCS_GRAYSCALE
                           : recipe->components == 4 ? JCS_CMYK
                                                     : JCS_RGB;
    jpeg_set_defaults(info);
    if (recipe->rgb)
        jpeg_set_colorspace(info, JCS_RGB);
    jpeg_set_quality(info, recipe->quality, TRUE);
    for (int c = 0; c < recipe->components && c < 3; c++) {
        info->comp_info[c].h_samp_factor = recipe->h[c] ? recipe->h[c] : 1;
        info->comp_info[c].v_samp_factor = recipe->v[c] ? recipe->v[c] : 1;
    }
    info->optimize_coding = recipe->optimise;
    info->arith_code = recipe->arithmetic;
    info->restart_interval = recipe->restart_mcus;
    if (recipe->progressive)
        jpeg_simple_progression(info);
}

/* libjpeg cautions about tables that are coarse on purpose. */
static inline void jpegs_say_nothing(j_common_ptr info, int level)
{
    (void)info;
    (void)level;
}

/* A picture of slopes, edges and noise. */
static inline struct jpeg_bytes jpegs_make(const struct jpeg_recipe *recipe, uint64_t *seed)
{
    static const jpeg_scan_info separate[3] = {
        {1, {0}, 0, 63, 0, 0}, {1, {1}, 0, 63, 0, 0}, {1, {2}, 0, 63, 0, 0}};
    struct jpeg_compress_struct info;
    struct jpeg_error_mgr errors;
    unsigned char *data = NULL;
    unsigned long count = 0;
    info.err = jpeg_std_error(&errors);
    errors.emit_message = jpegs_say_nothing;
    jpegs_begin(&info, recipe, &data, &count);
    if (recipe->separate_scans) {
        info.scan_info = separate;
        info.num_scans = 3;
    }
    jpeg_start_compress(&info, TRUE);
    uint32_t samples = recipe->width * (uint32_t)recipe->components;
    JSAMPROW row = malloc(samples);
    if (!row)
        abort();
    int tilt = (int)(testing_random(seed) % 7) + 1;
    for (uint32_t y = 0; y < recipe->height; y++) {
        for (uint32_t i = 0; i < samples; i++) {
            int x = (int)(i / (uint32_t)recipe->components),
                c = (int)(i % (uint32_t)recipe->components);
            int value = (x * tilt + (int)y * (c + 1)) / 3 + ((x / 11 + (int)y / 7) & 1) * 60;
            if (recipe->noise)
                value += (int)(testing_random(seed) % (uint32_t)recipe->noise);
            value %= 511;
            row[i] = (JSAMPLE)(value < 256 ? value : 510 - value);
        }
        jpeg_write_scanlines(&info, &row, 1);
    }
    free(row);
    jpeg_finish_compress(&info);
    jpeg_destroy_compress(&info);
    return (struct jpeg_bytes){data, count};
}

/* Blocks of coefficients as no camera makes them: dequantised magnitudes up to limit, a share of
 * the 64 places filled. quant 1..65535. */
static inline struct jpeg_bytes jpegs_make_extreme(const struct jpeg_recipe *recipe, uint32_t quant,
                                                   uint32_t limit, uint32_t filled, uint64_t *seed)
{
    struct jpeg_compress_struct info;
    struct jpeg_error_mgr errors;
    unsigned char *data = NULL;
    unsigned long count = 0;
    info.err = jpeg_std_error(&errors);
    errors.emit_message = jpegs_say_nothing;
    jpegs_begin(&info, recipe, &data, &count);
    info.optimize_coding = TRUE;
    unsigned table[64];
    for (int i = 0; i < 64; i++)
        table[i] = quant;
    for (int i = 0; i < 2; i++)
        jpeg_add_quant_table(&info, i, table, 100, FALSE);
    int32_t most = (int32_t)(limit / quant < 1023 ? limit / quant : 1023); /* what can be coded */
    jvirt_barray_ptr arrays[3];
    for (int c = 0; c < recipe->components; c++) {
        jpeg_component_info *component = &info.comp_info[c];
        uint32_t across = (recipe->width + 7) / 8 + 8, down = (recipe->height + 7) / 8 + 8;
        arrays[c] = info.mem->request_virt_barray((j_common_ptr)&info, JPOOL_IMAGE, TRUE, across,
                                                  down, (JDIMENSION)component->v_samp_factor);
    }
    jpeg_write_coefficients(&info, arrays);
    for (int c = 0; c < recipe->components; c++) {
        jpeg_component_info *component = &info.comp_info[c];
        for (uint32_t y = 0; y < component->height_in_blocks; y++) {
            JBLOCKARRAY blocks =
                info.mem->access_virt_barray((j_common_ptr)&info, arrays[c], y, 1, TRUE);
            for (uint32_t x = 0; x < component->width_in_blocks; x++)
                for (int k = 0; k < 64; k++) {
                    uint64_t r = testing_random(seed);
                    int32_t value = r >> 8 & 1 ? most : (int32_t)((r >> 9) % (uint32_t)(most + 1));
                    blocks[0][x][k] = (JCOEF)(r % 64 < filled ? (r >> 40 & 1 ? value : -value) : 0);
                }
        }
    }
    jpeg_finish_compress(&info);
    jpeg_destroy_compress(&info);
    return (struct jpeg_bytes){data, count};
}

#endif

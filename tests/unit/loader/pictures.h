/* SPDX-License-Identifier: Apache-2.0 */
/* Pictures for the loader's tests: golden files, and JPEGs of every kind written by libjpeg. */
#ifndef TESTS_UNIT_LOADER_PICTURES_H
#define TESTS_UNIT_LOADER_PICTURES_H

#include <stdio.h>

#include <jpeglib.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <cmocka.h>

#include "common/file.h"
#include "tests/unit/testing.h"

struct bytes {
    uint8_t *data;
    size_t count;
};

/* tests/golden/loader/NAME; the build passes the folder. */
static inline struct bytes golden_bytes(const char *name)
{
    char path[TESTING_PATH_BYTES];
    struct bytes bytes;
    testing_path(path, GOLDEN_FOLDER, name);
    assert_int_equal(file_read(&bytes.data, &bytes.count, path, 1 << 20), 0);
    return bytes;
}

static inline FILE *golden_text(const char *name)
{
    char path[TESTING_PATH_BYTES];
    FILE *file = fopen(testing_path(path, GOLDEN_FOLDER, name), "r");
    assert_non_null(file);
    return file;
}

struct picture_options {
    int width, height;
    J_COLOR_SPACE stored; /* of the file */
    int h_factor, v_factor;
    bool progressive, arithmetic, no_adobe;
    int restart_every; /* MCUs */
    const jpeg_scan_info *scans;
    int scan_count;
};

static inline int picture_components(J_COLOR_SPACE space)
{
    return space == JCS_GRAYSCALE ? 1 : space == JCS_CMYK || space == JCS_YCCK ? 4 : 3;
}

static inline J_COLOR_SPACE picture_input_space(J_COLOR_SPACE stored)
{
    return stored == JCS_YCbCr ? JCS_RGB : stored == JCS_YCCK ? JCS_CMYK : stored;
}

/* Content that follows from the seed: slopes and noise. Free bytes.data. */
static inline struct bytes picture_make(struct picture_options options, uint64_t seed)
{
    struct jpeg_compress_struct info;
    struct jpeg_error_mgr errors;
    unsigned char *data = NULL;
    unsigned long count = 0;
    info.err = jpeg_std_error(&errors);
    jpeg_create_compress(&info);
    jpeg_mem_dest(&info, &data, &count);
    info.image_width = (JDIMENSION)options.width;
    info.image_height = (JDIMENSION)options.height;
    info.in_color_space = picture_input_space(options.stored);
    info.input_components = picture_components(options.stored);
    jpeg_set_defaults(&info);
    jpeg_set_colorspace(&info, options.stored);
    jpeg_set_quality(&info, 90, TRUE);
    info.comp_info[0].h_samp_factor = options.h_factor;
    info.comp_info[0].v_samp_factor = options.v_factor;
    if (options.stored == JCS_YCCK) {
        info.comp_info[3].h_samp_factor = options.h_factor;
        info.comp_info[3].v_samp_factor = options.v_factor;
    }
    info.arith_code = options.arithmetic;
    info.restart_interval = (unsigned)options.restart_every;
    if (options.no_adobe)
        info.write_Adobe_marker = FALSE;
    if (options.progressive)
        jpeg_simple_progression(&info);
    if (options.scans) {
        info.scan_info = options.scans;
        info.num_scans = options.scan_count;
    }
    jpeg_start_compress(&info, TRUE);
    JSAMPROW row = malloc((size_t)options.width * 4);
    for (int y = 0; y < options.height; y++) {
        for (int x = 0; x < options.width * info.input_components; x++)
            row[x] = (JSAMPLE)(x * 2 + y * 3 + (int)(testing_random(&seed) % 16));
        jpeg_write_scanlines(&info, &row, 1);
    }
    free(row);
    jpeg_finish_compress(&info);
    jpeg_destroy_compress(&info);
    return (struct bytes){data, count};
}

#endif

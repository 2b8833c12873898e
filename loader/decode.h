/* SPDX-License-Identifier: Apache-2.0 */
/* From a record's bytes to planes.
 *
 * The definition is libjpeg-turbo's planar output: ISLOW inverse DCT, no block smoothing, no
 * upsampling. Grey JPEG -> one plane; YCbCr -> Y, Cb, Cr; RGB JPEG -> R, G, B, each at its own
 * resolution. CMYK and YCCK -> libjpeg's full-size CMYK, Adobe's inversion honoured, then R =
 * round((255 - c) (255 - k) / 255) and so on. PNG (by its magic bytes) -> grey or R, G, B of 8
 * bits: palettes expanded, the upper 8 of 16 bits, alpha and gamma ignored. Raw records -> their
 * planes.
 *
 * A JPEG or PNG that ends early is undecodable, and every file is read to its end to know that;
 * libjpeg's other warnings change nothing. 12-bit, lossless and arithmetic JPEGs are undecodable,
 * and so is what would cost too much (limits below). Nothing here trusts its input. */
#ifndef LOADER_DECODE_H
#define LOADER_DECODE_H

#include <stddef.h>
#include <stdint.h>

#include "datasets/store.h"
#include "loader/cpu.h"
#include "loader/crop.h"
#include "loader/planes.h"

enum {
    DECODE_MAX_SIDE_PX = 65500,
    /* A quarter of a second and a quarter of a gigabyte are what any file may cost, however small
       it is to store (tests/unit/loader/bombs_test.c): 72 Mpx, which is three planes of as many
       bytes; with several scans libjpeg keeps all coefficients too, which leaves 24 Mpx at 4:4:4
       and 48 at 4:2:0; in the usual 10 scans, the second of these. */
    DECODE_MAX_PIXELS = 72000000,
    DECODE_MAX_BYTES = 220000000,
    DECODE_MAX_SCANS = 100,
    DECODE_MAX_SCAN_MPIXELS = 480,
    /* Scratch above this is given back after the image that needed it. */
    DECODE_KEEP_BYTES = 8 << 20,
};

/* Scratch memory of one thread; one image at a time. */
struct decoder;

int decoder_open(struct decoder **out);
void decoder_close(struct decoder *decoder); /* accepts NULL */

/* From now on records with a side index are decoded by it (loader/jpeg/decode_indexed.h), only
 * around the crop; whatever that decoder does not take goes to the reference decoder as before.
 * level: at most that of the machine. ERR_NOMEM, ERR_UNSUPPORTED. */
int decoder_use_index(struct decoder *decoder, enum cpu_level level);

/* Decodes a record, at least the samples that the crop reads (planes.h's x0, y0, width, height; the
 * reference decoder gives the whole image). By its index it comes in bands (planes.h's rows_kept),
 * none of which is there yet: decode_next_band() brings one after the other. The planes are valid
 * until the decoder's next record. ERR_DATA with the reason when it is undecodable or not of the
 * width and height that the record says; ERR_NOMEM. */
int decode_record(struct decoder *decoder, struct planes *planes, const struct store_record *record,
                  const struct crop *crop);

/* The next band of planes that come in bands. ERR_DATA: the index does not fit the image after all;
 * decode_record_again() then lets the reference decoder decide. */
int decode_next_band(struct decoder *decoder, struct planes *planes);
int decode_record_again(struct decoder *decoder, struct planes *planes,
                        const struct store_record *record);

/* The whole image of a JPEG or PNG file. */
int decode_file(struct decoder *decoder, struct planes *planes, const uint8_t *file, size_t bytes);

/* Refuses empty images, and sides and areas over the limits. ERR_DATA. */
int decode_check_size(uint64_t width, uint64_t height);

/* What satchel-pack asks of every file: can the loader decode it, and what is in it? components: 1
 * or 3 as the planes have them. Errors as decode_file. */
int decode_check(struct decoder *decoder, uint32_t *width, uint32_t *height, uint32_t *components,
                 const uint8_t *file, size_t bytes);

#endif

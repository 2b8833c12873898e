/* SPDX-License-Identifier: Apache-2.0 */
/* The markers in front of a JPEG's entropy-coded data, for the indexed decoder: sequential Huffman
 * files (ITU-T T.81, SOF0 and SOF1) of 8 bits with one scan of 1 or 3 components. Whatever else
 * there is in the world is named by a reason and left to the reference decoder. */
#ifndef LOADER_JPEG_HEADER_H
#define LOADER_JPEG_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "loader/planes.h"

enum {
    JPEG_MAX_COMPONENTS = 3,
    JPEG_MAX_TABLES = 4,
    JPEG_MAX_BLOCKS_PER_MCU = 10, /* T.81 B.2.3 */
};

/* Why an image is not taken by the indexed decoder. */
enum jpeg_refusal {
    JPEG_TAKEN = 0,
    JPEG_NOT_A_JPEG,
    JPEG_DAMAGED,     /* markers or tables that contradict the standard */
    JPEG_PROGRESSIVE, /* or hierarchical, or lossless */
    JPEG_ARITHMETIC,
    JPEG_PRECISION,  /* not 8 bits a sample */
    JPEG_COMPONENTS, /* CMYK, YCCK, two components */
    JPEG_SCANS,      /* more than one scan, or components in another order */
    JPEG_SAMPLING,   /* sampling factors beyond the standard's limits */
    JPEG_SIZE,    /* an empty side, beyond the limits of decode.h, or too much entropy-coded data */
    JPEG_ENTROPY, /* a bad code, a run past the block's end, bytes missing or left over */
    JPEG_RANGE,   /* coefficients that no 8-bit image has */
    JPEG_REFUSALS, /* how many there are */
};

/* A Huffman table as the file gives it; symbols behind the last one are zero, so that equal tables
 * compare equal. */
struct jpeg_huffman_spec {
    uint8_t counts[16]; /* [length - 1]: how many codes */
    uint8_t symbols[256];
};

struct jpeg_component {
    uint8_t id;
    uint8_t h, v;          /* sampling factors 1..4; 1 when it is the only component */
    uint8_t quant, dc, ac; /* table numbers */
};

struct jpeg_header {
    uint32_t width, height; /* px */
    enum planes_colour colour;
    uint32_t component_count;
    struct jpeg_component component[JPEG_MAX_COMPONENTS];
    uint32_t h_max, v_max;
    uint32_t mcus_across, mcus_down; /* an MCU is 8 h_max x 8 v_max px */
    uint32_t blocks_per_mcu;
    uint32_t restart_interval;               /* MCUs between restart markers; 0: none */
    size_t scan_offset;                      /* of the first byte of entropy-coded data */
    uint8_t dc_known, ac_known, quant_known; /* bit masks over table numbers */
    struct jpeg_huffman_spec dc[JPEG_MAX_TABLES], ac[JPEG_MAX_TABLES];
    uint16_t quant[JPEG_MAX_TABLES][64]; /* natural order: row * 8 + column */
};

/* Coefficient k of a block in file order lies at jpeg_header_natural_order[k] = row * 8 + column.
 */
extern const uint8_t jpeg_header_natural_order[64];

/* Reads everything up to the entropy-coded data. Any bytes; reads none outside. */
enum jpeg_refusal jpeg_header_parse(struct jpeg_header *header, const uint8_t *bytes, size_t count);

/* One phrase: "progressive", "a bad Huffman code". */
const char *jpeg_refusal_text(enum jpeg_refusal refusal);

#endif

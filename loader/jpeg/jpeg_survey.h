/* SPDX-License-Identifier: Apache-2.0 */
/* Where each block of a scan begins, and by how much it moves its component's DC predictor: all
 * that a side index is made of. Coefficients are only checked, so that one table lookup goes over
 * several symbols. Two lanes work in one loop: one begins in the middle of the data, where it knows
 * nothing; Huffman streams put themselves right, and where the first lane comes upon a block of the
 * second one's, both agree from there on. */
#ifndef LOADER_JPEG_SURVEY_H
#define LOADER_JPEG_SURVEY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "loader/jpeg/jpeg_header.h"
#include "loader/jpeg/jpeg_huffman.h"

enum {
    SURVEY_BITS = 11,
    SURVEY_ENTRY_BITS = 18, /* the most that an entry goes over */
    SURVEY_END = 128,       /* advance of an end of block, beside that of symbols before it */
    SURVEY_CLASS_SHIFT = 28,
    SURVEY_RARE_CLASS = 15, /* no code, or a symbol too long for an entry */
    /* Up to this many blocks; larger images go without. 8 bytes each. */
    SURVEY_MAX_BLOCKS = 1 << 20,
};

/* Entry of the next SURVEY_BITS bits: bits 0-7 the length of all symbols whose codes they show, the
 * last magnitude may lie beyond; bits 8-15 their advance; from SURVEY_CLASS_SHIFT on the size of
 * the largest magnitude. */
struct survey_symbols {
    uint32_t entry[1 << SURVEY_BITS];
    struct jpeg_huffman_spec spec; /* that it is made for */
    bool ready;
};

/* A block of an MCU. */
struct survey_part {
    const struct huffman *dc, *ac;
    const uint32_t *symbols;
    const uint16_t *limit; /* [64]: the largest magnitudes allowed, in file order */
    uint32_t
        rare; /* entries from here on: to be taken symbol by symbol, looking at the magnitude */
    uint32_t next; /* its successor's number */
};

struct survey_block {
    uint32_t bit; /* where it begins */
    int32_t dc;   /* difference */
};

/* A lane between two blocks. */
struct survey_lane {
    const uint8_t *bytes;                     /* of the piece */
    uint32_t bit;                             /* where the next block begins */
    uint32_t stop_bit;                        /* no block is begun from here on */
    const struct survey_part *parts;          /* of the MCU */
    uint32_t part;                            /* the next block's */
    struct survey_block *first, *block, *end; /* records: the lane's, the next block's, no more */
    /* How often it may begin anew behind a bad code, a run past the block's end or a magnitude
     * beyond its limit. */
    uint32_t restarts;
    bool failed; /* at one more of them */
};

struct survey {
    struct survey_symbols symbols[JPEG_MAX_TABLES];
    struct survey_part parts[JPEG_MAX_BLOCKS_PER_MCU];
    uint32_t blocks_per_mcu;
    uint32_t single[1 << SURVEY_BITS]; /* in the making: entries of one symbol */
    struct survey_block *blocks;       /* all of the image */
    struct survey_block *ahead;        /* the second lane's */
    size_t room;                       /* of each */
    uint32_t from_second;              /* of the blocks: those that the second lane found */
    uint32_t end_bit;                  /* behind the last block */
};

struct jpeg_ops;

/* Goes over all blocks of an image without restart markers. piece: its entropy-coded bytes without
 * stuffing, readable for ENTROPY_OVERRUN_BYTES more. limit: [component][64]. True: blocks[] and
 * end_bit are what decoding strictly, symbol by symbol, gives; whether DC coefficients are in range
 * and what follows the last block is the caller's to check. False: something is irregular, small or
 * beyond what it takes, or memory is lacking. */
bool survey_run(struct survey *survey, const struct jpeg_header *header,
                const struct huffman_set *tables, const struct jpeg_ops *ops, uint16_t (*limit)[64],
                const uint8_t *piece, size_t piece_bytes);
void survey_free(struct survey *survey);

#endif

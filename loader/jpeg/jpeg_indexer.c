/* SPDX-License-Identifier: Apache-2.0 */
/* Makes a side index: one strict pass over all entropy-coded data, by a survey (jpeg_survey.h)
 * where that can tell, else symbol by symbol. */
#include <stdlib.h>
#include <string.h>

#include "common/bytes.h"
#include "common/err.h"
#include "loader/jpeg/jpeg_entropy.h"
#include "loader/jpeg/jpeg_index.h"
#include "loader/jpeg/jpeg_survey.h"

enum {
    POSITION_BITS = 28,
    MAX_SCAN_BYTES = (1 << POSITION_BITS) / 8,
    MAX_PREDICTOR = 2047, /* 12 bits; an 8-bit image has at most 1024 */
    /* Beyond it libjpeg-turbo's own vector code differs between a column that has nothing but DC
     * and others: a product of 16 bits, times 4, would no longer fit. */
    MAX_DEQUANTISED = 8191,
    PIECE_PADDING_BYTES = 256, /* more than a block can have */
    MARKER_RST0 = 0xd0,
    MARKER_EOI = 0xd9,
};

struct jpeg_indexer {
    struct jpeg_header header;
    struct huffman_set tables;
    const struct jpeg_ops *ops;
    struct survey survey;
    bool plain;     /* without a survey */
    uint8_t *bytes; /* one restart interval (or all of the scan) without stuffed bytes */
    size_t bytes_capacity;
    uint8_t *index;
    size_t index_capacity;
};

/* The pass: entropy-coded bytes behind the scan offset, a piece of them without stuffing. */
struct pass {
    const struct jpeg_header *header;
    const struct jpeg_ops *ops;
    const uint8_t *scan;
    size_t scan_bytes; /* up to the end of the file */
    uint8_t *piece;
    size_t piece_bytes;
    size_t piece_end; /* in the scan: the marker that ended the piece */
    size_t from, to;  /* the same place in the scan and in the piece, never behind the stream */
    struct entropy_stream stream;
    uint16_t limit[JPEG_MAX_COMPONENTS][64]; /* limits_of() each component's table */
};

int jpeg_indexer_open(struct jpeg_indexer **out)
{
    struct jpeg_indexer *indexer = calloc(1, sizeof *indexer);
    if (!indexer)
        return err_set(ERR_NOMEM, "out of memory for a JPEG indexer");
    indexer->ops = jpeg_ops_of(cpu_level());
    *out = indexer;
    return 0;
}

void jpeg_indexer_close(struct jpeg_indexer *indexer)
{
    if (!indexer)
        return;
    survey_free(&indexer->survey);
    free(indexer->bytes);
    free(indexer->index);
    free(indexer);
}

void jpeg_indexer_use(struct jpeg_indexer *indexer, enum cpu_level level, bool plain)
{
    indexer->ops = jpeg_ops_of(level);
    indexer->plain = plain;
}

static int reserve(uint8_t **buffer, size_t *capacity, size_t bytes)
{
    if (bytes <= *capacity)
        return 0;
    free(*buffer);
    *capacity = 0;
    *buffer = calloc(1, bytes);
    if (!*buffer)
        return err_set(ERR_NOMEM, "out of memory for a JPEG's side index (%zu bytes)", bytes);
    *capacity = bytes;
    return 0;
}

/* Reads the piece that begins at this byte of the scan. */
static void pass_load(struct pass *pass, size_t at)
{
    size_t used;
    pass->piece_bytes =
        pass->ops->destuff(pass->piece, pass->scan + at, pass->scan_bytes - at, &used);
    memset(pass->piece + pass->piece_bytes, 0, PIECE_PADDING_BYTES);
    pass->piece_end = at + used;
    pass->from = at;
    pass->to = 0;
    entropy_start(&pass->stream, pass->piece, 0);
    memset(pass->stream.dc, 0, sizeof pass->stream.dc);
}

/* Whether the stream has come to the last byte of its piece, padded with fewer than 8 bits. */
static bool pass_at_piece_end(const struct pass *pass)
{
    return (entropy_position(&pass->stream, pass->piece) + 7) / 8 == pass->piece_bytes;
}

static bool pass_at_marker(const struct pass *pass, int marker)
{
    return pass->scan_bytes - pass->piece_end >= 2 && pass->scan[pass->piece_end] == 0xff &&
           pass->scan[pass->piece_end + 1] == marker;
}

/* How many of the eight bytes are FF: those whose complement is zero. */
static unsigned count_ff(uint64_t bytes)
{
    const uint64_t low7 = 0x7f7f7f7f7f7f7f7f, ones = 0x0101010101010101;
    uint64_t other = ~bytes, ffs = ~(((other & low7) + low7) | other | low7);
    return (unsigned)((ffs >> 7) * ones >> 56);
}

/* A position in bits of the piece as one of the file's own bytes; never one before the last asked
 * for. */
static size_t pass_position(struct pass *pass, size_t bits)
{
    size_t end = bits / 8;
    for (; pass->to + 8 <= end; pass->to += 8) {
        uint64_t bytes;
        memcpy(&bytes, pass->piece + pass->to, sizeof bytes);
        pass->from += 8 + count_ff(bytes);
    }
    for (; pass->to < end; pass->to++)
        pass->from += pass->piece[pass->to] == 0xff ? 2 : 1;
    return pass->from * 8 + bits % 8;
}

/* At least HUFFMAN_SYMBOL_BITS valid bits; the piece has padding for what is read beyond it. */
static inline void refill(struct entropy_stream *stream)
{
    if (stream->used < 63 - HUFFMAN_SYMBOL_BITS)
        return;
    uint64_t bytes;
    memcpy(&bytes, stream->next, sizeof bytes);
    stream->window |= __builtin_bswap64(bytes) >> (63 - stream->used);
    stream->next += stream->used >> 3;
    stream->used &= 7;
}

/* The next symbol as a finished entry of a table, 0 for a bad code. */
static inline uint32_t take(struct entropy_stream *stream, const struct huffman *table)
{
    refill(stream);
    uint32_t entry = table->fast[stream->window >> (64 - HUFFMAN_BITS)];
    if (__builtin_expect((entry & 0xff) == 0, 0))
        entry = entry ? huffman_long(entry, stream->window) : huffman_slow(table, stream->window);
    stream->window <<= entry & 0xff;
    stream->used += entry & 0xff;
    return (entry & 0xff) == 0 ? 0 : entry;
}

/* The largest coefficients that stay in range when they are dequantised, in file order. */
static void limits_of(uint16_t limit[64], const uint16_t quant[64])
{
    for (int i = 0; i < 64; i++) {
        uint32_t factor = quant[jpeg_header_natural_order[i]];
        limit[i] = (uint16_t)(factor ? MAX_DEQUANTISED / factor : INT16_MAX);
    }
}

static inline bool in_range(int32_t value, uint16_t limit)
{
    return (uint32_t)(value + limit) <= 2u * limit;
}

/* Parses a block strictly. limit [64]: limits_of() its table. */
static enum jpeg_refusal read_block(struct pass *pass, const struct huffman *dc,
                                    const struct huffman *ac, const uint16_t *limit,
                                    uint32_t component)
{
    struct entropy_stream stream = pass->stream; /* its fields in registers */
    enum jpeg_refusal refusal = JPEG_TAKEN;
    uint32_t entry = take(&stream, dc);
    if (!entry)
        return JPEG_ENTROPY;
    int32_t value = stream.dc[component] += (int32_t)entry >> 16;
    if (value < -MAX_PREDICTOR || value > MAX_PREDICTOR || !in_range(value, limit[0]))
        return JPEG_RANGE;
    for (uint32_t position = 1; position < 64;) {
        entry = take(&stream, ac);
        uint32_t advance = entry >> 8 & 0xff;
        if (!entry)
            return JPEG_ENTROPY;
        if (advance == HUFFMAN_END)
            break;
        position += advance;
        if (position > 64)
            return JPEG_ENTROPY;
        if (!in_range((int32_t)entry >> 16, limit[position - 1]))
            return JPEG_RANGE;
    }
    if (entropy_position(&stream, pass->piece) > pass->piece_bytes * 8)
        refusal = JPEG_ENTROPY;
    pass->stream = stream;
    return refusal;
}

static enum jpeg_refusal read_mcu(struct pass *pass, const struct huffman_set *tables)
{
    const struct jpeg_header *header = pass->header;
    for (uint32_t c = 0; c < header->component_count; c++) {
        const struct jpeg_component *component = &header->component[c];
        for (int i = 0; i < component->h * component->v; i++) {
            enum jpeg_refusal refusal = read_block(pass, &tables->dc[component->dc],
                                                   &tables->ac[component->ac], pass->limit[c], c);
            if (refusal)
                return refusal;
        }
    }
    return JPEG_TAKEN;
}

/* Goes over a restart marker where one belongs in front of MCU number mcu. */
static enum jpeg_refusal read_restart(struct pass *pass, uint32_t mcu)
{
    uint32_t interval = pass->header->restart_interval;
    if (interval == 0 || mcu == 0 || mcu % interval != 0)
        return JPEG_TAKEN;
    if (!pass_at_piece_end(pass) ||
        !pass_at_marker(pass, MARKER_RST0 + (int)((mcu / interval - 1) & 7)))
        return JPEG_ENTROPY;
    pass_load(pass, pass->piece_end + 2);
    return JPEG_TAKEN;
}

/* bits: where the MCU begins in the piece. */
static void store_entry(uint8_t *dst, struct pass *pass, size_t bits)
{
    const int32_t *dc = pass->stream.dc;
    uint64_t entry = pass_position(pass, bits);
    for (int c = 0; c < JPEG_MAX_COMPONENTS; c++)
        entry |= ((uint64_t)(uint32_t)dc[c] & 0xfff) << (POSITION_BITS + 12 * c);
    bytes_put(dst, entry, 8);
}

/* Adds up the DC differences of an MCU that is all in the survey. False: out of range. */
static bool sum_mcu(struct pass *pass, const struct survey_block *block)
{
    const struct jpeg_header *header = pass->header;
    for (uint32_t c = 0; c < header->component_count; c++) {
        const struct jpeg_component *component = &header->component[c];
        for (int i = 0; i < component->h * component->v; i++, block++) {
            int32_t value = pass->stream.dc[c] += block->dc;
            if (value < -MAX_PREDICTOR || value > MAX_PREDICTOR ||
                !in_range(value, pass->limit[c][0]))
                return false;
        }
    }
    return true;
}

/* read_scan() without looking at every symbol. False: it is for read_scan() to say what is wrong,
 * if anything. */
static bool survey_scan(struct pass *pass, struct survey *survey, const struct huffman_set *tables,
                        uint8_t *dst, uint32_t mcus)
{
    const struct jpeg_header *header = pass->header;
    pass_load(pass, 0);
    if (!survey_run(survey, header, tables, pass->ops, pass->limit, pass->piece,
                    pass->piece_bytes) ||
        (survey->end_bit + 7) / 8 != pass->piece_bytes || !pass_at_marker(pass, MARKER_EOI))
        return false;
    const struct survey_block *block = survey->blocks;
    for (uint32_t row = 0; row < header->mcus_down; row++) {
        uint32_t until_entry = 1;
        for (uint32_t x = 0; x < header->mcus_across; x++, block += header->blocks_per_mcu) {
            if (--until_entry == 0) {
                store_entry(dst, pass, block->bit);
                dst += JPEG_INDEX_ENTRY_BYTES;
                until_entry = mcus;
            }
            if (!sum_mcu(pass, block))
                return false;
        }
    }
    return true;
}

/* All MCUs; entries go to dst, one in front of every mcus-th MCU of a row. */
static enum jpeg_refusal read_scan(struct pass *pass, const struct huffman_set *tables,
                                   uint8_t *dst, uint32_t mcus)
{
    const struct jpeg_header *header = pass->header;
    uint32_t mcu = 0;
    pass_load(pass, 0);
    for (uint32_t row = 0; row < header->mcus_down; row++) {
        for (uint32_t x = 0; x < header->mcus_across; x++, mcu++) {
            enum jpeg_refusal refusal = read_restart(pass, mcu);
            if (refusal)
                return refusal;
            if (x % mcus == 0) {
                store_entry(dst, pass, entropy_position(&pass->stream, pass->piece));
                dst += JPEG_INDEX_ENTRY_BYTES;
            }
            refusal = read_mcu(pass, tables);
            if (refusal)
                return refusal;
        }
    }
    return pass_at_piece_end(pass) && pass_at_marker(pass, MARKER_EOI) ? JPEG_TAKEN : JPEG_ENTROPY;
}

int jpeg_index_build(struct jpeg_indexer *indexer, const uint8_t **index, size_t *index_bytes,
                     enum jpeg_refusal *refusal, const uint8_t *jpeg, size_t jpeg_bytes,
                     uint32_t mcus)
{
    struct jpeg_header *header = &indexer->header;
    *refusal = jpeg_header_parse(header, jpeg, jpeg_bytes);
    if (!*refusal)
        *refusal = huffman_set_load(&indexer->tables, header);
    if (*refusal)
        return 0;
    size_t scan_bytes = jpeg_bytes - header->scan_offset;
    if (mcus > JPEG_INDEX_MAX_MCUS)
        return err_set(ERR_ARG, "a side index has an entry every 1 to %d MCUs, not every %u",
                       JPEG_INDEX_MAX_MCUS, mcus);
    uint32_t step = mcus == 0 || mcus > header->mcus_across ? header->mcus_across : mcus;
    uint32_t entries = (header->mcus_across + step - 1) / step * header->mcus_down;
    size_t total = JPEG_INDEX_HEADER_BYTES + (size_t)entries * JPEG_INDEX_ENTRY_BYTES;
    int code =
        reserve(&indexer->bytes, &indexer->bytes_capacity, scan_bytes + ENTROPY_OVERRUN_BYTES);
    if (!code)
        code = reserve(&indexer->index, &indexer->index_capacity, total);
    if (code)
        return code;

    struct pass pass = {.header = header,
                        .ops = indexer->ops,
                        .scan = jpeg + header->scan_offset,
                        .scan_bytes = scan_bytes,
                        .piece = indexer->bytes};
    for (uint32_t c = 0; c < header->component_count; c++)
        limits_of(pass.limit[c], header->quant[header->component[c].quant]);
    uint8_t *dst = indexer->index + JPEG_INDEX_HEADER_BYTES;
    if (indexer->plain || !survey_scan(&pass, &indexer->survey, &indexer->tables, dst, step))
        *refusal = read_scan(&pass, &indexer->tables, dst, step);
    if (!*refusal && pass.piece_end > MAX_SCAN_BYTES)
        *refusal = JPEG_SIZE;
    if (*refusal)
        return 0;
    uint8_t *head = indexer->index;
    head[0] = JPEG_INDEX_VERSION;
    head[1] = 0;
    head[2] = (uint8_t)mcus;
    head[3] = (uint8_t)(mcus >> 8);
    bytes_put(head + 4, (uint32_t)header->scan_offset, 4);
    bytes_put(head + 8, (uint32_t)pass.piece_end, 4);
    bytes_put(head + 12, entries, 4);
    *index = indexer->index;
    *index_bytes = total;
    return 0;
}

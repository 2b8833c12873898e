/* SPDX-License-Identifier: Apache-2.0 */
/* Tables of several symbols, and how the two lanes are made one. */
#include "loader/jpeg/jpeg_survey.h"

#include <stdlib.h>
#include <string.h>

#include "loader/jpeg/jpeg_entropy.h"

enum {
    MOST_ADVANCE = 63,    /* of one entry's symbols: a block has no more places */
    RESTARTS = 64,        /* of the second lane */
    LEAST_BYTES = 1024,   /* less is not worth the trouble */
    MOST_BYTES = 1 << 25, /* positions in bits stay below 2^28 */
};

static const uint32_t RARE = (uint32_t)SURVEY_RARE_CLASS << SURVEY_CLASS_SHIFT;

static uint32_t bits_of(uint32_t entry)
{
    return entry & 0xff;
}

static uint32_t advance_of(uint32_t entry)
{
    return entry >> 8 & 0xff;
}

/* In an entry of one symbol: the length of its code. */
static uint32_t code_bits_of(uint32_t entry)
{
    return entry >> 16 & 0xff;
}

/* The symbol at the start of each window. */
static void fill_single(uint32_t single[1 << SURVEY_BITS], const struct jpeg_huffman_spec *spec)
{
    uint32_t code = 0, index = 0;
    for (uint32_t i = 0; i < 1 << SURVEY_BITS; i++)
        single[i] = RARE;
    for (uint32_t length = 1; length <= SURVEY_BITS; length++, code <<= 1) {
        for (uint32_t i = 0; i < spec->counts[length - 1]; i++, code++, index++) {
            uint32_t symbol = spec->symbols[index], size = symbol & 15, run = symbol >> 4;
            if (length + size > SURVEY_ENTRY_BITS)
                continue;
            uint32_t advance = size || run == 15 ? run + 1 : SURVEY_END;
            uint32_t entry =
                (length + size) | advance << 8 | length << 16 | size << SURVEY_CLASS_SHIFT;
            uint32_t *first = &single[code << (SURVEY_BITS - length)];
            for (uint32_t window = 0; window < 1u << (SURVEY_BITS - length); window++)
                first[window] = entry;
        }
    }
}

/* As many symbols as a window shows the codes of. */
static uint32_t fill_up(const uint32_t single[1 << SURVEY_BITS], uint32_t window)
{
    uint32_t entry = single[window];
    while (entry < RARE && advance_of(entry) < SURVEY_END && bits_of(entry) < SURVEY_BITS) {
        /* Behind the window it reads zeros, on which a code that fits does not depend. */
        uint32_t next = single[window << bits_of(entry) & ((1 << SURVEY_BITS) - 1)];
        if (next >= RARE || bits_of(entry) + code_bits_of(next) > SURVEY_BITS ||
            bits_of(entry) + bits_of(next) > SURVEY_ENTRY_BITS ||
            (advance_of(next) < SURVEY_END && advance_of(entry) + advance_of(next) > MOST_ADVANCE))
            break;
        uint32_t size = next >> SURVEY_CLASS_SHIFT, largest = entry >> SURVEY_CLASS_SHIFT;
        entry += next & 0xffff;
        if (size > largest)
            entry += (size - largest) << SURVEY_CLASS_SHIFT;
    }
    return entry & ~0xff0000u;
}

static void load_symbols(struct survey *survey, uint32_t number,
                         const struct jpeg_huffman_spec *spec)
{
    struct survey_symbols *symbols = &survey->symbols[number];
    if (symbols->ready && memcmp(&symbols->spec, spec, sizeof *spec) == 0)
        return;
    fill_single(survey->single, spec);
    for (uint32_t window = 0; window < 1 << SURVEY_BITS; window++)
        symbols->entry[window] = fill_up(survey->single, window);
    symbols->spec = *spec;
    symbols->ready = true;
}

/* Entries below it have magnitudes that are within the limits wherever they stand. */
static uint32_t rare_from(const uint16_t limit[64])
{
    uint32_t least = INT16_MAX, size = 0;
    for (int i = 1; i < 64; i++)
        least = limit[i] < least ? limit[i] : least;
    while ((2u << size) - 1 <= least && size < SURVEY_RARE_CLASS - 1)
        size++;
    return (size + 1) << SURVEY_CLASS_SHIFT;
}

static void plan_parts(struct survey *survey, const struct jpeg_header *header,
                       const struct huffman_set *tables, uint16_t (*limit)[64])
{
    uint32_t count = 0;
    for (uint32_t c = 0; c < header->component_count; c++) {
        const struct jpeg_component *component = &header->component[c];
        uint32_t rare = rare_from(limit[c]);
        load_symbols(survey, component->ac, &header->ac[component->ac]);
        for (int i = 0; i < component->h * component->v; i++, count++)
            survey->parts[count] =
                (struct survey_part){.dc = &tables->dc[component->dc],
                                     .ac = &tables->ac[component->ac],
                                     .symbols = survey->symbols[component->ac].entry,
                                     .limit = limit[c],
                                     .rare = rare,
                                     .next = (count + 1) % header->blocks_per_mcu};
    }
}

static bool reserve(struct survey *survey, size_t blocks)
{
    if (blocks <= survey->room)
        return true;
    survey_free(survey);
    survey->blocks = malloc(blocks * sizeof *survey->blocks);
    survey->ahead = malloc(blocks * sizeof *survey->ahead);
    if (!survey->blocks || !survey->ahead) {
        survey_free(survey);
        return false;
    }
    survey->room = blocks;
    return true;
}

void survey_free(struct survey *survey)
{
    free(survey->blocks);
    free(survey->ahead);
    survey->blocks = survey->ahead = NULL;
    survey->room = 0;
}

static uint32_t found(const struct survey_lane *lane)
{
    return (uint32_t)(lane->block - lane->first);
}

/* Goes on with the first lane until it stands where the second has been, at that record. False: it
 * never does; it has gone to its end. */
static bool join(uint32_t *record, struct survey_lane *first, const struct survey_lane *second,
                 uint32_t blocks_per_mcu, uint32_t last_bit, const struct jpeg_ops *ops)
{
    const struct survey_block *ahead = second->first;
    uint32_t at = 0, known = second->failed ? 0 : found(second);
    while (!first->failed && first->block < first->end) {
        while (at < known && ahead[at].bit < first->bit)
            at++;
        if (at < known && ahead[at].bit == first->bit && at % blocks_per_mcu == first->part) {
            *record = at;
            return true;
        }
        first->stop_bit = at < known ? first->bit + 1 : last_bit;
        if (first->bit >= first->stop_bit)
            break;
        ops->survey_one(first);
    }
    return false;
}

/* Lets the second lane find the last blocks, and gives all that the first lacks to it. False: they
 * are not as many. */
static bool merge(struct survey_lane *first, struct survey_lane *second, uint32_t record,
                  uint32_t last_bit, const struct jpeg_ops *ops)
{
    size_t lacking = (size_t)(first->end - first->block);
    size_t room = (size_t)(second->end - second->first);
    if (record + lacking < found(second) || record + lacking > room)
        return false;
    second->end = second->first + record + lacking;
    second->stop_bit = last_bit;
    second->restarts = 0;
    if (second->block < second->end)
        ops->survey_one(second);
    if (second->failed || second->block < second->end)
        return false;
    memcpy(first->block, second->first + record, lacking * sizeof *first->block);
    first->block = first->end;
    first->bit = second->bit;
    return true;
}

static bool run_lanes(struct survey *survey, const uint8_t *piece, uint32_t last_bit,
                      uint32_t blocks, const struct jpeg_ops *ops)
{
    uint32_t middle = last_bit / 16 * 8, record;
    struct survey_lane first = {.bytes = piece,
                                .stop_bit = middle,
                                .parts = survey->parts,
                                .first = survey->blocks,
                                .block = survey->blocks,
                                .end = survey->blocks + blocks};
    struct survey_lane second = {.bytes = piece,
                                 .bit = middle,
                                 .stop_bit = last_bit - 7, /* where padding may begin */
                                 .parts = survey->parts,
                                 .first = survey->ahead,
                                 .block = survey->ahead,
                                 .end = survey->ahead + survey->room,
                                 .restarts = RESTARTS};
    ops->survey_two(&first, &second);
    if (join(&record, &first, &second, survey->blocks_per_mcu, last_bit, ops)) {
        survey->from_second = (uint32_t)(first.end - first.block);
        if (!merge(&first, &second, record, last_bit, ops))
            return false;
    }
    survey->end_bit = first.bit;
    return !first.failed && first.block == first.end;
}

bool survey_run(struct survey *survey, const struct jpeg_header *header,
                const struct huffman_set *tables, const struct jpeg_ops *ops, uint16_t (*limit)[64],
                const uint8_t *piece, size_t piece_bytes)
{
    uint64_t blocks = (uint64_t)header->mcus_across * header->mcus_down * header->blocks_per_mcu;
    if (header->restart_interval || blocks > SURVEY_MAX_BLOCKS || piece_bytes < LEAST_BYTES ||
        piece_bytes > MOST_BYTES || !reserve(survey, blocks))
        return false;
    survey->from_second = 0;
    survey->blocks_per_mcu = header->blocks_per_mcu;
    plan_parts(survey, header, tables, limit);
    return run_lanes(survey, piece, (uint32_t)piece_bytes * 8, (uint32_t)blocks, ops);
}

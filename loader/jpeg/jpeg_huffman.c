/* SPDX-License-Identifier: Apache-2.0 */
/* Builds the lookup tables; resolves the few symbols that do not fit into them. */
#include "loader/jpeg/jpeg_huffman.h"

#include <string.h>

#include "loader/jpeg/jpeg_entropy.h"

static uint32_t size_of(const struct huffman *table, uint8_t symbol)
{
    return table->dc ? symbol : symbol & 15u;
}

static uint32_t advance_of(const struct huffman *table, uint8_t symbol)
{
    if (table->dc)
        return 0;
    if ((symbol & 15) == 0) /* libjpeg takes every run but 15 as an end of block */
        return symbol >> 4 == 15 ? HUFFMAN_ZERO_RUN : HUFFMAN_END;
    return (uint32_t)(symbol >> 4) + 1;
}

static uint32_t entry_of(uint32_t length, uint32_t advance, uint32_t value)
{
    return length | advance << 8 | value << 16;
}

static uint32_t long_entry(uint32_t length, uint32_t size, uint32_t advance)
{
    return length << 24 | size << 16 | advance << 8;
}

/* Fills the entries of all windows that begin with this code. */
static void fill_code(struct huffman *table, uint32_t code, uint32_t length, uint8_t symbol)
{
    uint32_t size = size_of(table, symbol), advance = advance_of(table, symbol);
    uint32_t count = 1u << (HUFFMAN_BITS - length), *entry = &table->fast[code * count];
    if (length + size > HUFFMAN_BITS) {
        for (uint32_t i = 0; i < count; i++)
            entry[i] = long_entry(length, size, advance);
        return;
    }
    /* T.81 F.2.2.1, EXTEND: size bits as a signed magnitude. */
    uint32_t rest = HUFFMAN_BITS - length - size, all = (1u << size) - 1, positive = all / 2 + 1;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t bits = i >> rest;
        entry[i] = entry_of(length + size, advance, bits < positive ? bits - all : bits);
    }
}

static void fill_tile_order(struct huffman *table)
{
    memset(table->tile_order, 0, sizeof table->tile_order);
    for (int k = 0; k < 64; k++) {
        uint8_t at = jpeg_header_natural_order[k];
        uint8_t place = (uint8_t)((at >> 3) * ENTROPY_TILE_ROW + (at & 7));
        table->tile_order[k + 1] = place;
        table->tile_order[k + HUFFMAN_END] = place;
    }
}

/* False when the lengths do not make a prefix code or a DC symbol is above 15. */
static bool build(struct huffman *table, const struct jpeg_huffman_spec *spec, bool dc)
{
    uint32_t code = 0, index = 0;
    memset(table->fast, 0, sizeof table->fast);
    memcpy(table->symbols, spec->symbols, sizeof table->symbols);
    fill_tile_order(table);
    table->dc = dc;
    for (uint32_t length = 1; length <= 16; length++, code <<= 1) {
        uint32_t count = spec->counts[length - 1];
        if (index + count > 256 || (count && code + count >= 1u << length))
            return false; /* too many codes; one of all ones is not allowed (T.81 C.2) */
        table->first[length] = (int32_t)index - (int32_t)code;
        for (uint32_t i = 0; i < count; i++, code++, index++) {
            uint8_t symbol = spec->symbols[index];
            if (dc && symbol > 15)
                return false;
            if (length <= HUFFMAN_BITS)
                fill_code(table, code, length, symbol);
        }
        table->limit[length] = code << (16 - length);
    }
    return true;
}

uint32_t huffman_slow(const struct huffman *table, uint64_t window)
{
    uint32_t code = (uint32_t)(window >> 48), length = HUFFMAN_BITS + 1;
    while (length <= 16 && code >= table->limit[length])
        length++;
    if (length > 16)
        return entry_of(0, table->dc ? 0 : HUFFMAN_END, 0);
    int32_t index = (int32_t)(code >> (16 - length)) + table->first[length];
    uint8_t symbol = table->symbols[index & 255];
    return huffman_long(long_entry(length, size_of(table, symbol), advance_of(table, symbol)),
                        window);
}

static bool load(struct huffman *table, struct jpeg_huffman_spec *known, bool *ready,
                 const struct jpeg_huffman_spec *spec, bool dc)
{
    if (*ready && memcmp(known, spec, sizeof *spec) == 0)
        return true;
    *ready = build(table, spec, dc);
    *known = *spec;
    return *ready;
}

enum jpeg_refusal huffman_set_load(struct huffman_set *set, const struct jpeg_header *header)
{
    for (uint32_t c = 0; c < header->component_count; c++) {
        uint32_t dc = header->component[c].dc, ac = header->component[c].ac;
        if (!load(&set->dc[dc], &set->dc_spec[dc], &set->dc_ready[dc], &header->dc[dc], true) ||
            !load(&set->ac[ac], &set->ac_spec[ac], &set->ac_ready[ac], &header->ac[ac], false))
            return JPEG_DAMAGED;
    }
    return JPEG_TAKEN;
}

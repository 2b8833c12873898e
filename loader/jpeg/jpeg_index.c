/* SPDX-License-Identifier: Apache-2.0 */
/* Reads a side index. */
#include "loader/jpeg/jpeg_index.h"

#include "common/err.h"

static uint32_t le32(const uint8_t *bytes)
{
    return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

static int32_t predictor(uint64_t entry, int shift)
{
    return (int32_t)((int64_t)(entry << (64 - 12 - shift)) >> (64 - 12));
}

int jpeg_index_open(struct jpeg_index *index, const uint8_t *bytes, size_t count,
                    const struct jpeg_header *header, size_t jpeg_bytes)
{
    if (count < JPEG_INDEX_HEADER_BYTES || bytes[0] != JPEG_INDEX_VERSION || bytes[1] != 0)
        return err_set(ERR_DATA, "the JPEG's side index is of another version or cut off");
    uint32_t mcus = bytes[2] | (uint32_t)bytes[3] << 8;
    if (mcus == 0 || mcus > header->mcus_across)
        mcus = header->mcus_across;
    uint32_t per_row = (header->mcus_across + mcus - 1) / mcus;
    uint64_t entries = (uint64_t)per_row * header->mcus_down;
    uint32_t scan_bytes = le32(bytes + 8);
    if (le32(bytes + 4) != header->scan_offset || header->scan_offset > jpeg_bytes ||
        scan_bytes > jpeg_bytes - header->scan_offset || le32(bytes + 12) != entries ||
        count != JPEG_INDEX_HEADER_BYTES + entries * JPEG_INDEX_ENTRY_BYTES)
        return err_set(ERR_DATA, "the JPEG's side index belongs to another image");
    *index = (struct jpeg_index){
        .entries = bytes + JPEG_INDEX_HEADER_BYTES,
        .entry_count = (uint32_t)entries,
        .mcus_per_entry = mcus,
        .entries_per_row = per_row,
        .scan_bytes = scan_bytes,
    };
    return 0;
}

struct jpeg_index_entry jpeg_index_entry(const struct jpeg_index *index, uint32_t number)
{
    const uint8_t *bytes = index->entries + (size_t)number * JPEG_INDEX_ENTRY_BYTES;
    uint64_t entry = le32(bytes) | (uint64_t)le32(bytes + 4) << 32;
    return (struct jpeg_index_entry){
        .bit = (uint32_t)(entry & 0xfffffff),
        .dc = {predictor(entry, 28), predictor(entry, 40), predictor(entry, 52)},
    };
}

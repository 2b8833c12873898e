/* SPDX-License-Identifier: Apache-2.0 */
#include "datasets/partial.h"

#include <stdlib.h>
#include <string.h>

#include "common/bytes.h"
#include "common/err.h"
#include "common/hash.h"

/* Offsets; all numbers are little-endian. */
enum {
    AT_CHECKSUM = 8, /* u64: XXH3-64 of everything behind it */
    AT_TAG = 16,     /* u64 */
    AT_NEXT = 24,    /* u64 */
    AT_COUNT = 32,   /* u32 */
    AT_SKIPPED = 36, /* u32: how many follow */
    HEADER_BYTES = 40,
};

static const char magic[8] = {'S', 'A', 'T', 'P', 'A', 'R', 'T', '\0'};

size_t partial_bytes(const struct partial *partial)
{
    return HEADER_BYTES + 4 * (size_t)partial->skipped_count;
}

void partial_encode(uint8_t *dst, const struct partial *partial)
{
    memcpy(dst, magic, sizeof magic);
    bytes_put(dst + AT_TAG, partial->tag, 8);
    bytes_put(dst + AT_NEXT, partial->next, 8);
    bytes_put(dst + AT_COUNT, partial->count, 4);
    bytes_put(dst + AT_SKIPPED, partial->skipped_count, 4);
    for (uint32_t i = 0; i < partial->skipped_count; i++)
        bytes_put(dst + HEADER_BYTES + 4 * (size_t)i, partial->skipped[i], 4);
    bytes_put(dst + AT_CHECKSUM, hash64_of(dst + AT_TAG, partial_bytes(partial) - AT_TAG), 8);
}

bool partial_is_name(const char *path)
{
    static const char end[] = ".partial";
    size_t length = strlen(path);
    return length >= sizeof end - 1 && strcmp(path + length - (sizeof end - 1), end) == 0;
}

bool partial_is(const uint8_t *data, size_t bytes)
{
    return bytes >= sizeof magic && memcmp(data, magic, sizeof magic) == 0;
}

int partial_decode(struct partial *partial, const uint8_t *data, size_t bytes)
{
    *partial = (struct partial){0};
    if (bytes < HEADER_BYTES || !partial_is(data, bytes) ||
        bytes_get(data + AT_CHECKSUM, 8) != hash64_of(data + AT_TAG, bytes - AT_TAG))
        return err_set(ERR_DATA, "the record of how far packing came is damaged");
    uint32_t skipped = (uint32_t)bytes_get(data + AT_SKIPPED, 4);
    partial->tag = bytes_get(data + AT_TAG, 8);
    partial->next = bytes_get(data + AT_NEXT, 8);
    partial->count = (uint32_t)bytes_get(data + AT_COUNT, 4);
    if ((bytes - HEADER_BYTES) % 4 || (bytes - HEADER_BYTES) / 4 != skipped ||
        partial->next != (uint64_t)partial->count + skipped)
        return err_set(ERR_DATA, "the record of how far packing came does not add up");
    partial->skipped = calloc((size_t)skipped + 1, sizeof *partial->skipped);
    if (!partial->skipped)
        return err_set(ERR_NOMEM, "out of memory");
    for (; partial->skipped_count < skipped; partial->skipped_count++)
        partial->skipped[partial->skipped_count] =
            (uint32_t)bytes_get(data + HEADER_BYTES + 4 * (size_t)partial->skipped_count, 4);
    return 0;
}

void partial_release(struct partial *partial)
{
    free(partial->skipped);
    *partial = (struct partial){0};
}

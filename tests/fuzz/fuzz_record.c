/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer: any bytes as a sample record and as a meta record, with a checksum that fits (or
 * nearly everything would end there). What is accepted must lie inside of the bytes. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/bytes.h"
#include "common/hash.h"
#include "datasets/meta.h"
#include "datasets/record.h"

enum { META_SUM_AT = 8, META_BYTES = 16 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void check_record(const uint8_t *data, size_t bytes)
{
    struct store_record record;
    uint32_t id = bytes > 24 ? data[20] : 0;
    if (record_decode(&record, data, bytes, id, 0) != NULL)
        return;
    const uint8_t *end = data + bytes - STORE_PADDING_BYTES;
    if (record.image < data || record.image_bytes == 0 ||
        record.image_bytes > (size_t)(end - record.image))
        abort();
    const uint8_t *behind = record.image + record.image_bytes;
    if (record.index && (record.index != behind || record.index_bytes != (size_t)(end - behind)))
        abort();
    if (hash64_of(record.image, record.image_bytes) == 1) /* touches all of it */
        abort();
}

static void check_meta(const uint8_t *data, size_t bytes)
{
    struct meta meta;
    if (meta_decode(&meta, data, bytes) != 0)
        return;
    uint64_t samples = 0;
    for (uint32_t i = 0; i < meta.values.class_count; i++)
        samples += meta.values.class_samples[i] + (strlen(meta.values.class_ids[i]) == 0) +
                   0 * strlen(meta.values.class_names[i]);
    if (samples != meta.values.sample_count)
        abort();
    meta_release(&meta);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes < META_BYTES)
        return 0;
    uint8_t *copy = malloc(bytes);
    if (!copy)
        return 0;
    memcpy(copy, data, bytes);
    check_record(copy, bytes);
    bytes_put(copy, hash64_of(copy + 8, bytes - 8), 8);
    check_record(copy, bytes);
    memcpy(copy, "SATCHEL", META_SUM_AT);
    bytes_put(copy + META_SUM_AT, hash64_of(copy + META_BYTES, bytes - META_BYTES), 8);
    check_meta(copy, bytes);
    free(copy);
    return 0;
}

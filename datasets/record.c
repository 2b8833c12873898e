/* SPDX-License-Identifier: Apache-2.0 */
/* Sample records to bytes and back. */
#include "datasets/record.h"

#include <string.h>

#include "common/bytes.h"
#include "common/hash.h"

/* Offsets of the header's fields; all are little-endian. */
enum {
    AT_CHECKSUM = 0,     /* u64: XXH3-64 of everything behind it */
    AT_TAG = 8,          /* u64 */
    AT_MAGIC = 16,       /* u32 */
    AT_ID = 20,          /* u32 */
    AT_LABEL = 24,       /* u32 */
    AT_WIDTH = 28,       /* u16 */
    AT_HEIGHT = 30,      /* u16 */
    AT_ENCODING = 32,    /* u8 */
    AT_CHANNELS = 33,    /* u8 */
    AT_FLAGS = 34,       /* u16, 0 */
    AT_IMAGE_BYTES = 36, /* u32 */
    AT_INDEX_BYTES = 40, /* u32 */
    AT_RESERVED = 44,    /* u32, 0 */
};

static const uint32_t magic = 0x4c504d53; /* "SMPL" */

size_t record_bytes(const struct store_sample *sample)
{
    return RECORD_HEADER_BYTES + sample->image_bytes + sample->index_bytes + STORE_PADDING_BYTES;
}

/* What writer and reader demand alike. */
static const char *check_fields(uint64_t width, uint64_t height, unsigned encoding,
                                unsigned channels, uint64_t image_bytes, uint64_t index_bytes)
{
    const uint64_t room =
        (uint64_t)STORE_RECORD_BYTES_MAX - RECORD_HEADER_BYTES - STORE_PADDING_BYTES;
    if (width < 1 || height < 1 || width > UINT16_MAX || height > UINT16_MAX)
        return "width and height must be 1 to 65535 px";
    if (encoding != STORE_JPEG && encoding != STORE_RAW)
        return "unknown encoding";
    if (channels != 1 && channels != 3)
        return "channels must be 1 or 3";
    if (image_bytes < 1)
        return "empty image";
    if (image_bytes > room || index_bytes > room - image_bytes)
        return "larger than a record's 64 MiB";
    if (encoding == STORE_RAW && image_bytes != width * height * channels)
        return "raw image whose size is not channels x height x width";
    return NULL;
}

const char *record_refuse(const struct store_sample *sample)
{
    return check_fields(sample->width, sample->height, sample->encoding, sample->channels,
                        sample->image_bytes, sample->index_bytes);
}

void record_encode(uint8_t *dst, const struct store_sample *sample, uint32_t id, uint64_t tag)
{
    uint8_t *payload = dst + RECORD_HEADER_BYTES;
    memset(dst, 0, RECORD_HEADER_BYTES);
    bytes_put(dst + AT_TAG, tag, 8);
    bytes_put(dst + AT_MAGIC, magic, 4);
    bytes_put(dst + AT_ID, id, 4);
    bytes_put(dst + AT_LABEL, sample->label, 4);
    bytes_put(dst + AT_WIDTH, sample->width, 2);
    bytes_put(dst + AT_HEIGHT, sample->height, 2);
    bytes_put(dst + AT_ENCODING, sample->encoding, 1);
    bytes_put(dst + AT_CHANNELS, sample->channels, 1);
    bytes_put(dst + AT_IMAGE_BYTES, sample->image_bytes, 4);
    bytes_put(dst + AT_INDEX_BYTES, sample->index_bytes, 4);
    memcpy(payload, sample->image, sample->image_bytes);
    if (sample->index_bytes)
        memcpy(payload + sample->image_bytes, sample->index, sample->index_bytes);
    memset(payload + sample->image_bytes + sample->index_bytes, 0, STORE_PADDING_BYTES);
    bytes_put(dst + AT_CHECKSUM, hash64_of(dst + AT_TAG, record_bytes(sample) - AT_TAG), 8);
}

const char *record_decode(struct store_record *record, const uint8_t *data, size_t bytes,
                          uint32_t id, uint64_t tag)
{
    memset(record, 0, sizeof *record);
    record->label = UINT32_MAX;
    if (bytes < RECORD_HEADER_BYTES + STORE_PADDING_BYTES || bytes > STORE_RECORD_BYTES_MAX)
        return "size that no record has";
    record->id = (uint32_t)bytes_get(data + AT_ID, 4);
    record->label = (uint32_t)bytes_get(data + AT_LABEL, 4);
    if (bytes_get(data + AT_CHECKSUM, 8) != hash64_of(data + AT_TAG, bytes - AT_TAG))
        return "checksum does not match";
    if (bytes_get(data + AT_MAGIC, 4) != magic)
        return "not a sample record";
    if (bytes_get(data + AT_TAG, 8) != tag)
        return "record of another store";
    if (record->id != id)
        return "record of another id";
    record->width = (uint32_t)bytes_get(data + AT_WIDTH, 2);
    record->height = (uint32_t)bytes_get(data + AT_HEIGHT, 2);
    record->encoding = (enum store_encoding)data[AT_ENCODING];
    record->channels = data[AT_CHANNELS];
    record->image_bytes = bytes_get(data + AT_IMAGE_BYTES, 4);
    record->index_bytes = bytes_get(data + AT_INDEX_BYTES, 4);
    const char *reason = check_fields(record->width, record->height, record->encoding,
                                      record->channels, record->image_bytes, record->index_bytes);
    if (reason)
        return reason;
    if (bytes_get(data + AT_FLAGS, 2) != 0 || bytes_get(data + AT_RESERVED, 4) != 0)
        return "flags of a newer version";
    if (RECORD_HEADER_BYTES + record->image_bytes + record->index_bytes + STORE_PADDING_BYTES !=
        bytes)
        return "size does not match its header";
    record->image = data + RECORD_HEADER_BYTES;
    record->index = record->index_bytes ? record->image + record->image_bytes : NULL;
    return NULL;
}

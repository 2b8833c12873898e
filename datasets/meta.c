/* SPDX-License-Identifier: Apache-2.0 */
/* The meta record. protobuf-c allocates at most about 40 times the record's bytes (for empty
 * strings), and the record is bounded: hostile bytes take 600 MiB at most, for a moment. */
#include "datasets/meta.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/bytes.h"
#include "common/err.h"
#include "common/hash.h"
#include "datasets/store.pb-c.h"

enum {
    PREFIX_BYTES = 16, /* magic, then XXH3-64 of the protobuf bytes, little-endian */
    FINGERPRINT_BYTES = 16,
};

static const char magic[8] = {'S', 'A', 'T', 'C', 'H', 'E', 'L', '\0'};

/* UTF-8 as protobuf demands of strings (RFC 3629: shortest form, no surrogates), and no control
 * characters, which would forge lines where ids are printed. */
bool meta_text_is_clean(const char *text)
{
    const uint8_t *at = (const uint8_t *)text;
    while (*at) {
        int more = *at < 0x80       ? 0
                   : *at >> 5 == 6  ? 1
                   : *at >> 4 == 14 ? 2
                   : *at >> 3 == 30 ? 3
                                    : -1;
        if (more < 0 || *at < 0x20 || *at == 0x7f)
            return false;
        uint32_t code = more ? *at & (0x3f >> more) : *at;
        for (int i = 1; i <= more; i++) {
            if (at[i] >> 6 != 2)
                return false;
            code = code << 6 | (at[i] & 0x3f);
        }
        static const uint32_t least[4] = {0, 0x80, 0x800, 0x10000};
        if (code < least[more] || (code >= 0xd800 && code < 0xe000) || code > 0x10ffff)
            return false;
        at += more + 1;
    }
    return true;
}

static const char *refuse_values(const struct store_meta *meta)
{
    if (meta->sample_count == 0)
        return "no samples";
    if (meta->sample_count == UINT32_MAX)
        return "too many samples";
    if (meta->class_count == 0)
        return "no classes";
    if (meta->class_count > STORE_CLASSES_MAX)
        return "more than 1048576 classes";
    if (meta->encoding != STORE_JPEG && meta->encoding != STORE_RAW)
        return "unknown encoding";
    if (meta->channels != 1 && meta->channels != 3)
        return "channels must be 1 or 3";
    if (meta->indexed > meta->sample_count)
        return "more side indexes than samples";
    uint64_t samples = 0;
    for (uint32_t i = 0; i < meta->class_count; i++) {
        samples += meta->class_samples[i];
        if (!*meta->class_ids[i])
            return "empty class id";
        if (!meta_text_is_clean(meta->class_ids[i]) ||
            (meta->class_names && !meta_text_is_clean(meta->class_names[i])))
            return "class id or name that is not UTF-8 or holds control characters";
    }
    if (samples != meta->sample_count)
        return "samples per class do not add up";
    if (!meta_text_is_clean(meta->split))
        return "split name that is not UTF-8 or holds control characters";
    if (!meta_text_is_clean(meta->packed_by))
        return "origin that is not UTF-8 or holds control characters";
    return NULL;
}

int meta_encode(uint8_t **data, size_t *bytes, const struct store_meta *meta, uint64_t tag)
{
    const char *reason = refuse_values(meta);
    if (reason)
        return err_set(ERR_ARG, "a store cannot hold this: %s", reason);
    Satchel__Store__Meta message = SATCHEL__STORE__META__INIT;
    uint8_t fingerprint[FINGERPRINT_BYTES];
    hash128_to_bytes(fingerprint, meta->fingerprint);
    message.format_version = META_FORMAT_VERSION;
    message.split = (char *)meta->split;
    message.n_class_ids = meta->class_count;
    message.class_ids = (char **)meta->class_ids;
    message.n_class_names = meta->class_names ? meta->class_count : 0;
    message.class_names = (char **)meta->class_names;
    message.sample_count = meta->sample_count;
    message.encoding = meta->encoding;
    message.channels = meta->channels;
    message.fingerprint = (ProtobufCBinaryData){FINGERPRINT_BYTES, fingerprint};
    message.indexed = (uint32_t)meta->indexed;
    message.packed_by = (char *)meta->packed_by;
    message.tag = tag;
    message.n_class_samples = meta->class_count;
    message.class_samples = (uint32_t *)meta->class_samples;
    size_t packed = satchel__store__meta__get_packed_size(&message);
    if (packed > META_BYTES_MAX - PREFIX_BYTES)
        return err_set(ERR_ARG, "class ids and names take %zu bytes, more than %d", packed,
                       META_BYTES_MAX - PREFIX_BYTES);
    uint8_t *record = malloc(PREFIX_BYTES + packed);
    if (!record)
        return err_set(ERR_NOMEM, "out of memory for the meta record");
    memcpy(record, magic, sizeof magic);
    satchel__store__meta__pack(&message, record + PREFIX_BYTES);
    uint64_t sum = hash64_of(record + PREFIX_BYTES, packed);
    bytes_put(record + sizeof magic, sum, 8);
    *data = record;
    *bytes = PREFIX_BYTES + packed;
    return 0;
}

/* Class names are left out by writers that know none. */
static int fill_names(Satchel__Store__Meta *message)
{
    if (message->n_class_names == message->n_class_ids)
        return 0;
    if (message->n_class_names != 0)
        return err_set(ERR_DATA, "meta record with %zu class names for %zu classes",
                       message->n_class_names, message->n_class_ids);
    message->class_names = calloc(message->n_class_ids, sizeof *message->class_names);
    if (!message->class_names)
        return err_set(ERR_NOMEM, "out of memory for class names");
    for (; message->n_class_names < message->n_class_ids; message->n_class_names++) {
        message->class_names[message->n_class_names] = strdup("");
        if (!message->class_names[message->n_class_names])
            return err_set(ERR_NOMEM, "out of memory for class names");
    }
    return 0;
}

static int check_frame(const uint8_t *data, size_t bytes)
{
    if (bytes < PREFIX_BYTES || bytes > META_BYTES_MAX || memcmp(data, magic, sizeof magic) != 0)
        return err_set(ERR_DATA, "the meta record is not one of a Satchel store");
    if (bytes_get(data + sizeof magic, 8) != hash64_of(data + PREFIX_BYTES, bytes - PREFIX_BYTES))
        return err_set(ERR_DATA, "the meta record is damaged: checksum does not match");
    return 0;
}

int meta_decode(struct meta *meta, const uint8_t *data, size_t bytes)
{
    memset(meta, 0, sizeof *meta);
    int code = check_frame(data, bytes);
    if (code)
        return code;
    Satchel__Store__Meta *message =
        satchel__store__meta__unpack(NULL, bytes - PREFIX_BYTES, data + PREFIX_BYTES);
    if (!message)
        return err_set(ERR_DATA, "the meta record cannot be decoded");
    meta->message = message;
    if (message->format_version != META_FORMAT_VERSION) {
        code = err_set(ERR_DATA, "store format %u, this program reads %d: pack it again",
                       message->format_version, META_FORMAT_VERSION);
        goto fail;
    }
    if (message->n_class_ids > STORE_CLASSES_MAX ||
        message->n_class_samples != message->n_class_ids ||
        message->fingerprint.len != FINGERPRINT_BYTES) {
        code = err_set(ERR_DATA, "meta record with impossible counts");
        goto fail;
    }
    code = fill_names(message);
    if (code)
        goto fail;
    meta->tag = message->tag;
    meta->values = (struct store_meta){
        .sample_count = message->sample_count,
        .class_count = (uint32_t)message->n_class_ids,
        .channels = message->channels,
        .encoding = (enum store_encoding)message->encoding,
        .fingerprint = hash128_from_bytes(message->fingerprint.data),
        .class_ids = (const char *const *)message->class_ids,
        .class_names = (const char *const *)message->class_names,
        .split = message->split,
        .packed_by = message->packed_by,
        .indexed = message->indexed,
        .class_samples = message->class_samples,
    };
    const char *reason = refuse_values(&meta->values);
    if (reason) {
        code = err_set(ERR_DATA, "meta record with impossible values: %s", reason);
        goto fail;
    }
    return 0;
fail:
    meta_release(meta);
    return code;
}

void meta_release(struct meta *meta)
{
    if (meta->message)
        satchel__store__meta__free_unpacked(meta->message, NULL);
    memset(meta, 0, sizeof *meta);
}

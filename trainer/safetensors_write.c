/* SPDX-License-Identifier: Apache-2.0 */
/* Writes safetensors files. */
#include "common/bytes.h"
#include "trainer/safetensors.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "common/err.h"
#include "common/file.h"
#include "common/hash.h"

enum { ALIGN = 8 }; /* the tensors' bytes begin at a multiple of it */

struct safetensors_writer {
    struct file_atomic *file;
    char *path;
    struct hash_stream *hash;
    size_t checksum_offset; /* of its digits in the file; 0: there is no metadata */
    uint64_t *sizes;        /* bytes of each entry */
    size_t entry_count, next;
};

static uint64_t entry_bytes(const struct safetensors_entry *entry)
{
    uint64_t bytes = entry->integers ? sizeof(int64_t) : sizeof(float);
    for (int i = 0; i < entry->rank; i++)
        bytes *= entry->shape[i];
    return bytes;
}

static int add_metadata(cJSON *header, const struct safetensors_pair *pairs, size_t count)
{
    cJSON *metadata = cJSON_AddObjectToObject(header, "__metadata__");
    if (!cJSON_AddStringToObject(metadata, SAFETENSORS_CHECKSUM_KEY, SAFETENSORS_CHECKSUM_ZERO))
        return -1;
    for (size_t i = 0; i < count; i++)
        if (!cJSON_AddStringToObject(metadata, pairs[i].key, pairs[i].value))
            return -1;
    return metadata ? 0 : -1;
}

static int add_entry(cJSON *header, const struct safetensors_entry *entry, uint64_t *offset)
{
    cJSON *item = cJSON_AddObjectToObject(header, entry->name);
    cJSON *dtype = cJSON_AddStringToObject(item, "dtype", entry->integers ? "I64" : "F32");
    cJSON *shape = cJSON_AddArrayToObject(item, "shape");
    cJSON *offsets = cJSON_AddArrayToObject(item, "data_offsets");
    if (!dtype || !shape || !offsets)
        return -1;
    for (int i = 0; i < entry->rank; i++)
        if (!cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)entry->shape[i])))
            return -1;
    uint64_t end = *offset + entry_bytes(entry);
    if (!cJSON_AddItemToArray(offsets, cJSON_CreateNumber((double)*offset)) ||
        !cJSON_AddItemToArray(offsets, cJSON_CreateNumber((double)end)))
        return -1;
    *offset = end;
    return 0;
}

/* The header's text; NULL when memory is out. cJSON_free. */
static char *header_text(const struct safetensors_entry *entries, size_t entry_count,
                         const struct safetensors_pair *pairs, size_t pair_count)
{
    cJSON *header = cJSON_CreateObject();
    uint64_t offset = 0;
    char *text = NULL;
    int code = pair_count ? add_metadata(header, pairs, pair_count) : 0;
    for (size_t i = 0; i < entry_count && !code; i++)
        code = add_entry(header, &entries[i], &offset);
    if (!code)
        text = cJSON_PrintUnformatted(header);
    cJSON_Delete(header);
    return text;
}

/* Errors of the stream are kept by it and found at commit. */
static void put(struct safetensors_writer *writer, const void *data, size_t bytes)
{
    fwrite(data, 1, bytes, file_atomic_stream(writer->file));
    hash_stream_add(writer->hash, data, bytes);
}

static void write_header(struct safetensors_writer *writer, const char *text)
{
    static const char spaces[ALIGN] = "        ";
    size_t bytes = strlen(text), padded = (bytes + ALIGN - 1) / ALIGN * ALIGN;
    uint8_t length[8];
    bytes_put(length, padded, 8);
    put(writer, length, sizeof length);
    put(writer, text, bytes);
    put(writer, spaces, padded - bytes);
    const char *checksum = strstr(text, SAFETENSORS_CHECKSUM_ZERO);
    writer->checksum_offset = checksum ? sizeof length + (size_t)(checksum - text) : 0;
}

int safetensors_write_open(struct safetensors_writer **out, const char *path,
                           const struct safetensors_entry *entries, size_t entry_count,
                           const struct safetensors_pair *pairs, size_t pair_count)
{
    *out = NULL;
    struct safetensors_writer *writer = calloc(1, sizeof *writer);
    char *text = header_text(entries, entry_count, pairs, pair_count);
    int code = 0;
    if (writer) {
        writer->sizes = calloc(entry_count ? entry_count : 1, sizeof *writer->sizes);
        writer->hash = hash_stream_open();
        writer->path = strdup(path);
    }
    if (!writer || !writer->path || !writer->sizes || !writer->hash || !text)
        code = err_set(ERR_NOMEM, "out of memory for writing '%s'", path);
    if (!code)
        code = file_atomic_open(&writer->file, path);
    if (code) {
        cJSON_free(text);
        safetensors_write_discard(writer);
        return code;
    }
    writer->entry_count = entry_count;
    for (size_t i = 0; i < entry_count; i++)
        writer->sizes[i] = entry_bytes(&entries[i]);
    write_header(writer, text);
    cJSON_free(text);
    *out = writer;
    return 0;
}

int safetensors_write_next(struct safetensors_writer *writer, const void *src)
{
    if (writer->next == writer->entry_count)
        return err_set(ERR_INTERNAL, "more tensors than the header has");
    size_t bytes = (size_t)writer->sizes[writer->next++];
    if (bytes > 0)
        put(writer, src, bytes);
    return 0;
}

/* Over the zeros that stood for it. */
static int write_checksum(struct safetensors_writer *writer)
{
    char text[33];
    FILE *stream = file_atomic_stream(writer->file);
    if (!writer->checksum_offset)
        return 0;
    if (fseeko(stream, (off_t)writer->checksum_offset, SEEK_SET) != 0)
        return err_set(ERR_IO, "cannot write '%s': %s", writer->path, strerror(errno));
    hash128_to_text(text, hash_stream_end(writer->hash));
    fwrite(text, 1, 32, stream);
    return 0;
}

int safetensors_write_commit(struct safetensors_writer *writer)
{
    if (writer->next != writer->entry_count) {
        safetensors_write_discard(writer);
        return err_set(ERR_INTERNAL, "fewer tensors than the header has");
    }
    int code = write_checksum(writer);
    if (!code) {
        code = file_atomic_commit(writer->file);
        writer->file = NULL;
    }
    safetensors_write_discard(writer);
    return code;
}

void safetensors_write_discard(struct safetensors_writer *writer)
{
    if (!writer)
        return;
    if (writer->file)
        file_atomic_discard(writer->file);
    hash_stream_close(writer->hash);
    free(writer->sizes);
    free(writer->path);
    free(writer);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Reads safetensors files. */
#include "trainer/safetensors.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "common/err.h"
#include "common/file.h"
#include "common/half.h"
#include "common/hash.h"

enum { LENGTH_BYTES = 8, READ_BYTES = 1 << 16, VERIFY_BYTES = 1 << 20 };

struct safetensors {
    int fd;
    char *path;
    cJSON *header;
    uint64_t data_offset, data_bytes;
    struct safetensors_tensor *tensors; /* sorted by name */
    size_t count;
};

static const struct {
    const char *name;
    enum safetensors_dtype dtype;
    unsigned bytes;
} dtypes[] = {
    {"F32", SAFETENSORS_F32, 4},       {"F16", SAFETENSORS_F16, 2},
    {"BF16", SAFETENSORS_BF16, 2},     {"F64", SAFETENSORS_F64, 8},
    {"I64", SAFETENSORS_OTHER, 8},     {"I32", SAFETENSORS_OTHER, 4},
    {"I16", SAFETENSORS_OTHER, 2},     {"I8", SAFETENSORS_OTHER, 1},
    {"U64", SAFETENSORS_OTHER, 8},     {"U32", SAFETENSORS_OTHER, 4},
    {"U16", SAFETENSORS_OTHER, 2},     {"U8", SAFETENSORS_OTHER, 1},
    {"BOOL", SAFETENSORS_OTHER, 1},    {"F8_E5M2", SAFETENSORS_OTHER, 1},
    {"F8_E4M3", SAFETENSORS_OTHER, 1},
};
enum { DTYPES = sizeof dtypes / sizeof dtypes[0] };

/* One line that names the file and the tensor. */
static int bad_tensor(const struct safetensors *file, const char *name, const char *reason)
{
    return err_set(ERR_DATA, "'%s': tensor '%.80s': %s", file->path, name, reason);
}

static int read_at(const struct safetensors *file, void *dst, size_t bytes, uint64_t offset)
{
    char *at = dst;
    while (bytes > 0) {
        ssize_t got = pread(file->fd, at, bytes, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_set(ERR_IO, "cannot read '%s': %s", file->path, strerror(errno));
        if (got == 0)
            return err_set(ERR_DATA, "'%s' ends early: it was cut while it was read", file->path);
        at += got;
        offset += (uint64_t)got;
        bytes -= (size_t)got;
    }
    return 0;
}

static uint64_t little_endian64(const uint8_t src[LENGTH_BYTES])
{
    uint64_t value = 0;
    for (int i = LENGTH_BYTES - 1; i >= 0; i--)
        value = value << 8 | src[i];
    return value;
}

/* A JSON number as an integer; they are doubles, exact up to 2^53. */
static bool as_integer(uint64_t *dst, const cJSON *number)
{
    if (!cJSON_IsNumber(number))
        return false;
    double value = number->valuedouble;
    if (!(value >= 0 && value <= 0x1p53) || value != floor(value))
        return false;
    *dst = (uint64_t)value;
    return true;
}

static int parse_dtype(struct safetensors_tensor *tensor, unsigned *element_bytes,
                       const struct safetensors *file, const cJSON *item)
{
    const cJSON *dtype = cJSON_GetObjectItemCaseSensitive(item, "dtype");
    if (!cJSON_IsString(dtype))
        return bad_tensor(file, tensor->name, "no dtype");
    for (int i = 0; i < DTYPES; i++) {
        if (strcmp(dtype->valuestring, dtypes[i].name) == 0) {
            tensor->dtype = dtypes[i].dtype;
            tensor->dtype_name = dtypes[i].name;
            *element_bytes = dtypes[i].bytes;
            return 0;
        }
    }
    return bad_tensor(file, tensor->name, "a dtype that the format does not have");
}

static int parse_shape(struct safetensors_tensor *tensor, const struct safetensors *file,
                       const cJSON *item)
{
    const cJSON *shape = cJSON_GetObjectItemCaseSensitive(item, "shape"), *size;
    if (!cJSON_IsArray(shape))
        return bad_tensor(file, tensor->name, "no shape");
    tensor->count = 1;
    cJSON_ArrayForEach(size, shape)
    {
        uint64_t extent;
        if (tensor->rank == SAFETENSORS_RANK_MAX)
            return bad_tensor(file, tensor->name, "more than 8 dimensions");
        if (!as_integer(&extent, size))
            return bad_tensor(file, tensor->name, "a size that is no whole number");
        if (__builtin_mul_overflow(tensor->count, extent, &tensor->count))
            return bad_tensor(file, tensor->name, "a shape too large to be");
        tensor->shape[tensor->rank++] = extent;
    }
    return 0;
}

static int parse_place(struct safetensors_tensor *tensor, const struct safetensors *file,
                       const cJSON *item, unsigned element_bytes)
{
    const cJSON *offsets = cJSON_GetObjectItemCaseSensitive(item, "data_offsets");
    uint64_t begin, end, bytes;
    if (!cJSON_IsArray(offsets) || cJSON_GetArraySize(offsets) != 2 ||
        !as_integer(&begin, cJSON_GetArrayItem(offsets, 0)) ||
        !as_integer(&end, cJSON_GetArrayItem(offsets, 1)))
        return bad_tensor(file, tensor->name, "data_offsets are not two whole numbers");
    if (begin > end || end > file->data_bytes)
        return bad_tensor(file, tensor->name, "its bytes lie outside the file (cut short?)");
    if (__builtin_mul_overflow(tensor->count, (uint64_t)element_bytes, &bytes) ||
        bytes != end - begin)
        return bad_tensor(file, tensor->name, "its bytes do not fit its shape");
    tensor->offset = file->data_offset + begin;
    tensor->bytes = bytes;
    return 0;
}

static int parse_tensor(struct safetensors_tensor *tensor, const struct safetensors *file,
                        const cJSON *item)
{
    unsigned element_bytes = 0;
    *tensor = (struct safetensors_tensor){.name = item->string};
    if (!cJSON_IsObject(item))
        return bad_tensor(file, tensor->name, "its description is no JSON object");
    int code = parse_dtype(tensor, &element_bytes, file, item);
    if (!code)
        code = parse_shape(tensor, file, item);
    if (!code)
        code = parse_place(tensor, file, item, element_bytes);
    return code;
}

static int check_metadata(const struct safetensors *file, const cJSON *metadata)
{
    const cJSON *item;
    if (!cJSON_IsObject(metadata))
        return err_set(ERR_DATA, "'%s': __metadata__ is no JSON object", file->path);
    cJSON_ArrayForEach(item, metadata)
    {
        if (!cJSON_IsString(item))
            return err_set(ERR_DATA, "'%s': __metadata__ '%.80s' is no string", file->path,
                           item->string);
    }
    return 0;
}

static int parse_tensors(struct safetensors *file)
{
    const cJSON *item;
    size_t members = 0;
    cJSON_ArrayForEach(item, file->header) members++;
    file->tensors = calloc(members ? members : 1, sizeof *file->tensors);
    if (!file->tensors)
        return err_set(ERR_NOMEM, "out of memory for the header of '%s'", file->path);
    bool metadata_seen = false;
    cJSON_ArrayForEach(item, file->header)
    {
        int code;
        if (strcmp(item->string, "__metadata__") != 0) {
            code = parse_tensor(&file->tensors[file->count++], file, item);
        } else {
            code = metadata_seen ? err_set(ERR_DATA, "'%s': __metadata__ comes twice", file->path)
                                 : check_metadata(file, item);
            metadata_seen = true;
        }
        if (code)
            return code;
    }
    return 0;
}

static int by_offset(const void *a, const void *b)
{
    const struct safetensors_tensor *x = a, *y = b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

static int by_name(const void *a, const void *b)
{
    const struct safetensors_tensor *x = a, *y = b;
    return strcmp(x->name, y->name);
}

/* The format wants every byte in exactly one tensor. Leaves the tensors sorted by name. */
static int check_places_and_names(struct safetensors *file)
{
    uint64_t expected = file->data_offset;
    qsort(file->tensors, file->count, sizeof *file->tensors, by_offset);
    for (size_t i = 0; i < file->count; i++) {
        const struct safetensors_tensor *tensor = &file->tensors[i];
        if (tensor->offset < expected)
            return bad_tensor(file, tensor->name, "its bytes overlap those of another tensor");
        if (tensor->offset > expected)
            return bad_tensor(file, tensor->name, "bytes in front of it belong to no tensor");
        expected += tensor->bytes;
    }
    if (expected != file->data_offset + file->data_bytes)
        return err_set(ERR_DATA, "'%s': bytes at the end belong to no tensor", file->path);
    qsort(file->tensors, file->count, sizeof *file->tensors, by_name);
    for (size_t i = 1; i < file->count; i++)
        if (strcmp(file->tensors[i - 1].name, file->tensors[i].name) == 0)
            return bad_tensor(file, file->tensors[i].name, "the name comes twice");
    return 0;
}

/* Only blanks may follow the JSON text: writers pad the header with them. */
static bool only_blanks(const char *text, const char *end)
{
    while (text < end && (*text == ' ' || *text == '\n' || *text == '\r' || *text == '\t'))
        text++;
    return text == end;
}

static int read_header(struct safetensors *file, uint64_t file_bytes)
{
    uint8_t length[LENGTH_BYTES];
    if (file_bytes < LENGTH_BYTES)
        return err_set(ERR_DATA, "'%s' is no safetensors file: only %llu bytes", file->path,
                       (unsigned long long)file_bytes);
    int code = read_at(file, length, sizeof length, 0);
    if (code)
        return code;
    uint64_t bytes = little_endian64(length);
    if (bytes > SAFETENSORS_HEADER_MAX && bytes <= file_bytes - LENGTH_BYTES)
        return err_set(ERR_DATA,
                       "'%s': a header of %llu bytes, where no network here has more than %d",
                       file->path, (unsigned long long)bytes, SAFETENSORS_HEADER_MAX);
    if (bytes > file_bytes - LENGTH_BYTES)
        return err_set(ERR_DATA,
                       "'%s' is no safetensors file, or is cut short: a header of %llu bytes",
                       file->path, (unsigned long long)bytes);
    file->data_offset = LENGTH_BYTES + bytes;
    file->data_bytes = file_bytes - file->data_offset;
    char *text = malloc(bytes + 1);
    if (!text)
        return err_set(ERR_NOMEM, "out of memory for the header of '%s'", file->path);
    code = read_at(file, text, bytes, LENGTH_BYTES);
    text[bytes] = '\0';
    if (!code) {
        const char *end = NULL;
        file->header = cJSON_ParseWithLengthOpts(text, bytes, &end, false);
        if (!cJSON_IsObject(file->header) || !only_blanks(end, text + bytes))
            code = err_set(ERR_DATA, "'%s' is no safetensors file: its header is no JSON object",
                           file->path);
    }
    free(text);
    return code;
}

int safetensors_open(struct safetensors **out, const char *path)
{
    uint64_t bytes = 0;
    *out = NULL;
    struct safetensors *file = calloc(1, sizeof *file);
    if (!file)
        return err_set(ERR_NOMEM, "out of memory for '%s'", path);
    file->fd = -1;
    file->path = strdup(path);
    if (!file->path) {
        free(file);
        return err_set(ERR_NOMEM, "out of memory for '%s'", path);
    }
    int code = file_open_regular(&file->fd, &bytes, path);
    if (!code)
        code = read_header(file, bytes);
    if (!code)
        code = parse_tensors(file);
    if (!code)
        code = check_places_and_names(file);
    if (code) {
        safetensors_close(file);
        return code;
    }
    *out = file;
    return 0;
}

void safetensors_close(struct safetensors *file)
{
    if (!file)
        return;
    if (file->fd >= 0)
        close(file->fd);
    cJSON_Delete(file->header);
    free(file->tensors);
    free(file->path);
    free(file);
}

size_t safetensors_count(const struct safetensors *file)
{
    return file->count;
}

const struct safetensors_tensor *safetensors_at(const struct safetensors *file, size_t index)
{
    return &file->tensors[index];
}

const struct safetensors_tensor *safetensors_find(const struct safetensors *file, const char *name)
{
    struct safetensors_tensor key = {.name = name};
    return bsearch(&key, file->tensors, file->count, sizeof *file->tensors, by_name);
}

const char *safetensors_metadata(const struct safetensors *file, const char *key)
{
    const cJSON *metadata = cJSON_GetObjectItemCaseSensitive(file->header, "__metadata__");
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(metadata, key));
}

static void convert(float *dst, const uint8_t *src, size_t count, enum safetensors_dtype dtype)
{
    for (size_t i = 0; i < count; i++) {
        uint16_t half;
        double real;
        switch (dtype) {
        case SAFETENSORS_F16:
            memcpy(&half, src + 2 * i, sizeof half);
            dst[i] = half_to_float(half);
            break;
        case SAFETENSORS_BF16:
            memcpy(&half, src + 2 * i, sizeof half);
            dst[i] = bf16_to_float(half);
            break;
        default:
            memcpy(&real, src + 8 * i, sizeof real);
            dst[i] = (float)real;
        }
    }
}

int safetensors_read(float *dst, const struct safetensors *file,
                     const struct safetensors_tensor *tensor)
{
    if (tensor->dtype == SAFETENSORS_OTHER)
        return err_set(ERR_DATA, "'%s': tensor '%.80s' is %s where real numbers are needed",
                       file->path, tensor->name, tensor->dtype_name);
    if (tensor->dtype == SAFETENSORS_F32)
        return read_at(file, dst, (size_t)tensor->bytes, tensor->offset);
    size_t element = tensor->dtype == SAFETENSORS_F64 ? 8 : 2;
    _Alignas(8) uint8_t piece[READ_BYTES];
    for (uint64_t at = 0; at < tensor->count;) {
        uint64_t left = tensor->count - at;
        size_t count = left < READ_BYTES / element ? (size_t)left : READ_BYTES / element;
        int code = read_at(file, piece, count * element, tensor->offset + at * element);
        if (code)
            return code;
        convert(dst + at, piece, count, tensor->dtype);
        at += count;
    }
    return 0;
}

/* The header with zeros for the checksum. */
static int hash_header(struct hash_stream *hash, const struct safetensors *file,
                       const char *checksum)
{
    size_t bytes = (size_t)file->data_offset;
    char *text = calloc(1, bytes + 1);
    if (!text)
        return err_set(ERR_NOMEM, "out of memory for the header of '%s'", file->path);
    int code = read_at(file, text, bytes, 0);
    char *found = code ? NULL : memmem(text, bytes, checksum, strlen(checksum));
    if (found)
        memcpy(found, SAFETENSORS_CHECKSUM_ZERO, strlen(checksum));
    hash_stream_add(hash, text, bytes);
    free(text);
    return code;
}

static int hash_data(struct hash_stream *hash, const struct safetensors *file)
{
    char *buffer = malloc(VERIFY_BYTES);
    int code = buffer ? 0 : err_set(ERR_NOMEM, "out of memory for '%s'", file->path);
    for (uint64_t done = 0; done < file->data_bytes && !code;) {
        uint64_t left = file->data_bytes - done;
        size_t bytes = left < VERIFY_BYTES ? (size_t)left : VERIFY_BYTES;
        code = read_at(file, buffer, bytes, file->data_offset + done);
        if (!code)
            hash_stream_add(hash, buffer, bytes);
        done += bytes;
    }
    free(buffer);
    return code;
}

int safetensors_verify(const struct safetensors *file)
{
    char text[33];
    const char *checksum = safetensors_metadata(file, SAFETENSORS_CHECKSUM_KEY);
    if (!checksum || strlen(checksum) != strlen(SAFETENSORS_CHECKSUM_ZERO))
        return err_set(ERR_DATA, "'%s' has no checksum", file->path);
    struct hash_stream *hash = hash_stream_open();
    if (!hash)
        return err_set(ERR_NOMEM, "out of memory for '%s'", file->path);
    int code = hash_header(hash, file, checksum);
    if (!code)
        code = hash_data(hash, file);
    hash128_to_text(text, hash_stream_end(hash));
    hash_stream_close(hash);
    if (!code && strcmp(text, checksum) != 0)
        code = err_set(ERR_DATA, "'%s' is damaged: its checksum is %s, its content gives %s",
                       file->path, checksum, text);
    return code;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* MXNet's RecordIO as im2rec writes it (dmlc-core recordio.h, mxnet image_recordio.h). A record:
 *
 *   u32 magic 0xCED7230A
 *   u32 upper 3 bits: 0 whole, 1 first, 2 middle, 3 last part; lower 29: bytes of data
 *   data, then zeros to a multiple of 4
 *
 * Parts are cut where the data holds the magic at a multiple of 4, which they leave out. The data
 * begin with a header: u32 flag, f32 label, u64 id, u64 id2; a flag above 0 counts labels that
 * follow instead. The image is the rest. Names of samples are their ids. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/err.h"
#include "common/stop.h"
#include "datasets/source.h"
#include "datasets/spill.h"
#include "datasets/store.h"

enum {
    FRAME_BYTES = 8,
    HEADER_BYTES = 24,
    LENGTH_BITS = 29,
    PART_WHOLE = 0,
    PART_FIRST = 1,
    PART_MIDDLE = 2,
    PART_LAST = 3,
};

static const uint32_t MAGIC = 0xced7230a;

struct reader {
    struct source *source;
    uint32_t file;
    uint64_t at, end;
    uint32_t most;   /* the highest label */
    uint8_t *joined; /* a record's data, put together of its parts */
    size_t joined_bytes, joined_room;
};

struct part {
    unsigned kind;
    uint64_t offset; /* of the data in the file */
    uint32_t bytes;
};

static uint32_t little32(const uint8_t *src)
{
    return src[0] | (uint32_t)src[1] << 8 | (uint32_t)src[2] << 16 | (uint32_t)src[3] << 24;
}

static uint64_t little64(const uint8_t *src)
{
    return little32(src) | (uint64_t)little32(src + 4) << 32;
}

static int refuse(const struct reader *reader, uint64_t offset, const char *what)
{
    return err_set(ERR_DATA, "%s: at byte %" PRIu64 ": %s",
                   reader->source->files[reader->file].path, offset, what);
}

static int read_at(const struct reader *reader, uint64_t offset, void *dst, size_t bytes)
{
    const struct source_file *file = &reader->source->files[reader->file];
    for (size_t used = 0; used < bytes;) {
        ssize_t got = pread(file->fd, (char *)dst + used, bytes - used, (off_t)(offset + used));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_set(ERR_IO, "%s: %s", file->path, strerror(errno));
        if (got == 0)
            return refuse(reader, offset, "truncated");
        used += (size_t)got;
    }
    return 0;
}

static int next_part(struct reader *reader, struct part *part)
{
    uint8_t frame[FRAME_BYTES];
    uint64_t left = reader->end - reader->at;
    if (left < FRAME_BYTES)
        return refuse(reader, reader->at, "truncated");
    int code = read_at(reader, reader->at, frame, sizeof frame);
    if (code)
        return code;
    if (little32(frame) != MAGIC)
        return refuse(reader, reader->at, "not a RecordIO record");
    uint32_t length = little32(frame + 4);
    part->kind = length >> LENGTH_BITS;
    part->bytes = length & ((1U << LENGTH_BITS) - 1);
    part->offset = reader->at + FRAME_BYTES;
    uint64_t padded = ((uint64_t)part->bytes + 3) / 4 * 4;
    if (padded > left - FRAME_BYTES)
        return refuse(reader, reader->at, "truncated");
    reader->at = part->offset + padded;
    return 0;
}

static int join(struct reader *reader, const struct part *part)
{
    size_t magic_bytes = part->kind == PART_FIRST ? 0 : sizeof MAGIC;
    size_t wanted = reader->joined_bytes + magic_bytes + part->bytes;
    if (wanted > STORE_RECORD_BYTES_MAX)
        return refuse(reader, part->offset, "larger than a store's record");
    if (wanted > reader->joined_room) {
        uint8_t *grown = realloc(reader->joined, 2 * wanted);
        if (!grown)
            return err_set(ERR_NOMEM, "out of memory for a record");
        reader->joined = grown;
        reader->joined_room = 2 * wanted;
    }
    for (size_t i = 0; i < magic_bytes; i++)
        reader->joined[reader->joined_bytes++] = (uint8_t)(MAGIC >> 8 * i);
    int code = read_at(reader, part->offset, reader->joined + reader->joined_bytes, part->bytes);
    reader->joined_bytes += part->bytes;
    return code;
}

/* The parts behind the first one. */
static int join_all(struct reader *reader, struct part part)
{
    reader->joined_bytes = 0;
    int code = join(reader, &part);
    while (!code && part.kind != PART_LAST) {
        code = next_part(reader, &part);
        if (!code && part.kind != PART_MIDDLE && part.kind != PART_LAST)
            code = refuse(reader, part.offset - FRAME_BYTES, "a part that does not continue");
        if (!code)
            code = join(reader, &part);
    }
    return code;
}

static int class_of(struct reader *reader, const struct part *part, const uint8_t *header,
                    uint32_t *number)
{
    uint32_t bits = little32(header + 4);
    float label;
    memcpy(&label, &bits, sizeof label);
    if (little32(header) != 0)
        return refuse(reader, part->offset,
                      "a record with a list of labels; a sample has one class");
    if (!(label >= 0 && label < STORE_CLASSES_MAX) || label != (float)(uint32_t)label)
        return refuse(reader, part->offset, "a label that is no whole number from 0");
    *number = (uint32_t)label;
    reader->most = *number > reader->most ? *number : reader->most;
    return 0;
}

static int add_record(struct reader *reader, const struct part *part, const uint8_t *header,
                      struct source_place place)
{
    char name[32];
    uint32_t number = 0;
    int code = class_of(reader, part, header, &number);
    snprintf(name, sizeof name, "%020" PRIu64, little64(header + 8));
    return code ? code : list_add(&reader->source->list, number, name, place);
}

static int add_joined(struct reader *reader, const struct part *first)
{
    struct spill *spill;
    int code = join_all(reader, *first);
    if (!code && reader->joined_bytes < HEADER_BYTES)
        code = refuse(reader, first->offset, "no image header");
    if (!code)
        code = source_need_spill(reader->source, &spill);
    if (code)
        return code;
    struct source_place place = {SOURCE_SPILL, spill_end(spill),
                                 reader->joined_bytes - HEADER_BYTES};
    code = spill_append(spill, reader->joined + HEADER_BYTES, place.bytes);
    return code ? code : add_record(reader, first, reader->joined, place);
}

static int next_record(struct reader *reader)
{
    struct part part;
    uint8_t header[HEADER_BYTES];
    int code = next_part(reader, &part);
    if (code)
        return code;
    if (part.kind == PART_FIRST)
        return add_joined(reader, &part);
    if (part.kind != PART_WHOLE)
        return refuse(reader, part.offset - FRAME_BYTES, "a part without a first one");
    if (part.bytes < HEADER_BYTES)
        return refuse(reader, part.offset, "no image header");
    code = read_at(reader, part.offset, header, sizeof header);
    struct source_place place = {reader->file, part.offset + HEADER_BYTES,
                                 part.bytes - HEADER_BYTES};
    return code ? code : add_record(reader, &part, header, place);
}

static int open_rec(struct source *source, const struct source_request *request)
{
    struct reader reader = {.source = source};
    int code = 0;
    for (size_t i = 0; !code && i < request->input_count; i++) {
        code = source_add_file(source, request->inputs[i], &reader.file);
        reader.at = 0;
        reader.end = code ? 0 : source->files[reader.file].bytes;
        while (!code && reader.at < reader.end)
            code = stop_requested() ? err_set(ERR_STOPPED, "stopped; nothing was written")
                                    : next_record(&reader);
    }
    free(reader.joined);
    if (!code && source->list.count > 0)
        code = list_number_classes(&source->list, request, reader.most);
    return code;
}

const struct source_ops source_rec = {"rec", open_rec, source_read_range};

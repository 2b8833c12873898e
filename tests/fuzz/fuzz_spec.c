/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer: a spec, and a chunk that pretends to be of it. The first 160 bytes are the spec; then
 * come the chunk's header, its store and its frame sizes; the rest is the labels frame. What is
 * accepted is within the limits that its receivers allocate by. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "proto/chunk.h"
#include "proto/frame.h"
#include "proto/order.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

struct header { /* taken from the input as it lies in memory */
    uint32_t sample_count, class_count, epoch, samples, substituted, masked, pixel_slack;
    uint64_t chunk;
};

static void check_spec(const struct spec *spec, const uint8_t *encoded)
{
    uint8_t again[SPEC_ENCODED_BYTES];
    spec_encode(again, spec);
    if (memcmp(again, encoded, sizeof(again)) != 0 || spec_check(spec))
        abort();
    size_t pixels = spec->chunk_size * spec_sample_bytes(spec);
    if (pixels == 0 || pixels > SPEC_MAX_CHUNK_BYTES ||
        strnlen(spec->store, sizeof(spec->store)) == sizeof(spec->store))
        abort();
}

static void check_chunk(const struct spec *spec, const struct header *header, const uint8_t *labels,
                        size_t label_bytes)
{
    struct frame_store store = {.sample_count = header->sample_count ? header->sample_count : 1,
                                .class_count = 1 + header->class_count % FRAME_MAX_CLASSES,
                                .channels = spec->channels};
    const struct frame_chunk chunk = {.epoch = header->epoch,
                                      .chunk = header->chunk,
                                      .samples = header->samples,
                                      .substituted = header->substituted,
                                      .masked = header->masked};
    size_t pixel_bytes = header->samples * spec_sample_bytes(spec) + header->pixel_slack % 2;
    if (frame_check_chunk(&chunk, spec, &store, labels, label_bytes, pixel_bytes))
        return;
    if (chunk.samples > spec->chunk_size || pixel_bytes > SPEC_MAX_CHUNK_BYTES ||
        label_bytes != chunk.samples * frame_label_bytes(spec) ||
        chunk.chunk >= chunk_total(spec, store.sample_count))
        abort();
    for (uint32_t i = 0; i < chunk.samples; i++) {
        struct chunk_label label = chunk_label_decode(labels + i * frame_label_bytes(spec));
        bool masked = label.a == CHUNK_LABEL_MASKED && label.b == CHUNK_LABEL_MASKED;
        if (!masked && (label.a >= store.class_count || label.b >= store.class_count))
            abort();
        if (!(label.lam >= 0 && label.lam <= 1))
            abort();
        uint32_t at = (uint32_t)chunk.chunk * spec->chunk_size + i;
        if (order_at(spec, chunk.epoch, at, store.sample_count) >= store.sample_count)
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct spec spec;
    struct header header;
    size_t spec_bytes = bytes < SPEC_ENCODED_BYTES ? bytes : SPEC_ENCODED_BYTES;
    if (spec_decode(&spec, data, spec_bytes))
        return 0;
    check_spec(&spec, data);
    data += SPEC_ENCODED_BYTES;
    bytes -= SPEC_ENCODED_BYTES;
    if (bytes < sizeof(header))
        return 0;
    memcpy(&header, data, sizeof(header));
    check_chunk(&spec, &header, data + sizeof(header), bytes - sizeof(header));
    return 0;
}

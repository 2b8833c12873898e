/* SPDX-License-Identifier: Apache-2.0 */
/* A feed without loaders: deterministic pixels of about unit variance and labels spread over the
 * classes, for measuring a trainer that never waits. */
#include <string.h>

#include "common/half.h"
#include "proto/philox.h"
#include "trainer/feed_state.h"

enum {
    SYNTHETIC_CLASSES = 1000,
    SYNTHETIC_SAMPLES = 1281167,
    PATTERN_VALUES = 1 << 16, /* repeated over the images */
};

void feed_synthetic_stores(struct feed *feed)
{
    static const char *const names[] = {"train", "val"};
    for (int i = 0; i < 2; i++) {
        struct feed_store *store = &feed->stores[feed->store_count++];
        strcpy(store->name, names[i]);
        store->sample_count = SYNTHETIC_SAMPLES;
        store->class_count = SYNTHETIC_CLASSES;
        store->channels = 3;
    }
}

/* Uniform in (-sqrt 3, sqrt 3): variance 1, as normalised images have. */
static void fill_halves(uint16_t *dst)
{
    for (uint32_t i = 0; i < PATTERN_VALUES; i += 4) {
        const uint32_t counter[4] = {i, 0, 0, 0}, key[2] = {0, 0};
        struct philox_block block = philox(counter, key);
        for (int j = 0; j < 4; j++)
            dst[i + j] = half_from_float(((float)block.word[j] * 0x1p-31f - 1.0f) * 1.7320508f);
    }
}

static void fill_bytes(uint8_t *dst)
{
    for (uint32_t i = 0; i < PATTERN_VALUES; i += 16) {
        const uint32_t counter[4] = {i, 0, 0, 0}, key[2] = {0, 0};
        struct philox_block block = philox(counter, key);
        memcpy(dst + i, block.word, sizeof(block.word));
    }
}

static void fill_pixels(struct feed_slot *slot, const struct spec *spec)
{
    static uint8_t pattern[PATTERN_VALUES * sizeof(uint16_t)] __attribute__((aligned(64)));
    size_t pattern_bytes = PATTERN_VALUES;
    if (spec->wire == SPEC_WIRE_FP16) {
        fill_halves((uint16_t *)(void *)pattern);
        pattern_bytes = sizeof(pattern);
    } else {
        fill_bytes(pattern);
    }
    size_t bytes = slot->batch.samples * spec_sample_bytes(spec);
    for (size_t at = 0; at < bytes; at += pattern_bytes)
        memcpy(slot->pixels + at, pattern, bytes - at < pattern_bytes ? bytes - at : pattern_bytes);
}

static void fill_labels(struct feed_slot *slot, const struct spec *spec)
{
    for (uint32_t i = 0; i < slot->batch.samples; i++) {
        uint64_t position = slot->batch.first_chunk * spec->chunk_size + i;
        const uint32_t counter[4] = {(uint32_t)position, (uint32_t)(position >> 32), slot->epoch,
                                     1};
        const uint32_t key[2] = {(uint32_t)spec->seed, (uint32_t)(spec->seed >> 32)};
        uint32_t label =
            (uint32_t)((uint64_t)philox(counter, key).word[0] * SYNTHETIC_CLASSES >> 32);
        slot->labels[i] = (struct chunk_label){label, label, 1.0f};
        if (slot->offsets)
            memset(slot->offsets[i], 0, sizeof(slot->offsets[i]));
    }
}

void feed_synthetic_fill(struct feed *feed, struct feed_slot *slot)
{
    const struct feed_spec *spec = &feed->specs[slot->spec];
    if (slot->pattern_spec != slot->spec || slot->pattern_samples < slot->batch.samples) {
        fill_pixels(slot, &spec->spec);
        slot->pattern_spec = slot->spec;
        slot->pattern_samples = slot->batch.samples;
    }
    fill_labels(slot, &spec->spec);
    slot->missing = 0;
    slot->state = SLOT_READY;
    feed->counts.chunks += slot->batch.chunks;
    feed->counts.samples += slot->batch.samples;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What a spec may hold, and what follows from it. */
#include "proto/spec.h"

#include <stdbool.h>
#include <string.h>

#include "common/err.h"

enum {
    SMALL_IMAGE_PX = 64,
    SMALL_IMAGE_CHUNK = 64, /* samples: small images are cheap, so more of them share a message */
    LARGE_IMAGE_CHUNK = 8,
};

static int bad(const char *field, const char *rule)
{
    return err_set(ERR_ARG, "spec: %s %s", field, rule);
}

/* Also false for NaN, and for -0, which would be a second encoding of 0. */
static bool within(float value, double low, double high)
{
    return value >= low && value <= high && !__builtin_signbit(value);
}

static bool all_zero(const float *values, int count)
{
    for (int i = 0; i < count; i++) {
        if (!within(values[i], 0, 0))
            return false;
    }
    return true;
}

static int check_store(const struct spec *spec)
{
    size_t length = strnlen(spec->store, sizeof spec->store);
    if (length == 0 || length == sizeof spec->store)
        return bad("store", "needs a name of 1 to 15 characters");
    for (size_t i = 0; i < length; i++) {
        char c = spec->store[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!letter && !(c >= '0' && c <= '9') && !strchr("_-.", c))
            return bad("store", "may hold letters, digits, '_', '-' and '.' only");
    }
    return 0;
}

static int check_enumerations(const struct spec *spec)
{
    const struct {
        const char *field;
        uint8_t value, last;
    } fields[] = {
        {"order", spec->order, SPEC_ORDER_SHUFFLED},
        {"damaged_masked", spec->damaged_masked, 1},
        {"crop", spec->crop, SPEC_CROP_PAD},
        {"aspect", spec->aspect, SPEC_ASPECT_LOG},
        {"interpolation", spec->interpolation, SPEC_BICUBIC},
        {"flip", spec->flip, 1},
        {"jitter", spec->jitter, SPEC_JITTER_BCS},
        {"mixup_lam", spec->mixup_lam, SPEC_LAM_BATCH},
        {"wire", spec->wire, SPEC_WIRE_UINT8},
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        if (fields[i].value > fields[i].last)
            return bad(fields[i].field, "has a value that this version does not know");
    }
    if (spec->channels != 1 && spec->channels != 3)
        return bad("channels", "must be 1 or 3");
    return 0;
}

static int check_crop(const struct spec *spec)
{
    if (spec->size_px < 1 || spec->size_px > SPEC_MAX_SIZE_PX)
        return bad("size_px", "must be within 1 to 1024");
    if (spec->crop == SPEC_CROP_RRC) {
        if (!within(spec->area_min, 1e-4f, 1) || !within(spec->area_max, spec->area_min, 1))
            return bad("area", "must be within 0.0001 to 1, min <= max");
        if (!within(spec->aspect_min, 0.01f, 100) ||
            !within(spec->aspect_max, spec->aspect_min, 100))
            return bad("aspect", "must be within 0.01 to 100, min <= max");
        if (spec->resize_short_px != 0)
            return bad("resize_short_px", "must be 0 with crop rrc");
    } else {
        if (!all_zero((const float[]){spec->area_min, spec->area_max}, 2))
            return bad("area", "must be 0 without crop rrc");
        if (!all_zero((const float[]){spec->aspect_min, spec->aspect_max}, 2))
            return bad("aspect_min and aspect_max", "must be 0 without crop rrc");
        if (spec->aspect != 0)
            return bad("aspect", "must be 0 without crop rrc");
        if (spec->resize_short_px < spec->size_px || spec->resize_short_px > 4 * SPEC_MAX_SIZE_PX)
            return bad("resize_short_px", "must be within size_px to 4096");
    }
    if (spec->crop == SPEC_CROP_PAD && (spec->pad_px < 1 || spec->pad_px > spec->size_px))
        return bad("pad_px", "must be within 1 to size_px with crop pad");
    if (spec->crop != SPEC_CROP_PAD && spec->pad_px != 0)
        return bad("pad_px", "must be 0 without crop pad");
    return 0;
}

static int check_colour(const struct spec *spec)
{
    if (spec->jitter == SPEC_JITTER_NONE) {
        if (!all_zero(spec->jitter_strength, 3))
            return bad("jitter_strength", "must be 0 without jitter");
    } else {
        for (int i = 0; i < 3; i++) {
            if (!within(spec->jitter_strength[i], 0, 1))
                return bad("jitter_strength", "must be within 0 to 1");
        }
        if (all_zero(spec->jitter_strength, 3))
            return bad("jitter", "must be off when all its strengths are 0");
    }
    if (!within(spec->pca_sigma, 0, 10))
        return bad("pca_sigma", "must be within 0 to 10");
    if (spec->channels == 1 && (spec->jitter != SPEC_JITTER_NONE || spec->pca_sigma != 0))
        return bad("jitter and pca_sigma", "must be off for one channel");
    for (int i = 0; i < spec->channels; i++) {
        if (!within(spec->mean[i], 0, 255))
            return bad("mean", "must be within 0 to 255");
        /* A smaller one takes 255 beyond what a half float holds. */
        if (!within(spec->std[i], 0.01f, 1e4))
            return bad("std", "must be within 0.01 to 10000");
    }
    int unused = 3 - spec->channels;
    if (!all_zero(spec->mean + spec->channels, unused) ||
        !all_zero(spec->std + spec->channels, unused))
        return bad("mean and std", "must be 0 for channels that the store has not");
    return 0;
}

static int check_mixup(const struct spec *spec)
{
    if (within(spec->mixup_alpha, 0, 0)) {
        if (spec->mixup_lam || spec->chunks_per_batch || spec->mixup_off_epoch)
            return bad("mixup_lam, chunks_per_batch and mixup_off_epoch",
                       "must be 0 without mixup");
        return 0;
    }
    if (!within(spec->mixup_alpha, 1e-3f, 1e3))
        return bad("mixup_alpha", "must be 0 or within 0.001 to 1000");
    if (spec->mixup_off_epoch == 0)
        return bad("mixup_off_epoch", "must be at least 1: mixup is on in the first epoch");
    if (spec->chunk_size % 2 != 0)
        return bad("chunk_size", "must be even with mixup: its samples mix in pairs");
    if ((spec->mixup_lam == SPEC_LAM_BATCH) != (spec->chunks_per_batch > 0))
        return bad("chunks_per_batch", "goes with mixup_lam batch, and only with it");
    return 0;
}

static int check_chunk(const struct spec *spec)
{
    if (spec->chunk_size < 1 || spec->chunk_size > SPEC_MAX_CHUNK_SIZE)
        return bad("chunk_size", "must be within 1 to 4096");
    if (spec_sample_bytes(spec) * spec->chunk_size > SPEC_MAX_CHUNK_BYTES)
        return bad("chunk_size", "makes chunks of more than 32 MiB");
    return 0;
}

/* True when some pixel, label or place in the order depends on the seed. */
static bool draws(const struct spec *spec)
{
    return spec->order == SPEC_ORDER_SHUFFLED || spec->crop != SPEC_CROP_NONE || spec->flip ||
           spec->jitter || spec->pca_sigma > 0 || spec->mixup_alpha > 0;
}

int spec_check(const struct spec *spec)
{
    int code = check_store(spec);
    code = code ? code : check_enumerations(spec);
    code = code ? code : check_crop(spec);
    code = code ? code : check_colour(spec);
    code = code ? code : check_chunk(spec);
    code = code ? code : check_mixup(spec);
    if (!code && spec->seed != 0 && !draws(spec))
        code = bad("seed", "must be 0 where nothing is drawn");
    return code;
}

size_t spec_sample_bytes(const struct spec *spec)
{
    size_t value_bytes = spec->wire == SPEC_WIRE_FP16 ? 2 : 1;
    return (size_t)spec->size_px * spec->size_px * spec->channels * value_bytes;
}

uint32_t spec_default_chunk_size(uint64_t micro_batch, unsigned size_px, unsigned channels,
                                 enum spec_wire wire)
{
    uint32_t limit = size_px <= SMALL_IMAGE_PX ? SMALL_IMAGE_CHUNK : LARGE_IMAGE_CHUNK;
    uint64_t sample_bytes =
        (uint64_t)size_px * size_px * channels * (wire == SPEC_WIRE_FP16 ? 2 : 1);
    uint32_t size = 1;
    while (2 * size <= limit && micro_batch > 0 && micro_batch % (2 * size) == 0 &&
           2 * size * sample_bytes < SPEC_AIM_CHUNK_BYTES)
        size *= 2;
    return size;
}

int spec_mixes(const struct spec *spec, uint32_t epoch)
{
    return spec->mixup_alpha > 0 && epoch < spec->mixup_off_epoch;
}

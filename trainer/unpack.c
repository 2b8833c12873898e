/* SPDX-License-Identifier: Apache-2.0 */
/* Half floats and bytes to float32. */
#include "trainer/unpack.h"

#include <string.h>

#include "common/err.h"
#include "common/half.h"

struct input_format unpack_format(const struct spec *spec)
{
    struct input_format format = {.bytes = spec->wire == SPEC_WIRE_UINT8};
    if (!format.bytes)
        return format;
    format.chunk_size = (int)spec->chunk_size;
    memcpy(format.mean, spec->mean, sizeof format.mean);
    memcpy(format.std, spec->std, sizeof format.std);
    return format;
}

/* The sample that this one is mixed with: the chunk's positions n and chunk_size - 1 - n. */
static int partner_of(int sample, const struct input_format *format)
{
    int position = sample % format->chunk_size;
    return sample - position + format->chunk_size - 1 - position;
}

static bool is_mixed(const struct chunk_label *label)
{
    return label->a != CHUNK_LABEL_MASKED && label->lam != 1;
}

int unpack_check(const struct batch *batch, const struct input_format *format)
{
    if (!format->bytes)
        return 0;
    if (!batch->offsets)
        return err_set(ERR_ARG, "a batch of bytes without their offsets");
    for (int i = 0; i < batch->samples; i++)
        if (is_mixed(&batch->labels[i]) && partner_of(i, format) >= batch->samples)
            return err_set(ERR_ARG, "sample %d of %d is mixed with one that is not there", i,
                           batch->samples);
    return 0;
}

/* (byte + (offset - mean)) * (1 / std) */
static void normalise(float *dst, const uint8_t *src, const float *offset,
                      const struct input_format *format, int channels, size_t count)
{
    for (int c = 0; c < channels; c++) {
        float shift = offset[c] - format->mean[c], scale = 1 / format->std[c];
        for (size_t p = 0; p < count; p++) {
            size_t at = p * (size_t)channels + (size_t)c;
            dst[at] = ((float)src[at] + shift) * scale;
        }
    }
}

/* dst: lam of itself and the rest of the partner. */
static void add_partner(float *dst, const uint8_t *src, const float *offset,
                        const struct input_format *format, int channels, size_t count, float lam)
{
    float rest = 1 - lam;
    for (int c = 0; c < channels; c++) {
        float shift = offset[c] - format->mean[c], scale = 1 / format->std[c];
        for (size_t p = 0; p < count; p++) {
            size_t at = p * (size_t)channels + (size_t)c;
            dst[at] = lam * dst[at] + rest * (((float)src[at] + shift) * scale);
        }
    }
}

void unpack_pixels(float *dst, const struct batch *batch, const struct input_format *format,
                   const struct net *net, int sample, size_t begin, size_t count)
{
    int channels = net->channels;
    size_t image = (size_t)net->size_px * (size_t)net->size_px;
    size_t at = ((size_t)sample * image + begin) * (size_t)channels;
    const struct chunk_label *label = &batch->labels[sample];
    if (!format->bytes) {
        half_to_floats(dst, (const uint16_t *)batch->pixels + at, count * (size_t)channels);
        return;
    }
    if (label->a == CHUNK_LABEL_MASKED) {
        memset(dst, 0, count * (size_t)channels * sizeof *dst);
        return;
    }
    const uint8_t *bytes = batch->pixels;
    normalise(dst, bytes + at, batch->offsets[sample], format, channels, count);
    if (!is_mixed(label))
        return;
    int partner = partner_of(sample, format);
    at = ((size_t)partner * image + begin) * (size_t)channels;
    add_partner(dst, bytes + at, batch->offsets[partner], format, channels, count, label->lam);
}

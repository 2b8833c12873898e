/* SPDX-License-Identifier: Apache-2.0 */
/* The spec's canonical encoding. Offsets: docs/protocol.md, section "Spec". */
#include "proto/spec.h"

#include <string.h>

#include "common/err.h"

enum { VERSION = 1 };

static const uint8_t magic[4] = {'S', 'P', 'E', 'C'};

/* Writing and reading walk the same list of fields, in the order of their offsets. */
struct cursor {
    uint8_t *dst;       /* NULL when reading */
    const uint8_t *src; /* NULL when writing */
};

static void raw(struct cursor *at, void *field, size_t count)
{
    if (at->dst) {
        memcpy(at->dst, field, count);
        at->dst += count;
    } else {
        memcpy(field, at->src, count);
        at->src += count;
    }
}

static void number(struct cursor *at, uint64_t *value, int count)
{
    if (!at->dst)
        *value = 0;
    for (int i = 0; i < count; i++) {
        if (at->dst)
            *at->dst++ = (uint8_t)(*value >> (8 * i));
        else
            *value |= (uint64_t)*at->src++ << (8 * i);
    }
}

static void u16(struct cursor *at, uint16_t *field)
{
    uint64_t value = *field;
    number(at, &value, 2);
    *field = (uint16_t)value;
}

static void u32(struct cursor *at, uint32_t *field)
{
    uint64_t value = *field;
    number(at, &value, 4);
    *field = (uint32_t)value;
}

static void f32(struct cursor *at, float *field)
{
    uint32_t value;
    memcpy(&value, field, sizeof value);
    u32(at, &value);
    memcpy(field, &value, sizeof value);
}

static void walk(struct cursor *at, struct spec *spec)
{
    uint16_t reserved = 0;
    raw(at, &spec->order, 1);
    raw(at, &spec->damaged_masked, 1);
    number(at, &spec->seed, 8);
    raw(at, spec->store, SPEC_STORE_NAME_BYTES);
    raw(at, &spec->channels, 1);
    raw(at, &spec->crop, 1);
    raw(at, &spec->aspect, 1);
    raw(at, &spec->interpolation, 1);
    raw(at, &spec->flip, 1);
    raw(at, &spec->jitter, 1);
    raw(at, &spec->mixup_lam, 1);
    raw(at, &spec->wire, 1);
    u16(at, &spec->size_px);
    u16(at, &spec->resize_short_px);
    u16(at, &spec->pad_px);
    u16(at, &reserved);
    u32(at, &spec->chunk_size);
    u32(at, &spec->chunks_per_batch);
    u32(at, &spec->mixup_off_epoch);
    f32(at, &spec->area_min);
    f32(at, &spec->area_max);
    f32(at, &spec->aspect_min);
    f32(at, &spec->aspect_max);
    for (int i = 0; i < 3; i++)
        f32(at, &spec->jitter_strength[i]);
    f32(at, &spec->pca_sigma);
    for (int i = 0; i < 3; i++)
        f32(at, &spec->mean[i]);
    for (int i = 0; i < 3; i++)
        f32(at, &spec->std[i]);
    f32(at, &spec->mixup_alpha);
}

void spec_encode(uint8_t dst[SPEC_ENCODED_BYTES], const struct spec *spec)
{
    struct spec copy = *spec;
    size_t name = strnlen(copy.store, sizeof copy.store);
    memset(copy.store + name, 0, sizeof copy.store - name);
    memset(dst, 0, SPEC_ENCODED_BYTES);
    memcpy(dst, magic, sizeof magic);
    dst[4] = VERSION;
    struct cursor at = {.dst = dst + 6};
    walk(&at, &copy);
}

int spec_decode(struct spec *spec, const uint8_t *src, size_t size)
{
    uint8_t again[SPEC_ENCODED_BYTES];
    if (size != SPEC_ENCODED_BYTES)
        return err_set(ERR_PEER, "a spec of %zu bytes, not %d", size, SPEC_ENCODED_BYTES);
    if (memcmp(src, magic, sizeof magic) != 0)
        return err_set(ERR_PEER, "not an encoded spec");
    unsigned version = src[4] | (unsigned)src[5] << 8;
    if (version != VERSION)
        return err_set(ERR_PEER, "a spec of version %u, this program speaks %d", version, VERSION);
    struct spec decoded = {0};
    struct cursor at = {.src = src + 6};
    walk(&at, &decoded);
    spec_encode(again, &decoded);
    if (memcmp(src, again, SPEC_ENCODED_BYTES) != 0)
        return err_set(ERR_PEER, "a spec whose unused bytes are not zero");
    if (spec_check(&decoded) != 0)
        return err_wrap(ERR_PEER, "a bad spec");
    *spec = decoded;
    return 0;
}

struct hash128 spec_hash(const struct spec *spec)
{
    uint8_t encoded[SPEC_ENCODED_BYTES];
    spec_encode(encoded, spec);
    return hash128_of(encoded, sizeof encoded);
}

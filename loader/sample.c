/* SPDX-License-Identifier: Apache-2.0 */
/* Chunk assembly. */
#include "loader/sample.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/half.h"
#include "common/log.h"
#include "loader/colour.h"
#include "loader/render.h"
#include "proto/order.h"

struct builder {
    struct render *render;
    float *floats[2]; /* [size][size][channels]: a sample and its partner; one allocation */
    size_t room;      /* values in each */
    double next_log;  /* complaints are held back until then */
    unsigned held_back;
};

/* The chunk being built. */
struct task {
    struct builder *builder;
    struct chunk_build *out;
    const struct store *store;
    const struct spec *spec;
    uint32_t epoch;
    uint64_t chunk;
    bool strict;
};

/* One sample on its way. */
struct slot {
    uint32_t position; /* within the chunk */
    uint32_t label;    /* CHUNK_LABEL_MASKED: no pixels */
    float *floats;     /* fp16 wire: [size][size][channels] */
    float offsets[3];  /* uint8 wire */
};

enum decoder_choice builder_decoder_of(const char *name)
{
    return !strcmp(name, "reference") ? DECODER_REFERENCE
           : !strcmp(name, "indexed") ? DECODER_INDEXED
                                      : DECODER_AUTO;
}

int builder_open(struct builder **out, enum decoder_choice decoder)
{
    struct builder *builder = calloc(1, sizeof *builder);
    if (!builder)
        return err_set(ERR_NOMEM, "out of memory for a worker");
    int code = render_open(&builder->render, decoder);
    if (code) {
        builder_close(builder);
        return code;
    }
    *out = builder;
    return 0;
}

void builder_close(struct builder *builder)
{
    if (!builder)
        return;
    render_close(builder->render);
    free(builder->floats[0]);
    free(builder);
}

static size_t sample_values(const struct spec *spec)
{
    return (size_t)spec->size_px * spec->size_px * spec->channels;
}

size_t chunk_label_bytes_of(const struct spec *spec)
{
    return spec->wire == SPEC_WIRE_UINT8 ? CHUNK_LABEL_UINT8_BYTES : CHUNK_LABEL_BYTES;
}

size_t builder_bytes(const struct spec *spec)
{
    return render_keeps(spec) + 2 * sample_values(spec) * sizeof(float);
}

int builder_supports(const struct spec *spec)
{
    if (spec->jitter == SPEC_JITTER_BCS)
        return err_set(ERR_UNSUPPORTED, "jitter bcs is not in this version: use hsv or none");
    if (spec->interpolation == SPEC_BICUBIC)
        return err_set(ERR_UNSUPPORTED,
                       "interpolation bicubic is not in this version: use bilinear");
    return 0;
}

static int reserve(struct builder *builder, const struct spec *spec)
{
    size_t values = sample_values(spec);
    if (values <= builder->room)
        return 0;
    free(builder->floats[0]);
    builder->room = 0;
    builder->floats[0] = malloc(2 * values * sizeof(float));
    if (!builder->floats[0])
        return err_set(ERR_NOMEM, "out of memory for two samples of %zu values", values);
    builder->floats[1] = builder->floats[0] + values;
    builder->room = values;
    return 0;
}

static const char *class_of(const struct store *store, uint32_t label)
{
    const struct store_meta *meta = store_meta(store);
    return label < meta->class_count ? meta->class_ids[label] : "?";
}

/* One line a second at most: a bad disk must not drown the log. */
static void complain(struct builder *builder, const char *what)
{
    double now = clock_seconds();
    if (now < builder->next_log) {
        builder->held_back++;
        return;
    }
    if (builder->held_back)
        log_warn("%s (%s; %u more like it were not logged)", err_message(), what,
                 builder->held_back);
    else
        log_warn("%s (%s)", err_message(), what);
    builder->held_back = 0;
    builder->next_log = now + 1;
}

static uint8_t *pixels_of(const struct task *task, uint32_t position)
{
    return (uint8_t *)task->out->pixels + position * spec_sample_bytes(task->spec);
}

static int render_record(const struct task *task, struct slot *slot,
                         const struct store_record *record)
{
    struct render *render = task->builder->render;
    if (task->spec->wire == SPEC_WIRE_UINT8)
        return render_bytes(render, pixels_of(task, slot->position), slot->offsets, record,
                            task->spec, task->epoch);
    return render_floats(render, slot->floats, record, task->spec, task->epoch);
}

/* ERR_DATA: this record is of no use. */
static int try_record(const struct task *task, struct slot *slot, uint32_t id)
{
    struct store_record record;
    int code = store_read(&record, task->store, id);
    if (code)
        return code;
    if (record.label >= store_meta(task->store)->class_count)
        return err_set(ERR_DATA, "%s: sample %u: label %u of %u classes", store_path(task->store),
                       id, record.label, store_meta(task->store)->class_count);
    slot->label = record.label;
    code = render_record(task, slot, &record);
    if (code)
        return err_wrap(code, "%s: sample %u (class %s)", store_path(task->store), id,
                        class_of(task->store, record.label));
    return 0;
}

static void mask(const struct task *task, struct slot *slot)
{
    slot->label = CHUNK_LABEL_MASKED;
    memset(pixels_of(task, slot->position), 0, spec_sample_bytes(task->spec));
    memset(slot->offsets, 0, sizeof slot->offsets);
    task->out->masked++;
}

/* The sample at a position, or what stands in for it. */
static int fill(const struct task *task, struct slot *slot)
{
    uint32_t count = store_meta(task->store)->sample_count;
    uint32_t at = (uint32_t)(task->chunk * task->spec->chunk_size) + slot->position;
    uint32_t id = order_at(task->spec, task->epoch, at, count);
    task->out->ids[slot->position] = id;
    int code = try_record(task, slot, id);
    if (code != ERR_DATA || task->strict)
        return code;
    if (task->spec->damaged_masked) {
        complain(task->builder, "masked");
        mask(task, slot);
        return 0;
    }
    complain(task->builder, "replaced by the next good one");
    for (uint32_t step = 1; step < count && code == ERR_DATA; step++) {
        uint32_t next = (uint32_t)(((uint64_t)at + step) % count);
        id = order_at(task->spec, task->epoch, next, count);
        code = try_record(task, slot, id);
    }
    if (code == ERR_DATA)
        return err_set(ERR_DATA, "%s: no sample can be decoded", store_path(task->store));
    task->out->ids[slot->position] = id;
    task->out->substituted++;
    return code;
}

static void encode_offsets(uint8_t *dst, const float offsets[3])
{
    for (int i = 0; i < 3; i++) {
        uint32_t bits;
        memcpy(&bits, &offsets[i], sizeof bits);
        for (int byte = 0; byte < 4; byte++)
            *dst++ = (uint8_t)(bits >> (8 * byte));
    }
}

/* partner: whose label is b; the slot itself where nothing is mixed. */
static void emit(const struct task *task, const struct slot *slot, const struct slot *partner,
                 float lam)
{
    struct chunk_label label = {slot->label, partner->label, lam};
    uint8_t *dst = task->out->labels + slot->position * chunk_label_bytes_of(task->spec);
    chunk_label_encode(dst, label);
    if (task->spec->wire == SPEC_WIRE_UINT8)
        encode_offsets(dst + CHUNK_LABEL_BYTES, slot->offsets);
    else if (slot->label != CHUNK_LABEL_MASKED)
        half_from_floats((uint16_t *)pixels_of(task, slot->position), slot->floats,
                         sample_values(task->spec));
}

/* Positions that mix with each other are built together, so that each is decoded once. */
static int build_pair(const struct task *task, uint32_t position, uint32_t partner, float lam)
{
    struct slot slots[2] = {
        {.position = position, .floats = task->builder->floats[0]},
        {.position = partner, .floats = task->builder->floats[1]},
    };
    int count = position == partner ? 1 : 2;
    for (int i = 0; i < count; i++) {
        int code = fill(task, &slots[i]);
        if (code)
            return code;
    }
    bool mixed = count == 2 && spec_mixes(task->spec, task->epoch) &&
                 slots[0].label != CHUNK_LABEL_MASKED && slots[1].label != CHUNK_LABEL_MASKED;
    if (mixed && task->spec->wire == SPEC_WIRE_FP16)
        colour_mix(slots[0].floats, slots[1].floats, lam, sample_values(task->spec));
    for (int i = 0; i < count; i++)
        emit(task, &slots[i], &slots[mixed ? 1 - i : i], mixed ? lam : 1);
    return 0;
}

static int check(const struct store *store, const struct spec *spec, uint64_t chunk,
                 uint32_t samples)
{
    const struct store_meta *meta = store_meta(store);
    if (!samples)
        return err_set(ERR_ARG, "%s has no chunk %llu: %u samples in chunks of %u",
                       store_path(store), (unsigned long long)chunk, meta->sample_count,
                       spec->chunk_size);
    if (meta->channels != spec->channels)
        return err_set(ERR_ARG, "%s has %u channels, not %u", store_path(store), meta->channels,
                       spec->channels);
    return builder_supports(spec);
}

int builder_chunk(struct builder *builder, struct chunk_build *out, const struct store *store,
                  const struct spec *spec, uint32_t epoch, uint64_t chunk, bool strict)
{
    out->samples = chunk_samples(spec, chunk, store_meta(store)->sample_count);
    out->substituted = out->masked = 0;
    int code = check(store, spec, chunk, out->samples);
    if (!code)
        code = reserve(builder, spec);
    struct task task = {builder, out, store, spec, epoch, chunk, strict};
    for (uint32_t position = 0; !code && position < (out->samples + 1) / 2; position++)
        code = build_pair(&task, position, chunk_partner(position, out->samples),
                          chunk_lam(spec, epoch, chunk, position, out->samples));
    return code;
}

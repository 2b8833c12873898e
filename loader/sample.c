/* SPDX-License-Identifier: Apache-2.0 */
/* Chunk assembly. */
#include "loader/sample.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/log.h"
#include "common/stop.h"
#include "datasets/ahead.h"
#include "loader/isolate.h"
#include "loader/render.h"
#include "proto/order.h"

enum { PATIENCE = 8 }; /* records tried for a damaged one before a request to stop is heeded */

struct builder {
    struct render *render;
    enum decoder_choice decoder;
    double next_log; /* complaints are held back until then */
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
    int rendered;      /* its slot in the render */
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
    int code = render_open(&builder->render, decoder, cpu_level());
    if (code) {
        builder_close(builder);
        return code;
    }
    builder->decoder = decoder;
    *out = builder;
    return 0;
}

void builder_close(struct builder *builder)
{
    if (!builder)
        return;
    render_close(builder->render);
    free(builder);
}

size_t chunk_label_bytes_of(const struct spec *spec)
{
    return spec->wire == SPEC_WIRE_UINT8 ? CHUNK_LABEL_UINT8_BYTES : CHUNK_LABEL_BYTES;
}

size_t builder_bytes(const struct spec *spec)
{
    return render_keeps(spec);
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

int sample_cut(struct render *render, int slot, uint32_t *label, const struct store *store,
               struct ahead *ahead, const struct spec *spec, uint32_t epoch, uint32_t id)
{
    struct store_record record;
    int code = ahead ? ahead_read(&record, ahead, id) : store_read(&record, store, id);
    if (code)
        return code;
    if (record.label >= store_meta(store)->class_count)
        return err_set(ERR_DATA, "%s: sample %u: label %u of %u classes", store_path(store), id,
                       record.label, store_meta(store)->class_count);
    *label = record.label;
    code = render_cut(render, slot, &record, spec, epoch);
    if (code)
        return err_wrap(code, "%s: sample %u (class %s)", store_path(store), id,
                        store_meta(store)->class_ids[record.label]);
    return 0;
}

static void name_culprit(struct chunk_build *out, uint32_t id)
{
    for (uint32_t i = 0; i < out->culprit_count; i++)
        if (out->culprits[i] == id)
            return;
    if (out->culprit_count < CHUNK_CULPRITS)
        out->culprits[out->culprit_count++] = id;
}

/* ERR_DATA: this record is of no use. */
static int try_record(const struct task *task, struct slot *slot, uint32_t id)
{
    struct builder *builder = task->builder;
    if (!task->out->isolate)
        return sample_cut(builder->render, slot->rendered, &slot->label, task->store,
                          task->out->ahead, task->spec, task->epoch, id);
    bool killed;
    int code = isolate_cut(&killed, builder->render, slot->rendered, &slot->label, task->store,
                           task->spec, task->epoch, id, builder->decoder);
    if (code == ERR_DATA && killed)
        name_culprit(task->out, id);
    return code;
}

static void mask(const struct task *task, struct slot *slot)
{
    slot->label = CHUNK_LABEL_MASKED;
    memset(pixels_of(task, slot->position), 0, spec_sample_bytes(task->spec));
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
        if (step > PATIENCE && stop_requested())
            return err_set(ERR_STOPPED, "stopped on request");
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

static uint8_t *label_of(const struct task *task, uint32_t position)
{
    return task->out->labels + position * chunk_label_bytes_of(task->spec);
}

/* An unmixed sample's pixels; bytes are mixed by the trainer, after their offsets. */
static void emit_pixels(const struct task *task, const struct slot *slot)
{
    const struct render *render = task->builder->render;
    uint8_t *pixels = pixels_of(task, slot->position);
    float offsets[3] = {0};
    if (task->spec->wire == SPEC_WIRE_UINT8) {
        if (slot->label != CHUNK_LABEL_MASKED)
            render_bytes(render, pixels, offsets, slot->rendered);
        encode_offsets(label_of(task, slot->position) + CHUNK_LABEL_BYTES, offsets);
    } else if (slot->label != CHUNK_LABEL_MASKED) {
        render_halves(render, (uint16_t *)pixels, slot->rendered);
    }
}

static void emit_label(const struct task *task, uint32_t position, uint32_t a, uint32_t b,
                       float lam)
{
    chunk_label_encode(label_of(task, position), (struct chunk_label){a, b, lam});
}

static void emit_mixed(const struct task *task, const struct slot slots[2], float lam)
{
    uint16_t *const pixels[] = {(uint16_t *)pixels_of(task, slots[0].position),
                                (uint16_t *)pixels_of(task, slots[1].position)};
    for (int i = 0; i < 2; i++)
        emit_label(task, slots[i].position, slots[i].label, slots[1 - i].label, lam);
    if (task->spec->wire == SPEC_WIRE_FP16)
        render_halves_mixed(task->builder->render, pixels, lam);
    for (int i = 0; i < 2 && task->spec->wire == SPEC_WIRE_UINT8; i++)
        emit_pixels(task, &slots[i]);
}

/* Positions that mix with each other are built together, so that each is decoded once. */
static int build_pair(const struct task *task, uint32_t position, uint32_t partner, float lam)
{
    struct slot slots[2] = {{.position = position, .rendered = 0},
                            {.position = partner, .rendered = 1}};
    int count = position == partner ? 1 : 2;
    for (int i = 0; i < count; i++) {
        int code = fill(task, &slots[i]);
        if (code)
            return code;
    }
    if (count == 2 && spec_mixes(task->spec, task->epoch) && slots[0].label != CHUNK_LABEL_MASKED &&
        slots[1].label != CHUNK_LABEL_MASKED) {
        emit_mixed(task, slots, lam);
        return 0;
    }
    for (int i = 0; i < count; i++) {
        emit_label(task, slots[i].position, slots[i].label, slots[i].label, 1);
        emit_pixels(task, &slots[i]);
    }
    return 0;
}

size_t builder_ids(uint32_t *ids, const struct spec *spec, uint32_t epoch, uint64_t chunk,
                   uint32_t sample_count)
{
    uint32_t samples = chunk_samples(spec, chunk, sample_count), first, count = 0;
    first = (uint32_t)(chunk * spec->chunk_size);
    for (uint32_t position = 0; position < (samples + 1) / 2; position++) {
        uint32_t partner = chunk_partner(position, samples);
        ids[count++] = order_at(spec, epoch, first + position, sample_count);
        if (partner != position)
            ids[count++] = order_at(spec, epoch, first + partner, sample_count);
    }
    return count;
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
    return 0;
}

int builder_chunk(struct builder *builder, struct chunk_build *out, const struct store *store,
                  const struct spec *spec, uint32_t epoch, uint64_t chunk, bool strict)
{
    out->samples = chunk_samples(spec, chunk, store_meta(store)->sample_count);
    out->substituted = out->masked = out->culprit_count = 0;
    int code = check(store, spec, chunk, out->samples);
    struct task task = {builder, out, store, spec, epoch, chunk, strict};
    for (uint32_t position = 0; !code && position < (out->samples + 1) / 2; position++)
        code = build_pair(&task, position, chunk_partner(position, out->samples),
                          chunk_lam(spec, epoch, chunk, position, out->samples));
    /* Whatever came of it: not from a file that somebody is writing. */
    int changed = store_check_unchanged(store, false);
    return changed ? changed : code;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* satchel-preview: one chunk of the stream as a trainer would get it, as arrays in a file or as a
 * contact sheet. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/half.h"
#include "common/log.h"
#include "common/opt.h"
#include "datasets/fault.h"
#include "loader/sample.h"
#include "proto/recipe.h"
#include "tools/npz.h"
#include "tools/sheet.h"

struct values {
    const char *out, *split, *decoder;
    int64_t epoch, chunk;
};

static const struct opt options[] = {
    {"out", OPT_STRING, offsetof(struct values, out), .value_name = "FILE.png|FILE.npz",
     .help = "a contact sheet, or the arrays pixels, label_a, label_b, lam and id"},
    {"split", OPT_CHOICE, offsetof(struct values, split), .fallback = "train",
     .choices = "train|val", .help = "the training stream or the evaluation's"},
    {"epoch", OPT_INT, offsetof(struct values, epoch), .fallback = "0", .min = 0, .max = UINT32_MAX,
     .value_name = "N", .help = "counts from 0"},
    {"chunk", OPT_INT, offsetof(struct values, chunk), .fallback = "0", .min = 0, .max = UINT32_MAX,
     .value_name = "N", .help = "of the epoch, counts from 0"},
    {"decoder", OPT_CHOICE, offsetof(struct values, decoder), .fallback = "auto",
     .choices = "auto|reference|indexed", .help = "which JPEG decoder; the pixels are the same"},
};

/* A chunk's memory; arrays are [samples] or [samples][...]. */
struct batch {
    struct chunk_build build;
    uint32_t *label_a, *label_b;
    float *lam, *offsets; /* offsets [samples][3]: uint8 wire only */
};

static void batch_release(struct batch *batch)
{
    free(batch->build.labels);
    free(batch->build.pixels);
    free(batch->build.ids);
    free(batch->label_a);
    free(batch->label_b);
    free(batch->lam);
    free(batch->offsets);
}

static int batch_reserve(struct batch *batch, const struct spec *spec)
{
    size_t samples = spec->chunk_size;
    batch->build.labels = malloc(samples * chunk_label_bytes_of(spec));
    batch->build.pixels = malloc(samples * spec_sample_bytes(spec));
    batch->build.ids = malloc(samples * sizeof *batch->build.ids);
    batch->label_a = malloc(samples * sizeof *batch->label_a);
    batch->label_b = malloc(samples * sizeof *batch->label_b);
    batch->lam = malloc(samples * sizeof *batch->lam);
    batch->offsets = malloc(samples * 3 * sizeof *batch->offsets);
    if (!batch->build.labels || !batch->build.pixels || !batch->build.ids || !batch->label_a ||
        !batch->label_b || !batch->lam || !batch->offsets)
        return err_set(ERR_NOMEM, "out of memory for a chunk of %zu samples", samples);
    return 0;
}

static void decode_labels(struct batch *batch, const struct spec *spec)
{
    for (uint32_t i = 0; i < batch->build.samples; i++) {
        const uint8_t *from = batch->build.labels + i * chunk_label_bytes_of(spec);
        struct chunk_label label = chunk_label_decode(from);
        batch->label_a[i] = label.a;
        batch->label_b[i] = label.b;
        batch->lam[i] = label.lam;
        if (spec->wire == SPEC_WIRE_UINT8) /* x86 and ARM hold floats as the wire does */
            memcpy(batch->offsets + 3 * i, from + CHUNK_LABEL_BYTES, 3 * sizeof(float));
    }
}

static int write_arrays(const struct batch *batch, const struct spec *spec, const char *path)
{
    uint64_t samples = batch->build.samples, side = spec->size_px;
    bool bytes = spec->wire == SPEC_WIRE_UINT8;
    const struct npz_array arrays[] = {
        {"pixels",
         bytes ? "|u1" : "<f2",
         bytes ? 1 : 2,
         4,
         {samples, side, side, spec->channels},
         batch->build.pixels},
        {"label_a", "<u4", 4, 1, {samples}, batch->label_a},
        {"label_b", "<u4", 4, 1, {samples}, batch->label_b},
        {"lam", "<f4", 4, 1, {samples}, batch->lam},
        {"id", "<u4", 4, 1, {samples}, batch->build.ids},
        {"offset", "<f4", 4, 2, {samples, 3}, batch->offsets}, /* uint8 wire only */
    };
    struct npz *npz;
    int code = npz_open(&npz, path);
    if (code)
        return code;
    for (size_t i = 0; !code && i < ARRAY_COUNT(arrays) - !bytes; i++)
        code = npz_add(npz, &arrays[i]);
    if (!code)
        return npz_commit(npz);
    npz_discard(npz);
    return code;
}

/* --- the picture --- */

/* Back from what the network gets to 0..255. */
static void to_bytes(uint8_t *dst, const struct batch *batch, const struct spec *spec)
{
    const uint16_t *halves = batch->build.pixels;
    size_t count = (size_t)batch->build.samples * spec->size_px * spec->size_px * spec->channels;
    for (size_t i = 0; i < count; i++) {
        size_t c = i % spec->channels;
        float value = half_to_float(halves[i]) * spec->std[c] + spec->mean[c];
        dst[i] = (uint8_t)lrintf(fminf(fmaxf(value, 0), 255));
    }
}

static const char *class_name(const struct store_meta *meta, uint32_t label)
{
    const char *name = store_class_name(meta, label);
    return name ? name : "damaged";
}

/* The heavier class is named first. */
static void caption(struct sheet_cell *cell, const struct batch *batch,
                    const struct store_meta *meta, uint32_t i)
{
    float lam = batch->lam[i];
    bool swapped = lam < 0.5F;
    uint32_t first = swapped ? batch->label_b[i] : batch->label_a[i];
    uint32_t second = swapped ? batch->label_a[i] : batch->label_b[i];
    snprintf(cell->lines[0], sizeof cell->lines[0], "%s", class_name(meta, first));
    if (lam < 1)
        snprintf(cell->lines[1], sizeof cell->lines[1], "lam %.2f + %s",
                 (double)(swapped ? 1 - lam : lam), class_name(meta, second));
    else
        snprintf(cell->lines[1], sizeof cell->lines[1], "id %u", batch->build.ids[i]);
}

static int write_sheet(const struct batch *batch, const struct spec *spec,
                       const struct store *store, const struct values *values)
{
    const struct store_meta *meta = store_meta(store);
    uint32_t samples = batch->build.samples;
    char title[300];
    const char *path = store_path(store), *slash = strrchr(path, '/');
    struct sheet_cell *cells = calloc(samples, sizeof *cells);
    uint8_t *pixels = malloc((size_t)samples * spec->size_px * spec->size_px * spec->channels);
    int code = cells && pixels ? 0 : err_set(ERR_NOMEM, "out of memory for a picture");
    if (!code) {
        to_bytes(pixels, batch, spec);
        for (uint32_t i = 0; i < samples; i++)
            caption(&cells[i], batch, meta, i);
        snprintf(title, sizeof title,
                 "%.100s: epoch %" PRId64 ", chunk %" PRId64 " of %" PRIu64 ", %u px",
                 slash ? slash + 1 : path, values->epoch, values->chunk,
                 chunk_total(spec, meta->sample_count), spec->size_px);
        const struct sheet sheet = {title, pixels, cells, samples, spec->size_px, spec->channels};
        code = sheet_write(&sheet, values->out);
    }
    free(pixels);
    free(cells);
    return code;
}

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), most = strlen(end);
    return length > most && !strcmp(text + length - most, end);
}

static int check_out(const char *path)
{
    if (!path)
        return err_set(ERR_ARG, "--out is missing: where does the chunk go? (see --help)");
    if (!ends_with(path, ".npz") && !ends_with(path, ".png"))
        return err_set(ERR_ARG, "--out %s: the name must end in .png or .npz", path);
    return 0;
}

static int preview(const struct store *store, const struct values *values,
                   const struct recipe *recipe)
{
    struct spec spec;
    struct batch batch = {0};
    struct builder *builder = NULL;
    unsigned channels = store_meta(store)->channels;
    int code = strcmp(values->split, "val") ? recipe_train_spec(&spec, recipe, channels)
                                            : recipe_eval_spec(&spec, recipe, channels);
    bool picture = ends_with(values->out, ".png");
    if (picture)
        spec.wire = SPEC_WIRE_FP16; /* with the uint8 wire it is the trainer that mixes */
    if (!code)
        code = batch_reserve(&batch, &spec);
    if (!code)
        code = builder_open(&builder, builder_decoder_of(values->decoder));
    if (!code)
        code = builder_chunk(builder, &batch.build, store, &spec, (uint32_t)values->epoch,
                             (uint64_t)values->chunk, false);
    if (!code) {
        decode_labels(&batch, &spec);
        code = picture ? write_sheet(&batch, &spec, store, values)
                       : write_arrays(&batch, &spec, values->out);
    }
    if (!code)
        printf("%s: %u samples of %u x %u x %u, epoch %" PRId64 ", chunk %" PRId64 " of %" PRIu64
               ", %u substituted, %u masked\n",
               values->out, batch.build.samples, spec.size_px, spec.size_px, spec.channels,
               values->epoch, values->chunk, chunk_total(&spec, store_meta(store)->sample_count),
               batch.build.substituted, batch.build.masked);
    builder_close(builder);
    batch_release(&batch);
    return code;
}

int main(int argc, char **argv)
{
    struct values values;
    struct recipe recipe;
    struct opt_section sections[] = {{"Preview", options, ARRAY_COUNT(options), &values, false},
                                     recipe_section(&recipe)};
    struct opt_program program = {
        .name = "satchel-preview",
        .usage =
            "FILE.lmdb --out FILE.png|FILE.npz [--epoch N --chunk N] [--recipe FILE.ini] [OPTIONS]",
        .summary = "Writes one chunk of the stream, exactly as a trainer with the same recipe "
                   "gets it, as a picture or as NumPy arrays.",
        .sections = sections,
        .section_count = ARRAY_COUNT(sections),
        .min_positional = 1,
        .max_positional = 1,
        .find_recipe = recipe_find,
        .foreign_keys = recipe_foreign_keys(),
    };
    struct store *store = NULL;
    log_open(program.name);
    fault_install();
    int code = opt_parse(&program, argc, argv);
    if (!code && !program.finished) {
        code = check_out(values.out);
        if (!code)
            code = recipe_check(&recipe, 1);
        if (!code)
            code = store_open(&store, program.positional[0]);
        if (!code)
            code = preview(store, &values, &recipe);
    }
    int status = opt_end(&program, code); /* first: closing may fail as well */
    store_close(store);
    return status;
}

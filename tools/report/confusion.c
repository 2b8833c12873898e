/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/report/confusion.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "loader/sample.h"
#include "tools/png.h"
#include "tools/report/chart.h"

enum {
    WORST = 6,        /* classes shown */
    PICTURES = 6,     /* of each */
    TAKEN_FOR = 3,    /* other classes named of each */
    MATRIX_MOST = 20, /* classes of a matrix that fits a page */
    THUMBNAIL_PX = 84,
};

struct confused {
    const struct store_meta *meta;
    const struct predictions *predictions;
    uint32_t *first; /* [classes + 1]: ids of class c are first[c] .. first[c + 1] - 1 */
};

int confusion_check(const struct run *run, const struct store *store)
{
    const struct store_meta *meta = store_meta(store);
    const struct predictions *predictions = run->predictions;
    if (!hash128_equal(predictions->val_fingerprint, meta->fingerprint) ||
        predictions->count != meta->sample_count || predictions->classes != meta->class_count)
        return err_set(ERR_ARG,
                       "--data '%s' is not the store that the run '%s' was judged on: its "
                       "fingerprint differs",
                       store_path(store), run->path);
    return 0;
}

/* How often class c was taken for each class; [classes]. Returns how many were judged. */
static uint32_t count_row(uint32_t *row, const struct confused *confused, uint32_t c)
{
    uint32_t judged = 0;
    memset(row, 0, confused->meta->class_count * sizeof *row);
    for (uint32_t id = confused->first[c]; id < confused->first[c + 1]; id++) {
        float taken = confused->predictions->class_index[id];
        if (taken < 0)
            continue;
        row[(uint32_t)taken]++;
        judged++;
    }
    return judged;
}

/* --- the matrix --- */

static void write_matrix_row(FILE *stream, const struct confused *confused, uint32_t c,
                             const uint32_t *row, uint32_t judged)
{
    fputs("<tr><th>", stream);
    html_text(stream, store_class_name(confused->meta, c));
    fputs("</th>", stream);
    for (uint32_t k = 0; k < confused->meta->class_count; k++) {
        double share = judged ? (double)row[k] / judged : 0;
        /* Errors are few: their colour goes with the root of their share. */
        double tint = k == c ? 0.12 + 0.6 * share : fmin(1, 1.6 * sqrt(share));
        if (row[k] > 0)
            fprintf(stream, "<td style='background:rgba(var(--%s),%.2f)'>%u</td>",
                    k == c ? "good" : "bad", k == c ? tint : 0.75 * tint, row[k]);
        else
            fputs("<td></td>", stream);
    }
    fputs("</tr>\n", stream);
}

static void write_matrix(FILE *stream, const struct confused *confused, uint32_t *row)
{
    uint32_t classes = confused->meta->class_count;
    fputs("<div class='card scroll'><p>Rows: what a sample is. Columns: what it was taken for.</p>"
          "<table class='matrix'><thead><tr><th></th>",
          stream);
    for (uint32_t c = 0; c < classes; c++) {
        fputs("<th><div><span>", stream);
        html_text(stream, store_class_name(confused->meta, c));
        fputs("</span></div></th>", stream);
    }
    fputs("</tr></thead><tbody>\n", stream);
    for (uint32_t c = 0; c < classes; c++) {
        uint32_t judged = count_row(row, confused, c);
        write_matrix_row(stream, confused, c, row, judged);
    }
    fputs("</tbody></table></div>\n", stream);
}

/* --- pictures --- */

static void write_base64(FILE *stream, const uint8_t *bytes, size_t count)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < count; i += 3) {
        size_t left = count - i;
        uint32_t group = (uint32_t)bytes[i] << 16 | (left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0) |
                         (left > 2 ? bytes[i + 2] : 0);
        fputc(digits[group >> 18], stream);
        fputc(digits[group >> 12 & 63], stream);
        fputc(left > 1 ? digits[group >> 6 & 63] : '=', stream);
        fputc(left > 2 ? digits[group & 63] : '=', stream);
    }
}

/* A sample as the evaluation sees it, but smaller. */
struct viewer {
    struct builder *builder;
    const struct store *store;
    struct spec spec;
};

static int viewer_open(struct viewer *viewer, const struct store *store, const struct run *run)
{
    *viewer = (struct viewer){.store = store};
    struct spec *spec = &viewer->spec;
    int code = recipe_eval_spec(spec, &run->recipe, store_meta(store)->channels);
    if (code)
        return code;
    spec->chunk_size = 1;
    spec->wire = SPEC_WIRE_UINT8;
    if (spec->size_px > THUMBNAIL_PX) {
        spec->resize_short_px =
            (uint16_t)lround((double)spec->resize_short_px * THUMBNAIL_PX / spec->size_px);
        spec->size_px = THUMBNAIL_PX;
    }
    return builder_open(&viewer->builder, DECODER_AUTO);
}

/* A damaged record leaves an empty frame. */
static int write_picture(FILE *stream, struct viewer *viewer, uint32_t id)
{
    const struct spec *spec = &viewer->spec;
    uint8_t labels[CHUNK_LABEL_UINT8_BYTES];
    _Alignas(64) uint8_t pixels[THUMBNAIL_PX * THUMBNAIL_PX * 3 + 64];
    uint32_t ids[1];
    uint8_t *png;
    size_t bytes;
    struct chunk_build build = {.labels = labels, .pixels = pixels, .ids = ids};
    int code = builder_chunk(viewer->builder, &build, viewer->store, spec, 0, id, false);
    if (!code)
        code = png_encode(&png, &bytes, pixels, spec->size_px, spec->size_px, spec->channels);
    if (code)
        return code;
    fprintf(stream, "<img class='%s' alt='sample %u' src='data:image/png;base64,",
            spec->size_px < THUMBNAIL_PX ? "small" : "photo", id);
    write_base64(stream, png, bytes);
    fputs("'/>", stream);
    free(png);
    return 0;
}

/* The wrong ones that the network was surest of. */
static int surest_errors(uint32_t ids[PICTURES], const struct confused *confused, uint32_t c)
{
    const float *probability = confused->predictions->probability;
    int count = 0;
    for (uint32_t id = confused->first[c]; id < confused->first[c + 1]; id++) {
        float taken = confused->predictions->class_index[id];
        if (taken < 0 || taken == (float)c)
            continue;
        int at = count < PICTURES ? count++ : PICTURES;
        for (; at > 0 && probability[ids[at - 1]] < probability[id]; at--)
            if (at < PICTURES)
                ids[at] = ids[at - 1];
        if (at < PICTURES)
            ids[at] = id;
    }
    return count;
}

static int write_pictures(FILE *stream, const struct confused *confused, struct viewer *viewer,
                          uint32_t c)
{
    uint32_t ids[PICTURES];
    int count = surest_errors(ids, confused, c), code = 0;
    fputs("<div class='pictures'>", stream);
    for (int i = 0; i < count && !code; i++) {
        fputs("<div>", stream);
        code = write_picture(stream, viewer, ids[i]);
        html_text(stream, store_class_name(confused->meta,
                                           (uint32_t)confused->predictions->class_index[ids[i]]));
        fprintf(stream, ", %.0f&#160;%%</div>\n",
                100 * (double)confused->predictions->probability[ids[i]]);
    }
    fputs("</div>", stream);
    return code;
}

/* --- the worst classes --- */

static void write_taken_for(FILE *stream, const struct confused *confused, uint32_t *row,
                            uint32_t c, uint32_t judged)
{
    fputs("<p>", stream);
    for (int n = 0; n < TAKEN_FOR; n++) {
        uint32_t most = c == 0 ? 1 : 0;
        for (uint32_t k = 0; k < confused->meta->class_count; k++)
            if (k != c && row[k] > row[most])
                most = k;
        if (most >= confused->meta->class_count || row[most] == 0)
            break;
        fputs(n ? ", " : "taken for ", stream);
        html_text(stream, store_class_name(confused->meta, most));
        fprintf(stream, " (%.1f&#160;%%)", 100.0 * row[most] / judged);
        row[most] = 0;
    }
    fputs("</p>", stream);
}

static int write_class(FILE *stream, const struct confused *confused, struct viewer *viewer,
                       uint32_t *row, uint32_t c)
{
    uint32_t judged = count_row(row, confused, c);
    double percent = 100.0 * row[c] / judged;
    fputs("<div class='card'><h3><span>", stream);
    html_text(stream, store_class_name(confused->meta, c));
    fprintf(
        stream,
        "</span><span>%.1f&#160;%%</span></h3><div class='bar'><i style='width:%.1f%%'></i></div>",
        percent, percent);
    write_taken_for(stream, confused, row, c, judged);
    int code = write_pictures(stream, confused, viewer, c);
    fputs("</div>\n", stream);
    return code;
}

/* The classes with the least accuracy among those with an error; returns how many. */
static int find_worst(uint32_t worst[WORST], const struct confused *confused, uint32_t *row)
{
    double share[WORST];
    int count = 0;
    for (uint32_t c = 0; c < confused->meta->class_count; c++) {
        uint32_t judged = count_row(row, confused, c);
        if (judged == 0 || row[c] == judged)
            continue;
        double now = (double)row[c] / judged;
        int at = count < WORST ? count++ : WORST;
        for (; at > 0 && share[at - 1] > now; at--) {
            if (at < WORST) {
                share[at] = share[at - 1];
                worst[at] = worst[at - 1];
            }
        }
        if (at < WORST) {
            share[at] = now;
            worst[at] = c;
        }
    }
    return count;
}

static int write_worst(FILE *stream, const struct confused *confused, struct viewer *viewer,
                       uint32_t *row)
{
    uint32_t worst[WORST];
    int count = find_worst(worst, confused, row), code = 0;
    fputs("<div class='worst'>\n", stream);
    for (int i = 0; i < count && !code; i++)
        code = write_class(stream, confused, viewer, row, worst[i]);
    fputs("</div>\n", stream);
    return code;
}

int confusion_write(FILE *stream, const struct run *run, const struct store *store)
{
    const struct store_meta *meta = store_meta(store);
    struct confused confused = {.meta = meta, .predictions = run->predictions};
    struct viewer viewer = {NULL};
    uint32_t *row = calloc(meta->class_count, sizeof *row);
    confused.first = calloc((size_t)meta->class_count + 1, sizeof *confused.first);
    int code = row && confused.first ? viewer_open(&viewer, store, run)
                                     : err_set(ERR_NOMEM, "out of memory for the classes");
    for (uint32_t c = 0; c < meta->class_count && !code; c++)
        confused.first[c + 1] = confused.first[c] + meta->class_samples[c];
    if (!code) {
        fputs("<h2>What is confused: ", stream);
        html_text(stream, run->name);
        fprintf(
            stream,
            "</h2>\n<p class='lead'>Validation after epoch %llu, the best so far. Pictures: the "
            "errors that the network was surest of, with what it took them for.</p>\n",
            (unsigned long long)run->predictions->epoch);
        if (meta->class_count <= MATRIX_MOST)
            write_matrix(stream, &confused, row);
        code = write_worst(stream, &confused, &viewer, row);
    }
    builder_close(viewer.builder);
    free(confused.first);
    free(row);
    return code;
}

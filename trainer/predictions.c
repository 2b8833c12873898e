/* SPDX-License-Identifier: Apache-2.0 */
#include "trainer/predictions.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "trainer/safetensors.h"

#define PREDICTIONS_FORMAT "satchel-predictions-1"

int predictions_open(struct predictions **out, uint32_t count, uint32_t classes)
{
    *out = NULL;
    struct predictions *predictions = calloc(1, sizeof *predictions);
    if (predictions) {
        predictions->count = count;
        predictions->classes = classes;
        predictions->class_index = malloc((count + 1) * sizeof(float));
        predictions->probability = calloc((size_t)count + 1, sizeof(float));
    }
    if (!predictions || !predictions->class_index || !predictions->probability) {
        predictions_close(predictions);
        return err_set(ERR_NOMEM, "out of memory for %u predictions", count);
    }
    predictions_reset(predictions, 0);
    *out = predictions;
    return 0;
}

int predictions_copy(struct predictions **out, const struct predictions *src)
{
    int code = predictions_open(out, src->count, src->classes);
    if (code)
        return code;
    (*out)->epoch = src->epoch;
    (*out)->val_fingerprint = src->val_fingerprint;
    memcpy((*out)->class_index, src->class_index, src->count * sizeof(float));
    memcpy((*out)->probability, src->probability, src->count * sizeof(float));
    return 0;
}

void predictions_reset(struct predictions *predictions, uint64_t epoch)
{
    predictions->epoch = epoch;
    for (uint32_t i = 0; i < predictions->count; i++) {
        predictions->class_index[i] = -1;
        predictions->probability[i] = 0;
    }
}

void predictions_close(struct predictions *predictions)
{
    if (!predictions)
        return;
    free(predictions->class_index);
    free(predictions->probability);
    free(predictions);
}

static uint32_t largest(const float *logits, uint32_t classes)
{
    uint32_t best = 0;
    for (uint32_t c = 1; c < classes; c++)
        if (logits[c] > logits[best])
            best = c;
    return best;
}

void predictions_enter(struct predictions *predictions, uint64_t first, uint32_t samples,
                       const float *logits)
{
    uint32_t classes = predictions->classes;
    for (uint32_t i = 0; i < samples && first + i < predictions->count; i++, logits += classes) {
        uint32_t best = largest(logits, classes);
        double sum = 0; /* softmax, with the largest logit taken off */
        for (uint32_t c = 0; c < classes; c++)
            sum += exp((double)logits[c] - (double)logits[best]);
        predictions->class_index[first + i] = (float)best;
        predictions->probability[first + i] = sum >= 1 ? (float)(1 / sum) : 0; /* NaN: 0 */
    }
}

void predictions_clear(struct predictions *predictions, uint64_t id)
{
    if (id < predictions->count) {
        predictions->class_index[id] = -1;
        predictions->probability[id] = 0;
    }
}

/* One integer a sample: class + 1 above, the probability's bits below; 0 where a rank has none. */
int predictions_gather(struct predictions *predictions, struct comm *comm)
{
    uint32_t count = predictions->count;
    if (comm->size == 1)
        return 0;
    uint64_t *packed = malloc(((size_t)count + 1) * sizeof *packed);
    int code = packed ? 0 : err_set(ERR_NOMEM, "out of memory for %u predictions", count);
    code = comm_agree(comm, code);
    for (uint32_t i = 0; i < count && !code; i++) {
        uint32_t bits;
        memcpy(&bits, &predictions->probability[i], sizeof bits);
        packed[i] = (uint64_t)(predictions->class_index[i] + 1) << 32 | bits;
    }
    if (!code)
        code = comm->ops->sum_integers(comm, packed, count);
    for (uint32_t i = 0; i < count && !code; i++) {
        uint32_t bits = (uint32_t)packed[i];
        memcpy(&predictions->probability[i], &bits, sizeof bits);
        predictions->class_index[i] = (float)(packed[i] >> 32) - 1;
    }
    free(packed);
    return code;
}

int predictions_write(const struct predictions *predictions, const char *path)
{
    char epoch_text[24], classes_text[24], fingerprint[33];
    struct safetensors_entry entries[] = {
        {.name = "class", .rank = 1, .shape = {predictions->count}},
        {.name = "probability", .rank = 1, .shape = {predictions->count}},
    };
    const struct safetensors_pair pairs[] = {{"format", PREDICTIONS_FORMAT},
                                             {"epoch", epoch_text},
                                             {"classes", classes_text},
                                             {"val_fingerprint", fingerprint}};
    struct safetensors_writer *writer;
    snprintf(epoch_text, sizeof epoch_text, "%" PRIu64, predictions->epoch);
    snprintf(classes_text, sizeof classes_text, "%u", predictions->classes);
    hash128_to_text(fingerprint, predictions->val_fingerprint);
    int code = safetensors_write_open(&writer, path, entries, 2, pairs, 4);
    if (code)
        return code;
    code = safetensors_write_next(writer, predictions->class_index);
    if (!code)
        code = safetensors_write_next(writer, predictions->probability);
    if (!code)
        return safetensors_write_commit(writer);
    safetensors_write_discard(writer);
    return code;
}

static bool is_number(uint64_t *value, const char *text, uint64_t most)
{
    char *end;
    if (!text || *text < '0' || *text > '9')
        return false;
    *value = strtoull(text, &end, 10);
    return !*end && *value <= most;
}

static int check_values(const struct predictions *predictions, const char *path)
{
    for (uint32_t i = 0; i < predictions->count; i++) {
        float c = predictions->class_index[i], p = predictions->probability[i];
        if (!(c >= -1 && c < (float)predictions->classes && c == floorf(c) && p >= 0 && p <= 1))
            return err_set(ERR_DATA, "'%s': the prediction of sample %u is none", path, i);
    }
    return 0;
}

static int read_file(struct predictions **out, const struct safetensors *file, const char *path)
{
    enum { CLASSES_MAX = 1 << 24 };
    uint64_t classes, epoch;
    struct hash128 store;
    const char *format = safetensors_metadata(file, "format");
    const char *fingerprint = safetensors_metadata(file, "val_fingerprint");
    const struct safetensors_tensor *index = safetensors_find(file, "class");
    const struct safetensors_tensor *probability = safetensors_find(file, "probability");
    if (!format || strcmp(format, PREDICTIONS_FORMAT) != 0 || !fingerprint ||
        hash128_from_text(&store, fingerprint) ||
        !is_number(&epoch, safetensors_metadata(file, "epoch"), UINT32_MAX) ||
        !is_number(&classes, safetensors_metadata(file, "classes"), CLASSES_MAX) || !index ||
        !probability || index->count != probability->count || index->count >= UINT32_MAX)
        return err_set(ERR_DATA, "'%s' holds no predictions of satchel-trainer", path);
    int code = safetensors_verify(file);
    if (!code)
        code = predictions_open(out, (uint32_t)index->count, (uint32_t)classes);
    if (code)
        return code;
    (*out)->epoch = epoch;
    (*out)->val_fingerprint = store;
    code = safetensors_read((*out)->class_index, file, index);
    if (!code)
        code = safetensors_read((*out)->probability, file, probability);
    return code ? code : check_values(*out, path);
}

int predictions_read(struct predictions **out, const char *path)
{
    struct safetensors *file;
    *out = NULL;
    int code = safetensors_open(&file, path);
    if (code)
        return code;
    code = read_file(out, file, path);
    safetensors_close(file);
    if (code) {
        predictions_close(*out);
        *out = NULL;
    }
    return code;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What a checkpoint says, read back. */
#include "trainer/checkpoint.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"

/* Reads the strings one after another; after the first error the others are not looked at. */
struct reader {
    const struct safetensors *file;
    const char *path;
    int code;
};

static const char *read_text(struct reader *reader, const char *key)
{
    if (reader->code)
        return "";
    const char *text = safetensors_metadata(reader->file, key);
    if (!text) {
        reader->code =
            err_set(ERR_DATA, "'%s' is no checkpoint of satchel: its metadata lacks '%s'",
                    reader->path, key);
        return "";
    }
    return text;
}

static void bad_value(struct reader *reader, const char *key, const char *text)
{
    if (!reader->code)
        reader->code = err_set(ERR_DATA, "'%s': the metadata's '%s' is '%.80s', which it cannot be",
                               reader->path, key, text);
}

static uint64_t read_integer(struct reader *reader, const char *key)
{
    const char *text = read_text(reader, key);
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno)
        bad_value(reader, key, text);
    return value;
}

static double read_real(struct reader *reader, const char *key)
{
    const char *text = read_text(reader, key);
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !isfinite(value))
        bad_value(reader, key, text);
    return value;
}

/* Empty: none, -1. */
static double read_top1(struct reader *reader, const char *key)
{
    return *read_text(reader, key) ? read_real(reader, key) : -1;
}

static struct hash128 read_hash(struct reader *reader, const char *key)
{
    struct hash128 value = {0};
    const char *text = read_text(reader, key);
    if (!reader->code && hash128_from_text(&value, text))
        bad_value(reader, key, text);
    return value;
}

/* Formats of earlier versions lack what a run needs to go on exactly as if nothing had happened. */
static int check_format(const char *format, const char *path)
{
    if (strcmp(format, CHECKPOINT_FORMAT) == 0)
        return 0;
    if (strcmp(format, "satchel-1") == 0)
        return err_set(ERR_UNSUPPORTED,
                       "'%s' is of the format 'satchel-1' of an earlier version, which has no "
                       "checksum: a run cannot go on from it; begin a new one with --init '%s'",
                       path, path);
    return err_set(ERR_UNSUPPORTED,
                   "'%s' is of the format '%.80s'; this version goes on from '%s' alone: use the "
                   "version that wrote it, or begin a new run with --init",
                   path, format, CHECKPOINT_FORMAT);
}

int checkpoint_read(struct checkpoint *checkpoint, const struct safetensors *file, const char *path)
{
    struct reader reader = {.file = file, .path = path};
    const char *format = read_text(&reader, "format");
    if (!reader.code)
        reader.code = check_format(format, path);
    if (reader.code)
        return reader.code;
    *checkpoint = (struct checkpoint){
        .recipe = read_text(&reader, "recipe"),
        .backend = read_text(&reader, "backend"),
        .epoch = read_integer(&reader, "epoch"),
        .step_in_epoch = read_integer(&reader, "step_in_epoch"),
        .step = read_integer(&reader, "step"),
        .finished = read_integer(&reader, "finished") != 0,
        .receipt = read_hash(&reader, "receipt"),
        .train_fingerprint = read_hash(&reader, "train_fingerprint"),
        .has_val = *read_text(&reader, "val_fingerprint") != '\0',
        .has_challenge = *read_text(&reader, "challenge") != '\0',
        .loss_scale = read_real(&reader, "loss_scale"),
        .loss_scale_good_steps = read_integer(&reader, "loss_scale_good_steps"),
        .loss_scale_bad_steps = read_integer(&reader, "loss_scale_bad_steps"),
        .top1 = read_top1(&reader, "top1"),
        .best_top1 = read_top1(&reader, "best_top1"),
    };
    if (checkpoint->has_val)
        checkpoint->val_fingerprint = read_hash(&reader, "val_fingerprint");
    if (checkpoint->has_challenge)
        checkpoint->challenge = read_hash(&reader, "challenge");
    if (!(checkpoint->loss_scale > 0))
        bad_value(&reader, "loss_scale", read_text(&reader, "loss_scale"));
    return reader.code;
}

int checkpoint_load(const struct checkpoint_part *parts, int count, const struct safetensors *file,
                    const char *path)
{
    int code = 0;
    for (int i = 0; i < count && !code; i++)
        code = weights_load(&parts[i].weights, file, path, parts[i].kind, parts[i].prefix, NULL);
    return code;
}

int checkpoint_parts(struct checkpoint_part dst[CHECKPOINT_PARTS_MAX],
                     const struct weights *weights)
{
    dst[0] = (struct checkpoint_part){"", STATE_WEIGHT, *weights};
    dst[1] = (struct checkpoint_part){"momentum.", STATE_MOMENTUM, *weights};
    return 2;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Everything that a run needs to go on, in one file. */
#include "trainer/checkpoint.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"

static const char format_name[] = "satchel-1";
static const char momentum_prefix[] = "momentum.";

enum { PAIRS_MAX = 20, PAIR_BYTES = 48 };

/* The strings of __metadata__ while they are put together. */
struct pairs {
    struct safetensors_pair items[PAIRS_MAX];
    char texts[PAIRS_MAX][PAIR_BYTES];
    size_t count;
};

static void add_text(struct pairs *pairs, const char *key, const char *value)
{
    pairs->items[pairs->count++] = (struct safetensors_pair){key, value};
}

static void add_integer(struct pairs *pairs, const char *key, uint64_t value)
{
    char *text = pairs->texts[pairs->count];
    snprintf(text, PAIR_BYTES, "%" PRIu64, value);
    add_text(pairs, key, text);
}

/* 17 digits read back exactly. */
static void add_real(struct pairs *pairs, const char *key, double value)
{
    char *text = pairs->texts[pairs->count];
    snprintf(text, PAIR_BYTES, "%.17g", value);
    add_text(pairs, key, text);
}

static void add_top1(struct pairs *pairs, const char *key, double value)
{
    if (value >= 0)
        add_real(pairs, key, value);
    else
        add_text(pairs, key, "");
}

static void add_hash(struct pairs *pairs, const char *key, struct hash128 value)
{
    char *text = pairs->texts[pairs->count];
    hash128_to_text(text, value);
    add_text(pairs, key, text);
}

static void collect_pairs(struct pairs *pairs, const struct checkpoint *checkpoint,
                          const struct net *net)
{
    pairs->count = 0;
    add_text(pairs, "format", format_name);
    add_text(pairs, "satchel", SATCHEL_VERSION);
    add_text(pairs, "model", net->model);
    add_integer(pairs, "classes", (uint64_t)net->classes);
    add_integer(pairs, "channels", (uint64_t)net->channels);
    add_integer(pairs, "size", (uint64_t)net->size_px);
    add_text(pairs, "recipe", checkpoint->recipe);
    add_integer(pairs, "epoch", checkpoint->epoch);
    add_integer(pairs, "step_in_epoch", checkpoint->step_in_epoch);
    add_integer(pairs, "step", checkpoint->step);
    add_integer(pairs, "finished", checkpoint->finished);
    add_hash(pairs, "receipt", checkpoint->receipt);
    add_hash(pairs, "train_fingerprint", checkpoint->train_fingerprint);
    if (checkpoint->has_val)
        add_hash(pairs, "val_fingerprint", checkpoint->val_fingerprint);
    else
        add_text(pairs, "val_fingerprint", "");
    add_real(pairs, "loss_scale", checkpoint->loss_scale);
    add_integer(pairs, "loss_scale_good_steps", checkpoint->loss_scale_good_steps);
    add_top1(pairs, "top1", checkpoint->top1);
    add_top1(pairs, "best_top1", checkpoint->best_top1);
    add_text(pairs, "backend", checkpoint->backend);
}

static void add_entry(struct safetensors_entry *entry, const struct tensor *tensor,
                      const char *prefix)
{
    snprintf(entry->name, sizeof entry->name, "%s%s", prefix, tensor->name);
    entry->rank = tensor->rank;
    for (int d = 0; d < tensor->rank; d++)
        entry->shape[d] = (uint64_t)tensor->shape[d];
}

/* All weights in the net's order, then the momentum of those that are trained. dst has room for
 * two per tensor. */
static size_t collect_entries(struct safetensors_entry *dst, const struct net *net)
{
    size_t count = 0;
    for (int i = 0; i < net->tensor_count; i++)
        add_entry(&dst[count++], &net->tensors[i], "");
    for (int i = 0; i < net->tensor_count; i++)
        if (net->tensors[i].trained)
            add_entry(&dst[count++], &net->tensors[i], momentum_prefix);
    return count;
}

static int write_tensors(struct safetensors_writer *writer, const struct weights *weights,
                         enum state_kind kind, float *buffer)
{
    int code = 0;
    for (int i = 0; i < weights->net->tensor_count && !code; i++) {
        if (kind == STATE_MOMENTUM && !weights->net->tensors[i].trained)
            continue;
        code = weights->ops->state_get(buffer, weights->state, kind, i);
        if (!code)
            code = safetensors_write_next(writer, buffer);
    }
    return code;
}

int checkpoint_save(const char *path, const struct checkpoint *checkpoint,
                    const struct weights *weights)
{
    const struct net *net = weights->net;
    struct safetensors_writer *writer = NULL;
    struct pairs pairs;
    collect_pairs(&pairs, checkpoint, net);
    struct safetensors_entry *entries = calloc(2 * (size_t)net->tensor_count, sizeof *entries);
    float *buffer = malloc(weights_largest(net) * sizeof *buffer);
    int code = 0;
    if (!entries || !buffer)
        code = err_set(ERR_NOMEM, "out of memory for writing '%s'", path);
    if (!code)
        code = safetensors_write_open(&writer, path, entries, collect_entries(entries, net),
                                      pairs.items, pairs.count);
    if (!code)
        code = write_tensors(writer, weights, STATE_WEIGHT, buffer);
    if (!code)
        code = write_tensors(writer, weights, STATE_MOMENTUM, buffer);
    if (code)
        safetensors_write_discard(writer);
    else
        code = safetensors_write_commit(writer);
    free(buffer);
    free(entries);
    return code;
}

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

int checkpoint_read(struct checkpoint *checkpoint, const struct safetensors *file, const char *path)
{
    struct reader reader = {.file = file, .path = path};
    const char *format = read_text(&reader, "format");
    if (!reader.code && strcmp(format, format_name) != 0)
        return err_set(ERR_DATA, "'%s' is of the format '%.80s'; this build reads '%s'", path,
                       format, format_name);
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
        .loss_scale = read_real(&reader, "loss_scale"),
        .loss_scale_good_steps = read_integer(&reader, "loss_scale_good_steps"),
        .top1 = read_top1(&reader, "top1"),
        .best_top1 = read_top1(&reader, "best_top1"),
    };
    if (checkpoint->has_val)
        checkpoint->val_fingerprint = read_hash(&reader, "val_fingerprint");
    if (!(checkpoint->loss_scale > 0))
        bad_value(&reader, "loss_scale", read_text(&reader, "loss_scale"));
    return reader.code;
}

int checkpoint_load(const struct weights *weights, const struct safetensors *file, const char *path)
{
    int code = weights_load(weights, file, path, STATE_WEIGHT, "", NULL);
    return code ? code : weights_load(weights, file, path, STATE_MOMENTUM, momentum_prefix, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* A run's state in memory, and how it becomes a file. */
#include "trainer/snapshot.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"

enum { PAIRS_MAX = 24, PAIR_BYTES = 48 };

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
    add_text(pairs, "format", CHECKPOINT_FORMAT);
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
    if (checkpoint->has_challenge)
        add_hash(pairs, "challenge", checkpoint->challenge);
    else
        add_text(pairs, "challenge", "");
    add_real(pairs, "loss_scale", checkpoint->loss_scale);
    add_integer(pairs, "loss_scale_good_steps", checkpoint->loss_scale_good_steps);
    add_integer(pairs, "loss_scale_bad_steps", checkpoint->loss_scale_bad_steps);
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

struct snapshot {
    struct checkpoint_part parts[CHECKPOINT_PARTS_MAX];
    int part_count;
    struct safetensors_entry *entries; /* [entry_count] */
    size_t entry_count;
    float *values; /* of all entries, one behind the other */
    size_t value_count;
    struct checkpoint checkpoint;
};

/* Momentum is that of trained tensors alone. */
static bool has_tensor(const struct checkpoint_part *part, int tensor)
{
    return part->kind != STATE_MOMENTUM || part->weights.net->tensors[tensor].trained;
}

static void lay_out(struct snapshot *snapshot)
{
    for (int p = 0; p < snapshot->part_count; p++) {
        const struct checkpoint_part *part = &snapshot->parts[p];
        const struct net *net = part->weights.net;
        for (int i = 0; i < net->tensor_count; i++) {
            if (!has_tensor(part, i))
                continue;
            add_entry(&snapshot->entries[snapshot->entry_count++], &net->tensors[i], part->prefix);
            snapshot->value_count += net->tensors[i].count;
        }
    }
}

int snapshot_open(struct snapshot **out, const struct checkpoint_part *parts, int count)
{
    size_t tensors = 0;
    *out = NULL;
    struct snapshot *snapshot = calloc(1, sizeof *snapshot);
    if (!snapshot)
        return err_set(ERR_NOMEM, "out of memory for a checkpoint");
    snapshot->part_count = count;
    for (int i = 0; i < count; i++) {
        snapshot->parts[i] = parts[i];
        tensors += (size_t)parts[i].weights.net->tensor_count;
    }
    snapshot->entries = calloc(tensors, sizeof *snapshot->entries);
    if (snapshot->entries)
        lay_out(snapshot);
    snapshot->values = malloc(snapshot_bytes(snapshot));
    if (!snapshot->entries || !snapshot->values) {
        size_t bytes = snapshot_bytes(snapshot);
        snapshot_close(snapshot);
        return err_set(ERR_NOMEM, "out of memory for a checkpoint (%zu bytes)", bytes);
    }
    *out = snapshot;
    return 0;
}

void snapshot_close(struct snapshot *snapshot)
{
    if (!snapshot)
        return;
    free(snapshot->entries);
    free(snapshot->values);
    free(snapshot);
}

int snapshot_take(struct snapshot *snapshot, const struct checkpoint *checkpoint)
{
    float *at = snapshot->values;
    snapshot->checkpoint = *checkpoint;
    for (int p = 0; p < snapshot->part_count; p++) {
        const struct checkpoint_part *part = &snapshot->parts[p];
        const struct weights *weights = &part->weights;
        for (int i = 0; i < weights->net->tensor_count; i++) {
            if (!has_tensor(part, i))
                continue;
            int code = weights->ops->state_get(at, weights->state, part->kind, i);
            if (code)
                return code;
            at += weights->net->tensors[i].count;
        }
    }
    return 0;
}

static size_t elements(const struct safetensors_entry *entry)
{
    size_t count = 1;
    for (int d = 0; d < entry->rank; d++)
        count *= (size_t)entry->shape[d];
    return count;
}

int snapshot_write(const struct snapshot *snapshot, const char *path)
{
    struct safetensors_writer *writer;
    struct pairs pairs;
    const float *at = snapshot->values;
    collect_pairs(&pairs, &snapshot->checkpoint, snapshot->parts[0].weights.net);
    int code = safetensors_write_open(&writer, path, snapshot->entries, snapshot->entry_count,
                                      pairs.items, pairs.count);
    if (code)
        return code;
    for (size_t i = 0; i < snapshot->entry_count && !code; i++) {
        code = safetensors_write_next(writer, at);
        at += elements(&snapshot->entries[i]);
    }
    if (!code)
        return safetensors_write_commit(writer);
    safetensors_write_discard(writer);
    return code;
}

uint64_t snapshot_step(const struct snapshot *snapshot)
{
    return snapshot->checkpoint.step;
}

size_t snapshot_bytes(const struct snapshot *snapshot)
{
    return snapshot->value_count * sizeof *snapshot->values;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Fills a state's tensors. */
#include "trainer/weights.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/err.h"

enum { SHAPE_TEXT_BYTES = 200 };

size_t weights_largest(const struct net *net)
{
    size_t largest = 1;
    for (int i = 0; i < net->tensor_count; i++)
        if (net->tensors[i].count > largest)
            largest = net->tensors[i].count;
    return largest;
}

/* Floats for any tensor of the net; NULL with the error set. */
static float *tensor_buffer(const struct net *net)
{
    float *buffer = malloc(weights_largest(net) * sizeof *buffer);
    if (!buffer)
        err_set(ERR_NOMEM, "out of memory for a tensor of %s", net->model);
    return buffer;
}

int weights_init(const struct weights *weights, const char *scheme, bool zero_gamma, uint64_t seed)
{
    float *buffer = tensor_buffer(weights->net);
    int code = buffer ? 0 : ERR_NOMEM;
    for (int i = 0; i < weights->net->tensor_count && !code; i++) {
        net_init_tensor(buffer, &weights->net->tensors[i], scheme, zero_gamma, seed);
        code = weights->ops->state_set(weights->state, STATE_WEIGHT, i, buffer);
    }
    free(buffer);
    return code;
}

static bool same_shape(const struct safetensors_tensor *found, const struct tensor *wanted)
{
    bool same = found->rank == wanted->rank && found->count == wanted->count;
    for (int d = 0; same && d < wanted->rank; d++)
        same = found->shape[d] == (uint64_t)wanted->shape[d];
    return same;
}

/* A classifier over the same features with another number of classes. */
static bool other_head(const struct safetensors_tensor *found, const struct tensor *wanted)
{
    if (!wanted->head || found->rank != wanted->rank)
        return false;
    for (int d = 1; d < wanted->rank; d++)
        if (found->shape[d] != (uint64_t)wanted->shape[d])
            return false;
    return found->shape[0] != (uint64_t)wanted->shape[0];
}

/* "64x3x7x7" */
static void shape_text(char dst[SHAPE_TEXT_BYTES], const uint64_t *shape, int rank)
{
    int used = snprintf(dst, SHAPE_TEXT_BYTES, rank ? "" : "a scalar");
    for (int d = 0; d < rank; d++)
        used += snprintf(dst + used, SHAPE_TEXT_BYTES - (size_t)used, "%s%llu", d ? "x" : "",
                         (unsigned long long)shape[d]);
}

static int shape_error(const char *path, const struct safetensors_tensor *found,
                       const struct tensor *wanted, const char *model)
{
    char have[SHAPE_TEXT_BYTES], need[SHAPE_TEXT_BYTES];
    uint64_t shape[4];
    for (int d = 0; d < wanted->rank; d++)
        shape[d] = (uint64_t)wanted->shape[d];
    shape_text(have, found->shape, found->rank);
    shape_text(need, shape, wanted->rank);
    return err_set(ERR_DATA, "'%s': tensor '%s' has the shape %s, %s needs %s", path, found->name,
                   have, model, need);
}

static bool all_finite(const float *values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!isfinite(values[i]))
            return false;
    return true;
}

/* Reads a tensor; other_classes not NULL: or only says that it is a classifier's of another number
 * of classes. */
static int read_tensor(float *dst, bool *other_classes, const struct net *net, int index,
                       const struct safetensors *file, const char *path, const char *prefix)
{
    const struct tensor *tensor = &net->tensors[index];
    char name[128];
    snprintf(name, sizeof name, "%s%s", prefix, tensor->name);
    const struct safetensors_tensor *found = safetensors_find(file, name);
    if (!found)
        return err_set(ERR_DATA, "'%s' has no tensor '%s', which %s needs", path, name, net->model);
    if (other_classes && other_head(found, tensor)) {
        *other_classes = true;
        return 0;
    }
    if (!same_shape(found, tensor))
        return shape_error(path, found, tensor, net->model);
    int code = safetensors_read(dst, file, found);
    if (!code && !all_finite(dst, tensor->count))
        code = err_set(ERR_DATA, "'%s': tensor '%s' holds values that are not finite", path, name);
    return code;
}

int weights_read(float *dst, const struct net *net, int tensor, const struct safetensors *file,
                 const char *path, const char *prefix)
{
    return read_tensor(dst, NULL, net, tensor, file, path, prefix);
}

int weights_load(const struct weights *weights, const struct safetensors *file, const char *path,
                 enum state_kind kind, const char *prefix, bool *head_kept)
{
    const struct net *net = weights->net;
    float *buffer = tensor_buffer(net);
    int code = buffer ? 0 : ERR_NOMEM;
    if (head_kept)
        *head_kept = false;
    for (int i = 0; i < net->tensor_count && !code; i++) {
        bool other = false;
        if (kind == STATE_MOMENTUM && !net->tensors[i].trained)
            continue;
        code = read_tensor(buffer, head_kept ? &other : NULL, net, i, file, path, prefix);
        if (!code && !other)
            code = weights->ops->state_set(weights->state, kind, i, buffer);
        if (other)
            *head_kept = true;
    }
    free(buffer);
    return code;
}

int weights_copy(const struct weights *dst, const struct weights *src)
{
    float *buffer = tensor_buffer(src->net);
    int code = buffer ? 0 : ERR_NOMEM;
    for (int i = 0; i < src->net->tensor_count && !code; i++) {
        code = src->ops->state_get(buffer, src->state, STATE_WEIGHT, i);
        if (!code)
            code = dst->ops->state_set(dst->state, STATE_WEIGHT, i, buffer);
    }
    free(buffer);
    return code;
}

int weights_hash(struct hash128 *hash, const struct weights *weights)
{
    const struct net *net = weights->net;
    float *values = tensor_buffer(net);
    struct hash_stream *stream = hash_stream_open();
    int code = values && stream ? 0 : err_set(ERR_NOMEM, "out of memory to hash the weights");
    for (int i = 0; i < net->tensor_count && !code; i++) {
        code = weights->ops->state_get(values, weights->state, STATE_WEIGHT, i);
        if (!code)
            hash_stream_add(stream, values, net->tensors[i].count * sizeof *values);
    }
    if (!code)
        *hash = hash_stream_end(stream);
    hash_stream_close(stream);
    free(values);
    return code;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "trainer/cuda/layout.h"

#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "trainer/buckets.h"

/* A tensor as [rows][pixels][columns], rows and columns padded. */
struct extent {
    size_t rows, columns, pixels, padded_rows, padded_columns;
};

static struct extent extent_of(const struct tensor *tensor)
{
    bool matrix = tensor->rank > 1;
    size_t rows = matrix ? (size_t)tensor->shape[0] : 1;
    size_t columns = (size_t)(matrix ? tensor->shape[1] : tensor->shape[0]);
    return (struct extent){
        .rows = rows,
        .columns = columns,
        .pixels = tensor->rank == 4 ? (size_t)tensor->shape[2] * (size_t)tensor->shape[3] : 1,
        .padded_rows = matrix ? (size_t)layout_padded((int)rows) : 1,
        .padded_columns = (size_t)layout_padded((int)columns),
    };
}

size_t layout_count(const struct tensor *tensor)
{
    const struct extent extent = extent_of(tensor);
    return extent.padded_rows * extent.pixels * extent.padded_columns;
}

void layout_from_canonical(float *dst, const float *src, const struct tensor *tensor)
{
    const struct extent e = extent_of(tensor);
    memset(dst, 0, layout_count(tensor) * sizeof *dst);
    for (size_t row = 0; row < e.rows; row++)
        for (size_t column = 0; column < e.columns; column++)
            for (size_t pixel = 0; pixel < e.pixels; pixel++)
                dst[(row * e.pixels + pixel) * e.padded_columns + column] =
                    src[(row * e.columns + column) * e.pixels + pixel];
}

void layout_to_canonical(float *dst, const float *src, const struct tensor *tensor)
{
    const struct extent e = extent_of(tensor);
    for (size_t row = 0; row < e.rows; row++)
        for (size_t column = 0; column < e.columns; column++)
            for (size_t pixel = 0; pixel < e.pixels; pixel++)
                dst[(row * e.columns + column) * e.pixels + pixel] =
                    src[(row * e.pixels + pixel) * e.padded_columns + column];
}

struct placing {
    struct layout *layout;
    const struct net *net;
    bool *placed; /* [tensor] */
    size_t at;
};

static void place(struct placing *placing, int tensor)
{
    if (tensor < 0 || placing->placed[tensor])
        return;
    placing->placed[tensor] = true;
    placing->layout->at[tensor] = placing->at;
    placing->at += layout_count(&placing->net->tensors[tensor]);
}

static void place_trained(struct placing *placing, int tensor)
{
    if (tensor >= 0 && placing->net->tensors[tensor].trained)
        place(placing, tensor);
}

static void place_all(struct placing *placing)
{
    const struct net *net = placing->net;
    struct layout *layout = placing->layout;
    for (int i = net->node_count - 1; i >= 0; i--) {
        const struct node *node = &net->nodes[i];
        place_trained(placing, node->gamma);
        place_trained(placing, node->beta);
        place_trained(placing, node->bias);
        place_trained(placing, node->weight);
    }
    layout->gradient_count = placing->at;
    for (int i = 0; i < net->node_count; i++) {
        const struct node *node = &net->nodes[i];
        if (node->kind == NODE_CONV && !net_bn_frozen(net, node)) {
            place(placing, node->running_mean);
            place(placing, node->running_var);
        }
    }
    layout->statistics_end = placing->at;
    layout->slot_count = placing->at + layout_padded(METRICS);
    for (int i = 0; i < net->tensor_count; i++)
        place(placing, i);
    layout->value_count = placing->at;
}

int layout_open(struct layout **out, const struct net *net)
{
    *out = NULL;
    size_t tensors = (size_t)net->tensor_count;
    struct layout *layout = calloc(1, sizeof *layout);
    struct placing placing = {.layout = layout, .net = net};
    if (layout) {
        layout->at = calloc(tensors, sizeof *layout->at);
        layout->bucket_ends = calloc(tensors + 1, sizeof *layout->bucket_ends);
        placing.placed = calloc(tensors, sizeof *placing.placed);
    }
    if (!layout || !layout->at || !layout->bucket_ends || !placing.placed) {
        free(placing.placed);
        layout_close(layout);
        return err_set(ERR_NOMEM, "no memory for the layout of %s", net->model);
    }
    place_all(&placing);
    free(placing.placed);
    *out = layout;
    return 0;
}

void layout_close(struct layout *layout)
{
    if (!layout)
        return;
    free(layout->at);
    free(layout->bucket_ends);
    free(layout);
}

bool layout_in_slot(const struct layout *layout, int tensor)
{
    return layout->at[tensor] < layout->statistics_end;
}

int layout_split(struct layout *layout, const struct net *net, size_t bucket_bytes)
{
    if (layout->bucket_total)
        return 0;
    size_t *ends = calloc((size_t)net->tensor_count + 1, sizeof *ends), count = 0;
    if (!ends)
        return err_set(ERR_NOMEM, "no memory for the gradients' buckets");
    for (int i = 0; i < net->tensor_count; i++)
        if (layout_in_slot(layout, i))
            ends[count++] = layout->at[i] + layout_count(&net->tensors[i]);
    ends[count++] = layout->slot_count;
    layout->bucket_total = buckets_cut(layout->bucket_ends, ends, count, bucket_bytes);
    free(ends);
    return 0;
}

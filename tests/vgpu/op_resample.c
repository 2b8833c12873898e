/* SPDX-License-Identifier: Apache-2.0 */
/* Pooling. The index of a maximum is its place in the window, row by row; the first of equals. */
#include <math.h>
#include <string.h>

#include "tests/vgpu/ops.h"

struct resample {
    cudnnResampleMode_t mode;
    cudnnPaddingMode_t padding;
    int64_t window[2], stride[2], before[2], after[2];
    const struct tensor *x, *y, *index; /* backward: dx, dy */
};

static void whole(int64_t dst[2], const struct descriptor *how, int name)
{
    const cudnnFraction_t *fractions = vgpu_get(how, name)->data;
    for (int i = 0; i < 2; i++) {
        if (fractions[i].denominator != 1)
            vgpu_fail("%s is not whole", vgpu_name_of(name));
        dst[i] = fractions[i].numerator;
    }
}

static struct resample resample_of(const struct descriptor *op)
{
    bool forward = op->kind->type == CUDNN_BACKEND_OPERATION_RESAMPLE_FWD_DESCRIPTOR;
    const struct descriptor *how =
        vgpu_get_descriptor(op, forward ? CUDNN_ATTR_OPERATION_RESAMPLE_FWD_DESC
                                        : CUDNN_ATTR_OPERATION_RESAMPLE_BWD_DESC);
    struct resample it = {
        .mode = (cudnnResampleMode_t)vgpu_get_int(how, CUDNN_ATTR_RESAMPLE_MODE, -1),
        .padding = (cudnnPaddingMode_t)vgpu_get_int(how, CUDNN_ATTR_RESAMPLE_PADDING_MODE, -1),
        .x = vgpu_get_tensor(op, forward ? CUDNN_ATTR_OPERATION_RESAMPLE_FWD_XDESC
                                         : CUDNN_ATTR_OPERATION_RESAMPLE_BWD_DXDESC),
        .y = vgpu_get_tensor(op, forward ? CUDNN_ATTR_OPERATION_RESAMPLE_FWD_YDESC
                                         : CUDNN_ATTR_OPERATION_RESAMPLE_BWD_DYDESC),
        .index = vgpu_get_tensor(op, forward ? CUDNN_ATTR_OPERATION_RESAMPLE_FWD_IDXDESC
                                             : CUDNN_ATTR_OPERATION_RESAMPLE_BWD_IDXDESC)};
    whole(it.window, how, CUDNN_ATTR_RESAMPLE_WINDOW_DIMS);
    whole(it.stride, how, CUDNN_ATTR_RESAMPLE_STRIDES);
    whole(it.before, how, CUDNN_ATTR_RESAMPLE_PRE_PADDINGS);
    whole(it.after, how, CUDNN_ATTR_RESAMPLE_POST_PADDINGS);
    if (vgpu_get_int(how, CUDNN_ATTR_RESAMPLE_COMP_TYPE, -1) != CUDNN_DATA_FLOAT)
        vgpu_fail("resampling computes in another type than fp32");
    if (vgpu_get_int(how, CUDNN_ATTR_RESAMPLE_SPATIAL_DIMS, -1) != 2)
        vgpu_fail("resampling over other than 2 dimensions");
    return it;
}

void vgpu_resample_check(const struct descriptor *op)
{
    const struct resample it = resample_of(op);
    bool forward = op->kind->type == CUDNN_BACKEND_OPERATION_RESAMPLE_FWD_DESCRIPTOR;
    if (it.mode != CUDNN_RESAMPLE_MAXPOOL && it.mode != CUDNN_RESAMPLE_AVGPOOL_INCLUDE_PADDING &&
        it.mode != CUDNN_RESAMPLE_AVGPOOL_EXCLUDE_PADDING)
        vgpu_fail("the double has no resample mode %d", (int)it.mode);
    bool max = it.mode == CUDNN_RESAMPLE_MAXPOOL;
    if (it.padding != (max ? CUDNN_NEG_INF_PAD : CUDNN_ZERO_PAD))
        vgpu_fail("resample mode %d with padding mode %d", (int)it.mode, (int)it.padding);
    if (it.x->rank != 4 || it.y->rank != 4 || it.x->dim[0] != it.y->dim[0] ||
        it.x->dim[1] != it.y->dim[1])
        vgpu_fail("resampling: images or channels of the two maps differ");
    for (int i = 0; i < 2; i++) {
        int64_t span = it.x->dim[2 + i] + it.before[i] + it.after[i] - it.window[i];
        if (it.stride[i] < 1 || span < 0 || span / it.stride[i] + 1 != it.y->dim[2 + i])
            vgpu_fail("resampling dimension %d: %lld with pads %lld and %lld, window %lld, stride "
                      "%lld do not make %lld",
                      i, (long long)it.x->dim[2 + i], (long long)it.before[i],
                      (long long)it.after[i], (long long)it.window[i], (long long)it.stride[i],
                      (long long)it.y->dim[2 + i]);
    }
    if (it.index && (!max || it.index->type != CUDNN_DATA_INT8 ||
                     !vgpu_tensor_same_shape(it.index, it.y) || it.window[0] * it.window[1] > 127))
        vgpu_fail("resampling: the index is not one INT8 for each value of a max pool");
    if (max && !forward && !it.index)
        vgpu_fail("the backward of a max pool without its index");
}

struct place { /* a window, and its part inside of the map */
    int64_t top, left, first_row, first_column, last_row, last_column;
};

static struct place place_of(const struct resample *it, int64_t p, int64_t q)
{
    struct place place;
    place.top = p * it->stride[0] - it->before[0];
    place.left = q * it->stride[1] - it->before[1];
    place.first_row = place.top < 0 ? 0 : place.top;
    place.first_column = place.left < 0 ? 0 : place.left;
    place.last_row = place.top + it->window[0];
    place.last_column = place.left + it->window[1];
    if (place.last_row > it->x->dim[2])
        place.last_row = it->x->dim[2];
    if (place.last_column > it->x->dim[3])
        place.last_column = it->x->dim[3];
    return place;
}

static double divisor(const struct resample *it, const struct place *place)
{
    if (it->mode == CUDNN_RESAMPLE_AVGPOOL_INCLUDE_PADDING)
        return (double)(it->window[0] * it->window[1]);
    return (double)((place->last_row - place->first_row) *
                    (place->last_column - place->first_column));
}

/* image: of x; returns the result, *index the place of a maximum */
static double pool(const struct resample *it, const double *image, const struct place *place,
                   int64_t c, int64_t *index)
{
    bool max = it->mode == CUDNN_RESAMPLE_MAXPOOL, any = false;
    double sum = 0, best = -INFINITY;
    for (int64_t h = place->first_row; h < place->last_row; h++)
        for (int64_t v = place->first_column; v < place->last_column; v++) {
            double value = image[(h * it->x->dim[3] + v) * it->x->dim[1] + c];
            sum += value;
            if (any && !(value > best) && !(isnan(value) && !isnan(best)))
                continue;
            any = true;
            best = value;
            *index = (h - place->top) * it->window[1] + v - place->left;
        }
    return max ? best : sum / divisor(it, place);
}

void vgpu_resample_forward_compute(const struct descriptor *op, const struct values *values)
{
    const struct resample it = resample_of(op);
    const double *x = vgpu_value(values, it.x);
    double *y = vgpu_value(values, it.y), *index = it.index ? vgpu_value(values, it.index) : NULL;
    int64_t channels = it.x->dim[1], columns = it.y->dim[3], rows = it.y->dim[2];
    int64_t image = it.x->dim[2] * it.x->dim[3] * channels;
#pragma omp parallel for
    for (int64_t pixel = 0; pixel < it.y->dim[0] * rows * columns; pixel++) {
        struct place place = place_of(&it, pixel / columns % rows, pixel % columns);
        const double *from = x + pixel / (rows * columns) * image;
        for (int64_t c = 0; c < channels; c++) {
            int64_t where = 0;
            y[pixel * channels + c] = pool(&it, from, &place, c, &where);
            if (index)
                index[pixel * channels + c] = (double)where;
        }
    }
    vgpu_tensor_round(y, vgpu_tensor_count(it.y), it.y->type);
}

/* dx: of the image */
static void spread(const struct resample *it, double *dx, const struct place *place, int64_t c,
                   double dy, int64_t index)
{
    int64_t channels = it->x->dim[1], columns = it->x->dim[3];
    if (it->mode == CUDNN_RESAMPLE_MAXPOOL) {
        int64_t h = place->top + index / it->window[1], v = place->left + index % it->window[1];
        if (index < 0 || index >= it->window[0] * it->window[1] || h < place->first_row ||
            h >= place->last_row || v < place->first_column || v >= place->last_column)
            vgpu_fail("the index %lld of a maximum lies outside of its window", (long long)index);
        dx[(h * columns + v) * channels + c] += dy;
        return;
    }
    for (int64_t h = place->first_row; h < place->last_row; h++)
        for (int64_t v = place->first_column; v < place->last_column; v++)
            dx[(h * columns + v) * channels + c] += dy / divisor(it, place);
}

void vgpu_resample_backward_compute(const struct descriptor *op, const struct values *values)
{
    const struct resample it = resample_of(op);
    double *dx = vgpu_value(values, it.x);
    const double *dy = vgpu_value(values, it.y);
    const double *index = it.index ? vgpu_value(values, it.index) : NULL;
    int64_t channels = it.x->dim[1], image = it.x->dim[2] * it.x->dim[3] * channels, at = 0;
    memset(dx, 0, (size_t)vgpu_tensor_count(it.x) * sizeof *dx);
    for (int64_t n = 0; n < it.y->dim[0]; n++)
        for (int64_t p = 0; p < it.y->dim[2]; p++)
            for (int64_t q = 0; q < it.y->dim[3]; q++) {
                struct place place = place_of(&it, p, q);
                for (int64_t c = 0; c < channels; c++, at++)
                    spread(&it, dx + n * image, &place, c, dy[at], index ? (int64_t)index[at] : 0);
            }
    vgpu_tensor_round(dx, vgpu_tensor_count(it.x), it.x->type);
}

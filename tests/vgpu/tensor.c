/* SPDX-License-Identifier: Apache-2.0 */
/* Elements of tensors on the double, of every type, as doubles. */
#include <stdio.h>
#include <string.h>

#include "common/half.h"
#include "tests/vgpu/descriptor.h"

size_t vgpu_element_bits(cudnnDataType_t type)
{
    switch ((int)type) {
    case CUDNN_DATA_INT64:
        return 64;
    case CUDNN_DATA_FLOAT:
    case CUDNN_DATA_INT32:
        return 32;
    case CUDNN_DATA_HALF:
        return 16;
    case CUDNN_DATA_INT8:
    case CUDNN_DATA_UINT8:
        return 8;
    case CUDNN_DATA_BOOLEAN:
        return 1; /* packed, lowest bit first */
    default:
        vgpu_fail("the double has no elements of type %d", (int)type);
    }
}

const char *vgpu_element_name(cudnnDataType_t type)
{
    switch ((int)type) {
    case CUDNN_DATA_FLOAT:
        return "fp32";
    case CUDNN_DATA_HALF:
        return "fp16";
    case CUDNN_DATA_BOOLEAN:
        return "bool";
    default:
        return "int";
    }
}

int64_t vgpu_tensor_count(const struct tensor *tensor)
{
    int64_t count = 1;
    for (int i = 0; i < tensor->rank; i++)
        count *= tensor->dim[i];
    return count;
}

size_t vgpu_tensor_bytes(const struct tensor *tensor)
{
    return ((size_t)vgpu_tensor_count(tensor) * vgpu_element_bits(tensor->type) + 7) / 8;
}

bool vgpu_tensor_same_shape(const struct tensor *a, const struct tensor *b)
{
    return a->rank == b->rank && !memcmp(a->dim, b->dim, (size_t)a->rank * sizeof *a->dim);
}

void vgpu_tensor_text(char *dst, size_t size, const struct tensor *tensor)
{
    size_t at = 0;
    for (int i = 0; i < tensor->rank && at < size; i++)
        at += (size_t)snprintf(dst + at, size - at, "%s%lld", i ? "x" : "",
                               (long long)tensor->dim[i]);
}

/* Dimensions from the slowest to the fastest of the order that values have. */
static int turn(int rank, int i)
{
    return i == 0 || rank < 3 ? i : i == rank - 1 ? 1 : i + 1;
}

/* Strides must fill memory without gaps or overlaps, in whatever order. */
static void check_packed(const struct tensor *tensor)
{
    bool used[DIMS] = {false};
    int64_t expected = 1;
    for (int n = 0; n < tensor->rank; n++) {
        int next = -1;
        for (int i = 0; i < tensor->rank; i++)
            if (!used[i] && (tensor->dim[i] == 1 || tensor->stride[i] == expected))
                next = i;
        if (next < 0) {
            char text[80];
            vgpu_tensor_text(text, sizeof text, tensor);
            vgpu_fail("tensor %lld of %s has strides that leave gaps or overlap: no dimension has "
                      "stride %lld",
                      (long long)tensor->uid, text, (long long)expected);
        }
        used[next] = true;
        expected *= tensor->dim[next];
    }
}

void vgpu_tensor_finalize(struct descriptor *descriptor)
{
    struct tensor *tensor = &descriptor->tensor;
    const struct attribute *dims = vgpu_get(descriptor, CUDNN_ATTR_TENSOR_DIMENSIONS);
    const struct attribute *strides = vgpu_get(descriptor, CUDNN_ATTR_TENSOR_STRIDES);
    if (dims->count != strides->count)
        vgpu_fail("a tensor has %lld dimensions and %lld strides", (long long)dims->count,
                  (long long)strides->count);
    tensor->rank = (int)dims->count;
    memcpy(tensor->dim, dims->data, (size_t)dims->count * sizeof *tensor->dim);
    memcpy(tensor->stride, strides->data, (size_t)dims->count * sizeof *tensor->stride);
    tensor->type = (cudnnDataType_t)vgpu_get_int(descriptor, CUDNN_ATTR_TENSOR_DATA_TYPE, -1);
    tensor->uid = vgpu_get_int(descriptor, CUDNN_ATTR_TENSOR_UNIQUE_ID, 0);
    tensor->alignment = vgpu_get_int(descriptor, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, 0);
    tensor->is_virtual = vgpu_get_int(descriptor, CUDNN_ATTR_TENSOR_IS_VIRTUAL, 0);
    tensor->by_value = vgpu_get_int(descriptor, CUDNN_ATTR_TENSOR_IS_BY_VALUE, 0);
    for (int i = 0; i < tensor->rank; i++)
        if (tensor->dim[i] < 1 || tensor->stride[i] < 1)
            vgpu_fail("tensor %lld has dimension %lld with stride %lld", (long long)tensor->uid,
                      (long long)tensor->dim[i], (long long)tensor->stride[i]);
    if (tensor->alignment < 1 || tensor->alignment & (tensor->alignment - 1))
        vgpu_fail("tensor %lld has alignment %lld", (long long)tensor->uid,
                  (long long)tensor->alignment);
    vgpu_element_bits(tensor->type);
    check_packed(tensor);
}

static bool in_order(const struct tensor *tensor)
{
    int64_t expected = 1;
    for (int i = tensor->rank - 1; i >= 0; i--) {
        int d = turn(tensor->rank, i);
        if (tensor->dim[d] != 1 && tensor->stride[d] != expected)
            return false;
        expected *= tensor->dim[d];
    }
    return true;
}

/* The element in memory of the value at an index of the order that values have. */
static int64_t element_of(const struct tensor *tensor, int64_t index)
{
    int64_t at = 0;
    for (int i = tensor->rank - 1; i >= 0; i--) {
        int d = turn(tensor->rank, i);
        at += index % tensor->dim[d] * tensor->stride[d];
        index /= tensor->dim[d];
    }
    return at;
}

static double load_one(cudnnDataType_t type, const void *src, int64_t at)
{
    switch ((int)type) {
    case CUDNN_DATA_FLOAT:
        return ((const float *)src)[at];
    case CUDNN_DATA_HALF:
        return half_to_float(((const uint16_t *)src)[at]);
    case CUDNN_DATA_INT64:
        return (double)((const int64_t *)src)[at];
    case CUDNN_DATA_INT32:
        return ((const int32_t *)src)[at];
    case CUDNN_DATA_INT8:
        return ((const int8_t *)src)[at];
    case CUDNN_DATA_UINT8:
        return ((const uint8_t *)src)[at];
    default:
        return ((const uint8_t *)src)[at / 8] >> at % 8 & 1;
    }
}

static void store_one(void *dst, cudnnDataType_t type, int64_t at, double value)
{
    switch ((int)type) {
    case CUDNN_DATA_FLOAT:
        ((float *)dst)[at] = (float)value;
        break;
    case CUDNN_DATA_HALF:
        ((uint16_t *)dst)[at] = half_from_float((float)value);
        break;
    case CUDNN_DATA_INT64:
        ((int64_t *)dst)[at] = (int64_t)value;
        break;
    case CUDNN_DATA_INT32:
        ((int32_t *)dst)[at] = (int32_t)value;
        break;
    case CUDNN_DATA_INT8:
        ((int8_t *)dst)[at] = (int8_t)value;
        break;
    case CUDNN_DATA_UINT8:
        ((uint8_t *)dst)[at] = (uint8_t)value;
        break;
    default: {
        uint8_t *byte = &((uint8_t *)dst)[at / 8], bit = (uint8_t)(1u << at % 8);
        *byte = (uint8_t)(value != 0 ? *byte | bit : *byte & ~bit);
    }
    }
}

enum { CHUNK = 1024 };

/* Up to CHUNK of them. */
static void load_halves(double *dst, const uint16_t *src, size_t count)
{
    float floats[CHUNK];
    half_to_floats(floats, src, count);
    for (size_t i = 0; i < count; i++)
        dst[i] = floats[i];
}

static void store_halves(uint16_t *dst, const double *src, size_t count)
{
    float floats[CHUNK];
    for (size_t i = 0; i < count; i++)
        floats[i] = (float)src[i];
    half_from_floats(dst, floats, count);
}

static size_t chunk_at(int64_t at, int64_t count)
{
    return (size_t)(count - at < CHUNK ? count - at : CHUNK);
}

void vgpu_tensor_load(double *dst, const struct tensor *tensor, const void *src)
{
    int64_t count = vgpu_tensor_count(tensor);
    bool straight = in_order(tensor);
    if (straight && tensor->type == CUDNN_DATA_HALF) {
        for (int64_t at = 0; at < count; at += CHUNK)
            load_halves(dst + at, (const uint16_t *)src + at, chunk_at(at, count));
        return;
    }
    for (int64_t i = 0; i < count; i++)
        dst[i] = load_one(tensor->type, src, straight ? i : element_of(tensor, i));
}

void vgpu_tensor_store(void *dst, const struct tensor *tensor, const double *src)
{
    int64_t count = vgpu_tensor_count(tensor);
    bool straight = in_order(tensor);
    if (straight && tensor->type == CUDNN_DATA_HALF) {
        for (int64_t at = 0; at < count; at += CHUNK)
            store_halves((uint16_t *)dst + at, src + at, chunk_at(at, count));
        return;
    }
    for (int64_t i = 0; i < count; i++)
        store_one(dst, tensor->type, straight ? i : element_of(tensor, i), src[i]);
}

void vgpu_tensor_round(double *values, int64_t count, cudnnDataType_t type)
{
    uint16_t halves[CHUNK];
    for (int64_t i = 0; type == CUDNN_DATA_BOOLEAN && i < count; i++)
        values[i] = values[i] != 0;
    for (int64_t at = 0; type == CUDNN_DATA_HALF && at < count; at += CHUNK) {
        store_halves(halves, values + at, chunk_at(at, count));
        load_halves(values + at, halves, chunk_at(at, count));
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
/* cuDNN's handles and descriptors. */
#include "tests/vgpu/descriptor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/vgpu/cudnn_handle.h"

enum { DESCRIPTOR_MAGIC = 0xde5c, HANDLE_MAGIC = 0x4a4d };

size_t cudnnGetVersion(void)
{
    return CUDNN_VERSION;
}

const char *cudnnGetErrorString(cudnnStatus_t status)
{
    switch ((int)status) {
    case CUDNN_STATUS_SUCCESS:
        return "CUDNN_STATUS_SUCCESS";
    case CUDNN_STATUS_NOT_SUPPORTED:
        return "CUDNN_STATUS_NOT_SUPPORTED";
    case CUDNN_STATUS_NOT_INITIALIZED:
        return "CUDNN_STATUS_NOT_INITIALIZED";
    default:
        return "CUDNN_STATUS_?";
    }
}

void cudnnGetLastErrorString(char *message, size_t size)
{
    snprintf(message, size, "%s", "the double's engine 2 never finalises");
}

cudnnStatus_t cudnnSetCallback(unsigned mask, void *user, cudnnCallback_t callback)
{
    return CUDNN_STATUS_SUCCESS;
}

/* Handles. */
cudnnStatus_t cudnnCreate(cudnnHandle_t *handle)
{
    int count = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0)
        return CUDNN_STATUS_NOT_INITIALIZED;
    *handle = calloc(1, sizeof **handle);
    if (!*handle)
        vgpu_fail("no memory");
    (*handle)->magic = HANDLE_MAGIC;
    return CUDNN_STATUS_SUCCESS;
}

struct vgpu_stream *vgpu_handle_stream(cudnnHandle_t handle)
{
    if (!handle || handle->magic != HANDLE_MAGIC)
        vgpu_fail("%p is no cuDNN handle, or was destroyed", (void *)handle);
    return vgpu_stream_of(handle->stream);
}

cudnnStatus_t cudnnDestroy(cudnnHandle_t handle)
{
    if (!handle || handle->magic != HANDLE_MAGIC)
        vgpu_fail("cudnnDestroy of %p, which is no handle", (void *)handle);
    handle->magic = 0;
    free(handle);
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream)
{
    vgpu_lock();
    vgpu_stream_of(stream);
    handle->stream = stream;
    vgpu_unlock();
    return CUDNN_STATUS_SUCCESS;
}

/* Descriptors. */
struct descriptor *vgpu_descriptor(cudnnBackendDescriptor_t handle)
{
    struct descriptor *descriptor = handle;
    if (!descriptor || descriptor->magic != DESCRIPTOR_MAGIC)
        vgpu_fail("%p is no cuDNN descriptor", handle);
    if (descriptor->destroyed)
        vgpu_fail("use of a %s descriptor that was destroyed", descriptor->kind->text);
    return descriptor;
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type,
                                           cudnnBackendDescriptor_t *handle)
{
    vgpu_lock();
    struct descriptor *descriptor = calloc(1, sizeof *descriptor);
    if (!descriptor)
        vgpu_fail("no memory");
    descriptor->magic = DESCRIPTOR_MAGIC;
    descriptor->kind = vgpu_kind(type);
    descriptor->references = 1;
    descriptor->engine = -1;
    vgpu_count.live_descriptors++;
    *handle = descriptor;
    vgpu_unlock();
    return CUDNN_STATUS_SUCCESS;
}

void vgpu_descriptor_hold(struct descriptor *descriptor)
{
    descriptor->references++;
}

static void drop_attribute(struct attribute *attribute)
{
    struct descriptor **held = attribute->data;
    if (attribute->type == CUDNN_TYPE_BACKEND_DESCRIPTOR)
        for (int64_t i = 0; i < attribute->count; i++)
            vgpu_descriptor_drop(held[i]);
    free(attribute->data);
}

void vgpu_descriptor_drop(struct descriptor *descriptor)
{
    if (!descriptor || --descriptor->references > 0)
        return;
    for (int i = 0; i < descriptor->attribute_count; i++)
        drop_attribute(&descriptor->attributes[i]);
    vgpu_descriptor_drop(descriptor->origin);
    free(descriptor->attributes);
    descriptor->magic = 0;
    free(descriptor);
}

cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t handle)
{
    vgpu_lock();
    struct descriptor *descriptor = vgpu_descriptor(handle);
    descriptor->destroyed = true;
    vgpu_count.live_descriptors--;
    vgpu_descriptor_drop(descriptor);
    vgpu_unlock();
    return CUDNN_STATUS_SUCCESS;
}

const struct attribute *vgpu_get(const struct descriptor *descriptor, int name)
{
    for (int i = 0; i < descriptor->attribute_count; i++)
        if (descriptor->attributes[i].name == name)
            return &descriptor->attributes[i];
    return NULL;
}

struct descriptor *vgpu_get_descriptor(const struct descriptor *descriptor, int name)
{
    const struct attribute *attribute = vgpu_get(descriptor, name);
    return attribute ? *(struct descriptor **)attribute->data : NULL;
}

const struct tensor *vgpu_get_tensor(const struct descriptor *descriptor, int name)
{
    const struct descriptor *tensor = vgpu_get_descriptor(descriptor, name);
    return tensor ? &tensor->tensor : NULL;
}

int64_t vgpu_get_int(const struct descriptor *descriptor, int name, int64_t otherwise)
{
    const struct attribute *attribute = vgpu_get(descriptor, name);
    if (!attribute)
        return otherwise;
    switch (vgpu_type_bytes(attribute->type)) {
    case 8:
        return *(const int64_t *)attribute->data;
    case 4:
        return *(const int32_t *)attribute->data;
    default:
        return *(const unsigned char *)attribute->data;
    }
}

double vgpu_get_real(const struct descriptor *descriptor, int name, double otherwise)
{
    const struct attribute *attribute = vgpu_get(descriptor, name);
    if (!attribute)
        return otherwise;
    return attribute->type == CUDNN_TYPE_DOUBLE ? *(const double *)attribute->data
                                                : *(const float *)attribute->data;
}

const int64_t *vgpu_get_ints(const struct descriptor *descriptor, int name, int count)
{
    const struct attribute *attribute = vgpu_get(descriptor, name);
    if (!attribute || attribute->count != count)
        vgpu_fail("%s needs %d values", vgpu_name_of(name), count);
    return attribute->data;
}

static void check_set(const struct descriptor *descriptor, const struct rule *rule, int type,
                      int64_t count, const void *elements)
{
    if (descriptor->final)
        vgpu_fail("%s is set after the %s was finalised", rule->text, descriptor->kind->text);
    if (type != rule->type)
        vgpu_fail("%s is set with attribute type %d, it has type %d", rule->text, type, rule->type);
    if (rule->most == 0)
        vgpu_fail("%s is read only", rule->text);
    if (count < (rule->least ? rule->least : 1) || count > rule->most || !elements)
        vgpu_fail("%s is set with %lld elements, it takes %d to %d", rule->text, (long long)count,
                  rule->least, rule->most);
    cudnnBackendDescriptor_t const *handles = elements;
    for (int64_t i = 0; type == CUDNN_TYPE_BACKEND_DESCRIPTOR && i < count; i++)
        if (!vgpu_descriptor(handles[i])->final)
            vgpu_fail("%s is set to a %s that was not finalised", rule->text,
                      vgpu_descriptor(handles[i])->kind->text);
}

static struct attribute *slot_for(struct descriptor *descriptor, int name)
{
    for (int i = 0; i < descriptor->attribute_count; i++)
        if (descriptor->attributes[i].name == name) {
            drop_attribute(&descriptor->attributes[i]);
            return &descriptor->attributes[i];
        }
    size_t count = (size_t)descriptor->attribute_count + 1;
    descriptor->attributes =
        realloc(descriptor->attributes, count * sizeof *descriptor->attributes);
    if (!descriptor->attributes)
        vgpu_fail("no memory");
    descriptor->attribute_count++;
    return &descriptor->attributes[count - 1];
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t handle,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t count,
                                       const void *elements)
{
    vgpu_lock();
    struct descriptor *descriptor = vgpu_descriptor(handle);
    check_set(descriptor, vgpu_rule(descriptor->kind, (int)name), (int)type, count, elements);
    size_t bytes = (size_t)count * vgpu_type_bytes((int)type);
    struct descriptor *const *held = elements;
    for (int64_t i = 0; type == CUDNN_TYPE_BACKEND_DESCRIPTOR && i < count; i++)
        vgpu_descriptor_hold(held[i]);
    struct attribute *attribute = slot_for(descriptor, (int)name);
    *attribute = (struct attribute){(int)name, (int)type, count, malloc(bytes)};
    if (!attribute->data)
        vgpu_fail("no memory");
    memcpy(attribute->data, elements, bytes);
    vgpu_unlock();
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t const handle,
                                       cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t requested,
                                       int64_t *count, void *elements)
{
    vgpu_lock();
    struct descriptor *descriptor = vgpu_descriptor(handle);
    const struct rule *rule = vgpu_rule(descriptor->kind, (int)name);
    if ((int)type != rule->type)
        vgpu_fail("%s is read with attribute type %d, it has type %d", rule->text, (int)type,
                  rule->type);
    if (!descriptor->final)
        vgpu_fail("%s is read from a %s that was not finalised", rule->text,
                  descriptor->kind->text);
    bool known = false;
    int64_t total = 0;
    vgpu_engine_get(descriptor, (int)name, requested, &total, elements, &known);
    const struct attribute *attribute = vgpu_get(descriptor, (int)name);
    if (!known && !attribute)
        vgpu_fail("%s is read and was never set", rule->text);
    if (!known) {
        total = attribute->count;
        int64_t given = requested < total ? requested : total;
        if (elements)
            memcpy(elements, attribute->data, (size_t)given * vgpu_type_bytes((int)type));
    }
    if (count)
        *count = total;
    vgpu_unlock();
    return CUDNN_STATUS_SUCCESS;
}

static void check_required(const struct descriptor *descriptor)
{
    for (const struct rule *rule = descriptor->kind->rules; rule->text; rule++)
        if (rule->least && !vgpu_get(descriptor, rule->name))
            vgpu_fail("%s is finalised without %s", descriptor->kind->text, rule->text);
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t handle)
{
    vgpu_lock();
    struct descriptor *descriptor = vgpu_descriptor(handle);
    if (descriptor->final)
        vgpu_fail("%s is finalised twice", descriptor->kind->text);
    check_required(descriptor);
    cudnnStatus_t status = CUDNN_STATUS_SUCCESS;
    switch ((int)descriptor->kind->type) {
    case CUDNN_BACKEND_TENSOR_DESCRIPTOR:
        vgpu_tensor_finalize(descriptor);
        break;
    case CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR:
        vgpu_graph_finalize(descriptor);
        break;
    case CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR:
        status = vgpu_plan_finalize(descriptor);
        break;
    case CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR:
        vgpu_pack_finalize(descriptor);
        break;
    default:
        if (!strncmp(descriptor->kind->text, "OPERATION_", 10))
            vgpu_operation_finalize(descriptor);
    }
    descriptor->final = status == CUDNN_STATUS_SUCCESS;
    vgpu_unlock();
    return status;
}

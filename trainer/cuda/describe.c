/* SPDX-License-Identifier: Apache-2.0 */
#include "trainer/cuda/describe.h"

#include <stdio.h>
#include <string.h>

static _Thread_local char heard[400];

static void on_log(cudnnSeverity_t severity, void *user, const cudnnDebug_t *debug,
                   const char *message)
{
    (void)severity, (void)user, (void)debug;
    if (heard[0] || !message)
        return;
    /* Several lines, each ended by a zero; the one that says why is the first with text. */
    snprintf(heard, sizeof heard, "%s", message);
    for (char *at = heard; *at; at++)
        if (*at == '\n' || *at == '\t')
            *at = ' ';
}

void describe_listen(void)
{
    cudnnSetCallback(CUDNN_SEV_ERROR_EN | CUDNN_SEV_WARNING_EN, NULL, on_log);
}

void describe_forget(void)
{
    heard[0] = '\0';
}

const char *describe_heard(void)
{
    return heard;
}

void describe_fail(struct describe *describe, cudnnStatus_t status, const char *what)
{
    if (describe->status != CUDNN_STATUS_SUCCESS)
        return;
    char detail[300] = "";
    describe->status = status;
    cudnnGetLastErrorString(detail, sizeof detail);
    for (char *at = detail; *at; at++)
        if (*at == '\n' || *at == '\t')
            *at = ' ';
    snprintf(describe->reason, sizeof describe->reason, "%s: %s%s%s", what,
             cudnnGetErrorString(status), *detail ? ", " : "", detail);
}

cudnnBackendDescriptor_t describe_new(struct describe *describe, cudnnBackendDescriptorType_t type)
{
    cudnnBackendDescriptor_t descriptor = NULL;
    if (describe->status != CUDNN_STATUS_SUCCESS)
        return NULL;
    if (describe->count == DESCRIBE_MAX) {
        describe_fail(describe, CUDNN_STATUS_ALLOC_FAILED, "too many descriptors");
        return NULL;
    }
    cudnnStatus_t status = cudnnBackendCreateDescriptor(type, &descriptor);
    if (status != CUDNN_STATUS_SUCCESS) {
        describe_fail(describe, status, "a descriptor cannot be made");
        return NULL;
    }
    describe->all[describe->count++] = descriptor;
    return descriptor;
}

void describe_set(struct describe *describe, cudnnBackendDescriptor_t descriptor,
                  cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count,
                  const void *values)
{
    if (describe->status != CUDNN_STATUS_SUCCESS)
        return;
    cudnnStatus_t status = cudnnBackendSetAttribute(descriptor, name, type, count, values);
    if (status != CUDNN_STATUS_SUCCESS) {
        char what[40];
        snprintf(what, sizeof what, "attribute %d", (int)name);
        describe_fail(describe, status, what);
    }
}

void describe_set_descriptor(struct describe *describe, cudnnBackendDescriptor_t descriptor,
                             cudnnBackendAttributeName_t name, cudnnBackendDescriptor_t value)
{
    describe_set(describe, descriptor, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

void describe_set_type(struct describe *describe, cudnnBackendDescriptor_t descriptor,
                       cudnnBackendAttributeName_t name, cudnnDataType_t value)
{
    describe_set(describe, descriptor, name, CUDNN_TYPE_DATA_TYPE, 1, &value);
}

void describe_finalize(struct describe *describe, cudnnBackendDescriptor_t descriptor)
{
    if (describe->status != CUDNN_STATUS_SUCCESS)
        return;
    cudnnStatus_t status = cudnnBackendFinalize(descriptor);
    if (status != CUDNN_STATUS_SUCCESS)
        describe_fail(describe, status, "refused");
}

void describe_release(struct describe *describe, int kept)
{
    while (describe->count > kept)
        cudnnBackendDestroyDescriptor(describe->all[--describe->count]);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors of cuDNN's backend API with one error for all: after the first failure every call
 * does nothing, and describe_end tells it. */
#ifndef TRAINER_CUDA_DESCRIBE_H
#define TRAINER_CUDA_DESCRIBE_H

#include <cudnn.h>

enum { DESCRIBE_MAX = 192 };

struct describe {
    cudnnBackendDescriptor_t all[DESCRIBE_MAX]; /* owned */
    int count;
    cudnnStatus_t status;
    char reason[400];
};

/* What cuDNN says on its log of this thread's calls, kept for the next message: an empty list of
 * engines comes with no error, only with a line there. Once per process. */
void describe_listen(void);
void describe_forget(void);
const char *describe_heard(void); /* "" when nothing */

cudnnBackendDescriptor_t describe_new(struct describe *describe, cudnnBackendDescriptorType_t type);
void describe_set(struct describe *describe, cudnnBackendDescriptor_t descriptor,
                  cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count,
                  const void *values);
void describe_set_descriptor(struct describe *describe, cudnnBackendDescriptor_t descriptor,
                             cudnnBackendAttributeName_t name, cudnnBackendDescriptor_t value);
void describe_set_type(struct describe *describe, cudnnBackendDescriptor_t descriptor,
                       cudnnBackendAttributeName_t name, cudnnDataType_t value);
void describe_finalize(struct describe *describe, cudnnBackendDescriptor_t descriptor);

/* Notes a failure of a call that was made without the functions above. */
void describe_fail(struct describe *describe, cudnnStatus_t status, const char *what);

/* Destroys what was made after the first `kept` descriptors. */
void describe_release(struct describe *describe, int kept);

#endif

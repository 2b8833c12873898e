/* SPDX-License-Identifier: Apache-2.0 */
/* The double's descriptors: every attribute as it was set, checked against a table of what each
 * kind of descriptor has; tensors and operations are decoded when they are finalised. */
#ifndef TESTS_VGPU_DESCRIPTOR_H
#define TESTS_VGPU_DESCRIPTOR_H

#include <cudnn.h>

#include "tests/vgpu/vgpu.h"

enum { DIMS = 8, OPERANDS = 16, OPERATIONS = 32 };

struct tensor {
    int rank;
    int64_t dim[DIMS], stride[DIMS]; /* strides in elements */
    cudnnDataType_t type;
    int64_t uid, alignment;
    bool is_virtual, by_value;
};

enum role { PLAIN, INPUT, OUTPUT };

struct rule { /* of the table in attributes.c */
    int name;
    const char *text;
    int type;
    int least, most; /* elements; least 0: may stay unset */
    enum role role;  /* of a tensor in an operation */
};
struct kind {
    cudnnBackendDescriptorType_t type;
    const char *text;
    const struct rule *rules; /* ends with text NULL */
};
const struct kind *vgpu_kind(cudnnBackendDescriptorType_t type); /* aborts on one it lacks */
const struct rule *vgpu_rule(const struct kind *kind, int name); /* aborts likewise */
size_t vgpu_type_bytes(int type);                                /* of an attribute's element */
const char *vgpu_name_of(int name); /* "NORM_FWD_XDESC", for messages */

struct attribute {
    int name, type;
    int64_t count;
    void *data;
};

struct descriptor {
    unsigned magic;
    const struct kind *kind;
    bool final, destroyed;
    int references;
    struct attribute *attributes;
    int attribute_count;
    struct tensor tensor;      /* TENSOR, finalised */
    struct descriptor *origin; /* ENGINECFG and ENGINE from heuristics: the graph */
    int engine;                /* ... and which of engine.c's engines */
    char label[120];           /* operations and graphs, finalised */
};

struct descriptor *vgpu_descriptor(cudnnBackendDescriptor_t handle); /* aborts on what is none */
void vgpu_descriptor_hold(struct descriptor *descriptor);
void vgpu_descriptor_drop(struct descriptor *descriptor);

/* Attributes by name; NULL or the given default when unset. */
const struct attribute *vgpu_get(const struct descriptor *descriptor, int name);
struct descriptor *vgpu_get_descriptor(const struct descriptor *descriptor, int name);
const struct tensor *vgpu_get_tensor(const struct descriptor *descriptor, int name);
int64_t vgpu_get_int(const struct descriptor *descriptor, int name, int64_t otherwise);
double vgpu_get_real(const struct descriptor *descriptor, int name, double otherwise);
const int64_t *vgpu_get_ints(const struct descriptor *descriptor, int name, int count);

/* tensor.c */
size_t vgpu_element_bits(cudnnDataType_t type);
const char *vgpu_element_name(cudnnDataType_t type);
void vgpu_tensor_finalize(struct descriptor *descriptor);
int64_t vgpu_tensor_count(const struct tensor *tensor);
size_t vgpu_tensor_bytes(const struct tensor *tensor); /* from its first to its last element */
bool vgpu_tensor_same_shape(const struct tensor *a, const struct tensor *b);
void vgpu_tensor_text(char *dst, size_t size, const struct tensor *tensor);
/* Values in the order of dimensions 0, 2, 3, ..., 1 (4-D: NHWC). Stored fp16 is rounded by way of
 * fp32. */
void vgpu_tensor_load(double *dst, const struct tensor *tensor, const void *src);
void vgpu_tensor_store(void *dst, const struct tensor *tensor, const double *src);
/* To what the type can hold; fp32 is left as it is, for a fused kernel's registers may hold more.
 */
void vgpu_tensor_round(double *values, int64_t count, cudnnDataType_t type);

/* graph.c: checks of an operation when it is finalised, of a graph when it is; what it computes. */
void vgpu_operation_finalize(struct descriptor *operation);
void vgpu_graph_finalize(struct descriptor *graph);
struct descriptor *const *vgpu_graph_operations(const struct descriptor *graph, int *count);
/* engine.c */
void vgpu_engine_get(struct descriptor *descriptor, int name, int64_t requested, int64_t *count,
                     void *elements, bool *known);
cudnnStatus_t vgpu_plan_finalize(struct descriptor *plan);
void vgpu_pack_finalize(struct descriptor *pack);

#endif

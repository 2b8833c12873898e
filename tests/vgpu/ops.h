/* SPDX-License-Identifier: Apache-2.0 */
/* The operations of a graph: for each kind a check of attributes and shapes, made when the
 * operation is finalised, and what it computes on values in double (vgpu_tensor_load's order).
 * Results are rounded to their tensor's type, virtual ones too. */
#ifndef TESTS_VGPU_OPS_H
#define TESTS_VGPU_OPS_H

#include "tests/vgpu/descriptor.h"

struct values { /* of every tensor of a graph, while it is computed */
    struct descriptor *tensors[OPERANDS * OPERATIONS];
    double *data[OPERANDS * OPERATIONS];
    int count;
};
double *vgpu_value(const struct values *values, const struct tensor *tensor);

void vgpu_convolution_check(const struct descriptor *op);
void vgpu_convolution_compute(const struct descriptor *op, const struct values *values);
void vgpu_pointwise_check(const struct descriptor *op);
void vgpu_pointwise_compute(const struct descriptor *op, const struct values *values);
bool vgpu_norm_infers(const struct descriptor *op); /* with statistics that are given */
void vgpu_norm_forward_check(const struct descriptor *op);
void vgpu_norm_forward_compute(const struct descriptor *op, const struct values *values);
void vgpu_norm_backward_check(const struct descriptor *op);
void vgpu_norm_backward_compute(const struct descriptor *op, const struct values *values);
void vgpu_stats_check(const struct descriptor *op);
void vgpu_stats_compute(const struct descriptor *op, const struct values *values);
void vgpu_finalize_check(const struct descriptor *op);
void vgpu_finalize_compute(const struct descriptor *op, const struct values *values);
void vgpu_weights_check(const struct descriptor *op);
void vgpu_weights_compute(const struct descriptor *op, const struct values *values);
void vgpu_resample_check(const struct descriptor *op);
void vgpu_resample_forward_compute(const struct descriptor *op, const struct values *values);
void vgpu_resample_backward_compute(const struct descriptor *op, const struct values *values);

/* Aborts on what is no vector over channels; name: of its attribute. */
void vgpu_check_vector(const struct tensor *tensor, int name, int64_t channels);

/* c[rows][columns] = a[rows][inner] b[inner][columns], plus c where add; row-major, contiguous. */
void vgpu_gemm(double *c, const double *a, const double *b, int64_t rows, int64_t columns,
               int64_t inner, bool add);
/* dst[columns][rows] = src[rows][columns] */
void vgpu_transpose(double *dst, const double *src, int64_t rows, int64_t columns);
double *vgpu_numbers(int64_t count); /* malloc, aborts when memory is out */

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels for any x86-64 processor, or any other. */
#define BLOCK 8
#define KERNELS kernels_base
#define KERNELS_NAME "no AVX2"

#include "trainer/dnnl/kernels_body.inc"

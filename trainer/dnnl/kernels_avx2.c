/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels for AVX2: compiled with its flags (trainer/meson.build). */
#define BLOCK 8
#define KERNELS kernels_avx2
#define KERNELS_NAME "AVX2"

#include "trainer/dnnl/kernels_body.inc"

/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels for AVX-512: compiled with its flags (trainer/meson.build). */
#define BLOCK 16
#define KERNELS kernels_avx512
#define KERNELS_NAME "AVX-512"

#include "trainer/dnnl/kernels_body.inc"

/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels for maps of bf16 on AVX-512: compiled with its flags (trainer/meson.build). */
#define BLOCK 16
#define KERNELS kernels_avx512_bf16
#define KERNELS_NAME "AVX-512"
#define KERNELS_BF16

#include "trainer/dnnl/kernels_body.inc"

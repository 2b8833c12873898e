/* SPDX-License-Identifier: Apache-2.0 */
/* The two implementations behind half_from_floats and half_to_floats, named so that the tests can
 * compare them. The f16c ones may be called only where half_have_f16c() is true. */
#ifndef COMMON_HALF_ARRAYS_H
#define COMMON_HALF_ARRAYS_H

#include <stddef.h>
#include <stdint.h>

int half_have_f16c(void);
void half_from_floats_scalar(uint16_t *dst, const float *src, size_t count);
void half_to_floats_scalar(float *dst, const uint16_t *src, size_t count);
void half_from_floats_f16c(uint16_t *dst, const float *src, size_t count);
void half_to_floats_f16c(float *dst, const uint16_t *src, size_t count);

#endif

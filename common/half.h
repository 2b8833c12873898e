/* SPDX-License-Identifier: Apache-2.0 */
/* IEEE 754 binary16 ("half") as uint16_t: clang 14 has no _Float16 in C on this target.
 * Exact, portable integer code; the vector paths must give these very bits. */
#ifndef COMMON_HALF_H
#define COMMON_HALF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Rounds to nearest, ties to even; overflow gives infinity, NaN stays a quiet NaN, subnormals kept.
 */
uint16_t half_from_float(float value);

/* Exact. */
float half_to_float(uint16_t half);

/* The same over arrays of count elements; uses F16C where the processor has it. */
void half_from_floats(uint16_t *dst, const float *src, size_t count);
void half_to_floats(float *dst, const uint16_t *src, size_t count);

/* bfloat16, the upper half of a float: rounds to nearest, ties to even; NaN stays a quiet NaN. */
uint16_t bf16_from_float(float value);
float bf16_to_float(uint16_t bits); /* exact */

/* False: there is an infinity or a NaN among them. */
bool half_all_finite(const uint16_t *src, size_t count);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* What arrived on the wire as the float32 that a network reads: the definition for every backend,
 * and what the CPU backends use. The formula for bytes is that of loader/colour.h and colour_mix,
 * in the same order of operations; so the two wire formats differ by the rounding of a pixel to a
 * byte (and of a result to a half) alone. */
#ifndef TRAINER_UNPACK_H
#define TRAINER_UNPACK_H

#include <stddef.h>

#include "proto/spec.h"
#include "trainer/backend.h"

/* How a spec's pixels arrive. */
struct input_format unpack_format(const struct spec *spec);

/* Whether the batch has all that its format needs: the PCA offsets, and a partner for every mixed
 * sample. ERR_ARG. */
int unpack_check(const struct batch *batch, const struct input_format *format);

/* Pixels begin..begin+count-1 of one sample: dst [count][channels], normalised and mixed; zeros for
 * a masked one. The batch is one that unpack_check let pass. */
void unpack_pixels(float *dst, const struct batch *batch, const struct input_format *format,
                   const struct net *net, int sample, size_t begin, size_t count);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* The loader's decoder as packing and checking want it (datasets/pack.h). */
#ifndef TOOLS_IMAGE_DECODER_H
#define TOOLS_IMAGE_DECODER_H

#include "datasets/pack.h"

extern const struct image_decoder image_decoder;

/* What --jobs 0 means: the processors that this process may use. */
int image_decoder_jobs(void);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* A look into the reference (in double): which ReLUs let pass. */
#ifndef TESTS_VGPU_REF_PROBE_H
#define TESTS_VGPU_REF_PROBE_H

#include <stdbool.h>
#include <stdint.h>

struct program;

/* Whether the output of a node of the last training run is greater than zero at a place. */
bool ref_probe_passes(const struct program *program, int node, int64_t pixel, int channel);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#include "trainer/ref/program.h"

#include "tests/vgpu/ref_probe.h"

bool ref_probe_passes(const struct program *program, int node, int64_t pixel, int channel)
{
    int pitch = pitch_of(program->net->nodes[node].out_channels);
    return program->nodes[node].out[pixel * pitch + channel] > 0;
}

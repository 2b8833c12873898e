/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "common/half.h"
#include "trainer/dnnl/dnnl.h"

enum { CHUNK = 1024 }; /* values converted at a time */

static void scatter(float *plane, const float *values, const struct program *program, size_t begin,
                    size_t count)
{
    size_t pixels = (size_t)program->net->size_px * (size_t)program->net->size_px;
    int channels = program->net->channels, block = program->input_block;
    for (int c = 0; c < channels; c++) {
        float *to = plane + ((size_t)(c / block) * pixels + begin) * (size_t)block + c % block;
        for (size_t p = 0; p < count; p++)
            to[p * (size_t)block] = values[p * (size_t)channels + (size_t)c];
    }
}

void pixels_dnnl_load(float *dst, const uint16_t *pixels, const struct program *program,
                      int samples)
{
    const struct net *net = program->net;
    size_t count = (size_t)net->size_px * (size_t)net->size_px;
    size_t image = count * (size_t)program->input_channels;
    size_t step = CHUNK / (size_t)net->channels;
#pragma omp parallel for num_threads(program->state->backend->threads) schedule(static)
    for (int n = 0; n < program->config.batch; n++) {
        float *plane = dst + (size_t)n * image;
        if (n >= samples || program->input_channels != net->channels)
            memset(plane, 0, image * sizeof *plane);
        for (size_t begin = 0; n < samples && begin < count; begin += step) {
            float values[CHUNK];
            size_t chunk = count - begin < step ? count - begin : step;
            half_to_floats(values, pixels + ((size_t)n * count + begin) * (size_t)net->channels,
                           chunk * (size_t)net->channels);
            scatter(plane, values, program, begin, chunk);
        }
    }
}

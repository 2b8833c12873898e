/* SPDX-License-Identifier: Apache-2.0 */
/* From the wire's pixels to the input map that oneDNN reads. */
#include <string.h>

#include "trainer/dnnl/dnnl.h"
#include "trainer/unpack.h"

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

void pixels_dnnl_load(float *dst, const struct batch *batch, const struct program *program)
{
    const struct net *net = program->net;
    size_t count = (size_t)net->size_px * (size_t)net->size_px;
    size_t image = count * (size_t)program->input_channels;
    size_t step = CHUNK / (size_t)net->channels;
#pragma omp parallel for num_threads(program->state->backend->threads) schedule(static)
    for (int n = 0; n < program->config.batch; n++) {
        float *plane = dst + (size_t)n * image;
        if (n >= batch->samples || program->input_channels != net->channels)
            memset(plane, 0, image * sizeof *plane);
        for (size_t begin = 0; n < batch->samples && begin < count; begin += step) {
            float values[CHUNK];
            size_t chunk = count - begin < step ? count - begin : step;
            unpack_pixels(values, batch, &program->config.input, net, n, begin, chunk);
            scatter(plane, values, program, begin, chunk);
        }
    }
}

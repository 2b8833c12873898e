/* SPDX-License-Identifier: Apache-2.0 */
/* From the wire's pixels to the input map that oneDNN reads. */
#include <string.h>

#include "trainer/dnnl/dnnl.h"
#include "trainer/unpack.h"

enum { CHUNK = 1024 }; /* values converted at a time */

void pixels_dnnl_load(void *dst, const struct batch *batch, const struct program *program)
{
    const struct net *net = program->net;
    const struct kernels *kernels = backend_cpu_of(program->state)->kernels;
    size_t count = (size_t)net->size_px * (size_t)net->size_px;
    size_t image = count * (size_t)program->input_channels * kernels->element;
    size_t step = CHUNK / (size_t)net->channels;
#pragma omp parallel for num_threads(program->state->backend->threads) schedule(static)
    for (int n = 0; n < program->config.batch; n++) {
        uint8_t *to = (uint8_t *)dst + (size_t)n * image;
        if (n >= batch->samples || program->input_channels != net->channels)
            memset(to, 0, image);
        for (size_t begin = 0; n < batch->samples && begin < count; begin += step) {
            float values[CHUNK];
            size_t chunk = count - begin < step ? count - begin : step;
            unpack_pixels(values, batch, &program->config.input, net, n, begin, chunk);
            kernels->scatter(to, values, net->channels, program->input_block, count, begin, chunk);
        }
    }
}

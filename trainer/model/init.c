/* SPDX-License-Identifier: Apache-2.0 */
/* A net's initial values: each a pure function of (seed, tensor's name, position). */
#include <math.h>
#include <string.h>

#include "common/hash.h"
#include "proto/draw.h"
#include "trainer/model/net.h"

/* Fans with the kernel's area counted (Glorot and Bengio 2010; He et al. 2015b). */
struct fans {
    double in, out;
};

static struct fans fans_of(const struct tensor *tensor)
{
    double area = tensor->rank == 4 ? (double)tensor->shape[2] * tensor->shape[3] : 1.0;
    return (struct fans){.in = tensor->shape[1] * area, .out = tensor->shape[0] * area};
}

static void fill(float *dst, size_t count, float value)
{
    for (size_t i = 0; i < count; i++)
        dst[i] = value;
}

static void draw_weights(float *dst, const struct tensor *tensor, bool msra, uint64_t seed)
{
    const struct draw_key key = {.seed = seed};
    const struct fans fans = fans_of(tensor);
    double bound = sqrt(6.0 / (fans.in + fans.out));
    double deviation = sqrt(2.0 / fans.out);
    uint64_t index = hash64_of(tensor->name, strlen(tensor->name)) >> 32 << 32;
    for (size_t at = 0; at < tensor->count; at += 4, index++) {
        double four[4];
        if (msra) {
            draw_normals(four, 4, key, DRAW_INIT, index);
            for (int i = 0; i < 4; i++)
                four[i] *= deviation;
        } else {
            struct philox_block block = draw_block(key, DRAW_INIT, index, 0);
            for (int i = 0; i < 4; i++)
                four[i] = draw_uniform(block.word[i], -bound, bound);
        }
        for (size_t i = 0; i < 4 && at + i < tensor->count; i++)
            dst[at + i] = (float)four[i];
    }
}

void net_init_tensor(float *dst, const struct tensor *tensor, const char *scheme, bool zero_gamma,
                     uint64_t seed)
{
    switch (tensor->kind) {
    case TENSOR_CONV_WEIGHT:
    case TENSOR_FC_WEIGHT:
        draw_weights(dst, tensor, strcmp(scheme, "msra") == 0, seed);
        break;
    case TENSOR_GAMMA:
        fill(dst, tensor->count, zero_gamma && tensor->last_gamma ? 0.0f : 1.0f);
        break;
    case TENSOR_RUNNING_VAR:
        fill(dst, tensor->count, 1.0f);
        break;
    case TENSOR_FC_BIAS:
    case TENSOR_BETA:
    case TENSOR_RUNNING_MEAN:
        fill(dst, tensor->count, 0.0f);
        break;
    }
}

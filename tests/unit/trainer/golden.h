/* SPDX-License-Identifier: Apache-2.0 */
/* Values for nets and images that tools/golden/draws.py draws alike: splitmix64 over the FNV-1a
 * hash of a name. So tests compare whole networks with PyTorch while only results are kept. */
#ifndef TESTS_UNIT_TRAINER_GOLDEN_H
#define TESTS_UNIT_TRAINER_GOLDEN_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/half.h"
#include "proto/chunk.h"
#include "trainer/backend.h"

enum { GOLDEN_SIGNS = 16, GOLDEN_SKETCH = 1 + GOLDEN_SIGNS };

static inline uint64_t golden_key(const char *name)
{
    uint64_t key = UINT64_C(0xcbf29ce484222325);
    for (; *name; name++)
        key = (key ^ (uint8_t)*name) * UINT64_C(0x100000001b3);
    return key;
}

static inline uint64_t golden_bits(uint64_t key, uint64_t index)
{
    uint64_t z = key + (index + 1) * UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static inline double golden_unit(uint64_t key, uint64_t index)
{
    return (double)(golden_bits(key, index) >> 40) / 0x1p24;
}

enum golden_net {
    GOLDEN_PLAIN,
    GOLDEN_STEADY,      /* betas that keep most of what a ReLU sees away from 0 */
    GOLDEN_STEADY_ZERO, /* ... and last gammas of 0 */
};

static inline void golden_parameter(float *dst, const struct tensor *tensor, enum golden_net kind)
{
    double low = -0.2, high = 0.2;
    uint64_t key = golden_key(tensor->name);
    if (tensor->kind == TENSOR_GAMMA || tensor->kind == TENSOR_RUNNING_VAR) {
        low = 0.5;
        high = 1.5;
    } else if (tensor->kind == TENSOR_CONV_WEIGHT || tensor->kind == TENSOR_FC_WEIGHT) {
        high = sqrt(3.0 / ((double)tensor->count / tensor->shape[0]));
        low = -high;
    }
    bool zero = kind == GOLDEN_STEADY_ZERO && tensor->last_gamma;
    bool steady = kind != GOLDEN_PLAIN && tensor->kind == TENSOR_BETA;
    for (size_t i = 0; i < tensor->count; i++) {
        double unit = golden_unit(key, i), value = low + (high - low) * unit;
        if (steady)
            value = unit < 0.75 ? 2.25 + unit : -1.5 - unit;
        dst[i] = zero ? 0 : (float)value;
    }
}

/* Half floats [count], NHWC. */
static inline void golden_pixels(uint16_t *dst, const char *name, size_t count)
{
    uint64_t key = golden_key(name);
    for (size_t i = 0; i < count; i++)
        dst[i] = half_from_float((float)(floor(golden_unit(key, i) * 1024.0 - 512.0) / 256.0));
}

static inline void golden_labels(struct chunk_label *dst, const char *name, int count, int classes)
{
    uint64_t key = golden_key(name);
    for (uint64_t i = 0; i < (uint64_t)count; i++)
        dst[i] = (struct chunk_label){
            (uint32_t)(golden_bits(key, 3 * i) % (uint64_t)classes),
            (uint32_t)(golden_bits(key, 3 * i + 1) % (uint64_t)classes),
            (float)(golden_bits(key, 3 * i + 2) >> 56) / 256.0f,
        };
}

/* The norm, and sums with random signs. */
static inline void golden_sketch(double dst[GOLDEN_SKETCH], const char *name, const float *values,
                                 size_t count)
{
    char text[96];
    snprintf(text, sizeof text, "%s.signs", name);
    uint64_t key = golden_key(text);
    memset(dst, 0, GOLDEN_SKETCH * sizeof *dst);
    for (size_t i = 0; i < count; i++) {
        uint64_t signs = golden_bits(key, i);
        double value = values[i];
        dst[0] += value * value;
        for (int k = 0; k < GOLDEN_SIGNS; k++)
            dst[1 + k] += (signs >> k & 1) ? value : -value;
    }
    dst[0] = sqrt(dst[0]);
}

/* The estimated distance of two tensors over the second one's norm: the mean square of the sums'
 * differences is that of the tensors, whatever they are (the signs are independent). */
static inline double golden_distance(const double a[GOLDEN_SKETCH], const float b[GOLDEN_SKETCH])
{
    double sum = 0;
    for (int k = 0; k < GOLDEN_SIGNS; k++)
        sum += (a[1 + k] - b[1 + k]) * (a[1 + k] - b[1 + k]) / GOLDEN_SIGNS;
    return sqrt(sum) / b[0];
}

#endif

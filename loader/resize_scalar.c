/* SPDX-License-Identifier: Apache-2.0 */
/* The two passes of the resize in plain C: what the vector versions must give, bit for bit. */
#include "loader/resize_narrow.h"

static void row_x_narrow(int16_t *dst, const uint8_t *source, const struct resize_axis *x)
{
    for (uint32_t output = 0; output < x->stride; output++) {
        const uint8_t *sample = source + (x->first[output] - x->low);
        const uint16_t *weight = x->weights + output;
        uint32_t sum = x->taps / 2;
        for (uint32_t tap = 0; tap < x->taps; tap++, weight += x->stride)
            sum += ((uint32_t)sample[tap] << 8) * *weight >> 16;
        dst[output] = (int16_t)sum;
    }
}

static void row_x_wide(int16_t *dst, const uint8_t *source, const struct resize_axis *x)
{
    for (uint32_t output = 0; output < x->stride; output++) {
        const uint8_t *sample = source + (x->first[output] - x->low);
        const uint16_t *weight = x->weights + output;
        uint32_t sum = 0x100;
        for (uint32_t tap = 0; tap < x->taps; tap++, weight += x->stride)
            sum += (uint32_t)sample[tap] * *weight;
        dst[output] = (int16_t)(sum >> 9);
    }
}

static int16_t held(int32_t value)
{
    return (int16_t)(value < INT16_MIN ? INT16_MIN : value > INT16_MAX ? INT16_MAX : value);
}

static void row_x_cubic(int16_t *dst, const uint8_t *source, const struct resize_axis *x)
{
    for (uint32_t output = 0; output < x->stride; output++) {
        const uint8_t *sample = source + (x->first[output] - x->low);
        const uint16_t *weight = x->weights + output;
        int32_t sum = 0x40;
        for (uint32_t tap = 0; tap < x->taps; tap++, weight += x->stride)
            sum += sample[tap] * (int16_t)*weight;
        dst[output] = held(sum >> 7);
    }
}

static void rows_x(int16_t *dst, const uint8_t *const source[RESIZE_BLOCK],
                   const struct resize_axis *x, const struct resize_windows *windows)
{
    for (int row = 0; row < RESIZE_BLOCK; row++)
        (x->cubic  ? row_x_cubic
         : x->wide ? row_x_wide
                   : row_x_narrow)(dst + (size_t)row * x->stride, source[row], x);
}

static void row_y_narrow(int16_t *dst, const int16_t *const *rows, const struct resize_axis *y,
                         uint32_t output, uint32_t stride)
{
    for (uint32_t tap = 0; tap < y->taps; tap++) {
        const int16_t *row = rows[tap];
        int32_t weight = y->weights[(size_t)tap * y->stride + output];
        weight = weight < INT16_MAX ? weight : INT16_MAX;
        for (uint32_t column = 0; column < stride; column++) {
            int16_t product = (int16_t)((row[column] * weight + 0x4000) >> 15);
            dst[column] = (int16_t)(tap ? dst[column] + product : product);
        }
    }
}

static void row_y_wide(int16_t *dst, const int16_t *const *rows, const struct resize_axis *y,
                       uint32_t output, uint32_t stride)
{
    for (uint32_t column = 0; column < stride; column++) {
        int32_t sum = 0x8000;
        for (uint32_t tap = 0; tap < y->taps; tap++)
            sum += rows[tap][column] * (int32_t)y->weights[(size_t)tap * y->stride + output];
        dst[column] = (int16_t)(sum >> 16);
    }
}

static void row_y_cubic(int16_t *dst, const int16_t *const *rows, const struct resize_axis *y,
                        uint32_t output, uint32_t stride)
{
    for (uint32_t column = 0; column < stride; column++) {
        int32_t sum = 0x2000;
        for (uint32_t tap = 0; tap < y->taps; tap++)
            sum += rows[tap][column] * (int16_t)y->weights[(size_t)tap * y->stride + output];
        dst[column] = held(sum >> 14);
    }
}

static void row_y(int16_t *dst, const int16_t *const *rows, const struct resize_axis *y,
                  uint32_t output, uint32_t stride)
{
    (y->cubic ? row_y_cubic : y->wide ? row_y_wide : row_y_narrow)(dst, rows, y, output, stride);
}

const struct resize_ops resize_ops_scalar = {
    .narrow_weights = narrow_weights, .rows_x = rows_x, .row_y = row_y};

const struct resize_ops *resize_ops_of(enum cpu_level level)
{
#if defined(__x86_64__)
    if (level == CPU_AVX512)
        return &resize_ops_avx512;
    if (level == CPU_AVX2)
        return &resize_ops_avx2;
#endif
    return &resize_ops_scalar;
}

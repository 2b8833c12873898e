/* SPDX-License-Identifier: Apache-2.0 */
/* The inverse DCT in plain C: what the vector versions must give, bit for bit. */
#include <string.h>

#include "loader/jpeg/idct_constants.h"
#include "loader/jpeg/jpeg_levels.h"

static int32_t pair(int32_t p, int32_t for_p, int32_t q, int32_t for_q)
{
    return (int32_t)((uint32_t)(p * for_p) + (uint32_t)(q * for_q));
}

static int32_t add(int32_t a, int32_t b)
{
    return (int32_t)((uint32_t)a + (uint32_t)b);
}

static int32_t sub(int32_t a, int32_t b)
{
    return (int32_t)((uint32_t)a - (uint32_t)b);
}

static int32_t clamp(int32_t value, int32_t low, int32_t high)
{
    return value < low ? low : value > high ? high : value;
}

static int16_t descale(int32_t value, int shift)
{
    return (int16_t)clamp(add(value, 1 << (shift - 1)) >> shift, INT16_MIN, INT16_MAX);
}

/* in[0], in[8], ... to out[0], out[8], ... */
static void pass(int16_t *out, const int16_t *in, int shift)
{
    int32_t i1 = in[8], i2 = in[16], i3 = in[24], i5 = in[40], i6 = in[48], i7 = in[56];
    int32_t even0 = (int16_t)(in[0] + in[32]) * (1 << IDCT_FRACTION_BITS);
    int32_t even1 = (int16_t)(in[0] - in[32]) * (1 << IDCT_FRACTION_BITS);
    int32_t even2 = pair(i2, E2_FOR_2, i6, E2_FOR_6);
    int32_t even3 = pair(i2, E3_FOR_2, i6, E3_FOR_6);
    int32_t t10 = add(even0, even3), t13 = sub(even0, even3);
    int32_t t11 = add(even1, even2), t12 = sub(even1, even2);

    int16_t s73 = (int16_t)(i7 + i3), s51 = (int16_t)(i5 + i1);
    int32_t z3 = pair(s73, Z3_FOR_73, s51, Z3_FOR_51);
    int32_t z4 = pair(s73, Z4_FOR_73, s51, Z4_FOR_51);
    int32_t odd0 = add(pair(i7, O0_FOR_7, i1, O0_FOR_1), z3);
    int32_t odd3 = add(pair(i7, O3_FOR_7, i1, O3_FOR_1), z4);
    int32_t odd1 = add(pair(i5, O1_FOR_5, i3, O1_FOR_3), z4);
    int32_t odd2 = add(pair(i5, O2_FOR_5, i3, O2_FOR_3), z3);

    out[0] = descale(add(t10, odd3), shift);
    out[56] = descale(sub(t10, odd3), shift);
    out[8] = descale(add(t11, odd2), shift);
    out[48] = descale(sub(t11, odd2), shift);
    out[16] = descale(add(t12, odd1), shift);
    out[40] = descale(sub(t12, odd1), shift);
    out[24] = descale(add(t13, odd0), shift);
    out[32] = descale(sub(t13, odd0), shift);
}

/* coefficients: rows ENTROPY_TILE_ROW apart. */
static void block(uint8_t *dst, size_t stride, const int16_t *coefficients, const uint16_t *quant)
{
    int16_t in[64], middle[64], turned[64];
    for (int row = 0; row < 8; row++)
        for (int column = 0; column < 8; column++)
            in[row * 8 + column] =
                (int16_t)((uint32_t)coefficients[row * ENTROPY_TILE_ROW + column] *
                          quant[row * 8 + column]);
    for (int column = 0; column < 8; column++)
        pass(middle + column, in + column, IDCT_SHIFT1);
    for (int i = 0; i < 64; i++)
        turned[(i & 7) * 8 + i / 8] = middle[i];
    for (int row = 0; row < 8; row++)
        pass(middle + row, turned + row, IDCT_SHIFT2);
    for (int row = 0; row < 8; row++)
        for (int column = 0; column < 8; column++)
            dst[(size_t)row * stride + (size_t)column] =
                (uint8_t)(clamp(middle[column * 8 + row], -128, 127) + 128);
}

void idct_scalar(int16_t *tiles, uint32_t count, size_t tile_step, const uint16_t *quant,
                 uint8_t *a, uint8_t *b, size_t step, size_t stride)
{
    for (uint32_t i = 0; i < count; i++, tiles += tile_step) {
        block(a + i * step, stride, tiles, quant);
        if (b)
            block(b + i * step, stride, tiles + 8, quant);
        memset(tiles, 0, ENTROPY_TILE * sizeof *tiles);
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Storage in half floats or bf16, emulated: values are computed as ever and rounded where a device
 * would store them. */
#include <string.h>

#include "common/half.h"
#include "trainer/ref/ref.h"

enum { CHUNK = 1024 };

void fp16_ref_round(real *values, size_t count)
{
    uint16_t halves[CHUNK];
    float floats[CHUNK];
    for (size_t begin = 0; begin < count; begin += CHUNK) {
        size_t n = count - begin < CHUNK ? count - begin : CHUNK;
        for (size_t i = 0; i < n; i++)
            floats[i] = (float)values[begin + i];
        half_from_floats(halves, floats, n);
        half_to_floats(floats, halves, n);
        for (size_t i = 0; i < n; i++)
            values[begin + i] = floats[i];
    }
}

void bf16_ref_round(real *values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        values[i] = bf16_to_float(bf16_from_float((float)values[i]));
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The colour stages put together from their definition, in runs that stay in the first cache. */
#include "common/half.h"
#include "loader/colour_ops.h"

enum { RUN = 256 };

static size_t run_of(size_t left)
{
    return left < RUN ? left : RUN;
}

/* floats [count][channels] of the pixels from begin on. */
static void normalise(float *floats, const struct colour_source *source, size_t begin, size_t count)
{
    bool grey = source->params->channels == 1;
    colour_normalise(floats, source->plane[0] + begin, grey ? NULL : source->plane[1] + begin,
                     grey ? NULL : source->plane[2] + begin, count, source->params);
}

static void halves(uint16_t *dst, const struct colour_source *source, size_t count)
{
    size_t channels = source->params->channels;
    float floats[RUN * 3];
    for (size_t begin = 0, length; begin < count; begin += length) {
        length = run_of(count - begin);
        normalise(floats, source, begin, length);
        half_from_floats(dst + begin * channels, floats, length * channels);
    }
}

static void halves_mixed(uint16_t *dst_a, uint16_t *dst_b, const struct colour_source *a,
                         const struct colour_source *b, float lam, size_t count)
{
    size_t channels = a->params->channels;
    float of_a[RUN * 3], of_b[RUN * 3];
    for (size_t begin = 0, length; begin < count; begin += length) {
        length = run_of(count - begin);
        normalise(of_a, a, begin, length);
        normalise(of_b, b, begin, length);
        colour_mix(of_a, of_b, lam, length * channels);
        half_from_floats(dst_a + begin * channels, of_a, length * channels);
        half_from_floats(dst_b + begin * channels, of_b, length * channels);
    }
}

static void bytes(uint8_t *dst, const struct colour_source *source, size_t count)
{
    colour_bytes(dst, source->plane[0], source->plane[1], source->plane[2], count, source->params);
}

const struct colour_ops colour_ops_scalar = {
    .ycc_to_rgb = colour_ycc_to_rgb,
    .halves = halves,
    .halves_mixed = halves_mixed,
    .bytes = bytes,
};

const struct colour_ops *colour_ops_of(enum cpu_level level)
{
#if defined(__x86_64__)
    if (level == CPU_AVX512)
        return &colour_ops_avx512;
    if (level == CPU_AVX2)
        return &colour_ops_avx2;
#endif
    return &colour_ops_scalar;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The colour stages, in plain C. */
#include "loader/colour.h"

#include <math.h>

#include "loader/resize.h"
#include "proto/draw.h"

/* PCA of ImageNet's pixels (Krizhevsky et al. 2012; values as GluonCV has them). */
static const double eigenvalues[3] = {55.46, 4.794, 1.148};
static const double eigenvectors[3][3] = {
    {-.5675, .7192, .4009},
    {-.5808, -.0045, -.8140},
    {-.5836, -.6948, .4203},
};

enum {
    LUMA_R = 9798,  /* 0.299 */
    LUMA_G = 19235, /* 0.587 */
    LUMA_B = 3735,  /* 0.114 */
};

#define Q7_UNIT 0.0078125f /* 1 / 128, exact */

struct rgb {
    float r, g, b;
};

static void draw_factors(float factors[3], const struct spec *spec, struct draw_key key,
                         uint32_t id)
{
    struct philox_block draws = draw_block(key, DRAW_JITTER, id, 0);
    for (int i = 0; i < 3; i++) {
        double strength = spec->jitter_strength[i];
        factors[i] = (float)draw_uniform(draws.word[i], 1 - strength, 1 + strength);
    }
}

static void draw_jitter(struct colour_params *params, const struct spec *spec, struct draw_key key,
                        uint32_t id)
{
    float factors[3];
    draw_factors(factors, spec, key, id);
    params->jitter = true;
    params->hue = factors[0];
    params->saturation = factors[1];
    params->value = factors[2];
}

static void draw_pca(struct colour_params *params, const struct spec *spec, struct draw_key key,
                     uint32_t id)
{
    double normals[3];
    draw_normals(normals, 3, key, DRAW_PCA, id);
    for (int channel = 0; channel < 3; channel++) {
        double offset = 0;
        for (int j = 0; j < 3; j++)
            offset += eigenvectors[channel][j] * eigenvalues[j] * (spec->pca_sigma * normals[j]);
        params->offset[channel] = (float)offset;
    }
}

void colour_draw(struct colour_params *params, const struct spec *spec, uint32_t epoch, uint32_t id)
{
    struct draw_key key = {spec->seed, epoch};
    *params = (struct colour_params){.channels = spec->channels};
    if (spec->channels == 3 && spec->jitter == SPEC_JITTER_HSV)
        draw_jitter(params, spec, key, id);
    if (spec->channels == 3 && spec->pca_sigma > 0)
        draw_pca(params, spec, key, id);
    for (unsigned channel = 0; channel < spec->channels; channel++) {
        params->shift[channel] = params->offset[channel] - spec->mean[channel];
        params->scale[channel] = 1 / spec->std[channel];
    }
}

/* What 16-bit vector instructions do: pmulhrsw and saturating sums. */
static int multiply_q15(int value, int factor)
{
    return (value * factor + 0x4000) >> 15;
}

static int16_t clamp_q7(int value)
{
    return (int16_t)(value < 0 ? 0 : value > RESIZE_ONE ? RESIZE_ONE : value);
}

void colour_clamp(int16_t *values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        values[i] = clamp_q7(values[i]);
}

/* A sum that saturates at int16 and is clamped afterwards is the same as one that is only clamped.
 */
void colour_ycc_to_rgb(int16_t *y, int16_t *cb, int16_t *cr, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int luma = y[i], u = cb[i] - COLOUR_CENTRE, v = cr[i] - COLOUR_CENTRE;
        y[i] = clamp_q7(luma + (v + multiply_q15(v, COLOUR_RED_V)));
        cb[i] =
            clamp_q7(luma - (multiply_q15(v, COLOUR_GREEN_V) + multiply_q15(u, COLOUR_GREEN_U)));
        cr[i] = clamp_q7(luma + (u + multiply_q15(u, COLOUR_BLUE_U)));
    }
}

void colour_luma(int16_t *r, const int16_t *g, const int16_t *b, size_t count)
{
    for (size_t i = 0; i < count; i++)
        r[i] = clamp_q7(multiply_q15(r[i], LUMA_R) + multiply_q15(g[i], LUMA_G) +
                        multiply_q15(b[i], LUMA_B));
}

/* Of a picture, Q7. */
static double mean_luma(const int16_t *r, const int16_t *g, const int16_t *b, size_t count)
{
    int64_t sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += r[i] * LUMA_R + g[i] * LUMA_G + b[i] * LUMA_B;
    return (double)sum / 32768.0 / (double)count;
}

static int16_t rounded_q7(float value)
{
    float held = value < 0 ? 0 : value > RESIZE_ONE ? RESIZE_ONE : value;
    return (int16_t)(held + 0.5f);
}

void colour_bcs(int16_t *r, int16_t *g, int16_t *b, size_t count, const struct spec *spec,
                uint32_t epoch, uint32_t id)
{
    float factors[3];
    draw_factors(factors, spec, (struct draw_key){spec->seed, epoch}, id);
    double brightness = factors[0], contrast = factors[1];
    float gain = (float)(brightness * contrast), own = factors[2], rest = 1 - own;
    float lift = (float)((1 - contrast) * brightness * mean_luma(r, g, b, count));
    for (size_t i = 0; i < count; i++) {
        float x = (float)r[i] * gain + lift, y = (float)g[i] * gain + lift;
        float z = (float)b[i] * gain + lift;
        float luma = (0.299f * x + 0.587f * y + 0.114f * z) * rest;
        r[i] = rounded_q7(x * own + luma);
        g[i] = rounded_q7(y * own + luma);
        b[i] = rounded_q7(z * own + luma);
    }
}

static float least(float a, float b)
{
    return a < b ? a : b;
}

static float most(float a, float b)
{
    return a > b ? a : b;
}

static float unit_clamp(float value)
{
    return least(most(value, 0), 1);
}

/* Hue in sixths of a turn from red, (-3, 3]: yellow 1, green 2, cyan 3, blue -2, magenta -1. */
static inline struct rgb jitter_hsv(struct rgb in, float hue_factor, float saturation_factor,
                                    float value_factor)
{
    float highest = most(in.r, most(in.g, in.b)), lowest = least(in.r, least(in.g, in.b));
    float chroma = highest - lowest;
    float product = chroma * highest;
    float inverse = 1 / (product > 0 ? product : 1); /* one division for both quotients */
    float after_red = in.g - in.b, after_green = in.b - in.r, after_blue = in.r - in.g;
    float numerator = highest == in.r ? after_red : highest == in.g ? after_green : after_blue;
    float base = highest == in.r ? 0.f : highest == in.g ? 2.f : -2.f;

    float hue = (base + numerator * (inverse * highest)) * hue_factor;
    hue -= hue > 3 ? 6.f : 0.f;
    hue += hue <= -3 ? 6.f : 0.f;
    float saturation = least(chroma * (chroma * inverse) * saturation_factor, 1);
    float value = least(highest * value_factor, 255);

    /* How far each channel stays under the value: 0 within a sixth of its own hue, 1 from two on;
       where the wrap makes the other way round shorter, that one. */
    float scaled = value * saturation;
    float under_r = unit_clamp(fabsf(hue) - 1);
    float under_g = unit_clamp(least(fabsf(hue - 2), hue + 4) - 1);
    float under_b = unit_clamp(least(fabsf(hue + 2), 4 - hue) - 1);
    return (struct rgb){value - scaled * under_r, value - scaled * under_g,
                        value - scaled * under_b};
}

/* A run of pixels in float32, plane by plane: simple loops, which a compiler can turn into vectors.
 */
enum { RUN = 256 };

struct run {
    float r[RUN], g[RUN], b[RUN];
};

static void run_load(struct run *run, const int16_t *r, const int16_t *g, const int16_t *b,
                     size_t count)
{
    for (size_t i = 0; i < count; i++) {
        run->r[i] = (float)r[i] * Q7_UNIT;
        run->g[i] = (float)g[i] * Q7_UNIT;
        run->b[i] = (float)b[i] * Q7_UNIT;
    }
}

static void run_jitter(struct run *run, size_t count, const struct colour_params *params)
{
    float hue = params->hue, saturation = params->saturation, value = params->value;
    for (size_t i = 0; i < count; i++) {
        struct rgb pixel = {run->r[i], run->g[i], run->b[i]};
        pixel = jitter_hsv(pixel, hue, saturation, value);
        run->r[i] = pixel.r;
        run->g[i] = pixel.g;
        run->b[i] = pixel.b;
    }
}

static size_t run_fill(struct run *run, const int16_t *r, const int16_t *g, const int16_t *b,
                       size_t left, const struct colour_params *params)
{
    size_t count = left < RUN ? left : RUN;
    run_load(run, r, g, b, count);
    if (params->jitter)
        run_jitter(run, count, params);
    return count;
}

static void normalise_grey(float *dst, const int16_t *grey, size_t count,
                           const struct colour_params *params)
{
    for (size_t i = 0; i < count; i++)
        dst[i] = ((float)grey[i] * Q7_UNIT + params->shift[0]) * params->scale[0];
}

void colour_normalise(float *dst, const int16_t *r, const int16_t *g, const int16_t *b,
                      size_t count, const struct colour_params *params)
{
    if (params->channels == 1) {
        normalise_grey(dst, r, count, params);
        return;
    }
    const float *shift = params->shift, *scale = params->scale;
    struct run run;
    for (size_t begin = 0, length; begin < count; begin += length, dst += 3 * length) {
        length = run_fill(&run, r + begin, g + begin, b + begin, count - begin, params);
        for (size_t i = 0; i < length; i++) {
            dst[3 * i] = (run.r[i] + shift[0]) * scale[0];
            dst[3 * i + 1] = (run.g[i] + shift[1]) * scale[1];
            dst[3 * i + 2] = (run.b[i] + shift[2]) * scale[2];
        }
    }
}

static uint8_t byte_of(float value)
{
    return (uint8_t)(value + 0.5f);
}

void colour_bytes(uint8_t *dst, const int16_t *r, const int16_t *g, const int16_t *b, size_t count,
                  const struct colour_params *params)
{
    if (params->channels == 1) {
        for (size_t i = 0; i < count; i++)
            dst[i] = byte_of((float)r[i] * Q7_UNIT);
        return;
    }
    struct run run;
    for (size_t begin = 0, length; begin < count; begin += length, dst += 3 * length) {
        length = run_fill(&run, r + begin, g + begin, b + begin, count - begin, params);
        for (size_t i = 0; i < length; i++) {
            dst[3 * i] = byte_of(run.r[i]);
            dst[3 * i + 1] = byte_of(run.g[i]);
            dst[3 * i + 2] = byte_of(run.b[i]);
        }
    }
}

void colour_mix(float *a, float *b, float lam, size_t count)
{
    float rest = 1 - lam;
    for (size_t i = 0; i < count; i++) {
        float x = a[i], y = b[i];
        a[i] = lam * x + rest * y;
        b[i] = lam * y + rest * x;
    }
}

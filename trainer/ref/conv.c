/* SPDX-License-Identifier: Apache-2.0 */
/* Convolution as direct loops: TILE pixels of a row times LANES channels at a time, in an order
 * that a compiler can vectorise without changing any sum's order. */
#include <string.h>

#include "trainer/ref/ops.h"

enum { TILE = 4 };

/* The packed weights serve both directions: for a block of LANES channels of the result, for every
 * tap and every channel of the source, LANES weights in a row. */
enum direction { FORWARD, BACKWARD };

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

size_t conv_ref_packed(const struct node *node)
{
    size_t in = (size_t)pitch_of(node->in_channels), out = (size_t)pitch_of(node->out_channels);
    size_t weights = larger(in * (size_t)node->out_channels, out * (size_t)node->in_channels);
    return larger(weights, in * out) * (size_t)(node->kernel * node->kernel);
}

static void pack(real *packed, const real *weight, const struct node *node,
                 enum direction direction)
{
    int taps = node->kernel * node->kernel, in = node->in_channels, out = node->out_channels;
    int from = direction == FORWARD ? in : out, to = direction == FORWARD ? out : in;
    real *dst = packed;
    for (int block = 0; block < to; block += LANES)
        for (int tap = 0; tap < taps; tap++)
            for (int c = 0; c < from; c++)
                for (int lane = block; lane < block + LANES; lane++) {
                    int o = direction == FORWARD ? lane : c, i = direction == FORWARD ? c : lane;
                    *dst++ = lane < to ? weight[((size_t)o * in + i) * taps + tap] : 0;
                }
}

/* sum[t][lane] += over c: source[t][c] * weight[c][lane] */
static void multiply(real sum[TILE][LANES], const real *const source[TILE], const real *weight,
                     int channels)
{
    for (int c = 0; c < channels; c++)
        for (int t = 0; t < TILE; t++)
            for (int lane = 0; lane < LANES; lane++)
                sum[t][lane] += source[t][c] * weight[c * LANES + lane];
}

/* The coordinate that a tap reads for a pixel of the result; -1: none, which counts as zero. */
static int source_of(int at, int tap, int limit, const struct node *node, enum direction direction)
{
    if (direction == FORWARD) {
        int from = at * node->stride - node->pad + tap;
        return from < limit ? from : -1;
    }
    int from = at + node->pad - tap;
    if (from < 0 || from % node->stride != 0)
        return -1;
    return from / node->stride < limit ? from / node->stride : -1;
}

struct plane { /* one image of a map */
    const real *data;
    int height, width, channels, pitch;
};

/* TILE pixels of the result from column x of row y on, for one block of channels. */
static void gather(real sum[TILE][LANES], const struct plane *source, const real *packed, int y,
                   int x, enum direction direction, const struct op *op)
{
    const struct node *node = op->node;
    memset(sum, 0, TILE * sizeof sum[0]);
    for (int ky = 0; ky < node->kernel; ky++) {
        int row = source_of(y, ky, source->height, node, direction);
        if (row < 0)
            continue;
        for (int kx = 0; kx < node->kernel; kx++) {
            const real *pixel[TILE];
            bool any = false;
            for (int t = 0; t < TILE; t++) {
                int column = source_of(x + t, kx, source->width, node, direction);
                pixel[t] = op->zeros;
                if (column < 0)
                    continue;
                any = true;
                pixel[t] = source->data + ((size_t)row * source->width + column) * source->pitch;
            }
            if (any)
                multiply(sum, pixel,
                         packed + (size_t)(ky * node->kernel + kx) * source->channels * LANES,
                         source->channels);
        }
    }
}

void conv_ref_forward(real *y, const real *x, const real *weight, const struct op *op)
{
    const struct node *node = op->node;
    int in_pitch = pitch_of(node->in_channels), out_pitch = pitch_of(node->out_channels);
    size_t block_size = (size_t)node->kernel * node->kernel * node->in_channels * LANES;
    pack(op->packed, weight, node, FORWARD);
#pragma omp parallel for collapse(2) num_threads(op->threads) schedule(static)
    for (int n = 0; n < op->batch; n++)
        for (int row = 0; row < node->out_height; row++) {
            const struct plane source = {
                x + (size_t)n * node->in_height * node->in_width * in_pitch, node->in_height,
                node->in_width, node->in_channels, in_pitch};
            real *to = y + ((size_t)n * node->out_height + row) * node->out_width * out_pitch;
            for (int block = 0; block < out_pitch / LANES; block++)
                for (int column = 0; column < node->out_width; column += TILE) {
                    real sum[TILE][LANES];
                    gather(sum, &source, op->packed + block * block_size, row, column, FORWARD, op);
                    for (int t = 0; t < TILE && column + t < node->out_width; t++)
                        memcpy(to + (size_t)(column + t) * out_pitch + block * LANES, sum[t],
                               sizeof sum[t]);
                }
        }
}

void conv_ref_backward_data(real *dx, const real *dy, const real *weight, const struct op *op)
{
    const struct node *node = op->node;
    int in_pitch = pitch_of(node->in_channels), out_pitch = pitch_of(node->out_channels);
    size_t block_size = (size_t)node->kernel * node->kernel * node->out_channels * LANES;
    pack(op->packed, weight, node, BACKWARD);
#pragma omp parallel for collapse(2) num_threads(op->threads) schedule(static)
    for (int n = 0; n < op->batch; n++)
        for (int row = 0; row < node->in_height; row++) {
            const struct plane source = {
                dy + (size_t)n * node->out_height * node->out_width * out_pitch, node->out_height,
                node->out_width, node->out_channels, out_pitch};
            real *to = dx + ((size_t)n * node->in_height + row) * node->in_width * in_pitch;
            for (int block = 0; block < in_pitch / LANES; block++)
                for (int column = 0; column < node->in_width; column += TILE) {
                    real sum[TILE][LANES];
                    gather(sum, &source, op->packed + block * block_size, row, column, BACKWARD,
                           op);
                    for (int t = 0; t < TILE && column + t < node->in_width; t++)
                        for (int lane = 0; lane < LANES; lane++)
                            to[(size_t)(column + t) * in_pitch + block * LANES + lane] +=
                                sum[t][lane];
                }
        }
}

/* sum[i][o] = over the pixels of one image: x[first_in + i] * dy[first_out + o] for one tap */
static void correlate(real sum[TILE][LANES], const struct plane *x, const struct plane *dy,
                      int first_in, int first_out, int ky, int kx, const struct node *node)
{
    memset(sum, 0, TILE * sizeof sum[0]);
    for (int row = 0; row < dy->height; row++) {
        int from_row = source_of(row, ky, x->height, node, FORWARD);
        if (from_row < 0)
            continue;
        for (int column = 0; column < dy->width; column++) {
            int from_column = source_of(column, kx, x->width, node, FORWARD);
            if (from_column < 0)
                continue;
            const real *a =
                x->data + ((size_t)from_row * x->width + from_column) * x->pitch + first_in;
            const real *b = dy->data + ((size_t)row * dy->width + column) * dy->pitch + first_out;
            for (int i = 0; i < TILE; i++)
                for (int o = 0; o < LANES; o++)
                    sum[i][o] += a[i] * b[o];
        }
    }
}

/* dweight of one tap and TILE input channels, summed image by image into [TILE][out pitch]. */
static void weight_rows(real *rows, const real *x, const real *dy, int tap, int first_in,
                        const struct op *op)
{
    const struct node *node = op->node;
    struct plane from = {x, node->in_height, node->in_width, node->in_channels,
                         pitch_of(node->in_channels)};
    struct plane to = {dy, node->out_height, node->out_width, node->out_channels,
                       pitch_of(node->out_channels)};
    memset(rows, 0, (size_t)TILE * to.pitch * sizeof *rows);
    for (int n = 0; n < op->batch; n++) {
        for (int first_out = 0; first_out < to.pitch; first_out += LANES) {
            real sum[TILE][LANES];
            correlate(sum, &from, &to, first_in, first_out, tap / node->kernel, tap % node->kernel,
                      node);
            for (int i = 0; i < TILE; i++)
                for (int o = 0; o < LANES; o++)
                    rows[(size_t)i * to.pitch + first_out + o] += sum[i][o];
        }
        from.data += (size_t)from.height * from.width * from.pitch;
        to.data += (size_t)to.height * to.width * to.pitch;
    }
}

void conv_ref_backward_weight(real *dweight, const real *x, const real *dy, const struct op *op)
{
    const struct node *node = op->node;
    int in_pitch = pitch_of(node->in_channels), out_pitch = pitch_of(node->out_channels);
    int taps = node->kernel * node->kernel;
#pragma omp parallel for collapse(2) num_threads(op->threads) schedule(static)
    for (int tap = 0; tap < taps; tap++)
        for (int first = 0; first < in_pitch; first += TILE) {
            real *rows = op->packed + ((size_t)tap * in_pitch + first) * out_pitch;
            weight_rows(rows, x, dy, tap, first, op);
            for (int i = first; i < first + TILE && i < node->in_channels; i++)
                for (int o = 0; o < node->out_channels; o++)
                    dweight[((size_t)o * node->in_channels + i) * taps + tap] =
                        rows[(size_t)(i - first) * out_pitch + o];
        }
}

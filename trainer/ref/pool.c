/* SPDX-License-Identifier: Apache-2.0 */
/* Max and average pools, forward and backward. The first largest value of a window counts. */
#include <math.h>

#include "trainer/ref/ops.h"

struct window { /* the part of a pool's window that lies inside the map */
    int top, bottom, left, right;
};

static struct window window_of(const struct node *node, int row, int column)
{
    if (node->kind == NODE_GLOBAL_AVG)
        return (struct window){0, node->in_height, 0, node->in_width};
    int y = row * node->stride - node->pad, x = column * node->stride - node->pad;
    struct window window = {y, y + node->kernel, x, x + node->kernel};
    if (window.top < 0)
        window.top = 0;
    if (window.left < 0)
        window.left = 0;
    if (window.bottom > node->in_height)
        window.bottom = node->in_height;
    if (window.right > node->in_width)
        window.right = node->in_width;
    return window;
}

struct image { /* what one image's offsets are */
    size_t in, out;
    int pitch;
};

static struct image image_of(const struct node *node, int n)
{
    int pitch = pitch_of(node->in_channels);
    return (struct image){(size_t)n * node->in_height * node->in_width * pitch,
                          (size_t)n * node->out_height * node->out_width * pitch, pitch};
}

/* Where in the image (an offset of a pixel) the window's maximum of channel c is. */
static size_t place_of_max(const real *x, const struct window *window, int c, int width, int pitch)
{
    size_t best = ((size_t)window->top * width + window->left) * pitch;
    for (int y = window->top; y < window->bottom; y++)
        for (int column = window->left; column < window->right; column++) {
            size_t at = ((size_t)y * width + column) * pitch;
            if (x[at + c] > x[best + c] || (isnan(x[at + c]) && !isnan(x[best + c])))
                best = at;
        }
    return best;
}

void pool_ref_max(real *y, const real *x, const struct op *op)
{
    const struct node *node = op->node;
#pragma omp parallel for num_threads(op->threads) schedule(static)
    for (int n = 0; n < op->batch; n++) {
        struct image image = image_of(node, n);
        real *to = y + image.out;
        for (int row = 0; row < node->out_height; row++)
            for (int column = 0; column < node->out_width; column++, to += image.pitch) {
                struct window window = window_of(node, row, column);
                for (int c = 0; c < node->in_channels; c++)
                    to[c] = x[image.in + c +
                              place_of_max(x + image.in, &window, c, node->in_width, image.pitch)];
            }
    }
}

void pool_ref_max_backward(real *dx, const real *dy, const real *x, const struct op *op)
{
    const struct node *node = op->node;
#pragma omp parallel for num_threads(op->threads) schedule(static)
    for (int n = 0; n < op->batch; n++) {
        struct image image = image_of(node, n);
        const real *from = dy + image.out;
        for (int row = 0; row < node->out_height; row++)
            for (int column = 0; column < node->out_width; column++, from += image.pitch) {
                struct window window = window_of(node, row, column);
                for (int c = 0; c < node->in_channels; c++)
                    dx[image.in + c +
                       place_of_max(x + image.in, &window, c, node->in_width, image.pitch)] +=
                        from[c];
            }
    }
}

static double inside(const struct window *window)
{
    return (double)(window->bottom - window->top) * (window->right - window->left);
}

void pool_ref_avg(real *y, const real *x, const struct op *op)
{
    const struct node *node = op->node;
#pragma omp parallel for num_threads(op->threads) schedule(static)
    for (int n = 0; n < op->batch; n++) {
        struct image image = image_of(node, n);
        real *to = y + image.out;
        for (int row = 0; row < node->out_height; row++)
            for (int column = 0; column < node->out_width; column++, to += image.pitch) {
                struct window window = window_of(node, row, column);
                for (int c = 0; c < node->in_channels; c++) {
                    double sum = 0;
                    for (int iy = window.top; iy < window.bottom; iy++)
                        for (int ix = window.left; ix < window.right; ix++)
                            sum +=
                                x[image.in + ((size_t)iy * node->in_width + ix) * image.pitch + c];
                    to[c] = (real)(sum / inside(&window));
                }
            }
    }
}

void pool_ref_avg_backward(real *dx, const real *dy, const struct op *op)
{
    const struct node *node = op->node;
#pragma omp parallel for num_threads(op->threads) schedule(static)
    for (int n = 0; n < op->batch; n++) {
        struct image image = image_of(node, n);
        const real *from = dy + image.out;
        for (int row = 0; row < node->out_height; row++)
            for (int column = 0; column < node->out_width; column++, from += image.pitch) {
                struct window window = window_of(node, row, column);
                real share = (real)(1.0 / inside(&window));
                for (int iy = window.top; iy < window.bottom; iy++)
                    for (int ix = window.left; ix < window.right; ix++) {
                        real *to = dx + image.in + ((size_t)iy * node->in_width + ix) * image.pitch;
                        for (int c = 0; c < node->in_channels; c++)
                            to[c] += share * from[c];
                    }
            }
    }
}

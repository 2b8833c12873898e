/* SPDX-License-Identifier: Apache-2.0 */
/* The forward operations of the reference against their formulas written as plainly as can be, and
 * the plan of its memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/unit/testing.h"
#include "trainer/ref/ops.h"
#include "trainer/ref/ref.h"

enum { BATCH = 2 };

struct map { /* [BATCH][height][width][pitch] */
    float *data;
    int height, width, channels;
};

static size_t size_of(const struct map *map)
{
    return (size_t)BATCH * map->height * map->width * pitch_of(map->channels);
}

static struct map map_of(int height, int width, int channels, uint64_t *random)
{
    struct map map = {NULL, height, width, channels};
    map.data = malloc(size_of(&map) * sizeof *map.data);
    for (size_t i = 0; i < size_of(&map); i++) /* the lanes past the channels too */
        map.data[i] = random ? (float)(2 * testing_unit(random) - 1) : NAN;
    return map;
}

/* 0 outside the map; inside says whether it was. */
static double value_at(const struct map *map, int n, int y, int x, int c, bool *inside)
{
    *inside = y >= 0 && y < map->height && x >= 0 && x < map->width;
    if (!*inside)
        return 0;
    return map
        ->data[(((size_t)n * map->height + y) * map->width + x) * pitch_of(map->channels) + c];
}

static struct op op_for(const struct node *node, int threads)
{
    size_t widest = (size_t)pitch_of(node->in_channels) + (size_t)pitch_of(node->out_channels);
    struct op op = {.node = node, .batch = BATCH, .threads = threads};
    op.packed = malloc(conv_ref_packed(node) * sizeof *op.packed);
    op.zeros = calloc(widest, sizeof *op.zeros);
    op.partial = malloc(2 * (BATCH + 1) * widest * sizeof *op.partial);
    return op;
}

static void close_op(struct op *op)
{
    free(op->packed);
    free((void *)op->zeros);
    free(op->partial);
}

static void expect(double value, double expected, double tolerance, const struct node *node)
{
    if (!(fabs(value - expected) <= tolerance))
        fail_msg("kernel %d stride %d pad %d of %d x %d: %g where %g was expected", node->kernel,
                 node->stride, node->pad, node->in_height, node->in_width, value, expected);
}

static void check_conv(const struct node *node, uint64_t *random)
{
    struct map x = map_of(node->in_height, node->in_width, node->in_channels, random);
    struct map y = map_of(node->out_height, node->out_width, node->out_channels, NULL);
    int k = node->kernel, in = node->in_channels;
    size_t weights = (size_t)node->out_channels * in * k * k;
    float *weight = malloc(weights * sizeof *weight);
    for (size_t i = 0; i < weights; i++)
        weight[i] = (float)(2 * testing_unit(random) - 1);
    struct op op = op_for(node, 2);
    conv_ref_forward(y.data, x.data, weight, &op);
    /* As many rounding errors of half a unit as there are terms of at most 1. */
    double tolerance = (double)k * k * in * k * k * in * 0x1p-24;
    bool inside;
    for (int n = 0; n < BATCH; n++)
        for (int oy = 0; oy < y.height; oy++)
            for (int ox = 0; ox < y.width; ox++)
                for (int o = 0; o < y.channels; o++) {
                    double sum = 0;
                    for (int i = 0; i < in; i++)
                        for (int t = 0; t < k * k; t++)
                            sum += value_at(&x, n, oy * node->stride - node->pad + t / k,
                                            ox * node->stride - node->pad + t % k, i, &inside) *
                                   weight[((size_t)o * in + i) * k * k + t];
                    expect(value_at(&y, n, oy, ox, o, &inside), sum, tolerance, node);
                }
    close_op(&op);
    free(weight);
    free(x.data);
    free(y.data);
}

static void test_conv(void **unused)
{
    static const struct {
        int kernel, stride, pad, in, out, height, width;
    } shapes[] = {{1, 1, 0, 3, 5, 4, 7},  {1, 2, 0, 9, 8, 5, 6},   {3, 1, 1, 8, 16, 6, 5},
                  {3, 2, 1, 1, 17, 7, 8}, {7, 2, 3, 3, 10, 11, 9}, {3, 2, 1, 4, 4, 1, 2},
                  {7, 2, 3, 2, 3, 2, 3}};
    uint64_t random = testing_seed();
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        struct node node = {.kind = NODE_CONV,
                            .kernel = shapes[i].kernel,
                            .stride = shapes[i].stride,
                            .pad = shapes[i].pad,
                            .in_channels = shapes[i].in,
                            .out_channels = shapes[i].out,
                            .in_height = shapes[i].height,
                            .in_width = shapes[i].width};
        node.out_height = (node.in_height + 2 * node.pad - node.kernel) / node.stride + 1;
        node.out_width = (node.in_width + 2 * node.pad - node.kernel) / node.stride + 1;
        check_conv(&node, &random);
    }
}

/* What PyTorch's max_pool2d and avg_pool2d (ceil_mode, no count_include_pad) say. */
static void check_pool(const struct node *node, uint64_t *random)
{
    struct map x = map_of(node->in_height, node->in_width, node->in_channels, random);
    struct map y = map_of(node->out_height, node->out_width, node->out_channels, NULL);
    struct op op = op_for(node, 1);
    if (node->kind == NODE_MAX_POOL)
        pool_ref_max(y.data, x.data, &op);
    else
        pool_ref_avg(y.data, x.data, &op);
    for (int n = 0; n < BATCH; n++)
        for (int oy = 0; oy < y.height; oy++)
            for (int ox = 0; ox < y.width; ox++)
                for (int c = 0; c < y.channels; c++) {
                    double largest = -INFINITY, sum = 0, count = 0;
                    bool inside;
                    for (int t = 0; t < node->kernel * node->kernel; t++) {
                        double value =
                            value_at(&x, n, oy * node->stride - node->pad + t / node->kernel,
                                     ox * node->stride - node->pad + t % node->kernel, c, &inside);
                        largest = inside && value > largest ? value : largest;
                        sum += value;
                        count += inside;
                    }
                    double expected = node->kind == NODE_MAX_POOL ? largest : sum / count;
                    expect(value_at(&y, n, oy, ox, c, &inside), expected, 1e-7, node);
                }
    close_op(&op);
    free(x.data);
    free(y.data);
}

static void test_pools(void **unused)
{
    static const struct {
        enum node_kind kind;
        int kernel, stride, pad, height, width, out_height, out_width;
    } shapes[] = {{NODE_MAX_POOL, 3, 2, 1, 7, 8, 4, 4},
                  {NODE_MAX_POOL, 3, 2, 1, 2, 5, 1, 3},
                  {NODE_AVG_POOL, 2, 2, 0, 7, 8, 4, 4},
                  {NODE_AVG_POOL, 2, 2, 0, 3, 5, 2, 3},
                  {NODE_AVG_POOL, 3, 2, 1, 6, 5, 4, 3}};
    uint64_t random = testing_seed();
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        const struct node node = {.kind = shapes[i].kind,
                                  .kernel = shapes[i].kernel,
                                  .stride = shapes[i].stride,
                                  .pad = shapes[i].pad,
                                  .in_channels = 5,
                                  .out_channels = 5,
                                  .in_height = shapes[i].height,
                                  .in_width = shapes[i].width,
                                  .out_height = shapes[i].out_height,
                                  .out_width = shapes[i].out_width};
        check_pool(&node, &random);
    }
}

static void test_nan_goes_through(void **unused)
{
    const struct node node = {
        .kind = NODE_CONV, .relu = true, .out_channels = 1, .out_height = 1, .out_width = 1};
    struct op op = op_for(&node, 1);
    float y[BATCH * LANES] = {NAN}, out[BATCH * LANES];
    y[LANES] = -1;
    const double scale = 1, shift = 0;
    bn_ref_apply(out, y, NULL, &scale, &shift, &op);
    assert_true(isnan(out[0]) && out[LANES] == 0);
    close_op(&op);
}

/* Blocks that live at the same time never share a buffer, and every buffer is large enough. */
static void test_plan(void **unused)
{
    enum { COUNT = 40 };
    uint64_t random = testing_seed();
    for (int round = 0; round < 200; round++) {
        struct plan_block blocks[COUNT];
        int buffer[COUNT];
        size_t sizes[COUNT], total = 0, planned = 0;
        for (int i = 0; i < COUNT; i++) {
            int begin = (int)(testing_random(&random) % 50);
            blocks[i] = (struct plan_block){begin, begin + (int)(testing_random(&random) % 8),
                                            testing_random(&random) % 100};
            total += blocks[i].size;
        }
        int buffers = plan_ref(buffer, sizes, blocks, COUNT);
        for (int i = 0; i < COUNT; i++) {
            if (blocks[i].size == 0) {
                assert_int_equal(buffer[i], -1);
                continue;
            }
            assert_in_range(buffer[i], 0, buffers - 1);
            assert_true(sizes[buffer[i]] >= blocks[i].size);
            for (int j = 0; j < i; j++)
                assert_false(buffer[i] == buffer[j] && blocks[i].begin <= blocks[j].end &&
                             blocks[j].begin <= blocks[i].end);
        }
        for (int b = 0; b < buffers; b++)
            planned += sizes[b];
        assert_true(planned < total); /* it does share */
    }
}

int main(void)
{
    testing_seed();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conv),
        cmocka_unit_test(test_pools),
        cmocka_unit_test(test_nan_goes_through),
        cmocka_unit_test(test_plan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

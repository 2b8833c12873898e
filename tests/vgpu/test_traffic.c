/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes that a training step of resnet50d at batch 256 moves, by one rule (traffic.h), counted on
 * the double's descriptors of the backend's own graphs, and the images a second that memory and
 * arithmetic of a chip allow at most, kernel by kernel. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "common/err.h"
#include "tests/vgpu/traffic.h"
#include "trainer/cuda/schedule.h"

enum { BATCH = 256, SIZE_PX = 224, CLASSES = 1000 };

/* Memory from the vendor's data sheets; dense fp16 that convolutions were seen to reach: peaks are
 * 989 and 312. */
static const struct chip {
    const char *name;
    double bytes_s, flops_s;
} chips[] = {{"H100", 3.35e12, 800e12}, {"A100-80G", 2.04e12, 250e12}};
enum { CHIPS = sizeof chips / sizeof *chips };

/* PyTorch's eager kernels for the same step (convolution, BN, ReLU, addition, each by itself): MB
 * an image by the second rule; from the image as fp16 on, as here. */
static const double eager_mb = 509;

struct total {
    struct traffic bytes;
    double apart; /* bytes that are in none of the above */
    double flops, seconds[CHIPS];
    int kernels;
};

static void add(struct total *total, struct traffic bytes, double flops)
{
    total->bytes.once += bytes.once;
    total->bytes.twice += bytes.twice;
    total->flops += flops;
    total->kernels++;
    for (int i = 0; i < CHIPS; i++) {
        double memory = bytes.twice / chips[i].bytes_s, arithmetic = flops / chips[i].flops_s;
        total->seconds[i] += memory > arithmetic ? memory : arithmetic;
    }
}

static void add_own(struct total *total, double bytes, double flops)
{
    add(total, (struct traffic){bytes, bytes}, flops);
}

static double flops_of(const struct graph_spec *spec)
{
    bool conv = spec->kind <= GRAPH_CONV_WEIGHT;
    return !conv ? 0
                 : 2.0 * spec->batch * spec->out_height * spec->out_width * spec->out_channels *
                       spec->in_channels * spec->kernel * spec->kernel;
}

static void add_graph(struct total *total, const struct graph_spec *spec, cudnnHandle_t handle)
{
    static struct graph graph;
    graph_describe(&graph, spec, handle);
    if (graph.describe.status)
        fail_msg("%s", graph.describe.reason);
    add(total, vgpu_traffic(graph.descriptor), flops_of(spec));
    describe_release(&graph.describe, 0);
}

/* Kernels that are not cuDNN's: the classifier, the loss, the update (trainer/cuda/kernels.h has
 * their bytes). What mixed precision needs besides is not among PyTorch's 509 MB and counted apart:
 * unpacking the input, gathering fp16 gradients, the check that they are finite. */
static void add_others(struct total *total, const struct net *net, const struct layout *layout)
{
    double features = net->nodes[net->node_count - 1].in_channels, logits = BATCH * CLASSES;
    double weights = features * CLASSES, x = BATCH * features;
    double product = 2 * BATCH * weights, trained = (double)layout->gradient_count;
    add_own(total, 2 * x + 2 * weights + 4 * logits, product);
    add_own(total, 6 * logits, 0);
    add_own(total, 2 * logits + 2 * weights + 2 * x, product);
    add_own(total, 2 * logits + 2 * x + 4 * weights, product);
    add_own(total, 22 * trained, 0);
    total->apart = 22.0 * BATCH * SIZE_PX * SIZE_PX + (6 + 4) * trained;
}

static struct total count(enum fusion fusion, cudnnHandle_t handle)
{
    struct net *net;
    struct layout *layout;
    struct schedule *schedule = NULL;
    const struct program_config config = {.mode = PROGRAM_TRAIN, .batch = BATCH};
    const struct scheme scheme = {.fusion = fusion};
    struct total total = {.flops = 0};
    if (net_open(&net, "resnet50d", SIZE_PX, 3, CLASSES) || layout_open(&layout, net) ||
        layout_split(layout, net, 0) || schedule_open(&schedule, net, layout, &config, &scheme))
        fail_msg("%s", err_message());
    for (int i = 0; i < schedule->graph_count; i++)
        add_graph(&total, &schedule->graphs[i], handle);
    add_others(&total, net, layout);
    schedule_close(schedule);
    layout_close(layout);
    net_close(net);
    return total;
}

static void print(const char *name, const struct total *total)
{
    printf("%-9s %4d kernels, %5.1f MB an image (%.3f of PyTorch's), each tensor once: %5.1f;"
           " mixed precision's %.1f more; %.1f GFLOP;",
           name, total->kernels, total->bytes.twice / BATCH / 1e6,
           total->bytes.twice / BATCH / 1e6 / eager_mb, total->bytes.once / BATCH / 1e6,
           total->apart / BATCH / 1e6, total->flops / BATCH / 1e9);
    for (int i = 0; i < CHIPS; i++)
        printf(" %s %.0f images/s", chips[i].name, BATCH / total->seconds[i]);
    printf("\n");
}

static void test_schemes(void **state)
{
    static const struct {
        const char *name;
        enum fusion fusion;
        double limit; /* of eager_mb */
    } schemes[] = {{"none", FUSION_NONE, 0.75},
                   {"prologue", FUSION_PROLOGUE, 0.63},
                   {"block", FUSION_BLOCK, 0.57}};
    cudnnHandle_t handle;
    assert_int_equal(cudnnCreate(&handle), CUDNN_STATUS_SUCCESS);
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) {
        const struct total total = count(schemes[i].fusion, handle);
        print(schemes[i].name, &total);
        assert_true(total.bytes.twice / BATCH / 1e6 <= schemes[i].limit * eager_mb);
    }
    cudnnDestroy(handle);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_schemes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

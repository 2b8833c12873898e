/* SPDX-License-Identifier: Apache-2.0 */
/* The networks by name: counts of the paper, timm's names, shapes, freezing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/err.h"
#include "common/hash.h"
#include "trainer/model/net.h"

static struct net *opened(const char *model, int size_px, int channels, int classes)
{
    struct net *net;
    if (net_open(&net, model, size_px, channels, classes))
        fail_msg("%s: %s", model, err_message());
    return net;
}

static uint64_t decayed(const struct net *net)
{
    uint64_t total = 0;
    for (int i = 0; i < net->tensor_count; i++)
        if (net_decayed(&net->tensors[i], true))
            total += net->tensors[i].count;
    return total;
}

static void test_parameters(void **unused)
{
    static const struct {
        const char *model;
        uint64_t parameters, decayed;
        int tensors;
    } expected[] = {
        {"resnet10b", 5418792, 5412032, 62},     {"resnet10d", 5438024, 5431136, 72},
        {"resnet18b", 11689512, 11678912, 102},  {"resnet34b", 21797672, 0, 182},
        {"resnet50a", 25557032, 0, 267},         {"resnet50b", 25557032, 0, 267},
        {"resnet50d", 25576264, 25522016, 277},  {"resnet101b", 44549160, 0, 522},
        {"resnet152d", 60212040, 60059488, 787},
    };
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        struct net *net = opened(expected[i].model, 224, 3, 1000);
        assert_int_equal(net_parameters(net), expected[i].parameters);
        assert_int_equal(net->tensor_count, expected[i].tensors);
        if (expected[i].decayed)
            assert_int_equal(decayed(net), expected[i].decayed);
        net_close(net);
    }
}

/* Counted by tools/golden/macs.py on torchvision's and timm's networks. The paper, section 4.2,
 * says 3.86 G for A, then 4.1 and 4.3 G. */
static void test_macs(void **unused)
{
    static const struct {
        const char *model;
        uint64_t macs;
    } expected[] = {
        {"resnet50a", 3857973248}, {"resnet50b", 4089184256}, {"resnet50c", 4328824832},
        {"resnet50d", 4328824832}, {"resnet18d", 2053713920}, {"resnet152d", 11753267200},
    };
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        struct net *net = opened(expected[i].model, 224, 3, 1000);
        if (net_macs(net) != expected[i].macs)
            fail_msg("%s: %" PRIu64 ", not %" PRIu64, expected[i].model, net_macs(net),
                     expected[i].macs);
        net_close(net);
    }
}

static void expect_tensor(const struct net *net, const char *name, int a, int b, int c, int d)
{
    int i = net_tensor(net, name);
    if (i < 0)
        fail_msg("%s has no %s", net->model, name);
    const int shape[4] = {a, b, c, d};
    assert_memory_equal(net->tensors[i].shape, shape, sizeof shape);
}

static void test_names(void **unused)
{
    struct net *d = opened("resnet50d", 224, 3, 1000), *a = opened("resnet50a", 224, 3, 10);
    expect_tensor(d, "conv1.0.weight", 32, 3, 3, 3);
    expect_tensor(d, "conv1.1.running_var", 32, 1, 1, 1);
    expect_tensor(d, "conv1.3.weight", 32, 32, 3, 3);
    expect_tensor(d, "conv1.6.weight", 64, 32, 3, 3);
    expect_tensor(d, "bn1.weight", 64, 1, 1, 1);
    expect_tensor(d, "layer1.0.conv1.weight", 64, 64, 1, 1);
    expect_tensor(d, "layer1.0.downsample.1.weight", 256, 64, 1, 1);
    expect_tensor(d, "layer2.0.downsample.2.bias", 512, 1, 1, 1);
    expect_tensor(d, "layer4.2.conv3.weight", 2048, 512, 1, 1);
    expect_tensor(d, "fc.weight", 1000, 2048, 1, 1);
    expect_tensor(d, "fc.bias", 1000, 1, 1, 1);
    assert_int_equal(net_tensor(d, "layer1.1.downsample.1.weight"), -1);
    expect_tensor(a, "conv1.weight", 64, 3, 7, 7);
    expect_tensor(a, "layer1.0.downsample.0.weight", 256, 64, 1, 1);
    expect_tensor(a, "layer3.0.downsample.1.running_mean", 1024, 1, 1, 1);
    assert_true(d->tensors[net_tensor(d, "layer1.0.bn3.weight")].last_gamma);
    assert_false(d->tensors[net_tensor(d, "layer1.0.bn2.weight")].last_gamma);
    assert_false(d->tensors[net_tensor(d, "layer1.0.downsample.2.weight")].last_gamma);
    assert_true(d->tensors[net_tensor(d, "fc.bias")].head);
    net_close(d);
    net_close(a);
}

static const struct node *node_of(const struct net *net, const char *weight)
{
    for (int i = 0; i < net->node_count; i++)
        if (net->nodes[i].weight == net_tensor(net, weight))
            return &net->nodes[i];
    fail_msg("%s has no %s", net->model, weight);
    return NULL;
}

static void test_strides(void **unused)
{
    struct net *a = opened("resnet50a", 224, 3, 10), *b = opened("resnet50", 224, 3, 10);
    struct net *d = opened("resnet50d", 224, 3, 10);
    assert_string_equal(b->model, "resnet50b");
    assert_int_equal(node_of(a, "layer2.0.conv1.weight")->stride, 2);
    assert_int_equal(node_of(a, "layer2.0.conv2.weight")->stride, 1);
    assert_int_equal(node_of(b, "layer2.0.conv1.weight")->stride, 1);
    assert_int_equal(node_of(b, "layer2.0.conv2.weight")->stride, 2);
    assert_int_equal(node_of(b, "layer2.0.downsample.0.weight")->stride, 2);
    assert_int_equal(node_of(d, "layer2.0.downsample.1.weight")->stride, 1);
    int pool = node_of(d, "layer2.0.downsample.1.weight")->input;
    assert_int_equal(d->nodes[pool].kind, NODE_AVG_POOL);
    assert_int_equal(d->nodes[node_of(d, "layer1.0.downsample.1.weight")->input].kind,
                     NODE_MAX_POOL);
    assert_false(node_of(d, "layer2.0.downsample.1.weight")->relu);
    net_close(a);
    net_close(b);
    net_close(d);
}

/* What every net must satisfy, at sizes that do not divide. */
static void check_graph(const struct net *net)
{
    assert_int_equal(net->nodes[0].kind, NODE_INPUT);
    assert_int_equal(net->nodes[net->node_count - 1].kind, NODE_FC);
    for (int i = 1; i < net->node_count; i++) {
        const struct node *node = &net->nodes[i], *input = &net->nodes[node->input];
        assert_in_range(node->input, 0, i - 1);
        assert_int_equal(node->in_height, input->out_height);
        assert_int_equal(node->in_channels, input->out_channels);
        if (node->residual >= 0) {
            assert_true(node->residual < i);
            assert_int_equal(net->nodes[node->residual].out_height, node->out_height);
            assert_int_equal(net->nodes[node->residual].out_width, node->out_width);
            assert_int_equal(net->nodes[node->residual].out_channels, node->out_channels);
        }
    }
}

static void test_graphs(void **unused)
{
    static const char *const models[] = {
        "resnet18a", "resnet18d",   "resnet34c",          "resnet50a",     "resnet50b",
        "resnet50c", "resnet50d",   "resnet8b",           "resnet20d",     "resnet56",
        "resnet26",  "resnet8d-w4", "resnet18d-small-w8", "resnet50-small"};
    static const int sizes[] = {28, 33, 47, 64, 97, 224, 225};
    for (size_t m = 0; m < sizeof models / sizeof models[0]; m++)
        for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
            struct net *net = opened(models[m], sizes[s], 3, 7);
            check_graph(net);
            net_close(net);
        }
}

static void test_small_images(void **unused)
{
    struct net *net = opened("resnet20d", 28, 1, 10);
    assert_int_equal(node_of(net, "layer1.2.conv2.weight")->out_height, 28);
    assert_int_equal(node_of(net, "layer2.0.conv1.weight")->out_height, 14);
    assert_int_equal(node_of(net, "layer3.2.conv2.weight")->out_height, 7);
    assert_int_equal(net_tensor(net, "layer1.0.downsample.1.weight"), -1);
    expect_tensor(net, "conv1.weight", 16, 1, 3, 3);
    expect_tensor(net, "layer3.0.downsample.1.weight", 64, 32, 1, 1);
    assert_int_equal(net_reshape(net, 9), 0); /* 9, 5, 3 */
    assert_int_equal(node_of(net, "layer3.0.downsample.1.weight")->in_height, 3);
    check_graph(net);
    net_close(net);
    net = opened("resnet20b", 32, 3, 10); /* He et al. 2015: 0.27 M */
    assert_int_equal(net_parameters(net), 272474);
    net_close(net);
}

static void test_refusals(void **unused)
{
    static const char *const names[] = {"",           "resnet",      "resnet51",        "resnet50e",
                                        "resnet20c",  "resnet50d-x", "resnet20-small",  "vgg16",
                                        "resnet50-w", "resnet50-w1", "resnet50-w99999", "resnet0b",
                                        "resnet50dd"};
    struct net *net;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        assert_int_equal(net_open(&net, names[i], 224, 3, 10), ERR_ARG);
        assert_null(net);
    }
    assert_int_equal(net_open(&net, "resnet50", 16, 3, 10), ERR_ARG);
    assert_int_equal(net_open(&net, "resnet50", 17, 3, 10), 0);
    assert_int_equal(net_reshape(net, 16), ERR_ARG);
    net_close(net);
    assert_int_equal(net_open(&net, "resnet50", 224, 3, 1), ERR_ARG);
    assert_int_equal(net_open(&net, "resnet50", 0, 3, 10), ERR_ARG);
    assert_int_equal(net_open(&net, "resnet50", 224, 0, 10), ERR_ARG);
}

static void test_freeze(void **unused)
{
    struct net *net = opened("resnet18d", 64, 3, 10), *copy;
    net_freeze(net, 2);
    assert_int_equal(net_copy(&copy, net), 0);
    net_close(net);
    assert_false(copy->tensors[net_tensor(copy, "conv1.0.weight")].trained);
    assert_false(copy->tensors[net_tensor(copy, "layer2.1.bn2.bias")].trained);
    assert_true(copy->tensors[net_tensor(copy, "layer3.0.conv1.weight")].trained);
    assert_true(copy->tensors[net_tensor(copy, "fc.bias")].trained);
    assert_true(net_bn_frozen(copy, node_of(copy, "layer2.0.conv1.weight")));
    assert_false(net_bn_frozen(copy, node_of(copy, "layer3.0.conv1.weight")));
    net_close(copy);
}

/* Initial values are drawn by 32 bits of the names' hashes: no two names may share them. */
static void test_names_hash_apart(void **unused)
{
    struct net *net = opened("resnet152d", 224, 3, 1000);
    for (int i = 0; i < net->tensor_count; i++)
        for (int j = 0; j < i; j++) {
            const char *a = net->tensors[i].name, *b = net->tensors[j].name;
            assert_true(hash64_of(a, strlen(a)) >> 32 != hash64_of(b, strlen(b)) >> 32);
        }
    net_close(net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parameters),
        cmocka_unit_test(test_macs),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_strides),
        cmocka_unit_test(test_graphs),
        cmocka_unit_test(test_small_images),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_freeze),
        cmocka_unit_test(test_names_hash_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

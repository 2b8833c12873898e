/* SPDX-License-Identifier: Apache-2.0 */
/* The residual networks by name: ResNet-A..D of the paper's section 4 (figures 1 and 2), and the
 * small ones of He et al. 2015, section 4.2. Tensors have timm's names. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "trainer/model/build.h"
#include "trainer/model/net.h"

enum { STAGES_MAX = 4, MODULE_BYTES = 48 };

struct depth {
    int layers, stages;
    int blocks[STAGES_MAX];
    bool bottleneck;
    const char *variants;
    int width; /* channels of the first stage (a bottleneck's inner ones) */
};

static const struct depth depths[] = {
    {10, 4, {1, 1, 1, 1}, false, "abcd", 64},  {18, 4, {2, 2, 2, 2}, false, "abcd", 64},
    {34, 4, {3, 4, 6, 3}, false, "abcd", 64},  {50, 4, {3, 4, 6, 3}, true, "abcd", 64},
    {101, 4, {3, 4, 23, 3}, true, "abcd", 64}, {152, 4, {3, 8, 36, 3}, true, "abcd", 64},
    {8, 3, {1, 1, 1}, false, "bd", 16},        {14, 3, {2, 2, 2}, false, "bd", 16},
    {20, 3, {3, 3, 3}, false, "bd", 16},       {26, 3, {4, 4, 4}, false, "bd", 16},
    {32, 3, {5, 5, 5}, false, "bd", 16},       {44, 3, {7, 7, 7}, false, "bd", 16},
    {56, 3, {9, 9, 9}, false, "bd", 16},
};

struct resnet { /* a parsed name */
    const struct depth *depth;
    char variant;
    bool small_stem; /* 3x3 stride 1, no pool */
    int width;
    char name[48];
};

static int unknown(const char *model)
{
    return err_set(ERR_ARG,
                   "unknown model '%.64s'; there are resnet{10,18,34,50,101,152}{a,b,c,d}, "
                   "resnet{8,14,20,26,32,44,56}{b,d} for small images, each with the suffixes "
                   "-small (3x3 stem) and -wN (width)",
                   model);
}

/* Reads 1 to 4 digits; 0 when there are none. */
static int read_number(const char **text)
{
    int value = 0, digits = 0;
    while (isdigit((unsigned char)**text) && digits < 4) {
        value = 10 * value + *(*text)++ - '0';
        digits++;
    }
    return value;
}

static int parse(struct resnet *resnet, const char *model)
{
    const char *at = model;
    if (strncmp(at, "resnet", 6) != 0)
        return unknown(model);
    at += 6;
    int layers = read_number(&at);
    *resnet = (struct resnet){.variant = 'b'};
    for (size_t i = 0; i < sizeof depths / sizeof depths[0]; i++)
        if (depths[i].layers == layers)
            resnet->depth = &depths[i];
    if (!resnet->depth)
        return unknown(model);
    if (*at >= 'a' && *at <= 'z')
        resnet->variant = *at++;
    if (!strchr(resnet->depth->variants, resnet->variant))
        return unknown(model);

    bool small = false;
    int width = 0;
    if (strncmp(at, "-small", 6) == 0 && resnet->depth->stages == 4) {
        small = true;
        at += 6;
    }
    if (strncmp(at, "-w", 2) == 0) {
        at += 2;
        width = read_number(&at);
        if (width < 2 || width > 1024)
            return err_set(ERR_ARG, "model '%.64s': the width must be 2..1024", model);
    }
    if (*at)
        return unknown(model);
    resnet->small_stem = small || resnet->depth->stages == 3;
    resnet->width = width ? width : resnet->depth->width;
    int used = snprintf(resnet->name, sizeof resnet->name, "resnet%d%c%s", layers, resnet->variant,
                        small ? "-small" : "");
    if (width)
        snprintf(resnet->name + used, sizeof resnet->name - (size_t)used, "-w%d", width);
    return 0;
}

/* conv + BN + ReLU */
static int stem_conv(struct build *build, int input, int channels, int kernel, int stride,
                     const char *conv, const char *bn)
{
    const struct build_conv what = {.input = input,
                                    .residual = -1,
                                    .out_channels = channels,
                                    .kernel = kernel,
                                    .stride = stride,
                                    .pad = kernel / 2,
                                    .relu = true};
    return build_conv(build, &what, conv, bn);
}

static int stem(struct build *build, const struct resnet *resnet)
{
    int width = resnet->width;
    if (resnet->small_stem)
        return stem_conv(build, 0, width, 3, 1, "conv1", "bn1");
    int last;
    if (resnet->variant == 'a' || resnet->variant == 'b') {
        last = stem_conv(build, 0, width, 7, 2, "conv1", "bn1");
    } else {
        last = stem_conv(build, 0, width / 2, 3, 2, "conv1.0", "conv1.1");
        last = stem_conv(build, last, width / 2, 3, 1, "conv1.3", "conv1.4");
        last = stem_conv(build, last, width, 3, 1, "conv1.6", "bn1");
    }
    return build_pool(build, NODE_MAX_POOL, last, 3, 2, 1);
}

struct block {
    int stage, index; /* stage from 1 */
    int input;        /* node */
    int width;        /* inner channels */
    int channels;     /* of the output */
    int stride;
    bool changes; /* shape differs: the shortcut needs a projection */
};

static void module_name(char name[MODULE_BYTES], const struct block *block, const char *part)
{
    snprintf(name, MODULE_BYTES, "layer%d.%d.%s", block->stage, block->index, part);
}

/* The node to be added to the block's path: the input itself or its projection. */
static int shortcut(struct build *build, const struct resnet *resnet, const struct block *block)
{
    if (!block->changes)
        return block->input;
    int input = block->input, stride = block->stride;
    bool pooled = resnet->variant == 'd';
    if (pooled && stride > 1) {
        input = build_pool(build, NODE_AVG_POOL, input, 2, stride, 0);
        stride = 1;
    }
    char conv[MODULE_BYTES], bn[MODULE_BYTES];
    module_name(conv, block, pooled ? "downsample.1" : "downsample.0");
    module_name(bn, block, pooled ? "downsample.2" : "downsample.1");
    const struct build_conv what = {.input = input,
                                    .residual = -1,
                                    .out_channels = block->channels,
                                    .kernel = 1,
                                    .stride = stride};
    return build_conv(build, &what, conv, bn);
}

struct block_conv {
    int kernel, stride, channels;
};

static int residual_block(struct build *build, const struct resnet *resnet,
                          const struct block *block)
{
    bool early = resnet->variant == 'a'; /* the stride is in the first 1x1 */
    const struct block_conv bottleneck[] = {
        {1, early ? block->stride : 1, block->width},
        {3, early ? 1 : block->stride, block->width},
        {1, 1, block->channels},
    };
    const struct block_conv basic[] = {
        {3, block->stride, block->width},
        {3, 1, block->channels},
    };
    const struct block_conv *convs = resnet->depth->bottleneck ? bottleneck : basic;
    int count = resnet->depth->bottleneck ? 3 : 2;
    int last = block->input;
    for (int i = 0; i < count; i++) {
        char part[16], conv[MODULE_BYTES], bn[MODULE_BYTES];
        snprintf(part, sizeof part, "conv%d", i + 1);
        module_name(conv, block, part);
        snprintf(part, sizeof part, "bn%d", i + 1);
        module_name(bn, block, part);
        bool ends = i == count - 1;
        const struct build_conv what = {.input = last,
                                        .residual = ends ? shortcut(build, resnet, block) : -1,
                                        .out_channels = convs[i].channels,
                                        .kernel = convs[i].kernel,
                                        .stride = convs[i].stride,
                                        .pad = convs[i].kernel / 2,
                                        .relu = true,
                                        .last = ends};
        last = build_conv(build, &what, conv, bn);
    }
    return last;
}

static int stages(struct build *build, const struct resnet *resnet, int input)
{
    const struct depth *depth = resnet->depth;
    int channels_in = resnet->width;
    for (int stage = 1; stage <= depth->stages; stage++) {
        int width = resnet->width << (stage - 1);
        int channels = depth->bottleneck ? 4 * width : width;
        for (int index = 0; index < depth->blocks[stage - 1]; index++) {
            int stride = stage > 1 && index == 0 ? 2 : 1;
            const struct block block = {.stage = stage,
                                        .index = index,
                                        .input = input,
                                        .width = width,
                                        .channels = channels,
                                        .stride = stride,
                                        .changes = stride > 1 || channels != channels_in};
            input = residual_block(build, resnet, &block);
            channels_in = channels;
        }
    }
    return input;
}

int net_open(struct net **out, const char *model, int size_px, int channels, int classes)
{
    *out = NULL;
    struct resnet resnet;
    int code = parse(&resnet, model);
    if (code)
        return code;
    if (size_px < 1 || size_px > 4096)
        return err_set(ERR_ARG, "image size %d px: must be 1..4096", size_px);
    if (channels < 1 || channels > 64)
        return err_set(ERR_ARG, "%d channels: must be 1..64", channels);
    if (classes < 2 || classes > 1 << 20)
        return err_set(ERR_ARG, "%d classes: must be 2..%d", classes, 1 << 20);
    struct build build;
    build_begin(&build, resnet.name, channels, classes);
    int last = stages(&build, &resnet, stem(&build, &resnet));
    build_fc(&build, build_global_avg(&build, last));
    return build_end(out, &build, size_px);
}

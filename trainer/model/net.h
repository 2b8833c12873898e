/* SPDX-License-Identifier: Apache-2.0 */
/* What the network is: a static graph of composite nodes, independent of who runs it. A backend
 * compiles it for a batch size and owns how nodes are fused and laid out. */
#ifndef TRAINER_MODEL_NET_H
#define TRAINER_MODEL_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum tensor_kind {
    TENSOR_CONV_WEIGHT,  /* [out][in][kernel][kernel] (OIHW) */
    TENSOR_FC_WEIGHT,    /* [classes][features] */
    TENSOR_FC_BIAS,      /* [classes] */
    TENSOR_GAMMA,        /* [channels]: BN weight */
    TENSOR_BETA,         /* [channels]: BN bias */
    TENSOR_RUNNING_MEAN, /* [channels]: not trained */
    TENSOR_RUNNING_VAR,  /* [channels]: not trained, unbiased variance as in PyTorch */
};

struct tensor {
    char name[64]; /* timm's name: "layer1.0.conv1.weight" */
    enum tensor_kind kind;
    int shape[4];
    int rank;
    size_t count;
    bool trained; /* has a gradient and a momentum */
    bool
        last_gamma; /* the gamma of the last BN of a residual block: starts at 0 under zero gamma */
    bool head;      /* belongs to the classifier: re-initialised when the class count differs */
};

enum node_kind {
    NODE_INPUT,      /* [batch][height][width][channels], normalised */
    NODE_CONV,       /* convolution without bias, BN, optional residual add, optional ReLU */
    NODE_MAX_POOL,   /* padding is never the maximum */
    NODE_AVG_POOL,   /* ceil mode, padding not counted */
    NODE_GLOBAL_AVG, /* over height and width */
    NODE_FC,         /* with bias: logits */
};

struct node {
    enum node_kind kind;
    int input;    /* node whose output is read; -1 for NODE_INPUT */
    int residual; /* NODE_CONV: node whose output is added after BN and before ReLU; -1: none */
    bool relu;
    int kernel, stride, pad; /* square */
    int in_channels, in_height, in_width;
    int out_channels, out_height, out_width;    /* FC: classes x 1 x 1 */
    int weight;                                 /* tensor index; -1 where the kind has none */
    int bias;                                   /* FC */
    int gamma, beta, running_mean, running_var; /* NODE_CONV */
};

#define NET_BN_EPSILON 1e-5f /* as timm and torchvision */
#define NET_BN_MOMENTUM                                                                            \
    0.1f /* running = (1 - m) running + m batch (paper's 0.9 the other way round) */

struct net {
    char model[48];
    int size_px, channels, classes;
    struct node *nodes;     /* in execution order: an input always comes before its reader */
    int node_count;         /* the last node is the FC */
    struct tensor *tensors; /* in the order of their nodes: conv weight, gamma, beta, mean, var; ...
                               fc.weight, fc.bias */
    int tensor_count;
};

/* Builds a network by name:
 *   resnet{10,18,34,50,101,152}{a,b,c,d}  ImageNet stem (paper section 4); a bare name means b
 *   resnet{8,14,20,26,32,44,56}{b,d}  He et al. 2015 section 4.2, for small images: 3x3 stride-1
 *                                       stem, no pool, three stages of basic blocks with 16, 32, 64
 *                                       channels; a bare name means b; b has a 1x1 projection where
 *                                       a shape changes, d the average pool before it
 *   suffix -small                       the 3x3 stride-1 stem without pool on an ImageNet model
 *   suffix -wN                          channels of the first stage instead of 64 or 16
 * net->model is the name with its letter. ERR_ARG: unknown name (lists what there is), or a size
 * too small: a strided node would read a map of one pixel. */
int net_open(struct net **out, const char *model, int size_px, int channels, int classes);
void net_close(struct net *net); /* accepts NULL */

/* A copy of its own: what a backend keeps. */
int net_copy(struct net **out, const struct net *net);

/* Works out every node's in_* and out_* for another input size (for NODE_INPUT, conv and pools from
 * kernel, stride and pad). Tensors do not depend on it. ERR_ARG as net_open. */
int net_reshape(struct net *net, int size_px);

/* Freezes the stem and the first `stages` stages: their tensors' `trained` is cleared, so they have
 * no gradient and no momentum, and are not updated. */
void net_freeze(struct net *net, int stages);

/* True for a NODE_CONV whose gamma and beta are frozen: it normalises with its running statistics
 * in training too, and those stay as they are. */
bool net_bn_frozen(const struct net *net, const struct node *node);

/* Index of a tensor by name, -1 when there is none. */
int net_tensor(const struct net *net, const char *name);

uint64_t net_parameters(const struct net *net); /* trained scalars */
uint64_t
net_macs(const struct net *net); /* multiply-accumulates of convolutions and FC for one image */

/* The name of default tensors' weight decay: with no_bias_decay only conv and FC weights are
 * decayed (paper section 3.1). */
bool net_decayed(const struct tensor *tensor, bool no_bias_decay);

/* Initial values (trainer/model/init.c): scheme "xavier" (uniform, +-sqrt(6/(fan_in+fan_out)), true
 * fans) or "msra" (normal, fan out); gamma 1 (0 for last gammas under zero_gamma), beta 0, mean 0,
 * var 1. Drawn by proto/draw.h from (seed, tensor name's hash): equal everywhere. dst has
 * tensor->count floats. */
void net_init_tensor(float *dst, const struct tensor *tensor, const char *scheme, bool zero_gamma,
                     uint64_t seed);

#endif

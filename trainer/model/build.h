/* SPDX-License-Identifier: Apache-2.0 */
/* Putting a net together node by node: for the families of networks (resnet.c) and for tests that
 * want a small net of a shape of their own.
 *
 * The first failure is kept in the build and reported by build_end; after it every call does
 * nothing, so no call in between needs a check. */
#ifndef TRAINER_MODEL_BUILD_H
#define TRAINER_MODEL_BUILD_H

#include "trainer/model/net.h"

struct build {
    struct net *net;
    int node_room, tensor_room;
    int error;
};

/* Begins with the NODE_INPUT, node 0. */
void build_begin(struct build *build, const char *model, int channels, int classes);

/* Each returns the index of its new node. conv and bn are the names before ".weight". */
struct build_conv {
    int input, residual; /* residual -1: none */
    int out_channels, kernel, stride, pad;
    bool relu, last; /* last: ends a residual block, see last_gamma */
};
int build_conv(struct build *build, const struct build_conv *what, const char *conv,
               const char *bn);
int build_pool(struct build *build, enum node_kind kind, int input, int kernel, int stride,
               int pad);
int build_global_avg(struct build *build, int input);
int build_fc(struct build *build, int input);

/* Shapes the net for size_px and hands it over; on failure frees it. */
int build_end(struct net **out, struct build *build, int size_px);

#endif

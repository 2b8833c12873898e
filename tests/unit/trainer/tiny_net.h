/* SPDX-License-Identifier: Apache-2.0 */
/* Tiny nets of odd shapes, filled with random values and run on any backend: what the tests of a
 * backend's operations share. */
#ifndef TESTS_UNIT_TRAINER_TINY_NET_H
#define TESTS_UNIT_TRAINER_TINY_NET_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/half.h"
#include "tests/unit/testing.h"
#include "trainer/backend.h"
#include "trainer/model/build.h"

extern const struct backend_ops backend_ref_double;

enum { TINY_FREE = -1, TINY_FROZEN_BN = -2 }; /* nothing frozen; all gammas and betas */

struct tiny_case {
    const char *name;
    void (*build)(struct build *build); /* NULL: name is a model's */
    int size_px, channels, classes, batch;
    int freeze; /* stages for net_freeze, or one of the below */
    struct loss_config loss;
    bool teacher; /* a second net of the same shape teaches */
    int micro_batches;
    size_t bucket_bytes;
    bool decided;      /* no ReLU is near its kink */
    double loss_scale; /* 0: none */
};

static inline int tiny_conv(struct build *build, int input, int residual, int channels, int kernel,
                            int stride, bool relu)
{
    char conv[16], bn[16];
    snprintf(conv, sizeof conv, "conv%d", build->net->node_count);
    snprintf(bn, sizeof bn, "bn%d", build->net->node_count);
    const struct build_conv what = {.input = input,
                                    .residual = residual,
                                    .out_channels = channels,
                                    .kernel = kernel,
                                    .stride = stride,
                                    .pad = kernel / 2,
                                    .relu = relu};
    return build_conv(build, &what, conv, bn);
}

static inline void tiny_head(struct build *build, int input)
{
    build_fc(build, build_global_avg(build, input));
}

/* A convolution before the one looked at, so that its gradient to its input is used. */
static inline void tiny_conv_case(struct build *build, int kernel, int stride)
{
    int first = tiny_conv(build, 0, -1, 5, 1, 1, false);
    tiny_head(build, tiny_conv(build, first, -1, 7, kernel, stride, true));
}

static inline void tiny_build_fc(struct build *build)
{
    tiny_head(build, 0);
}
static inline void tiny_build_conv1(struct build *build)
{
    tiny_conv_case(build, 1, 1);
}
static inline void tiny_build_conv1s2(struct build *build)
{
    tiny_conv_case(build, 1, 2);
}
static inline void tiny_build_conv3(struct build *build)
{
    tiny_conv_case(build, 3, 1);
}
static inline void tiny_build_conv3s2(struct build *build)
{
    tiny_conv_case(build, 3, 2);
}
static inline void tiny_build_conv7s2(struct build *build)
{
    tiny_conv_case(build, 7, 2);
}
static inline void tiny_build_wide(struct build *build)
{
    int first = tiny_conv(build, 0, -1, 33, 3, 1, true);
    tiny_head(build, tiny_conv(build, first, -1, 17, 3, 2, true));
}

static inline void tiny_build_identity(struct build *build)
{
    int first = tiny_conv(build, 0, -1, 6, 3, 1, true);
    int inner = tiny_conv(build, first, -1, 6, 3, 1, true);
    tiny_head(build, tiny_conv(build, inner, first, 6, 1, 1, true));
}

/* The shortcut of ResNet-D. */
static inline void tiny_build_projection(struct build *build)
{
    int first = tiny_conv(build, 0, -1, 4, 3, 1, true);
    int inner = tiny_conv(build, first, -1, 5, 3, 2, true);
    int pool = build_pool(build, NODE_AVG_POOL, first, 2, 2, 0);
    int shortcut = tiny_conv(build, pool, -1, 9, 1, 1, false);
    tiny_head(build, tiny_conv(build, inner, shortcut, 9, 1, 1, true));
}

static inline void tiny_build_max_pool(struct build *build)
{
    int first = tiny_conv(build, 0, -1, 5, 3, 1, false);
    int pool = build_pool(build, NODE_MAX_POOL, first, 3, 2, 1);
    tiny_head(build, tiny_conv(build, pool, -1, 4, 1, 1, true));
}

static inline void tiny_build_stem(struct build *build)
{
    int first = tiny_conv(build, 0, -1, 64, 3, 1, true);
    int pool = build_pool(build, NODE_MAX_POOL, first, 3, 2, 1);
    tiny_head(build, tiny_conv(build, pool, -1, 8, 1, 1, true));
}

static inline void tiny_build_avg_pool(struct build *build)
{
    int first = tiny_conv(build, 0, -1, 5, 3, 1, false);
    int pool = build_pool(build, NODE_AVG_POOL, first, 2, 2, 0);
    tiny_head(build, tiny_conv(build, pool, -1, 4, 3, 1, true));
}

#define TINY_PLAIN                                                                                 \
    {                                                                                              \
        .label_smoothing = 0                                                                       \
    }
#define TINY_SMOOTH                                                                                \
    {                                                                                              \
        .label_smoothing = 0.1                                                                     \
    }
#define TINY_OVER_K                                                                                \
    {                                                                                              \
        .label_smoothing = 0.1, .smoothing_over_k = true                                           \
    }
#define TINY_KD                                                                                    \
    {                                                                                              \
        .label_smoothing = 0.1, .kd_temperature = 3.0, .kd_hard_weight = 0.7,                      \
        .kd_soft_weight = 1.3                                                                      \
    }

static const struct tiny_case tiny_cases[] = {
    {"fc", tiny_build_fc, 3, 5, 7, 4, TINY_FREE, TINY_PLAIN, false},
    {"fc, smoothing", tiny_build_fc, 3, 5, 7, 4, TINY_FREE, TINY_SMOOTH, false},
    {"fc, smoothing over K", tiny_build_fc, 3, 5, 7, 4, TINY_FREE, TINY_OVER_K, false},
    {"fc, distillation", tiny_build_fc, 3, 5, 7, 4, TINY_FREE, TINY_KD, true},
    {"conv 1x1", tiny_build_conv1, 5, 3, 4, 3, TINY_FREE, TINY_PLAIN, false},
    {"conv 1x1/2", tiny_build_conv1s2, 5, 3, 4, 3, TINY_FREE, TINY_PLAIN, false},
    {"conv 1x1/2, even", tiny_build_conv1s2, 6, 3, 4, 3, TINY_FREE, TINY_PLAIN, false},
    {"conv 3x3", tiny_build_conv3, 5, 3, 4, 3, TINY_FREE, TINY_PLAIN, false},
    {"conv 3x3/2", tiny_build_conv3s2, 7, 3, 4, 3, TINY_FREE, TINY_PLAIN, false},
    {"conv 3x3/2, even", tiny_build_conv3s2, 8, 3, 4, 3, TINY_FREE, TINY_PLAIN, false},
    {"conv 7x7/2", tiny_build_conv7s2, 9, 3, 4, 3, TINY_FREE, TINY_PLAIN, false},
    {"conv 7x7/2, even", tiny_build_conv7s2, 12, 1, 4, 2, TINY_FREE, TINY_PLAIN, false},
    {"conv, wide", tiny_build_wide, 6, 2, 4, 2, TINY_FREE, TINY_PLAIN, false},
    {"residual", tiny_build_identity, 5, 3, 4, 3, TINY_FREE, TINY_PLAIN, false},
    {"residual, pooled projection", tiny_build_projection, 7, 3, 4, 3, TINY_FREE, TINY_PLAIN,
     false},
    {"max pool", tiny_build_max_pool, 7, 3, 4, 3, TINY_FREE, TINY_PLAIN, false},
    {"max pool, even", tiny_build_max_pool, 8, 3, 4, 3, TINY_FREE, TINY_PLAIN, false},
    {"max pool, wide", tiny_build_stem, 8, 3, 4, 3, TINY_FREE, TINY_PLAIN, false},
    {"avg pool, odd", tiny_build_avg_pool, 7, 3, 4, 3, TINY_FREE, TINY_PLAIN, false},
    {"avg pool, even", tiny_build_avg_pool, 6, 3, 4, 3, TINY_FREE, TINY_PLAIN, false},
    {"residual, frozen BN", tiny_build_identity, 5, 3, 4, 3, TINY_FROZEN_BN, TINY_PLAIN, false},
    {"resnet8d-w4", NULL, 9, 3, 5, 4, TINY_FREE, TINY_KD, true},
    {"resnet8b-w4", NULL, 10, 1, 5, 4, TINY_FREE, TINY_SMOOTH, false},
    {"resnet8b-w4", NULL, 9, 3, 5, 4, 1, TINY_PLAIN, false},
    {"resnet18d-small-w2", NULL, 9, 3, 6, 4, TINY_FREE, TINY_PLAIN, false},
};
enum { TINY_CASES = sizeof tiny_cases / sizeof tiny_cases[0] };

struct tiny {
    const struct backend_ops *ops;
    struct backend *backend;
    struct net *net;
    struct state *state, *teacher_state;
    struct program *program, *teacher;
    struct chunk_label *labels;
    uint16_t *pixels;
    struct batch batch;
    double factor; /* of the loss */
};

/* A multiple of 2^-12 in [low, high): so a float holds it and small steps from it exactly. */
static inline float tiny_value(uint64_t *random, double low, double high)
{
    return (float)(floor((low + (high - low) * testing_unit(random)) * 4096.0) / 4096.0);
}

static inline void tiny_fill(float *dst, const struct tensor *tensor, uint64_t *random)
{
    double fan_in = (double)tensor->shape[1] * tensor->shape[2] * tensor->shape[3];
    double bound = sqrt(3.0 / fan_in);
    for (size_t i = 0; i < tensor->count; i++) {
        switch (tensor->kind) {
        case TENSOR_GAMMA:
        case TENSOR_RUNNING_VAR:
            dst[i] = tiny_value(random, 0.5, 1.5);
            break;
        case TENSOR_CONV_WEIGHT:
        case TENSOR_FC_WEIGHT:
            dst[i] = tiny_value(random, -bound, bound);
            break;
        default:
            dst[i] = tiny_value(random, -0.5, 0.5);
        }
    }
}

/* A beta with which BN (gamma at most 0.75, so seldom further than 3 from beta) passes ReLU as a
 * whole or not at all. The end of a block passes: what is added is 0 or more; another BN; or the
 * end of the block before, which is well above 0. */
static inline float tiny_decided_beta(const struct net *net, const struct node *node,
                                      uint64_t *random)
{
    if (!node->relu)
        return tiny_value(random, -0.5, 0.5);
    if (node->residual < 0)
        return testing_random(random) & 1 ? 3 : -3;
    const struct node *residual = &net->nodes[node->residual];
    return residual->residual >= 0 ? 0.5F : residual->relu ? 3 : 6;
}

/* Gammas and betas with which no ReLU hangs on the last bits of a value: in a small net one that
 * does can move a gradient by a few per cent. */
static inline int tiny_decide(const struct backend_ops *ops, struct state *state,
                              const struct net *net, uint64_t *random)
{
    int code = 0;
    for (int i = 0; i < net->node_count && !code; i++) {
        const struct node *node = &net->nodes[i];
        if (node->kind != NODE_CONV)
            continue;
        size_t count = net->tensors[node->beta].count;
        float *values = malloc(count * sizeof *values);
        for (size_t c = 0; c < count; c++)
            values[c] = tiny_value(random, 0.25, 0.75);
        code = ops->state_set(state, STATE_WEIGHT, node->gamma, values);
        for (size_t c = 0; c < count; c++)
            values[c] = tiny_decided_beta(net, node, random);
        if (!code)
            code = ops->state_set(state, STATE_WEIGHT, node->beta, values);
        free(values);
    }
    return code;
}

static inline int tiny_fill_state(const struct backend_ops *ops, struct state *state,
                                  const struct net *net, uint64_t *random)
{
    int code = 0;
    for (int i = 0; i < net->tensor_count && !code; i++) {
        float *values = malloc(net->tensors[i].count * sizeof *values);
        tiny_fill(values, &net->tensors[i], random);
        code = ops->state_set(state, STATE_WEIGHT, i, values);
        free(values);
    }
    return code;
}

static inline void tiny_close(struct tiny *tiny)
{
    if (!tiny->backend)
        return;
    tiny->ops->program_close(tiny->program);
    tiny->ops->program_close(tiny->teacher);
    tiny->ops->state_close(tiny->state);
    tiny->ops->state_close(tiny->teacher_state);
    tiny->ops->host_free(tiny->backend, tiny->labels);
    tiny->ops->host_free(tiny->backend, tiny->pixels);
    tiny->ops->close(tiny->backend);
    net_close(tiny->net);
}

static inline int tiny_net(struct net **out, const struct tiny_case *what)
{
    int code;
    if (what->build) {
        struct build build;
        build_begin(&build, what->name, what->channels, what->classes);
        what->build(&build);
        code = build_end(out, &build, what->size_px);
    } else {
        code = net_open(out, what->name, what->size_px, what->channels, what->classes);
    }
    if (!code && what->freeze >= 0)
        net_freeze(*out, what->freeze);
    for (int i = 0; !code && what->freeze == TINY_FROZEN_BN && i < (*out)->tensor_count; i++)
        if ((*out)->tensors[i].kind == TENSOR_GAMMA || (*out)->tensors[i].kind == TENSOR_BETA)
            (*out)->tensors[i].trained = false;
    return code;
}

static inline int tiny_teacher(struct tiny *tiny, const struct tiny_case *what, uint64_t *random)
{
    int code = tiny->ops->state_open(&tiny->teacher_state, tiny->backend, tiny->net, 0);
    if (!code)
        code = tiny_fill_state(tiny->ops, tiny->teacher_state, tiny->net, random);
    const struct program_config config = {.mode = PROGRAM_INFER, .batch = what->batch};
    if (!code)
        code = tiny->ops->program_open(&tiny->teacher, tiny->teacher_state, &config);
    return code;
}

static inline void tiny_fill_batch(struct tiny *tiny, const struct tiny_case *what,
                                   uint64_t *random)
{
    size_t pixels = (size_t)what->batch * what->size_px * what->size_px * what->channels;
    tiny->pixels = tiny->ops->host_alloc(tiny->backend, pixels * sizeof *tiny->pixels);
    tiny->labels = tiny->ops->host_alloc(tiny->backend, what->batch * sizeof *tiny->labels);
    for (size_t i = 0; i < pixels; i++)
        tiny->pixels[i] = half_from_float(tiny_value(random, -2.0, 2.0));
    for (int i = 0; i < what->batch; i++)
        tiny->labels[i] =
            (struct chunk_label){(uint32_t)(testing_random(random) % (uint64_t)what->classes),
                                 (uint32_t)(testing_random(random) % (uint64_t)what->classes),
                                 (float)testing_unit(random)};
    tiny->batch = (struct batch){tiny->pixels, tiny->labels, NULL, what->batch};
}

/* Opens all of a case on a backend with values that depend on the seed alone. On failure the
 * message is in err_message(); close it all the same. */
static inline int tiny_open(struct tiny *tiny, const struct backend_ops *ops,
                            const struct backend_config *backend, const struct tiny_case *what,
                            uint64_t seed)
{
    *tiny = (struct tiny){.ops = ops,
                          .factor = (what->loss_scale > 0 ? what->loss_scale : 1) / what->batch};
    int code = ops->open(&tiny->backend, backend);
    if (!code)
        code = tiny_net(&tiny->net, what);
    if (!code)
        code = ops->state_open(&tiny->state, tiny->backend, tiny->net, 2);
    uint64_t random = seed;
    if (!code)
        code = tiny_fill_state(ops, tiny->state, tiny->net, &random);
    if (!code && what->decided)
        code = tiny_decide(ops, tiny->state, tiny->net, &random);
    if (!code && what->teacher)
        code = tiny_teacher(tiny, what, &random);
    const struct program_config config = {.mode = PROGRAM_TRAIN,
                                          .batch = what->batch,
                                          .micro_batches = what->micro_batches,
                                          .bucket_bytes = what->bucket_bytes,
                                          .loss = what->loss,
                                          .teacher = tiny->teacher};
    if (!code)
        code = ops->program_open(&tiny->program, tiny->state, &config);
    if (!code)
        tiny_fill_batch(tiny, what, &random);
    return code;
}

/* One micro-batch into slot 0. */
static inline int tiny_run(struct tiny *tiny)
{
    return tiny->ops->run(tiny->program, &tiny->batch, 0, tiny->factor, NULL, NULL);
}

/* |a - b| / |b| as vectors, where elements of b count as 0.01 at least, for some gradients vanish
 * exactly (a shift before the next BN); NaN when either has one. */
static inline double tiny_distance(const float *a, const float *b, size_t count)
{
    double difference = 0, norm = 0;
    for (size_t i = 0; i < count; i++) {
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        norm += (double)b[i] * b[i];
    }
    return sqrt(difference / (norm + 1e-4 * (double)count));
}

static inline int tiny_compare_tensor(struct tiny *a, struct tiny *b, int tensor, double tolerance)
{
    const struct tensor *what = &a->net->tensors[tensor];
    float *left = calloc(what->count, sizeof *left), *right = calloc(what->count, sizeof *right);
    int code = a->ops->slot_get(left, a->state, 0, tensor);
    int other = b->ops->slot_get(right, b->state, 0, tensor);
    double distance = tiny_distance(left, right, what->count);
    free(left);
    free(right);
    if (code == ERR_ARG && other == ERR_ARG) /* neither has a gradient: frozen */
        return 0;
    if (!code && !other && distance <= tolerance)
        return 0;
    fprintf(stderr, "%s: %s and %s differ by %g (codes %d, %d)\n", what->name, a->ops->name,
            b->ops->name, distance, code, other);
    return 1;
}

/* Runs both and compares logits, metrics and every tensor of the slot; says what differs by more
 * than the tolerance (relative, as vectors) and returns how many do. */
static inline int tiny_compare(struct tiny *a, struct tiny *b, double tolerance)
{
    if (tiny_run(a) || tiny_run(b)) {
        fprintf(stderr, "%s\n", err_message());
        return 1;
    }
    int failures = 0;
    size_t logits = (size_t)a->batch.samples * a->net->classes;
    float *left = malloc(logits * sizeof *left), *right = malloc(logits * sizeof *right);
    struct batch_metrics m, n;
    if (a->ops->logits(left, a->program) || b->ops->logits(right, b->program) ||
        !(tiny_distance(left, right, logits) <= tolerance)) {
        fprintf(stderr, "the logits differ by %g\n", tiny_distance(left, right, logits));
        failures++;
    }
    free(left);
    free(right);
    if (a->ops->metrics(&m, a->state, 0) || b->ops->metrics(&n, b->state, 0) ||
        !(fabs(m.loss - n.loss) <= tolerance * fabs(n.loss)) || m.top1 != n.top1 ||
        m.top5 != n.top5 || m.samples != n.samples) {
        fprintf(stderr, "the metrics differ: loss %.9g, %.9g\n", m.loss, n.loss);
        failures++;
    }
    for (int i = 0; i < a->net->tensor_count; i++)
        failures += tiny_compare_tensor(a, b, i, tolerance);
    return failures;
}

/* The whole of it: opens the case on both backends and compares. A ReLU or max pool whose input is
 * a rounding error away from its kink may go either way, so up to three seeds are tried: a wrong
 * operation fails with each. Returns 0 when one agreed. */
static inline int tiny_compare_case(const struct backend_ops *left, const struct backend_ops *right,
                                    const struct backend_config *config,
                                    const struct tiny_case *what, uint64_t seed, double tolerance)
{
    int failures = 1;
    for (int attempt = 0; attempt < 3 && failures; attempt++) {
        struct tiny a, b;
        int code = tiny_open(&a, left, config, what, seed + (uint64_t)attempt);
        int other = tiny_open(&b, right, config, what, seed + (uint64_t)attempt);
        if (code || other)
            fprintf(stderr, "%s: %s\n", what->name, err_message());
        else
            failures = tiny_compare(&a, &b, tolerance);
        tiny_close(&a);
        tiny_close(&b);
    }
    if (failures)
        fprintf(stderr, "%s: %s and %s differ\n", what->name, left->name, right->name);
    return failures;
}

#endif

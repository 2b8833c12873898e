/* SPDX-License-Identifier: Apache-2.0 */
/* Whole training steps of the CUDA backend on the double against the reference with the same
 * roundings to fp16: loss, every gradient, batch statistics, momentum, updated weights, running
 * statistics; and how many ReLUs go the other way. With each way of fusing batch normalisation.
 * Arguments: one net ("resnet50d") and one way ("prologue") of all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "tests/unit/trainer/tiny_net.h"
#include "tests/vgpu/ref_probe.h"
#include "tests/vgpu/vgpu.h"

extern const struct backend_ops backend_cuda;

enum { MICRO = 2, LOSS_SCALE = 1024 };

static const double tolerance = 2e-4, flip_share = 1e-3;
static const char *const fusion_names[] = {"auto", "none", "prologue", "block"};

/* Strong enough that none of it can be forgotten unnoticed. */
static const struct update update = {.lr = 0.05,
                                     .momentum = 0.9,
                                     .weight_decay = 0.05,
                                     .no_bias_decay = true,
                                     .grad_scale = 1.0 / LOSS_SCALE,
                                     .micro_batches = MICRO,
                                     .skip_nonfinite = true};

static const struct {
    struct tiny_case net;
    int steps;
    enum fusion fusion;
} cases[] = {
    {{"resnet8d", NULL, 28, 1, 10, 8, TINY_FREE, TINY_SMOOTH, false}, 2, FUSION_NONE},
    {{"resnet8d", NULL, 28, 1, 10, 8, TINY_FREE, TINY_SMOOTH, false}, 2, FUSION_PROLOGUE},
    {{"resnet20d", NULL, 28, 1, 10, 8, TINY_FREE, TINY_SMOOTH, false}, 2, FUSION_NONE},
    {{"resnet50d-w16", NULL, 64, 3, 7, 8, TINY_FREE, TINY_PLAIN, false}, 2, FUSION_NONE},
    {{"resnet50d-w16", NULL, 64, 3, 7, 8, TINY_FREE, TINY_PLAIN, false}, 2, FUSION_PROLOGUE},
    {{"resnet14d", NULL, 28, 1, 10, 8, TINY_FREE, TINY_SMOOTH, false}, 2, FUSION_BLOCK},
    {{"resnet50d-w16", NULL, 64, 3, 7, 8, TINY_FREE, TINY_PLAIN, false}, 2, FUSION_BLOCK},
    {{"resnet50d", NULL, 64, 3, 1000, 8, TINY_FREE, TINY_SMOOTH, false}, 1, FUSION_NONE},
};

/* ReLUs of a run on the double, in the order of the net's nodes. */
static struct {
    struct tiny *ref; /* has run the same batch already */
    int node, last;
    uint64_t flips, values;
} relus;

static int last_relu(const struct net *net)
{
    int last = net->node_count - 1;
    while (!net->nodes[last].relu)
        last--;
    return last;
}

static void watch_relu(const double *values, const int64_t dim[4])
{
    const struct net *net = relus.ref->net;
    if (relus.node >= relus.last)
        return; /* in the backward, once more */
    while (++relus.node < net->node_count && !net->nodes[relus.node].relu)
        ;
    assert_true(relus.node < net->node_count);
    const struct node *node = &net->nodes[relus.node];
    int64_t pixels = dim[0] * dim[2] * dim[3];
    assert_int_equal(pixels,
                     (int64_t)relus.ref->batch.samples * node->out_height * node->out_width);
    for (int64_t p = 0; p < pixels; p++)
        for (int c = 0; c < node->out_channels; c++) {
            bool passes = ref_probe_passes(relus.ref->program, relus.node, p, c);
            relus.flips += (values[p * dim[1] + c] > 0) != passes;
            relus.values++;
        }
}

static double relative(const float *a, const float *b, const float *from, size_t count)
{
    double difference = 0, norm = 0;
    for (size_t i = 0; i < count; i++) {
        double base = from ? from[i] : 0;
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        norm += (b[i] - base) * (b[i] - base);
    }
    return sqrt(difference / (norm + 1e-12 * (double)count));
}

/* The largest distances so far, by kind. */
enum kind { GRADIENT, WEIGHT, MOMENTUM, KINDS };
static const char *const kind_names[KINDS] = {"gradients", "changes of weights", "momenta"};
static double largest[KINDS];

static int get(float *dst, struct tiny *tiny, enum kind kind, int tensor)
{
    if (kind == GRADIENT)
        return tiny->ops->slot_get(dst, tiny->state, 0, tensor);
    return tiny->ops->state_get(dst, tiny->state, kind == WEIGHT ? STATE_WEIGHT : STATE_MOMENTUM,
                                tensor);
}

/* from: what the weights were, by tensor; NULL for the other kinds. */
static int compare(struct tiny *cuda, struct tiny *ref, enum kind kind, float *const *from)
{
    int failures = 0;
    for (int i = 0; i < ref->net->tensor_count; i++) {
        size_t count = ref->net->tensors[i].count;
        float *a = calloc(count, sizeof *a), *b = calloc(count, sizeof *b);
        int code = get(a, cuda, kind, i);
        assert_int_equal(code, get(b, ref, kind, i));
        double distance = code ? 0 : relative(a, b, from ? from[i] : NULL, count);
        if (!(distance <= largest[kind]))
            largest[kind] = distance;
        if (!(distance <= tolerance)) {
            fprintf(stderr, "%s of %s differ by %g\n", kind_names[kind], ref->net->tensors[i].name,
                    distance);
            failures++;
        }
        free(a);
        free(b);
    }
    return failures;
}

static float **weights_of(struct tiny *tiny)
{
    float **all = calloc((size_t)tiny->net->tensor_count, sizeof *all);
    for (int i = 0; i < tiny->net->tensor_count; i++) {
        all[i] = calloc(tiny->net->tensors[i].count, sizeof **all);
        assert_int_equal(tiny->ops->state_get(all[i], tiny->state, STATE_WEIGHT, i), 0);
    }
    return all;
}

static void free_weights(float **all, const struct tiny *tiny)
{
    for (int i = 0; i < tiny->net->tensor_count; i++)
        free(all[i]);
    free(all);
}

/* The same batch for both. */
static void next_batch(struct tiny *cuda, struct tiny *ref, const struct tiny_case *what,
                       uint64_t *random)
{
    struct tiny *both[] = {cuda, ref};
    uint64_t state = *random;
    for (int i = 0; i < 2; i++) {
        *random = state;
        both[i]->ops->host_free(both[i]->backend, both[i]->pixels);
        both[i]->ops->host_free(both[i]->backend, both[i]->labels);
        tiny_fill_batch(both[i], what, random);
    }
}

static int compare_metrics(struct tiny *cuda, struct tiny *ref)
{
    struct batch_metrics a, b;
    assert_int_equal(cuda->ops->metrics(&a, cuda->state, 0), 0);
    assert_int_equal(ref->ops->metrics(&b, ref->state, 0), 0);
    if (fabs(a.loss - b.loss) <= tolerance * fabs(b.loss) && a.top1 == b.top1 && a.top5 == b.top5 &&
        a.samples == b.samples && a.finite == b.finite)
        return 0;
    fprintf(stderr,
            "metrics: loss %g and %g, top-1 %g and %g, top-5 %g and %g, samples %g and %g\n",
            a.loss, b.loss, a.top1, b.top1, a.top5, b.top5, a.samples, b.samples);
    return 1;
}

static int run_micro_batches(struct tiny *cuda, struct tiny *ref, const struct tiny_case *what,
                             uint64_t *random)
{
    double factor = (double)LOSS_SCALE / (MICRO * what->batch);
    for (int m = 0; m < MICRO; m++) {
        next_batch(cuda, ref, what, random);
        assert_int_equal(ref->ops->run(ref->program, &ref->batch, m, factor, NULL, NULL), 0);
        relus.ref = ref;
        relus.node = -1;
        relus.last = last_relu(ref->net);
        vgpu_observe_relu = watch_relu;
        int code = cuda->ops->run(cuda->program, &cuda->batch, m, factor, NULL, NULL);
        if (code)
            fail_msg("%s", err_message());
        assert_int_equal(cuda->ops->synchronise(cuda->backend), 0);
        vgpu_observe_relu = NULL;
        assert_int_equal(relus.node, relus.last);
    }
    assert_int_equal(ref->ops->slot_add(ref->state, 0, 1, BUCKETS_ALL), 0);
    assert_int_equal(cuda->ops->slot_add(cuda->state, 0, 1, BUCKETS_ALL), 0);
    return compare(cuda, ref, GRADIENT, NULL) + compare_metrics(cuda, ref);
}

static int step(struct tiny *cuda, struct tiny *ref, const struct tiny_case *what, uint64_t *random)
{
    int failures = run_micro_batches(cuda, ref, what, random);
    float **from = weights_of(ref);
    assert_int_equal(ref->ops->update(ref->state, 0, &update), 0);
    assert_int_equal(cuda->ops->update(cuda->state, 0, &update), 0);
    failures += compare(cuda, ref, WEIGHT, from) + compare(cuda, ref, MOMENTUM, NULL);
    failures += compare_metrics(cuda, ref);
    free_weights(from, ref);
    return failures;
}

/* What rounding has already put apart must not grow in the next step; the backend goes on with what
 * it has. */
static void align(struct tiny *ref, struct tiny *cuda)
{
    float **weights = weights_of(cuda);
    for (int i = 0; i < ref->net->tensor_count; i++) {
        assert_int_equal(ref->ops->state_set(ref->state, STATE_WEIGHT, i, weights[i]), 0);
        if (!cuda->ops->state_get(weights[i], cuda->state, STATE_MOMENTUM, i))
            assert_int_equal(ref->ops->state_set(ref->state, STATE_MOMENTUM, i, weights[i]), 0);
    }
    free_weights(weights, ref);
}

static int compare_net(const struct tiny_case *what, int steps, enum fusion fusion, uint64_t seed)
{
    const struct backend_config config = {
        .threads = 2, .precision = PRECISION_FP16, .fusion = fusion};
    struct tiny cuda, ref;
    memset(largest, 0, sizeof largest);
    relus.flips = relus.values = 0;
    if (tiny_open(&cuda, &backend_cuda, &config, what, seed) ||
        tiny_open(&ref, &backend_ref_double, &config, what, seed))
        fail_msg("%s: %s", what->name, err_message());
    uint64_t random = seed + 1;
    int failures = 0;
    for (int i = 0; i < steps; i++) {
        failures += step(&cuda, &ref, what, &random);
        align(&ref, &cuda);
    }
    tiny_close(&cuda);
    tiny_close(&ref);
    printf("%s, %d px, batch %d, fusion %s: L2-relative at most", what->name, what->size_px,
           what->batch, fusion_names[fusion]);
    for (int k = 0; k < KINDS; k++)
        printf(" %.1e (%s)", largest[k], kind_names[k]);
    printf("; %llu of %llu ReLUs differ\n", (unsigned long long)relus.flips,
           (unsigned long long)relus.values);
    assert_int_equal(vgpu_counts().live_bytes, 0);
    return failures + !((double)relus.flips < flip_share * (double)relus.values);
}

static const char *chosen, *chosen_fusion;

static enum fusion fusion_of(size_t i)
{
    int fusion = FUSION_AUTO;
    while (chosen_fusion && fusion < FUSION_BLOCK && strcmp(chosen_fusion, fusion_names[fusion]))
        fusion++;
    return chosen_fusion ? (enum fusion)fusion : cases[i].fusion;
}

static void test_nets(void **state)
{
    int compared = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if ((chosen && strcmp(chosen, cases[i].net.name)) || (chosen_fusion && compared))
            continue;
        assert_int_equal(compare_net(&cases[i].net, cases[i].steps, fusion_of(i), testing_seed()),
                         0);
        compared++;
    }
    assert_true(compared > 0);
}

int main(int argc, char **argv)
{
    chosen = argc > 1 ? argv[1] : NULL;
    chosen_fusion = argc > 2 ? argv[2] : NULL;
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_nets)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

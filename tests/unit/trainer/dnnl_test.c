/* SPDX-License-Identifier: Apache-2.0 */
/* The oneDNN backend against the reference in double. Run once for every instruction set
 * (DNNL_MAX_CPU_ISA), for each has its own layouts, and with the argument bf16 in that precision,
 * against the reference that rounds to bf16 what is stored. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "tests/unit/trainer/tiny_net.h"

static struct backend_config two_threads = {.threads = 2};

/* Sums of up to a few thousand products in float. With bf16 such a difference now and then rounds
 * to the neighbour, 2^-7 away; and a gradient of two parts is rounded once more than the
 * reference's in each of the blocks that it passes on its way back, by 2^-8 at the most and 2^-9 in
 * the mean. */
static double tolerance = 1e-4;
static const double bf16_tolerance = 0x1p-6;

/* A map that many read: its gradient has more parts than are kept apart. */
static void build_many_readers(struct build *build)
{
    int first = tiny_conv(build, 0, -1, 19, 3, 1, true);
    int second = tiny_conv(build, first, -1, 19, 1, 1, true);
    int third = tiny_conv(build, first, first, 19, 3, 1, true);
    int fourth = tiny_conv(build, second, first, 19, 3, 1, false);
    int fifth = tiny_conv(build, third, fourth, 19, 1, 1, true);
    tiny_head(build, tiny_conv(build, fifth, first, 19, 3, 1, true));
}

/* The input read by pools and as a residual. */
static void build_input_readers(struct build *build)
{
    int first = tiny_conv(build, 0, 0, 3, 3, 1, true);
    int pooled = build_pool(build, NODE_MAX_POOL, 0, 3, 2, 1);
    int inner = tiny_conv(build, first, -1, 24, 3, 2, true);
    int shortcut = tiny_conv(build, pooled, -1, 24, 1, 1, false);
    int sum = tiny_conv(build, inner, shortcut, 24, 1, 1, true);
    int second = build_pool(build, NODE_AVG_POOL, sum, 3, 2, 1);
    tiny_head(build, tiny_conv(build, second, -1, 8, 1, 1, true));
}

static void build_many_channels(struct build *build)
{
    int first = tiny_conv(build, 0, -1, 40, 3, 2, true);
    int second = tiny_conv(build, first, -1, 64, 1, 2, true);
    tiny_head(build, tiny_conv(build, second, -1, 48, 3, 1, true));
}

/* Convolutions that are done by Winograd's algorithm where the library has it; tiles are 4 x 4. */
static void build_winograd(struct build *build)
{
    int first = tiny_conv(build, 0, -1, 33, 3, 1, true);
    int second = tiny_conv(build, first, -1, 40, 3, 1, false);
    int third = tiny_conv(build, second, second, 40, 3, 1, true);
    tiny_head(build, tiny_conv(build, third, -1, 70, 3, 1, true));
}

/* A map of 8 MiB in floats, which is not kept for the backward but made again. */
static void build_made_again(struct build *build)
{
    int first = tiny_conv(build, 0, -1, 64, 1, 1, true);
    tiny_head(build, tiny_conv(build, first, -1, 8, 3, 2, true));
}

static const struct tiny_case more_cases[] = {
    {"a map made again", build_made_again, 64, 1, 3, 8, -1, {0}, false},
    {"many readers", build_many_readers, 7, 3, 4, 3, -1, {0}, false},
    {"readers of the input", build_input_readers, 9, 3, 4, 5, -1, {0}, false},
    {"many channels", build_many_channels, 17, 1, 13, 3, -1, {0}, false},
    {"many channels, two of input", build_many_channels, 16, 2, 13, 3, -1, {0}, false},
    {"Winograd", build_winograd, 13, 3, 4, 4, -1, {0}, false},
    {"Winograd, less than a tile", build_winograd, 3, 3, 4, 64, -1, {0}, false},
    {"Winograd, whole tiles", build_winograd, 16, 3, 4, 2, -1, {0}, false},
};
enum { MORE_CASES = sizeof more_cases / sizeof more_cases[0] };

static const struct tiny_case fp32_nets[] = {
    {"resnet18d-w16", NULL, 64, 3, 10, 4, -1, {.label_smoothing = 0.1}, false},
    {"resnet20d", NULL, 28, 1, 10, 4, -1, {0}, false},
    {"resnet50d-w16", NULL, 64, 3, 7, 2, 1, {0}, false},
};
/* Deeper ones, and fewer values a normalisation, make a rounding that goes the other way grow to
 * the size of the gradient. */
static const struct tiny_case bf16_nets[] = {
    {"resnet8d-w16", NULL, 16, 3, 10, 8, -1, {.label_smoothing = 0.1}, false},
    {"resnet8b-w24", NULL, 20, 1, 10, 8, -1, {0}, false},
    {"resnet14d", NULL, 16, 1, 10, 8, 1, {0}, false},
};
static const struct tiny_case *nets = fp32_nets;
enum { NETS = sizeof fp32_nets / sizeof fp32_nets[0] };

/* In the deep one some ReLU nearly always sits a rounding error from its kink, and each that goes
 * the other way moves gradients by up to a hundredth; a wrong operation moves them by their size.
 * So it is with all of them in bf16, where each of many roundings may go the other way. */
static double net_tolerance[NETS] = {1e-4, 1e-4, 5e-2};
static const double bf16_net_tolerance = 0.25;

static void open_pair(struct tiny *dnnl, struct tiny *ref, const struct tiny_case *what,
                      uint64_t seed)
{
    if (tiny_open(dnnl, &backend_dnnl, &two_threads, what, seed))
        fail_msg("%s: %s", what->name, err_message());
    if (tiny_open(ref, &backend_ref_double, &two_threads, what, seed))
        fail_msg("%s: %s", what->name, err_message());
}

static bool is_bf16(void)
{
    return two_threads.precision == PRECISION_BF16;
}

/* A ReLU or max pool whose input is a rounding error away from its kink may go either way, so up
 * to five seeds are tried: a wrong operation fails with each. */
enum { SEEDS = 5 };

static void compare_case(const struct tiny_case *what)
{
    int failures = 1;
    double bound = is_bf16() && !what->build ? bf16_net_tolerance : tolerance;
    for (uint64_t attempt = 0; attempt < SEEDS && failures; attempt++) {
        struct tiny dnnl, ref;
        open_pair(&dnnl, &ref, what, testing_seed() + attempt);
        /* Twice: what the first run leaves behind must not matter. */
        failures = tiny_run(&dnnl) ? 1 : tiny_compare(&dnnl, &ref, bound);
        tiny_close(&dnnl);
        tiny_close(&ref);
    }
    if (failures)
        fail_msg("%s: %d tensors differ", what->name, failures);
}

static void test_operations(void **unused)
{
    for (int i = 0; i < TINY_CASES; i++)
        compare_case(&tiny_cases[i]);
    for (int i = 0; i < MORE_CASES; i++)
        compare_case(&more_cases[i]);
}

/* Weights, momentum and running statistics after an update. */
static int compare_state(struct tiny *a, struct tiny *b, enum state_kind kind, double bound)
{
    int failures = 0;
    for (int i = 0; i < a->net->tensor_count; i++) {
        size_t count = a->net->tensors[i].count;
        float *left = calloc(count, sizeof *left), *right = calloc(count, sizeof *right);
        int code = a->ops->state_get(left, a->state, kind, i);
        assert_int_equal(code, b->ops->state_get(right, b->state, kind, i));
        double distance = tiny_distance(left, right, count);
        if (!code && !(distance <= bound)) {
            fprintf(stderr, "%s: %s differs by %g\n", a->net->tensors[i].name,
                    kind == STATE_MOMENTUM ? "momentum" : "value", distance);
            failures++;
        }
        free(left);
        free(right);
    }
    return failures;
}

static void copy_weights(struct tiny *dst, struct tiny *src)
{
    for (int i = 0; i < src->net->tensor_count; i++) {
        float *values = calloc(src->net->tensors[i].count, sizeof *values);
        assert_int_equal(src->ops->state_get(values, src->state, STATE_WEIGHT, i), 0);
        assert_int_equal(dst->ops->state_set(dst->state, STATE_WEIGHT, i, values), 0);
        free(values);
    }
}

/* Two whole steps; returns how many tensors differ. */
static int compare_steps(const struct tiny_case *what, uint64_t seed, double bound)
{
    const struct update update = {.lr = 0.05,
                                  .head_lr = 0.2,
                                  .momentum = 0.9,
                                  .weight_decay = 1e-3,
                                  .no_bias_decay = true,
                                  .grad_scale = 0.5,
                                  .micro_batches = 2};
    struct tiny dnnl, ref;
    open_pair(&dnnl, &ref, what, seed);
    struct tiny *both[] = {&dnnl, &ref};
    int failures = tiny_compare(&dnnl, &ref, bound);
    for (int k = 0; k < 2; k++) {
        assert_int_equal(
            both[k]->ops->run(both[k]->program, &both[k]->batch, 1, both[k]->factor, NULL, NULL),
            0);
        assert_int_equal(both[k]->ops->slot_add(both[k]->state, 0, 1, BUCKETS_ALL), 0);
        assert_int_equal(both[k]->ops->update(both[k]->state, 0, &update), 0);
    }
    failures += compare_state(&dnnl, &ref, STATE_WEIGHT, bound);
    failures += compare_state(&dnnl, &ref, STATE_MOMENTUM, bound);
    /* The packed copies follow the weights: a step from the very same ones. */
    copy_weights(&ref, &dnnl);
    failures += tiny_compare(&dnnl, &ref, bound);
    tiny_close(&dnnl);
    tiny_close(&ref);
    return failures;
}

static void test_training_steps(void **unused)
{
    for (int i = 0; i < NETS; i++) {
        int failures = 1;
        for (uint64_t attempt = 0; attempt < SEEDS && failures; attempt++)
            failures = compare_steps(&nets[i], testing_seed() + attempt, net_tolerance[i]);
        if (failures)
            fail_msg("%s: %d tensors differ", nets[i].name, failures);
    }
}

/* Fewer samples than the program's batch, one of them masked, and another size. */
static void infer(float *logits, struct batch_metrics *metrics, struct tiny *tiny, int size_px,
                  const struct batch *batch, int room)
{
    const struct program_config config = {.mode = PROGRAM_INFER, .batch = room, .size_px = size_px};
    struct program *program = NULL;
    if (tiny->ops->program_open(&program, tiny->state, &config))
        fail_msg("%s", err_message());
    for (int k = 0; k < 2; k++)
        assert_int_equal(tiny->ops->run(program, batch, 1, 1.0, NULL, NULL), 0);
    assert_int_equal(tiny->ops->logits(logits, program), 0);
    assert_int_equal(tiny->ops->metrics(metrics, tiny->state, 1), 0);
    assert_true(tiny->ops->program_bytes(program) > 0);
    tiny->ops->program_close(program);
}

static void compare_inference(const struct tiny_case *what, int size_px)
{
    struct tiny dnnl, ref;
    open_pair(&dnnl, &ref, what, testing_seed());
    size_t classes = (size_t)what->classes;
    float *left = malloc((size_t)what->batch * classes * sizeof *left);
    float *right = malloc((size_t)what->batch * classes * sizeof *right);
    struct batch_metrics m, n;
    struct batch batch = ref.batch;
    batch.samples = what->batch - 1;
    ref.labels[0].a = CHUNK_LABEL_MASKED;
    infer(left, &m, &dnnl, size_px, &batch, what->batch);
    infer(right, &n, &ref, size_px, &batch, batch.samples);
    double distance = tiny_distance(left, right, (size_t)batch.samples * classes);
    if (!(distance <= tolerance))
        fail_msg("%s: logits differ by %g", what->name, distance);
    assert_true(fabs(m.loss - n.loss) <= tolerance * (1 + fabs(n.loss)));
    assert_true(m.samples == batch.samples - 1);
    double close = is_bf16() ? 1 : 0; /* logits that round to the same */
    assert_true(m.samples == n.samples && fabs(m.top1 - n.top1) <= close &&
                fabs(m.top5 - n.top5) <= close);
    free(left);
    free(right);
    tiny_close(&dnnl);
    tiny_close(&ref);
}

static void test_inference(void **unused)
{
    for (int i = 0; i < TINY_CASES; i++)
        compare_inference(&tiny_cases[i], 0);
    for (int i = 0; i < MORE_CASES; i++)
        compare_inference(&more_cases[i], 0);
    for (int i = 0; i < NETS; i++)
        compare_inference(&nets[i], nets[i].size_px - 3);
}

/* How far rounding alone takes a net's values: weights and two maps of every convolution, each by
 * 2^-8 of its size at the most, in no direction. */
static double rounding_of(const struct net *net)
{
    int convolutions = 0;
    for (int i = 0; i < net->node_count; i++)
        convolutions += net->nodes[i].kind == NODE_CONV;
    return 0x1p-8 * sqrt(3.0 * convolutions);
}

/* What comes before the first ReLU of the backward; those behind it see other masks. */
static bool is_before_masks(const struct tensor *tensor)
{
    return tensor->kind == TENSOR_RUNNING_MEAN || tensor->kind == TENSOR_RUNNING_VAR ||
           tensor->kind == TENSOR_FC_WEIGHT;
}

static int compare_near(struct tiny *bf16, struct tiny *fp64)
{
    double bound = rounding_of(fp64->net);
    size_t logits = (size_t)fp64->batch.samples * (size_t)fp64->net->classes;
    float *left = malloc(logits * sizeof *left), *right = malloc(logits * sizeof *right);
    assert_int_equal(tiny_run(bf16) || tiny_run(fp64), 0);
    assert_int_equal(bf16->ops->logits(left, bf16->program), 0);
    assert_int_equal(fp64->ops->logits(right, fp64->program), 0);
    double distance = tiny_distance(left, right, logits);
    int failures = !(distance <= bound);
    failures += distance < 0x1p-12; /* something finer than bf16 */
    if (failures)
        fprintf(stderr, "logits differ by %g of %g\n", distance, bound);
    for (int i = 0; i < fp64->net->tensor_count; i++)
        if (is_before_masks(&fp64->net->tensors[i]))
            failures += tiny_compare_tensor(bf16, fp64, i, bound);
    free(left);
    free(right);
    return failures;
}

/* bf16 against a reference that rounds nothing. */
static void test_near_fp64(void **unused)
{
    const struct backend_config exact = {.threads = 2};
    for (int i = 0; i < NETS && is_bf16(); i++) {
        struct tiny dnnl, ref;
        assert_int_equal(
            tiny_open(&dnnl, &backend_dnnl, &two_threads, &bf16_nets[i], testing_seed()), 0);
        assert_int_equal(
            tiny_open(&ref, &backend_ref_double, &exact, &bf16_nets[i], testing_seed()), 0);
        int failures = compare_near(&dnnl, &ref);
        if (failures)
            fail_msg("%s: %d differ", bf16_nets[i].name, failures);
        tiny_close(&dnnl);
        tiny_close(&ref);
    }
}

struct announced {
    struct state *state;
    int count;
};

static void count_bucket(void *user, int bucket)
{
    struct announced *announced = user;
    assert_int_equal(bucket, announced->count);
    announced->count++;
}

static void test_same_bits_and_buckets(void **unused)
{
    struct tiny one, two;
    const struct tiny_case *what = &nets[1];
    assert_int_equal(tiny_open(&one, &backend_dnnl, &two_threads, what, 7), 0);
    assert_int_equal(tiny_open(&two, &backend_dnnl, &two_threads, what, 7), 0);
    assert_int_equal(tiny_run(&one), 0);
    struct announced announced = {.state = two.state};
    for (int k = 0; k < 3; k++) {
        announced.count = 0;
        assert_int_equal(
            two.ops->run(two.program, &two.batch, 0, two.factor, count_bucket, &announced), 0);
        assert_int_equal(announced.count, two.ops->slot_buckets(two.state));
        for (int b = 0; b < announced.count; b++) {
            struct bucket left = one.ops->slot_bucket(one.state, 0, b);
            struct bucket right = two.ops->slot_bucket(two.state, 0, b);
            assert_int_equal(left.count, right.count);
            assert_memory_equal(left.data, right.data, left.count * sizeof(float));
        }
    }
    tiny_close(&one);
    tiny_close(&two);
}

static void test_nonfinite(void **unused)
{
    struct tiny tiny;
    assert_int_equal(tiny_open(&tiny, &backend_dnnl, &two_threads, &tiny_cases[0], 7), 0);
    assert_int_equal(tiny_run(&tiny), 0);
    struct bucket bucket = tiny.ops->slot_bucket(tiny.state, 0, 0);
    ((float *)bucket.data)[bucket.count / 2] = INFINITY;
    const struct update update = {
        .lr = 0.1, .grad_scale = 1, .micro_batches = 1, .skip_nonfinite = true};
    size_t count = tiny.net->tensors[0].count;
    float *before = malloc(count * sizeof *before), *after = malloc(count * sizeof *after);
    struct batch_metrics metrics;
    assert_int_equal(tiny.ops->state_get(before, tiny.state, STATE_WEIGHT, 0), 0);
    assert_int_equal(tiny.ops->update(tiny.state, 0, &update), 0);
    assert_int_equal(tiny.ops->state_get(after, tiny.state, STATE_WEIGHT, 0), 0);
    assert_int_equal(tiny.ops->metrics(&metrics, tiny.state, 0), 0);
    assert_false(metrics.finite);
    assert_memory_equal(before, after, count * sizeof *before);
    free(before);
    free(after);
    tiny_close(&tiny);
}

static void test_refusals(void **unused)
{
    struct backend *backend;
    const struct backend_config halves = {.precision = PRECISION_FP16};
    assert_int_equal(backend_dnnl.open(&backend, &halves), ERR_UNSUPPORTED);

    struct tiny tiny;
    assert_int_equal(tiny_open(&tiny, &backend_dnnl, &two_threads, &tiny_cases[0], 7), 0);
    struct batch few = tiny.batch;
    few.samples--;
    assert_int_equal(tiny.ops->run(tiny.program, &few, 0, 1.0, NULL, NULL), ERR_ARG);
    assert_int_equal(tiny.ops->run(tiny.program, &tiny.batch, 9, 1.0, NULL, NULL), ERR_ARG);
    tiny.labels[0].a = (uint32_t)tiny.net->classes;
    assert_int_equal(tiny_run(&tiny), ERR_ARG);
    tiny_close(&tiny);
}

/* Whether this processor can; it must not by another instruction set's name. */
static bool take_bf16(void)
{
    struct backend *backend;
    const struct backend_config config = {.threads = 2, .precision = PRECISION_BF16};
    int code = backend_dnnl.open(&backend, &config);
    if (code) {
        printf("skipped: %s\n", err_message());
        return false;
    }
    backend_dnnl.close(backend);
    two_threads = config;
    tolerance = bf16_tolerance;
    nets = bf16_nets;
    for (int i = 0; i < NETS; i++)
        net_tolerance[i] = bf16_net_tolerance;
    return true;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "bf16") == 0 && !take_bf16())
        return 77;
    testing_seed();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_operations),
        cmocka_unit_test(test_training_steps),
        cmocka_unit_test(test_inference),
        cmocka_unit_test(test_near_fp64),
        cmocka_unit_test(test_same_bits_and_buckets),
        cmocka_unit_test(test_nonfinite),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The cuda backend against the reference with the same fp16 roundings, on whatever the module runs
 * on: a GPU, or a double of one ($SATCHEL_MODULES). Skipped (status 77) where there is neither.
 *   cuda_device [--quick | --small]
 * --quick: a few of the small nets; --small: all of them; without: resnet50d-small as well. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "tests/unit/trainer/tiny_net.h"

/* Sums are taken in another order before they are rounded to 11 bits; some 20 roundings deep. */
static const double tolerance = 5e-3;

static const struct backend_config unfused = {.precision = PRECISION_FP16, .fusion = FUSION_NONE};
static const struct backend_config prologue = {.precision = PRECISION_FP16,
                                               .fusion = FUSION_PROLOGUE};
static const struct backend_config block = {.precision = PRECISION_FP16, .fusion = FUSION_BLOCK};
static const struct backend_ops *cuda;
static bool quick, small_only;

static const char *name_of(const struct backend_config *config)
{
    return config == &unfused ? "not fused" : config == &prologue ? "prologue" : "block";
}

static int compare(const struct backend_config *config, const struct tiny_case *what, uint64_t seed)
{
    fprintf(stderr, "# %s, %s\n", what->name, name_of(config));
    return tiny_compare_case(cuda, &backend_ref, config, what, testing_seed() + seed, tolerance);
}

/* Single operations with any values; whole nets with those that no ReLU hangs on. */
static void test_operations(void **unused)
{
    int failures = 0;
    for (int i = 0; i < TINY_CASES; i += quick ? 9 : 1) {
        struct tiny_case what = tiny_cases[i];
        what.decided = !what.build;
        failures += compare(&unfused, &what, (uint64_t)i);
        failures += compare(&prologue, &what, (uint64_t)i);
    }
    assert_int_equal(failures, 0);
}

/* The gradients of one micro-batch of a net's tensor. */
static float *gradient(struct tiny *tiny, int tensor)
{
    float *values = calloc(tiny->net->tensors[tensor].count, sizeof *values);
    int code = tiny->ops->slot_get(values, tiny->state, 0, tensor);
    if (code && code != ERR_ARG) /* has none */
        fail_msg("%s", err_message());
    return values;
}

/* The shapes of a real net, which have other engines than those of a tiny one. So many roundings
 * are no longer small in the end: how much they do is what the reference itself shows when it sums
 * in fp32 and in double, up to 4 % of a filter's gradient. Of a beta's hardly more may be left than
 * roundings, where all pixels pass ReLU and the next BN takes its shift away. */
static int compare_resnet50(const struct backend_config *config)
{
    static const struct tiny_case what = {"resnet50d-small", NULL,  16, 3, 1000, 4,   TINY_FREE,
                                          TINY_SMOOTH,       false, 0,  0, true, 1024};
    const struct backend_ops *all[] = {cuda, &backend_ref, &backend_ref_double};
    struct tiny tiny[3];
    double worst = 0; /* of what is allowed */
    int failures = 0;
    for (int i = 0; i < 3; i++)
        if (tiny_open(&tiny[i], all[i], config, &what, testing_seed()) || tiny_run(&tiny[i]))
            fail_msg("%s", err_message());
    for (int i = 0; i < tiny[0].net->tensor_count; i++) {
        const struct tensor *tensor = &tiny[0].net->tensors[i];
        float *ours = gradient(&tiny[0], i), *floats = gradient(&tiny[1], i),
              *doubles = gradient(&tiny[2], i);
        double distance = tiny_distance(ours, doubles, tensor->count);
        double noise = tiny_distance(floats, doubles, tensor->count);
        double allowed = 3 * noise + tolerance;
        if (!(distance <= allowed)) {
            fprintf(stderr, "%s: differs by %g, roundings by %g\n", tensor->name, distance, noise);
            failures++;
        }
        worst = fmax(worst, distance / allowed);
        free(ours);
        free(floats);
        free(doubles);
    }
    fprintf(stderr, "# resnet50d-small, %s: the worst tensor differs by %.2g of what is allowed\n",
            name_of(config), worst);
    for (int i = 0; i < 3; i++)
        tiny_close(&tiny[i]);
    return failures;
}

static void test_resnet50(void **unused)
{
    if (quick || small_only)
        skip();
    assert_int_equal(
        compare_resnet50(&unfused) + compare_resnet50(&prologue) + compare_resnet50(&block), 0);
}

static const struct tiny_case small = {"resnet8d-w8", NULL,  10, 3, 6,    8, TINY_FREE,
                                       TINY_SMOOTH,   false, 0,  0, true, 0};

struct pair { /* the same net on both */
    struct tiny cuda, ref;
};

static void open_pair(struct pair *pair, uint64_t seed)
{
    if (tiny_open(&pair->cuda, cuda, &unfused, &small, seed) ||
        tiny_open(&pair->ref, &backend_ref, &unfused, &small, seed))
        fail_msg("%s", err_message());
}

static void close_pair(struct pair *pair)
{
    tiny_close(&pair->cuda);
    tiny_close(&pair->ref);
}

static int compare_state(struct pair *pair, enum state_kind kind, double limit)
{
    int failures = 0;
    for (int i = 0; i < pair->ref.net->tensor_count; i++) {
        const struct tensor *what = &pair->ref.net->tensors[i];
        float *left = calloc(what->count, sizeof *left), *right = calloc(what->count, sizeof *left);
        int code = pair->cuda.ops->state_get(left, pair->cuda.state, kind, i);
        int other = pair->ref.ops->state_get(right, pair->ref.state, kind, i);
        double distance = tiny_distance(left, right, what->count);
        if (code != other || !(distance <= limit)) {
            fprintf(stderr, "%s: differs by %g (codes %d, %d)\n", what->name, distance, code,
                    other);
            failures++;
        }
        free(left);
        free(right);
    }
    return failures;
}

static int step(struct tiny *tiny, const struct update *update, int micro_batches)
{
    int code = 0;
    for (int i = 0; i < micro_batches && !code; i++) {
        code = tiny->ops->run(tiny->program, &tiny->batch, i, tiny->factor * 1024, NULL, NULL);
        if (!code && i > 0)
            code = tiny->ops->slot_add(tiny->state, 0, i, BUCKETS_ALL);
    }
    return code ? code : tiny->ops->update(tiny->state, 0, update);
}

/* Steps of two micro-batches under a loss scale: weights, momentum and running statistics. */
static void test_steps(void **unused)
{
    const struct update update = {.lr = 0.05,
                                  .head_lr = 0.1,
                                  .momentum = 0.9,
                                  .weight_decay = 0.01,
                                  .no_bias_decay = true,
                                  .grad_scale = 1.0 / 1024,
                                  .micro_batches = 2,
                                  .skip_nonfinite = true};
    int failures = 1;
    for (uint64_t attempt = 0; attempt < 3 && failures; attempt++) { /* a ReLU may tip */
        struct pair pair;
        open_pair(&pair, testing_seed() + attempt);
        for (int i = 0; i < 2; i++)
            assert_int_equal(step(&pair.cuda, &update, 2) || step(&pair.ref, &update, 2), 0);
        failures = compare_state(&pair, STATE_WEIGHT, tolerance) +
                   compare_state(&pair, STATE_MOMENTUM, 20 * tolerance);
        close_pair(&pair);
    }
    assert_int_equal(failures, 0);
}

/* An overflow leaves everything as it was, and is told. */
static void test_overflow(void **unused)
{
    const struct update update = {
        .lr = 0.1, .grad_scale = 1, .micro_batches = 1, .skip_nonfinite = true};
    struct pair pair;
    struct batch_metrics metrics;
    open_pair(&pair, testing_seed());
    pair.cuda.factor = 1e9;
    assert_int_equal(tiny_run(&pair.cuda), 0);
    assert_int_equal(cuda->update(pair.cuda.state, 0, &update), 0);
    assert_int_equal(cuda->metrics(&metrics, pair.cuda.state, 0), 0);
    assert_false(metrics.finite);
    assert_int_equal(compare_state(&pair, STATE_WEIGHT, 0), 0);
    pair.cuda.factor = 1.0 / small.batch;
    assert_int_equal(tiny_run(&pair.cuda), 0);
    assert_int_equal(cuda->metrics(&metrics, pair.cuda.state, 0), 0);
    assert_true(metrics.finite);
    close_pair(&pair);
}

static void infer(float *logits, struct batch_metrics *metrics, struct tiny *tiny, int samples)
{
    const struct program_config config = {.mode = PROGRAM_INFER, .batch = small.batch};
    struct program *program;
    struct batch batch = tiny->batch;
    batch.samples = samples;
    if (tiny->ops->program_open(&program, tiny->state, &config) ||
        tiny->ops->run(program, &batch, 1, 1, NULL, NULL) ||
        tiny->ops->metrics(metrics, tiny->state, 1) || tiny->ops->logits(logits, program))
        fail_msg("%s", err_message());
    tiny->ops->program_close(program);
}

/* BN folded into the weights; a short batch; a masked sample. */
static void test_inference(void **unused)
{
    enum { SAMPLES = 5 };
    struct pair pair;
    struct batch_metrics left, right;
    float ours[SAMPLES * 6], theirs[SAMPLES * 6];
    open_pair(&pair, testing_seed());
    pair.cuda.labels[2].a = pair.ref.labels[2].a = CHUNK_LABEL_MASKED;
    infer(ours, &left, &pair.cuda, SAMPLES);
    infer(theirs, &right, &pair.ref, SAMPLES);
    assert_true(tiny_distance(ours, theirs, SAMPLES * 6) <= tolerance);
    assert_true(left.samples == 4 && right.samples == 4);
    assert_true(fabs(left.loss - right.loss) <= tolerance * right.loss);
    close_pair(&pair);
}

/* Two runs give the same bits. */
static void test_same_bits(void **unused)
{
    struct pair pair;
    open_pair(&pair, testing_seed());
    assert_int_equal(tiny_run(&pair.cuda), 0);
    assert_int_equal(
        cuda->run(pair.cuda.program, &pair.cuda.batch, 1, pair.cuda.factor, NULL, NULL), 0);
    for (int i = 0; i < pair.cuda.net->tensor_count; i++) {
        size_t count = pair.cuda.net->tensors[i].count;
        float *first = calloc(count, sizeof *first), *second = calloc(count, sizeof *first);
        assert_int_equal(cuda->slot_get(first, pair.cuda.state, 0, i), 0);
        assert_int_equal(cuda->slot_get(second, pair.cuda.state, 1, i), 0);
        assert_memory_equal(first, second, count * sizeof *first);
        free(first);
        free(second);
    }
    close_pair(&pair);
}

static void count_bucket(void *user, int bucket)
{
    int *next = user;
    assert_int_equal(bucket, *next);
    ++*next;
}

/* All buckets are announced in order; they cover the slot and have an event each. */
static void test_buckets(void **unused)
{
    struct pair pair;
    int announced = 0;
    open_pair(&pair, testing_seed());
    assert_int_equal(cuda->run(pair.cuda.program, &pair.cuda.batch, 0, pair.cuda.factor,
                               count_bucket, &announced),
                     0);
    assert_int_equal(announced, cuda->slot_buckets(pair.cuda.state));
    for (int i = 0; i < announced; i++) {
        const struct bucket bucket = cuda->slot_bucket(pair.cuda.state, 0, i);
        assert_true(bucket.data && bucket.count > 0 && bucket.ready);
    }
    assert_int_equal(cuda->inputs_read(pair.cuda.program), 0);
    close_pair(&pair);
}

static void test_refusals(void **unused)
{
    struct pair pair;
    struct backend *none;
    const struct backend_config floats = {.precision = PRECISION_FP32};
    assert_int_equal(cuda->open(&none, &floats), ERR_UNSUPPORTED);
    open_pair(&pair, testing_seed());
    struct batch few = pair.cuda.batch;
    few.samples--;
    assert_int_equal(cuda->run(pair.cuda.program, &few, 0, 1, NULL, NULL), ERR_ARG);
    assert_int_equal(cuda->run(pair.cuda.program, &pair.cuda.batch, 9, 1, NULL, NULL), ERR_ARG);
    pair.cuda.labels[0].a = 6;
    assert_int_equal(tiny_run(&pair.cuda), ERR_ARG);
    struct program *program;
    const struct program_config many = {.mode = PROGRAM_TRAIN, .batch = 1 << 24};
    assert_int_equal(cuda->program_open(&program, pair.cuda.state, &many), ERR_ARG);
    const struct program_config huge = {
        .mode = PROGRAM_TRAIN, .batch = 1 << 14, .micro_batches = 1 << 20};
    assert_int_equal(cuda->program_open(&program, pair.cuda.state, &huge), ERR_NOMEM);
    assert_non_null(strstr(err_message(), "--micro-batch"));
    close_pair(&pair);
}

int main(int argc, char **argv)
{
    struct backend *backend;
    quick = argc > 1 && strcmp(argv[1], "--quick") == 0;
    small_only = argc > 1 && strcmp(argv[1], "--small") == 0;
    if (backend_open(&backend, &cuda, "cuda", "cuda", &unfused)) {
        fprintf(stderr, "skipped: %s\n", err_message());
        return 77;
    }
    fprintf(stderr, "# %s\n", cuda->describe(backend));
    cuda->close(backend);
    testing_seed();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_operations), cmocka_unit_test(test_resnet50),
        cmocka_unit_test(test_steps),      cmocka_unit_test(test_overflow),
        cmocka_unit_test(test_inference),  cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_buckets),    cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

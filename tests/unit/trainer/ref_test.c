/* SPDX-License-Identifier: Apache-2.0 */
/* What the reference backend promises in trainer/backend.h, beyond its gradients. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "tests/unit/trainer/tiny_net.h"

static const struct tiny_case small = {"resnet8d-w4", NULL,        9,    3, 6, 4,
                                       TINY_FREE,     TINY_SMOOTH, false};

static void open_tiny(struct tiny *tiny, const struct tiny_case *what, int threads)
{
    const struct backend_config config = {.threads = threads};
    if (tiny_open(tiny, &backend_ref, &config, what, testing_seed()))
        fail_msg("%s", err_message());
}

static int tensor_of(const struct tiny *tiny, const char *name)
{
    int tensor = net_tensor(tiny->net, name);
    assert_true(tensor >= 0);
    return tensor;
}

static float *weights_of(struct tiny *tiny, enum state_kind kind, int tensor)
{
    float *values = malloc(tiny->net->tensors[tensor].count * sizeof *values);
    assert_int_equal(tiny->ops->state_get(values, tiny->state, kind, tensor), 0);
    return values;
}

static float *slot_of(struct tiny *tiny, int slot, int tensor)
{
    float *values = malloc(tiny->net->tensors[tensor].count * sizeof *values);
    assert_int_equal(tiny->ops->slot_get(values, tiny->state, slot, tensor), 0);
    return values;
}

/* The number of threads changes nothing, not even a bit. */
static void test_threads(void **unused)
{
    struct tiny one, three;
    open_tiny(&one, &small, 1);
    open_tiny(&three, &small, 3);
    assert_int_equal(tiny_compare(&one, &three, 0.0), 0);
    tiny_close(&one);
    tiny_close(&three);
}

/* A convolution that copies its input: its statistics are the pixels' own. */
static void build_copy(struct build *build)
{
    tiny_head(build, tiny_conv(build, 0, -1, 1, 1, 1, false));
}

static void test_batch_statistics(void **unused)
{
    static const struct tiny_case copy = {"copy", build_copy, 5,          1,    3,
                                          4,      TINY_FREE,  TINY_PLAIN, false};
    struct tiny tiny;
    open_tiny(&tiny, &copy, 2);
    assert_int_equal(tiny.ops->state_set(tiny.state, STATE_WEIGHT, tensor_of(&tiny, "conv1.weight"),
                                         &(float){1}),
                     0);
    assert_int_equal(tiny_run(&tiny), 0);
    double mean = 0, variance = 0;
    for (int i = 0; i < 100; i++)
        mean += half_to_float(tiny.pixels[i]) / 100.0;
    for (int i = 0; i < 100; i++)
        variance += pow(half_to_float(tiny.pixels[i]) - mean, 2) / 99; /* unbiased */
    int mean_at = tensor_of(&tiny, "bn1.running_mean"),
        var_at = tensor_of(&tiny, "bn1.running_var");
    float *slot_mean = slot_of(&tiny, 0, mean_at), *slot_var = slot_of(&tiny, 0, var_at);
    assert_true(fabs(*slot_mean - mean) <= 1e-6 && fabs(*slot_var - variance) <= 1e-6);

    /* Two micro-batches alike: the running values move towards their mean, once. */
    float *old_mean = weights_of(&tiny, STATE_WEIGHT, mean_at);
    float *old_var = weights_of(&tiny, STATE_WEIGHT, var_at);
    assert_int_equal(tiny.ops->run(tiny.program, &tiny.batch, 1, tiny.factor, NULL, NULL) ||
                         tiny.ops->slot_add(tiny.state, 0, 1, BUCKETS_ALL),
                     0);
    const struct update update = {.grad_scale = 1, .micro_batches = 2};
    assert_int_equal(tiny.ops->update(tiny.state, 0, &update), 0);
    float *new_mean = weights_of(&tiny, STATE_WEIGHT, mean_at);
    float *new_var = weights_of(&tiny, STATE_WEIGHT, var_at);
    assert_true(fabs(*new_mean - (0.9 * *old_mean + 0.1 * mean)) <= 1e-6);
    assert_true(fabs(*new_var - (0.9 * *old_var + 0.1 * variance)) <= 1e-6);
    float *all[] = {slot_mean, slot_var, old_mean, old_var, new_mean, new_var};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
    tiny_close(&tiny);
}

/* Two steps of NAG, as PyTorch's SGD(nesterov=True) with weight decay takes them. */
static void test_nag(void **unused)
{
    struct tiny tiny;
    open_tiny(&tiny, &small, 1);
    const struct update update = {.lr = 0.1,
                                  .momentum = 0.9,
                                  .weight_decay = 0.01,
                                  .no_bias_decay = true,
                                  .grad_scale = 0.5,
                                  .micro_batches = 1};
    static const char *const names[] = {"layer2.0.conv1.weight", "fc.weight", "fc.bias",
                                        "bn1.weight", "layer1.0.bn2.bias"};
    enum { NAMES = sizeof names / sizeof names[0] };
    double w[NAMES], v[NAMES] = {0};
    for (int i = 0; i < NAMES; i++) {
        float *values = weights_of(&tiny, STATE_WEIGHT, tensor_of(&tiny, names[i]));
        w[i] = values[1];
        free(values);
    }
    for (int step = 0; step < 2; step++) {
        assert_int_equal(tiny_run(&tiny), 0);
        for (int i = 0; i < NAMES; i++) {
            float *gradient = slot_of(&tiny, 0, tensor_of(&tiny, names[i]));
            double g = 0.5 * gradient[1] + (i < 2 ? 0.01 : 0) * w[i];
            v[i] = 0.9 * v[i] + g;
            w[i] -= 0.1 * (g + 0.9 * v[i]);
            free(gradient);
        }
        assert_int_equal(tiny.ops->update(tiny.state, 0, &update), 0);
    }
    for (int i = 0; i < NAMES; i++) {
        float *values = weights_of(&tiny, STATE_WEIGHT, tensor_of(&tiny, names[i]));
        float *momentum = weights_of(&tiny, STATE_MOMENTUM, tensor_of(&tiny, names[i]));
        assert_true(fabs(values[1] - w[i]) <= 1e-6 && fabs(momentum[1] - v[i]) <= 1e-6);
        free(values);
        free(momentum);
    }
    tiny_close(&tiny);
}

/* The classifier's own learning rate moves the classifier alone. */
static void test_head_lr(void **unused)
{
    struct tiny tiny;
    open_tiny(&tiny, &small, 1);
    struct update update = {.lr = 0, .head_lr = 0.1, .grad_scale = 1, .micro_batches = 1};
    int conv = tensor_of(&tiny, "conv1.weight"), fc = tensor_of(&tiny, "fc.weight");
    float *before[] = {weights_of(&tiny, STATE_WEIGHT, conv), weights_of(&tiny, STATE_WEIGHT, fc)};
    assert_int_equal(tiny_run(&tiny) || tiny.ops->update(tiny.state, 0, &update), 0);
    float *after[] = {weights_of(&tiny, STATE_WEIGHT, conv), weights_of(&tiny, STATE_WEIGHT, fc)};
    float *gradient = slot_of(&tiny, 0, fc);
    assert_memory_equal(before[0], after[0], tiny.net->tensors[conv].count * sizeof(float));
    for (size_t i = 0; i < tiny.net->tensors[fc].count; i++)
        assert_true(fabs(after[1][i] - (before[1][i] - 0.1 * gradient[i])) <= 1e-6);
    for (int i = 0; i < 2; i++) {
        free(before[i]);
        free(after[i]);
    }
    free(gradient);
    tiny_close(&tiny);
}

static void test_average(void **unused)
{
    struct tiny tiny;
    struct state *average;
    open_tiny(&tiny, &small, 1);
    uint64_t random = testing_seed();
    assert_int_equal(tiny.ops->state_open(&average, tiny.backend, tiny.net, 0), 0);
    assert_int_equal(tiny_fill_state(tiny.ops, average, tiny.net, &random), 0);
    struct tiny other = {.ops = tiny.ops, .net = tiny.net, .state = average};
    for (int i = 0; i < tiny.net->tensor_count; i++) {
        float *before = weights_of(&other, STATE_WEIGHT, i),
              *now = weights_of(&tiny, STATE_WEIGHT, i);
        assert_int_equal(tiny.ops->state_average(average, tiny.state, 0.75), 0);
        float *after = weights_of(&other, STATE_WEIGHT, i);
        for (size_t k = 0; k < tiny.net->tensors[i].count; k++)
            assert_true(fabs(after[k] - (0.75 * before[k] + 0.25 * now[k])) <= 1e-6);
        free(before);
        free(now);
        free(after);
    }
    tiny.ops->state_close(average);
    tiny_close(&tiny);
}

/* All of it together: a net learns four images by heart. */
static void test_learns(void **unused)
{
    static const struct tiny_case plain = {"resnet8d-w8", NULL,       12,   3, 6, 4,
                                           TINY_FREE,     TINY_PLAIN, false};
    struct tiny tiny;
    struct batch_metrics first, last;
    open_tiny(&tiny, &plain, 2);
    for (int i = 0; i < 4; i++)
        tiny.labels[i] = (struct chunk_label){(uint32_t)i, (uint32_t)i, 1.0f};
    const struct update update = {.lr = 0.02,
                                  .momentum = 0.9,
                                  .weight_decay = 1e-4,
                                  .grad_scale = 1,
                                  .micro_batches = 1,
                                  .skip_nonfinite = true};
    for (int step = 0; step < 60; step++) {
        assert_int_equal(tiny_run(&tiny), 0);
        assert_int_equal(tiny.ops->metrics(step ? &last : &first, tiny.state, 0), 0);
        assert_int_equal(tiny.ops->update(tiny.state, 0, &update), 0);
    }
    if (!(last.loss < 0.1 * first.loss) || last.top1 != 4)
        fail_msg("the loss went from %g to %g", first.loss, last.loss);
    tiny_close(&tiny);
}

static void test_skips_nonfinite(void **unused)
{
    struct tiny tiny;
    open_tiny(&tiny, &small, 1);
    int conv = tensor_of(&tiny, "conv1.weight"), mean = tensor_of(&tiny, "bn1.running_mean");
    float *before = weights_of(&tiny, STATE_WEIGHT, conv);
    float *mean_before = weights_of(&tiny, STATE_WEIGHT, mean);
    assert_int_equal(tiny_run(&tiny), 0);
    const struct update update = {
        .lr = 0.1, .grad_scale = 1, .micro_batches = 1, .skip_nonfinite = true};
    struct batch_metrics metrics;
    assert_int_equal(tiny.ops->metrics(&metrics, tiny.state, 0), 0);
    assert_true(metrics.finite); /* nobody looked yet */
    struct bucket bucket = tiny.ops->slot_bucket(tiny.state, 0, 0);
    ((float *)bucket.data)[bucket.count / 2] = INFINITY;
    assert_int_equal(tiny.ops->update(tiny.state, 0, &update), 0);
    assert_int_equal(tiny.ops->metrics(&metrics, tiny.state, 0), 0);
    assert_false(metrics.finite);
    float *after = weights_of(&tiny, STATE_WEIGHT, conv);
    float *mean_after = weights_of(&tiny, STATE_WEIGHT, mean);
    assert_memory_equal(before, after, tiny.net->tensors[conv].count * sizeof *before);
    assert_memory_equal(mean_before, mean_after, tiny.net->tensors[mean].count * sizeof *before);
    assert_int_equal(tiny_run(&tiny), 0);
    assert_int_equal(tiny.ops->update(tiny.state, 0, &update), 0);
    assert_int_equal(tiny.ops->metrics(&metrics, tiny.state, 0), 0);
    assert_true(metrics.finite);
    float *all[] = {before, mean_before, after, mean_after};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
    tiny_close(&tiny);
}

struct seen {
    int count;
};

static void count_bucket(void *user, int bucket)
{
    struct seen *seen = user;
    assert_int_equal(bucket, seen->count++);
}

/* Every float of a slot is in one bucket, each is announced once, in order. */
static void test_buckets(void **unused)
{
    struct tiny tiny;
    open_tiny(&tiny, &small, 1);
    struct program *program;
    const struct program_config config = {.mode = PROGRAM_TRAIN, .batch = 4, .bucket_bytes = 64};
    int first = tiny.ops->slot_buckets(tiny.state);
    assert_int_equal(first, 1); /* of 16 MiB */
    assert_int_equal(tiny.ops->program_open(&program, tiny.state, &config), 0);
    assert_int_equal(tiny.ops->slot_buckets(tiny.state), first); /* the first program's stay */
    tiny.ops->program_close(program);
    tiny.ops->program_close(tiny.program);
    tiny.ops->state_close(tiny.state);

    assert_int_equal(tiny.ops->state_open(&tiny.state, tiny.backend, tiny.net, 2), 0);
    assert_int_equal(tiny.ops->program_open(&tiny.program, tiny.state, &config), 0);
    int buckets = tiny.ops->slot_buckets(tiny.state);
    size_t total = 0, expected = 4; /* metrics */
    for (int i = 0; i < tiny.net->tensor_count; i++)
        expected += tiny.net->tensors[i].count;
    for (int b = 0; b < buckets; b++) {
        struct bucket bucket = tiny.ops->slot_bucket(tiny.state, 1, b);
        memset(bucket.data, 0, bucket.count * sizeof(float));
        total += bucket.count;
    }
    assert_true(buckets > 5);
    assert_int_equal(total, expected);
    struct seen seen = {0};
    assert_int_equal(tiny.ops->run(tiny.program, &tiny.batch, 0, 1, count_bucket, &seen), 0);
    assert_int_equal(seen.count, buckets);
    tiny_close(&tiny);
}

/* Inference shares buffers between maps that live at different times; a training program with
 * everything frozen computes the same without. */
static void test_inference(void **unused)
{
    static const struct tiny_case frozen = {"resnet8d-w4", NULL, 9, 3, 6, 4, 3, TINY_PLAIN, false};
    struct tiny tiny;
    open_tiny(&tiny, &frozen, 2);
    struct program *infer;
    const struct program_config config = {.mode = PROGRAM_INFER, .batch = 4};
    assert_int_equal(tiny.ops->program_open(&infer, tiny.state, &config), 0);
    assert_true(tiny.ops->program_bytes(infer) < tiny.ops->program_bytes(tiny.program));
    float logits[4 * 6], expected[4 * 6];
    struct batch_metrics metrics;
    assert_int_equal(tiny_run(&tiny), 0);
    assert_int_equal(tiny.ops->logits(expected, tiny.program), 0);
    assert_int_equal(tiny.ops->run(infer, &tiny.batch, 1, 1, NULL, NULL), 0);
    assert_int_equal(tiny.ops->logits(logits, infer), 0);
    assert_memory_equal(logits, expected, sizeof logits);

    /* A short batch with a masked sample. */
    tiny.labels[1].a = CHUNK_LABEL_MASKED;
    tiny.batch.samples = 3;
    assert_int_equal(tiny.ops->run(infer, &tiny.batch, 1, 1, NULL, NULL), 0);
    assert_int_equal(tiny.ops->logits(logits, infer), 0);
    assert_memory_equal(logits, expected, 3 * 6 * sizeof *logits);
    assert_int_equal(tiny.ops->metrics(&metrics, tiny.state, 1), 0);
    assert_true(metrics.samples == 2);
    tiny.ops->program_close(infer);
    tiny_close(&tiny);
}

/* Frozen tensors stay as they are and have no place in a slot. */
static void test_frozen(void **unused)
{
    static const struct tiny_case frozen = {"resnet8d-w4", NULL, 9, 3, 6, 4, 1, TINY_PLAIN, false};
    struct tiny tiny;
    open_tiny(&tiny, &frozen, 1);
    float *before[200], *after;
    for (int i = 0; i < tiny.net->tensor_count; i++)
        before[i] = weights_of(&tiny, STATE_WEIGHT, i);
    const struct update update = {
        .lr = 0.1, .weight_decay = 0.1, .grad_scale = 1, .micro_batches = 1};
    assert_int_equal(tiny_run(&tiny) || tiny.ops->update(tiny.state, 0, &update), 0);
    for (int i = 0; i < tiny.net->tensor_count; i++) {
        const struct tensor *tensor = &tiny.net->tensors[i];
        bool stays = strncmp(tensor->name, "layer2", 6) != 0 &&
                     strncmp(tensor->name, "layer3", 6) != 0 && !tensor->head;
        after = weights_of(&tiny, STATE_WEIGHT, i);
        bool same = memcmp(before[i], after, tensor->count * sizeof *after) == 0;
        if (same != stays)
            fail_msg("%s %s", tensor->name, same ? "did not move" : "moved");
        free(after);
        free(before[i]);
    }
    float values[64];
    int conv = tensor_of(&tiny, "layer1.0.bn1.weight");
    assert_int_equal(tiny.ops->slot_get(values, tiny.state, 0, conv), ERR_ARG);
    assert_int_equal(tiny.ops->state_get(values, tiny.state, STATE_MOMENTUM, conv), ERR_ARG);
    tiny_close(&tiny);
}

/* One state, programs for two sizes. */
static void test_other_size(void **unused)
{
    struct tiny tiny;
    open_tiny(&tiny, &small, 1);
    struct program *program;
    struct program_config config = {.mode = PROGRAM_TRAIN, .batch = 4, .size_px = 6};
    assert_int_equal(tiny.ops->program_open(&program, tiny.state, &config), 0);
    assert_int_equal(tiny.ops->run(program, &tiny.batch, 0, 1, NULL, NULL), 0);
    tiny.ops->program_close(program);
    config.size_px = 1;
    assert_int_equal(tiny.ops->program_open(&program, tiny.state, &config), ERR_ARG);
    assert_null(program);
    tiny_close(&tiny);
}

static void test_refusals(void **unused)
{
    struct tiny tiny;
    open_tiny(&tiny, &small, 1);
    tiny.batch.samples = 3; /* BN would see another batch */
    assert_int_equal(tiny_run(&tiny), ERR_ARG);
    tiny.batch.samples = 4;
    tiny.labels[2].b = 6; /* of 6 classes */
    assert_int_equal(tiny_run(&tiny), ERR_ARG);
    tiny.labels[2].b = 0;
    assert_int_equal(tiny.ops->run(tiny.program, &tiny.batch, 2, 1, NULL, NULL), ERR_ARG);
    assert_int_equal(tiny.ops->slot_add(tiny.state, 0, 2, BUCKETS_ALL), ERR_ARG);
    assert_int_equal(tiny.ops->slot_add(tiny.state, 0, 1, 1000), ERR_ARG);
    float value;
    assert_int_equal(tiny.ops->state_get(&value, tiny.state, STATE_WEIGHT, 10000), ERR_ARG);
    struct program *program;
    const struct program_config teacher = {
        .mode = PROGRAM_TRAIN, .batch = 4, .teacher = tiny.program};
    assert_int_equal(tiny.ops->program_open(&program, tiny.state, &teacher), ERR_ARG);
    /* 2 x 2 pixels end as one: no batch statistics of a single value */
    const struct program_config lone = {.mode = PROGRAM_TRAIN, .batch = 1, .size_px = 4};
    assert_int_equal(tiny.ops->program_open(&program, tiny.state, &lone), ERR_ARG);
    /* a map of 2^31 values or more */
    const struct program_config huge = {.mode = PROGRAM_INFER, .batch = 1 << 20, .size_px = 1024};
    assert_int_equal(tiny.ops->program_open(&program, tiny.state, &huge), ERR_ARG);
    tiny_close(&tiny);
}

static size_t not_halves(const float *values, size_t count)
{
    size_t wrong = 0;
    for (size_t i = 0; i < count; i++)
        wrong += half_to_float(half_from_float(values[i])) != values[i];
    return wrong;
}

/* Logits of the last run. */
static float *logits_of(struct tiny *tiny)
{
    float *values = malloc((size_t)tiny->batch.samples * tiny->net->classes * sizeof *values);
    assert_int_equal(tiny->ops->logits(values, tiny->program), 0);
    return values;
}

/* fp16: gradients of convolutions are half floats, those of the FC are not; what comes out is near
 * fp32's but not the same. */
static void test_halves(void **unused)
{
    const struct backend_config config = {.threads = 2, .precision = PRECISION_FP16};
    struct tiny exact, halves;
    open_tiny(&exact, &small, 2);
    assert_int_equal(tiny_open(&halves, &backend_ref, &config, &small, testing_seed()), 0);
    assert_int_equal(tiny_run(&exact) || tiny_run(&halves), 0);
    for (int i = 0; i < halves.net->tensor_count; i++) {
        const struct tensor *what = &halves.net->tensors[i];
        float *rounded = slot_of(&halves, 0, i);
        if (what->kind == TENSOR_CONV_WEIGHT)
            assert_int_equal(not_halves(rounded, what->count), 0);
        else if (what->kind == TENSOR_FC_WEIGHT)
            assert_int_not_equal(not_halves(rounded, what->count), 0);
        free(rounded);
    }
    float *left = logits_of(&halves), *right = logits_of(&exact);
    double distance = tiny_distance(left, right, (size_t)small.batch * (size_t)small.classes);
    assert_true(distance > 0 && distance < 0.02); /* some 20 roundings of 2^-11 one after another */
    free(left);
    free(right);
    tiny_close(&exact);
    tiny_close(&halves);
}

/* What overflows a half float becomes infinite and its step is left out. */
static void test_halves_overflow(void **unused)
{
    const struct backend_config config = {.threads = 2, .precision = PRECISION_FP16};
    struct tiny tiny;
    struct batch_metrics metrics;
    const struct update update = {
        .lr = 0.1, .grad_scale = 0x1p-24, .micro_batches = 1, .skip_nonfinite = true};
    assert_int_equal(tiny_open(&tiny, &backend_ref, &config, &small, testing_seed()), 0);
    int tensor = tensor_of(&tiny, "fc.weight");
    float *before = weights_of(&tiny, STATE_WEIGHT, tensor);
    tiny.factor *= 0x1p24;
    assert_int_equal(tiny_run(&tiny), 0);
    assert_int_equal(tiny.ops->update(tiny.state, 0, &update), 0);
    assert_int_equal(tiny.ops->metrics(&metrics, tiny.state, 0), 0);
    assert_false(metrics.finite);
    assert_true(isfinite(metrics.loss));
    float *after = weights_of(&tiny, STATE_WEIGHT, tensor);
    assert_memory_equal(before, after, tiny.net->tensors[tensor].count * sizeof *before);
    free(before);
    free(after);
    tiny_close(&tiny);
}

static void test_backend_open(void **unused)
{
    struct backend *backend;
    const struct backend_ops *ops;
    struct backend_config config = {.threads = 1};
    assert_int_equal(backend_open(&backend, &ops, "auto", "ref", &config), 0);
    assert_ptr_equal(ops, &backend_ref);
    assert_non_null(strstr(ops->describe(backend), "fp32, 1 thread"));
    ops->close(backend);
    assert_int_equal(backend_open(&backend, &ops, "cpu", "auto", &config), 0);
    assert_string_equal(ops->device, "cpu");
    ops->close(backend);
    assert_int_equal(backend_open(&backend, &ops, "cuda", "ref", &config), ERR_ARG);
    config.precision = PRECISION_BF16; /* emulated when it is asked for by name only */
    assert_int_equal(backend_open(&backend, &ops, "cpu", "ref", &config), 0);
    assert_non_null(strstr(ops->describe(backend), "bf16"));
    ops->close(backend);
    config.precision = PRECISION_FP16;
    assert_int_equal(backend_open(&backend, &ops, "cpu", "auto", &config), ERR_UNSUPPORTED);
    assert_null(backend);
    assert_int_equal(backend_open(&backend, &ops, "cpu", "ref", &config), 0);
    assert_non_null(strstr(ops->describe(backend), "fp16"));
    ops->close(backend);
}

int main(void)
{
    testing_seed();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_batch_statistics),
        cmocka_unit_test(test_nag),
        cmocka_unit_test(test_head_lr),
        cmocka_unit_test(test_average),
        cmocka_unit_test(test_learns),
        cmocka_unit_test(test_skips_nonfinite),
        cmocka_unit_test(test_buckets),
        cmocka_unit_test(test_inference),
        cmocka_unit_test(test_frozen),
        cmocka_unit_test(test_other_size),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_halves),
        cmocka_unit_test(test_halves_overflow),
        cmocka_unit_test(test_backend_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Whole networks against PyTorch, timm and torchvision: tests/golden/network/, written by
 * tools/golden/network.py and loss.py in float64. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "common/err.h"
#include "tests/unit/trainer/golden.h"
#include "trainer/accumulate.h"
#include "trainer/loss.h"
#include "trainer/safetensors.h"
#include "trainer/schedule.h"
#include "trainer/weights.h"

extern const struct backend_ops backend_ref_double;

static const char *folder;

static void check(int code)
{
    if (code)
        fail_msg("%s", err_message());
}

/* --- golden files -------------------------------------------------------------------------------
 */

static struct safetensors *open_golden(const char *name)
{
    char path[512];
    struct safetensors *file;
    snprintf(path, sizeof path, "%s/%s.safetensors", folder, name);
    check(safetensors_open(&file, path));
    return file;
}

/* The caller frees. */
static float *read_golden(const struct safetensors *file, const char *name, size_t count)
{
    const struct safetensors_tensor *tensor = safetensors_find(file, name);
    float *values = malloc(count * sizeof *values);
    if (!tensor)
        fail_msg("no golden '%s'", name);
    assert_int_equal(tensor->count, count);
    check(safetensors_read(values, file, tensor));
    return values;
}

static size_t golden_count(const struct safetensors *file, const char *name)
{
    return (size_t)safetensors_find(file, name)->count;
}

static double relative(const float *a, const float *b, size_t count)
{
    double difference = 0, norm = 0;
    for (size_t i = 0; i < count; i++) {
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        norm += (double)b[i] * b[i];
    }
    return sqrt(difference / norm);
}

/* --- a net on a backend -------------------------------------------------------------------------
 */

struct setup {
    const struct backend_ops *ops;
    struct backend *backend;
    struct net *net;
    struct state *state;
    struct program *program;
    uint16_t *pixels;
    struct chunk_label *labels;
    struct batch batch;
    float *buffer; /* for any tensor */
};

static const struct loss_config smoothed = {.label_smoothing = 0.1};

/* Which net, on what, filled how. */
struct setting {
    const char *backend, *model;
    int size, classes, batch;
    enum program_mode mode;
    enum golden_net kind;
};

static void fill(const struct setup *setup, enum golden_net kind)
{
    for (int i = 0; i < setup->net->tensor_count; i++) {
        golden_parameter(setup->buffer, &setup->net->tensors[i], kind);
        check(setup->ops->state_set(setup->state, STATE_WEIGHT, i, setup->buffer));
    }
}

static struct setup set_up(const struct setting *setting)
{
    struct setup setup = {0};
    const struct backend_config config = {.threads = 2};
    int size = setting->size, classes = setting->classes, batch = setting->batch;
    if (strcmp(setting->backend, "double") == 0) {
        setup.ops = &backend_ref_double;
        check(setup.ops->open(&setup.backend, &config));
    } else {
        check(backend_open(&setup.backend, &setup.ops, "cpu", setting->backend, &config));
    }
    check(net_open(&setup.net, setting->model, size, 3, classes));
    check(setup.ops->state_open(&setup.state, setup.backend, setup.net, accumulate_slots(2)));
    setup.buffer = malloc(weights_largest(setup.net) * sizeof *setup.buffer);
    fill(&setup, setting->kind);
    const struct program_config what = {.mode = setting->mode, .batch = batch, .loss = smoothed};
    check(setup.ops->program_open(&setup.program, setup.state, &what));
    size_t pixels = (size_t)batch * size * size * 3;
    setup.pixels = setup.ops->host_alloc(setup.backend, pixels * sizeof *setup.pixels);
    setup.labels = setup.ops->host_alloc(setup.backend, (size_t)batch * sizeof *setup.labels);
    golden_pixels(setup.pixels, "pixels", pixels);
    golden_labels(setup.labels, "labels", batch, classes);
    setup.batch = (struct batch){.pixels = setup.pixels, .labels = setup.labels, .samples = batch};
    return setup;
}

static void tear_down(struct setup *setup)
{
    setup->ops->program_close(setup->program);
    setup->ops->state_close(setup->state);
    setup->ops->host_free(setup->backend, setup->pixels);
    setup->ops->host_free(setup->backend, setup->labels);
    setup->ops->close(setup->backend);
    net_close(setup->net);
    free(setup->buffer);
}

/* --- the loss -----------------------------------------------------------------------------------
 */

enum { SAMPLES = 6, CLASSES = 10 };

static void expect_loss(const struct safetensors *file, const char *name, bool mixed,
                        struct loss_config config)
{
    double z[SAMPLES * CLASSES], r[SAMPLES * CLASSES], gradient[SAMPLES * CLASSES];
    struct chunk_label labels[SAMPLES];
    struct loss_sums sums;
    golden_labels(labels, "labels", SAMPLES, CLASSES);
    for (int n = 0; n < SAMPLES && !mixed; n++)
        labels[n] = (struct chunk_label){labels[n].a, labels[n].a, 1};
    for (uint64_t i = 0; i < SAMPLES * CLASSES; i++) {
        z[i] = 8 * golden_unit(golden_key("logits"), i) - 4;
        r[i] = 20 * golden_unit(golden_key("teacher"), i) - 10;
    }
    loss_batch(&sums, gradient, z, r, labels, SAMPLES, CLASSES, &config, 1);
    float *expected = read_golden(file, name, 1 + SAMPLES * CLASSES);
    double worst = fabs(sums.loss - expected[0]) / expected[0];
    for (int i = 0; i < SAMPLES * CLASSES; i++)
        worst = fmax(worst, fabs(gradient[i] - expected[1 + i]) / (1 + fabs(expected[1 + i])));
    print_message("loss %s: %.1e\n", name, worst);
    if (!(worst <= 1e-6))
        fail_msg("%s differs by %g", name, worst);
    free(expected);
}

static void test_loss(void **unused)
{
    struct safetensors *file = open_golden("loss");
    expect_loss(file, "plain", false, loss_plain);
    expect_loss(file, "smoothing", false, smoothed);
    expect_loss(file, "smoothing-over-k", false,
                (struct loss_config){.label_smoothing = 0.1, .smoothing_over_k = true});
    expect_loss(file, "mixup", true, loss_plain);
    expect_loss(file, "distillation", false, (struct loss_config){0, false, 20, 1, 1});
    expect_loss(file, "distillation-halves", false, (struct loss_config){0, false, 4, 0.5, 0.5});
    expect_loss(file, "smoothing-mixup", true, smoothed);
    expect_loss(file, "all", true, (struct loss_config){0.1, false, 20, 1, 1});
    expect_loss(file, "all-weighted", true, (struct loss_config){0.1, true, 3, 0.7, 1.3});
    safetensors_close(file);
}

/* --- logits -------------------------------------------------------------------------------------
 */

static void expect_logits(const char *backend, const char *model)
{
    char name[64];
    enum { COUNT = 2 * 1000 };
    float *logits = malloc(COUNT * sizeof *logits);
    struct setup setup =
        set_up(&(struct setting){backend, model, 224, 1000, 2, PROGRAM_INFER, GOLDEN_PLAIN});
    check(setup.ops->run(setup.program, &setup.batch, 0, 1, NULL, NULL));
    check(setup.ops->logits(logits, setup.program));
    snprintf(name, sizeof name, "logits-%s", model);
    struct safetensors *file = open_golden(name);
    float *expected = read_golden(file, "logits", COUNT);
    double distance = relative(logits, expected, COUNT);
    print_message("logits of %s on %s: %.1e\n", model, setup.ops->name, distance);
    if (!(distance <= 1e-4))
        fail_msg("the logits of %s differ by %g", model, distance);
    free(expected);
    free(logits);
    safetensors_close(file);
    tear_down(&setup);
}

static void test_logits(void **unused)
{
    expect_logits("ref", "resnet18d");
    expect_logits("auto", "resnet18d");
    expect_logits("auto", "resnet50b");
    expect_logits("auto", "resnet50d");
    expect_logits("auto", "resnet152d");
}

/* --- one step -----------------------------------------------------------------------------------
 */

/* The tensor that the next line of a golden file's names says; moves *names behind it. */
static int next_tensor(const char **names, const struct net *net)
{
    char name[96];
    size_t length = strcspn(*names, "\n");
    snprintf(name, sizeof name, "%.*s", (int)length, *names);
    *names += length + ((*names)[length] == '\n');
    int tensor = net_tensor(net, name);
    if (tensor < 0)
        fail_msg("%s has no tensor '%s'", net->model, name);
    return tensor;
}

static double sketch_distance(const char *name, const float *values, size_t count,
                              const float *expected)
{
    double sketch[GOLDEN_SKETCH];
    golden_sketch(sketch, name, values, count);
    double distance = golden_distance(sketch, expected);
    if (!(distance <= 1e-3))
        fail_msg("%s differs by %g", name, distance);
    return distance;
}

static double worst_gradient(struct setup *setup, const struct safetensors *file)
{
    size_t count = golden_count(file, "gradients");
    float *expected = read_golden(file, "gradients", count);
    const char *names = safetensors_metadata(file, "names");
    double worst = 0;
    for (size_t i = 0; i < count / GOLDEN_SKETCH; i++) {
        int tensor = next_tensor(&names, setup->net);
        const struct tensor *what = &setup->net->tensors[tensor];
        assert_true(what->trained);
        check(setup->ops->slot_get(setup->buffer, setup->state, 0, tensor));
        worst = fmax(worst, sketch_distance(what->name, setup->buffer, what->count,
                                            expected + i * GOLDEN_SKETCH));
    }
    assert_int_equal(count / GOLDEN_SKETCH + 2 * (count / GOLDEN_SKETCH - 2) / 3,
                     setup->net->tensor_count); /* every parameter: three tensors a BN conv */
    free(expected);
    return worst;
}

/* What weights and statistics moved by. */
static double worst_move(struct setup *setup, const struct safetensors *file)
{
    size_t count = golden_count(file, "moves");
    float *expected = read_golden(file, "moves", count);
    float *before = malloc(weights_largest(setup->net) * sizeof *before);
    const char *names = safetensors_metadata(file, "names");
    double worst = 0;
    assert_int_equal(count / GOLDEN_SKETCH, setup->net->tensor_count);
    for (size_t i = 0; i < count / GOLDEN_SKETCH; i++) {
        int tensor = next_tensor(&names, setup->net);
        const struct tensor *what = &setup->net->tensors[tensor];
        golden_parameter(before, what, GOLDEN_STEADY);
        check(setup->ops->state_get(setup->buffer, setup->state, STATE_WEIGHT, tensor));
        for (size_t k = 0; k < what->count; k++)
            setup->buffer[k] -= before[k];
        worst = fmax(worst, sketch_distance(what->name, setup->buffer, what->count,
                                            expected + i * GOLDEN_SKETCH));
    }
    free(before);
    free(expected);
    return worst;
}

static void expect_step(const char *backend, const char *model, int batch)
{
    enum { SIZE = 64 };
    char name[64];
    struct batch_metrics metrics;
    struct setup setup =
        set_up(&(struct setting){backend, model, SIZE, 1000, batch, PROGRAM_TRAIN, GOLDEN_STEADY});
    snprintf(name, sizeof name, "step-%s", model);
    struct safetensors *file = open_golden(name);
    golden_pixels(setup.pixels, safetensors_metadata(file, "pixels"),
                  (size_t)batch * SIZE * SIZE * 3);
    const struct update update = {.lr = 0.1,
                                  .momentum = 0.9,
                                  .weight_decay = 1e-4,
                                  .no_bias_decay = true,
                                  .grad_scale = 1,
                                  .micro_batches = 1};
    check(setup.ops->run(setup.program, &setup.batch, 0, 1.0 / batch, NULL, NULL));
    double gradient = worst_gradient(&setup, file);
    check(setup.ops->update(setup.state, 0, &update));
    double move = worst_move(&setup, file);
    check(setup.ops->metrics(&metrics, setup.state, 0));
    float *loss = read_golden(file, "loss", 1);
    print_message("a step of %s on %s: gradients %.1e, moves %.1e, loss %.1e\n", model,
                  setup.ops->name, gradient, move, fabs(metrics.loss / batch - *loss) / *loss);
    assert_true(fabs(metrics.loss / batch - *loss) <= 1e-5 * *loss);
    free(loss);
    safetensors_close(file);
    tear_down(&setup);
}

static void test_step(void **unused)
{
    expect_step("double", "resnet18d", 4);
    expect_step("ref", "resnet18d", 4);
    expect_step("auto", "resnet18d", 4);
    expect_step("auto", "resnet50d", 8);
}

/* --- twenty steps -------------------------------------------------------------------------------
 */

enum { TOTAL = 16, STEPS = 20, SIDE = 32 };

/* A global batch in micro-batches, summed in the tree; the loss of the whole. */
static double train_step(struct setup *setup, const char *images, int step, int micro_batches)
{
    char name[32];
    size_t image = (size_t)SIDE * SIDE * 3;
    uint16_t *pixels = malloc(TOTAL * image * sizeof *pixels);
    struct chunk_label labels[TOTAL];
    struct batch_metrics metrics;
    const struct schedule schedule = {
        .lr = 0.0003, .cosine = true, .warmup_steps = 5, .total_steps = STEPS};
    snprintf(name, sizeof name, "%s.%d", images, step % 2);
    golden_pixels(pixels, name, TOTAL * image);
    snprintf(name, sizeof name, "labels.%d", step % 2);
    golden_labels(labels, name, TOTAL, 10);
    int count = TOTAL / micro_batches;
    for (int i = 0; i < micro_batches; i++) {
        struct accumulate_step plan;
        accumulate_plan(&plan, i, micro_batches);
        memcpy(setup->pixels, pixels + (size_t)i * count * image,
               (size_t)count * image * sizeof *pixels);
        memcpy(setup->labels, labels + i * count, (size_t)count * sizeof *labels);
        check(setup->ops->run(setup->program, &setup->batch, plan.slot, 1.0 / TOTAL, NULL, NULL));
        for (int k = 0; k < plan.adds; k++)
            check(
                setup->ops->slot_add(setup->state, plan.add_dst[k], plan.add_src[k], BUCKETS_ALL));
    }
    const struct update update = {.lr = schedule_lr(&schedule, (uint64_t)step),
                                  .momentum = 0.9,
                                  .weight_decay = 1e-4,
                                  .no_bias_decay = true,
                                  .grad_scale = 1,
                                  .micro_batches = micro_batches};
    check(setup->ops->update(setup->state, 0, &update));
    check(setup->ops->metrics(&metrics, setup->state, 0));
    free(pixels);
    return metrics.loss / metrics.samples;
}

/* Running statistics too: the trained net judges the first four images. */
static double judge(struct setup *setup, const char *images, const float *expected)
{
    char name[32];
    struct program *program;
    float logits[4 * 10];
    const struct program_config config = {.mode = PROGRAM_INFER, .batch = 4};
    check(setup->ops->program_open(&program, setup->state, &config));
    snprintf(name, sizeof name, "%s.0", images);
    golden_pixels(setup->pixels, name, (size_t)4 * SIDE * SIDE * 3);
    const struct batch batch = {.pixels = setup->pixels, .labels = setup->labels, .samples = 4};
    check(setup->ops->run(program, &batch, 0, 1, NULL, NULL));
    check(setup->ops->logits(logits, program));
    setup->ops->program_close(program);
    return relative(logits, expected, 4 * 10);
}

static void expect_twenty(int micro_batches)
{
    char name[32];
    struct safetensors *file = open_golden("twenty-steps");
    const char *images = safetensors_metadata(file, "pixels");
    struct setup setup = set_up(&(struct setting){
        "auto", "resnet18d", SIDE, 10, TOTAL / micro_batches, PROGRAM_TRAIN, GOLDEN_STEADY_ZERO});
    snprintf(name, sizeof name, "losses.%d", micro_batches);
    float *losses = read_golden(file, name, STEPS);
    snprintf(name, sizeof name, "logits.%d", micro_batches);
    float *logits = read_golden(file, name, 4 * 10);
    double worst = 0;
    for (int step = 0; step < STEPS; step++) {
        double difference = fabs(train_step(&setup, images, step, micro_batches) - losses[step]);
        worst = fmax(worst, difference);
        if (!(difference <= 1e-3))
            fail_msg("step %d: the loss differs by %g", step, difference);
    }
    double judged = judge(&setup, images, logits);
    print_message("20 steps in %d micro-batches on %s: losses %.1e, logits %.1e\n", micro_batches,
                  setup.ops->name, worst, judged);
    assert_true(judged <= 1e-3);
    free(losses);
    free(logits);
    safetensors_close(file);
    tear_down(&setup);
}

static void test_twenty_steps(void **unused)
{
    expect_twenty(1);
}

static void test_micro_batches(void **unused)
{
    expect_twenty(2);
}

int main(int argc, char **argv)
{
    folder = argc > 1 ? argv[1] : "tests/golden/network";
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loss),          cmocka_unit_test(test_logits),
        cmocka_unit_test(test_step),          cmocka_unit_test(test_twenty_steps),
        cmocka_unit_test(test_micro_batches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

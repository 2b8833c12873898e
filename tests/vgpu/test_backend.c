/* SPDX-License-Identifier: Apache-2.0 */
/* The CUDA backend on the double: every operation against the reference with the same roundings to
 * fp16, and what a trainer relies on beside it: runs that overlap, buckets that are reduced while
 * the backward goes on, evaluation, bytes from the wire, skipped steps, memory given back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <cuda_runtime_api.h>

#include <stdlib.h>
#include <unistd.h>

#include "common/err.h"
#include "common/file.h"
#include "tests/unit/trainer/tiny_net.h"
#include "tests/vgpu/vgpu.h"

extern const struct backend_ops backend_cuda;

static const struct backend_config config = {
    .threads = 2, .precision = PRECISION_FP16, .fusion = FUSION_PROLOGUE};
static const struct backend_config unfused = {
    .threads = 2, .precision = PRECISION_FP16, .fusion = FUSION_NONE};

static const double tolerance = 2e-3;

static void test_operations(void **state)
{
    int failures = 0;
    for (int i = 0; i < 2 * TINY_CASES; i++)
        failures +=
            tiny_compare_case(&backend_cuda, &backend_ref_double, i % 2 ? &config : &unfused,
                              &tiny_cases[i / 2], testing_seed(), tolerance);
    const struct tiny_case many_classes = {"resnet8b-w4", NULL,        8,    3, 1000, 4,
                                           TINY_FREE,     TINY_SMOOTH, false};
    failures += tiny_compare_case(&backend_cuda, &backend_ref_double, &config, &many_classes,
                                  testing_seed(), tolerance);
    assert_int_equal(failures, 0);
}

static const struct tiny_case small = {"resnet8d-w8", NULL,        16,   3, 10, 8,
                                       TINY_FREE,     TINY_SMOOTH, false};

static void open_both(struct tiny *cuda, struct tiny *ref, const struct tiny_case *what)
{
    if (tiny_open(cuda, &backend_cuda, &config, what, testing_seed()) ||
        tiny_open(ref, &backend_ref_double, &config, what, testing_seed()))
        fail_msg("%s: %s", what->name, err_message());
}

static void close_both(struct tiny *cuda, struct tiny *ref)
{
    tiny_close(cuda);
    tiny_close(ref);
    assert_int_equal(vgpu_counts().live_bytes, 0);
    assert_int_equal(vgpu_counts().live_descriptors, 0);
}

static int compare_slot(struct tiny *cuda, struct tiny *ref)
{
    int failures = 0;
    for (int i = 0; i < ref->net->tensor_count; i++)
        failures += tiny_compare_tensor(cuda, ref, i, tolerance);
    return failures;
}

/* Many runs before the host waits once; their pixels are overwritten as soon as they were read. */
static void test_overlap(void **state)
{
    enum { RUNS = 5 };
    struct tiny cuda, ref;
    open_both(&cuda, &ref, &small);
    uint64_t random = testing_seed();
    size_t pixels = (size_t)small.batch * small.size_px * small.size_px * small.channels;
    for (int i = 0; i < RUNS; i++) {
        for (size_t p = 0; p < pixels; p++)
            cuda.pixels[p] = ref.pixels[p] = half_from_float(tiny_value(&random, -2, 2));
        assert_int_equal(tiny_run(&cuda), 0);
        assert_int_equal(cuda.ops->inputs_read(cuda.program), 0);
        assert_int_equal(tiny_run(&ref), 0);
    }
    assert_int_equal(compare_slot(&cuda, &ref), 0);
    close_both(&cuda, &ref);
}

/* A reduction on a stream of its own, as soon as each bucket is announced. */
static struct {
    struct tiny *tiny;
    cudaStream_t stream;
    float *total; /* device */
    size_t room, at;
    int announced;
} reduction;

static void reduce_bucket(void *user, int bucket)
{
    struct tiny *tiny = reduction.tiny;
    struct bucket it = tiny->ops->slot_bucket(tiny->state, 0, bucket);
    assert_int_equal(bucket, reduction.announced);
    assert_true(reduction.at + it.count <= reduction.room);
    assert_int_equal(cudaStreamWaitEvent(reduction.stream, it.ready, 0), cudaSuccess);
    assert_int_equal(cudaMemcpyAsync(reduction.total + reduction.at, it.data,
                                     it.count * sizeof(float), cudaMemcpyDeviceToDevice,
                                     reduction.stream),
                     cudaSuccess);
    assert_int_equal(cudaMemcpyAsync(it.data, reduction.total + reduction.at,
                                     it.count * sizeof(float), cudaMemcpyDeviceToDevice,
                                     reduction.stream),
                     cudaSuccess);
    reduction.at += it.count;
    reduction.announced++;
}

static void test_buckets(void **state)
{
    struct tiny cuda, ref;
    open_both(&cuda, &ref, &small);
    reduction.tiny = &cuda;
    reduction.at = 0;
    reduction.announced = 0;
    reduction.room = 1 << 20;
    cudaEvent_t done;
    assert_int_equal(cudaStreamCreateWithFlags(&reduction.stream, cudaStreamNonBlocking),
                     cudaSuccess);
    assert_int_equal(cudaEventCreateWithFlags(&done, cudaEventDisableTiming), cudaSuccess);
    assert_int_equal(cudaMalloc((void **)&reduction.total, reduction.room * sizeof(float)),
                     cudaSuccess);
    assert_int_equal(cuda.ops->run(cuda.program, &cuda.batch, 0, cuda.factor, reduce_bucket, NULL),
                     0);
    assert_int_equal(reduction.announced, cuda.ops->slot_buckets(cuda.state));
    cudaEventRecord(done, reduction.stream);
    cudaStreamWaitEvent(cuda.ops->queue(cuda.backend), done, 0);
    const struct update update = {.lr = 0.1, .momentum = 0.9, .grad_scale = 1, .micro_batches = 1};
    assert_int_equal(cuda.ops->update(cuda.state, 0, &update), 0);
    assert_int_equal(cuda.ops->synchronise(cuda.backend), 0);
    assert_int_equal(tiny_run(&ref), 0);
    assert_int_equal(compare_slot(&cuda, &ref), 0);
    cudaFree(reduction.total);
    cudaEventDestroy(done);
    cudaStreamDestroy(reduction.stream);
    close_both(&cuda, &ref);
}

/* Evaluation: running statistics folded into fp16 weights, a short batch, a masked sample. */
static int infer(float *logits, struct batch_metrics *metrics, struct tiny *tiny)
{
    const struct program_config how = {.mode = PROGRAM_INFER, .batch = small.batch};
    struct program *program = NULL;
    struct batch batch = tiny->batch;
    batch.samples = small.batch - 3;
    tiny->labels[1].a = CHUNK_LABEL_MASKED;
    int code = tiny->ops->program_open(&program, tiny->state, &how);
    if (!code)
        code = tiny->ops->run(program, &batch, 1, 1, NULL, NULL);
    if (!code)
        code = tiny->ops->metrics(metrics, tiny->state, 1);
    if (!code)
        code = tiny->ops->logits(logits, program);
    tiny->ops->program_close(program);
    return code;
}

static void test_evaluation(void **state)
{
    struct tiny cuda, ref;
    open_both(&cuda, &ref, &small);
    const struct update update = {.lr = 0.05, .momentum = 0.9, .grad_scale = 1, .micro_batches = 1};
    for (int turn = 0; turn < 2; turn++) { /* the second time after an update */
        float a[80], b[80];
        struct batch_metrics m, n;
        assert_int_equal(infer(a, &m, &cuda), 0);
        assert_int_equal(infer(b, &n, &ref), 0);
        assert_true(tiny_distance(a, b, 50) <= tolerance);
        assert_true(m.samples == 4 && n.samples == 4 && m.top1 == n.top1 && m.top5 == n.top5);
        assert_true(fabs(m.loss - n.loss) <= tolerance * fabs(n.loss));
        assert_int_equal(tiny_run(&cuda), 0);
        assert_int_equal(tiny_run(&ref), 0);
        assert_int_equal(cuda.ops->update(cuda.state, 0, &update), 0);
        assert_int_equal(ref.ops->update(ref.state, 0, &update), 0);
    }
    close_both(&cuda, &ref);
}

/* The uint8 wire: normalised, offset and mixed on the device. */
static int run_bytes(struct tiny *tiny, uint64_t seed)
{
    const struct program_config how = {.mode = PROGRAM_TRAIN,
                                       .batch = small.batch,
                                       .input = {.bytes = true,
                                                 .chunk_size = 4,
                                                 .mean = {123.68f, 116.779f, 103.939f},
                                                 .std = {58.393f, 57.12f, 57.375f}}};
    struct program *program = NULL;
    size_t count = (size_t)small.batch * small.size_px * small.size_px * 3;
    uint8_t *pixels = tiny->ops->host_alloc(tiny->backend, count);
    float(*offsets)[3] = tiny->ops->host_alloc(tiny->backend, sizeof(float[3]) * small.batch);
    for (size_t i = 0; i < count; i++)
        pixels[i] = (uint8_t)testing_random(&seed);
    for (int i = 0; i < 3 * small.batch; i++)
        offsets[i / 3][i % 3] = (float)(testing_unit(&seed) * 20 - 10);
    const struct batch batch = {pixels, tiny->labels, (const float(*)[3])offsets, small.batch};
    int code = tiny->ops->program_open(&program, tiny->state, &how);
    if (!code)
        code = tiny->ops->run(program, &batch, 0, tiny->factor, NULL, NULL);
    if (!code)
        code = tiny->ops->synchronise(tiny->backend);
    tiny->ops->program_close(program);
    tiny->ops->host_free(tiny->backend, pixels);
    tiny->ops->host_free(tiny->backend, offsets);
    return code;
}

static void test_bytes(void **state)
{
    struct tiny cuda, ref;
    open_both(&cuda, &ref, &small);
    assert_int_equal(run_bytes(&cuda, testing_seed()), 0);
    assert_int_equal(run_bytes(&ref, testing_seed()), 0);
    assert_int_equal(compare_slot(&cuda, &ref), 0);
    close_both(&cuda, &ref);
}

/* A loss scale that is too large: nothing moves, and the metrics say why. */
static void test_skip(void **state)
{
    struct tiny cuda, ref;
    open_both(&cuda, &ref, &small);
    const struct update update = {
        .lr = 0.1, .momentum = 0.9, .grad_scale = 1, .micro_batches = 1, .skip_nonfinite = true};
    size_t count = cuda.net->tensors[0].count;
    float *before = calloc(count, sizeof *before), *after = calloc(count, sizeof *after);
    struct batch_metrics metrics;
    assert_int_equal(cuda.ops->state_get(before, cuda.state, STATE_WEIGHT, 0), 0);
    assert_int_equal(cuda.ops->run(cuda.program, &cuda.batch, 0, 1e7, NULL, NULL), 0);
    assert_int_equal(cuda.ops->update(cuda.state, 0, &update), 0);
    assert_int_equal(cuda.ops->metrics(&metrics, cuda.state, 0), 0);
    assert_false(metrics.finite);
    assert_int_equal(cuda.ops->state_get(after, cuda.state, STATE_WEIGHT, 0), 0);
    assert_memory_equal(before, after, count * sizeof *before);
    assert_int_equal(tiny_run(&cuda), 0); /* and the next one is as if nothing had been */
    assert_int_equal(tiny_run(&ref), 0);
    assert_int_equal(compare_slot(&cuda, &ref), 0);
    assert_int_equal(cuda.ops->update(cuda.state, 0, &update), 0);
    assert_int_equal(cuda.ops->metrics(&metrics, cuda.state, 0), 0);
    assert_true(metrics.finite);
    free(before);
    free(after);
    close_both(&cuda, &ref);
}

/* One line each for machines that will not do. */
static void refuses(const char *name, const char *value, const char *expected)
{
    struct backend *backend = NULL;
    setenv(name, value, 1);
    assert_int_equal(backend_cuda.open(&backend, &config), ERR_UNSUPPORTED);
    unsetenv(name);
    if (!strstr(err_message(), expected))
        fail_msg("expected \"%s\" in: %s", expected, err_message());
}

static void test_machines(void **state)
{
    refuses("VGPU_DEVICES", "0", "no");
    refuses("VGPU_DRIVER", "12040", "driver");
    refuses("VGPU_CAPABILITY", "75", "7.5");
    setenv("VGPU_MEMORY_MIB", "1", 1);
    struct tiny cuda;
    int code = tiny_open(&cuda, &backend_cuda, &config, &small, testing_seed());
    assert_int_equal(code, ERR_NOMEM);
    unsetenv("VGPU_MEMORY_MIB");
    tiny_close(&cuda);
    assert_int_equal(vgpu_counts().live_bytes, 0);
}

/* Where a fused graph has no engine, that place is as it is without fusion: all of a net, which the
 * reference without fusion agrees with (auto: ref does not fuse), or only a mask. */
static void test_refused(void **state)
{
    const struct backend_config automatic = {.threads = 2, .precision = PRECISION_FP16};
    setenv("VGPU_REFUSE", "sums", 1);
    int failures = tiny_compare_case(&backend_cuda, &backend_ref_double, &automatic, &small,
                                     testing_seed(), tolerance);
    setenv("VGPU_REFUSE", "masks", 1);
    failures += tiny_compare_case(&backend_cuda, &backend_ref_double, &config, &small,
                                  testing_seed(), tolerance);
    unsetenv("VGPU_REFUSE");
    assert_int_equal(failures, 0);
}

static uint64_t plans_run(const char *tune_path, enum fusion fusion)
{
    const struct backend_config tuned = {
        .threads = 2, .precision = PRECISION_FP16, .fusion = fusion, .tune_path = tune_path};
    uint64_t before = vgpu_counts().plans;
    assert_int_equal(tiny_compare_case(&backend_cuda, &backend_ref_double, &tuned, &small,
                                       testing_seed(), tolerance),
                     0);
    return vgpu_counts().plans - before;
}

/* Engines are timed once for a file; what was timed computes the same. Another scheme's graphs are
 * added to it; a file of another device is not believed. */
static void test_tuning(void **state)
{
    char directory[] = "/tmp/vgpu-XXXXXX", path[64];
    uint8_t *text;
    size_t bytes;
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/engines.txt", directory);
    uint64_t untuned = plans_run(NULL, FUSION_PROLOGUE);
    assert_true(plans_run(path, FUSION_PROLOGUE) > untuned);
    assert_int_equal(plans_run(path, FUSION_PROLOGUE), untuned);
    assert_true(plans_run(path, FUSION_BLOCK) > plans_run(path, FUSION_BLOCK));
    assert_int_equal(plans_run(path, FUSION_PROLOGUE), untuned);
    assert_int_equal(file_read(&text, &bytes, path, 1 << 20), 0);
    text[strcspn((char *)text, ",")] = ';';
    assert_int_equal(file_write_atomic(path, text, bytes), 0);
    free(text);
    assert_true(plans_run(path, FUSION_PROLOGUE) > untuned);
    unlink(path);
    rmdir(directory);
}

/* An engine that cannot be captured is passed over, and its error is not taken for a later one's.
 */
static void test_tuning_uncaptured(void **state)
{
    char directory[] = "/tmp/vgpu-XXXXXX", path[64];
    struct tiny tiny;
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/engines.txt", directory);
    const struct backend_config tuned = {
        .threads = 2, .precision = PRECISION_FP16, .fusion = FUSION_PROLOGUE, .tune_path = path};
    setenv("VGPU_UNCAPTURED", "yes", 1);
    int code = tiny_open(&tiny, &backend_cuda, &tuned, &small, testing_seed());
    unsetenv("VGPU_UNCAPTURED");
    if (code)
        print_message("%s\n", err_message());
    assert_int_equal(code, 0);
    tiny_close(&tiny);
    unlink(path);
    rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_operations), cmocka_unit_test(test_overlap),
        cmocka_unit_test(test_buckets),    cmocka_unit_test(test_evaluation),
        cmocka_unit_test(test_bytes),      cmocka_unit_test(test_skip),
        cmocka_unit_test(test_machines),   cmocka_unit_test(test_tuning),
        cmocka_unit_test(test_refused),    cmocka_unit_test(test_tuning_uncaptured),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

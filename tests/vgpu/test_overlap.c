/* SPDX-License-Identifier: Apache-2.0 */
/* Whole steps of the CUDA backend on the double: captured, overlapped, and with each of their waits
 * left out in turn. */
#include "tests/vgpu/testing.h"

#include "tests/unit/trainer/tiny_net.h"
#include "trainer/cuda/kernels.h"

extern const struct backend_ops backend_cuda;

enum { MICRO = 2, RANKS = 2, STEPS = 6, BAD_STEP = 3 };

/* It has a teacher, whose part of a step is captured too. */
static const struct tiny_case small = {"resnet8d-w8", NULL,    16,   3,     10,  4,
                                       TINY_FREE,     TINY_KD, true, MICRO, 4096};

/* A net, and a reduction on a stream of its own, as a comm has it: over two ranks that are equal.
 */
struct run {
    struct tiny tiny;
    cudaStream_t reducing;
    cudaEvent_t reduced;
    float *scratch; /* device */
    uint16_t *pixels[MICRO * 2];
    struct chunk_label *labels[MICRO * 2];
    uint64_t random;
    float *weights;
    size_t weight_count;
    double losses[STEPS], samples[STEPS];
    bool finite[STEPS];
};

static size_t pixel_count(void)
{
    return (size_t)small.batch * (size_t)small.size_px * (size_t)small.size_px *
           (size_t)small.channels;
}

static void open_run(struct run *run, bool uncaptured)
{
    const struct backend_config config = {
        .threads = 2, .precision = PRECISION_FP16, .uncaptured = uncaptured};
    *run = (struct run){.random = 7};
    if (tiny_open(&run->tiny, &backend_cuda, &config, &small, 11))
        fail_msg("%s", err_message());
    struct tiny *tiny = &run->tiny;
    assert_true(tiny->ops->slot_buckets(tiny->state) > 2);
    run->reducing = testing_stream();
    assert_int_equal(cudaEventCreateWithFlags(&run->reduced, cudaEventDisableTiming), cudaSuccess);
    run->scratch = testing_device(1 << 20);
    for (int i = 0; i < MICRO * 2; i++) {
        run->pixels[i] = tiny->ops->host_alloc(tiny->backend, pixel_count() * sizeof(uint16_t));
        run->labels[i] =
            tiny->ops->host_alloc(tiny->backend, (size_t)small.batch * sizeof(struct chunk_label));
    }
}

static void close_run(struct run *run)
{
    struct tiny *tiny = &run->tiny;
    tiny->ops->synchronise(tiny->backend);
    for (int i = 0; i < MICRO * 2; i++) {
        tiny->ops->host_free(tiny->backend, run->pixels[i]);
        tiny->ops->host_free(tiny->backend, run->labels[i]);
    }
    cudaFree(run->scratch);
    cudaEventDestroy(run->reduced);
    cudaStreamDestroy(run->reducing);
    tiny_close(tiny);
    free(run->weights);
}

/* The batch of a step in its place; what is there may be read until the step two before is done. */
static struct batch batch_of(struct run *run, int step, int micro)
{
    int place = step % 2 * MICRO + micro;
    for (size_t i = 0; i < pixel_count(); i++)
        run->pixels[place][i] = half_from_float(tiny_value(&run->random, -2, 2));
    for (int i = 0; i < small.batch; i++) {
        uint32_t class = (uint32_t)testing_random(&run->random) % (uint32_t)small.classes;
        run->labels[place][i] = (struct chunk_label){class, class, 1};
    }
    return (struct batch){run->pixels[place], run->labels[place], NULL, small.batch};
}

static void reduce_bucket(void *user, int bucket)
{
    struct run *run = user;
    struct tiny *tiny = &run->tiny;
    assert_int_equal(tiny->ops->slot_add(tiny->state, 0, 1, bucket), 0);
    struct bucket it = tiny->ops->slot_bucket(tiny->state, 0, bucket);
    assert_int_equal(cudaStreamWaitEvent(run->reducing, it.ready, 0), cudaSuccess);
    assert_int_equal(cudaMemcpyAsync(run->scratch, it.data, it.count * sizeof(float),
                                     cudaMemcpyDeviceToDevice, run->reducing),
                     cudaSuccess);
    const struct kernel_add add = {.dst = it.data, .src = run->scratch, .count = it.count};
    assert_int_equal(kernel_add(&add, run->reducing), cudaSuccess);
}

static int end_reduction(struct run *run)
{
    cudaError_t error = cudaEventRecord(run->reduced, run->reducing);
    if (!error)
        error = cudaStreamWaitEvent(run->tiny.ops->queue(run->tiny.backend), run->reduced, 0);
    return error != cudaSuccess;
}

static int queue(void *user)
{
    struct run *run = user;
    struct tiny *tiny = &run->tiny;
    int code = 0;
    for (int m = 0; m < MICRO && !code; m++)
        code =
            tiny->ops->run(tiny->program, NULL, m, 0, m == MICRO - 1 ? reduce_bucket : NULL, run);
    if (!code)
        code = end_reduction(run);
    return code ? code : tiny->ops->update(tiny->state, 0, NULL);
}

/* Another lr each step; one whose scale is too large, after which a scale that only the device can
 * choose. */
static struct step_values values_of(int step)
{
    double scale = step == BAD_STEP ? 0x1p40 : 1024;
    return (struct step_values){
        .loss_scale = {step == BAD_STEP + 1 ? 4096 : scale, scale},
        .loss_share = 1.0 / (RANKS * MICRO * small.batch),
        .update = {.lr = 0.02 * (step + 1),
                   .momentum = 0.9,
                   .weight_decay = 1e-3,
                   .micro_batches = RANKS * MICRO,
                   .skip_nonfinite = true},
    };
}

static void take(struct run *run, int step)
{
    struct batch_metrics metrics;
    assert_int_equal(run->tiny.ops->step_wait(&metrics, run->tiny.program), 0);
    run->losses[step] = metrics.loss;
    run->finite[step] = metrics.finite;
    run->samples[step] = metrics.samples;
}

static void begin_step(struct run *run, int step)
{
    struct tiny *tiny = &run->tiny;
    const struct step_values values = values_of(step);
    for (int m = 0; m < MICRO; m++) {
        const struct batch batch = batch_of(run, step, m);
        assert_int_equal(tiny->ops->step_load(tiny->program, m, &batch), 0);
    }
    if (tiny->ops->step_run(tiny->program, &values, queue, run))
        fail_msg("%s", err_message());
}

static void read_weights(struct run *run)
{
    struct tiny *tiny = &run->tiny;
    for (int pass = 0; pass < 2; pass++) {
        size_t at = 0;
        for (int i = 0; i < tiny->net->tensor_count; i++) {
            if (pass)
                assert_int_equal(
                    tiny->ops->state_get(run->weights + at, tiny->state, STATE_WEIGHT, i), 0);
            at += tiny->net->tensors[i].count;
        }
        run->weight_count = at;
        if (!pass)
            run->weights = calloc(at, sizeof *run->weights);
    }
}

/* Each step's result is taken when the next was queued, the last one's behind the weights. */
static void run_steps(struct run *run, int steps)
{
    for (int i = 0; i < steps; i++) {
        begin_step(run, i);
        if (i > 0)
            take(run, i - 1);
    }
    read_weights(run);
    take(run, steps - 1);
}

/* The same with one call after another, the host waiting behind each step. */
static void run_singly(struct run *run, int steps)
{
    struct tiny *tiny = &run->tiny;
    struct batch_metrics metrics = {.finite = true};
    for (int i = 0; i < steps; i++) {
        struct step_values values = values_of(i);
        double scale = values.loss_scale[!metrics.finite];
        values.update.grad_scale = 1 / scale;
        for (int m = 0; m < MICRO; m++) {
            const struct batch batch = batch_of(run, i, m);
            assert_int_equal(tiny->ops->run(tiny->program, &batch, m, scale * values.loss_share,
                                            m == MICRO - 1 ? reduce_bucket : NULL, run),
                             0);
        }
        assert_int_equal(end_reduction(run), 0);
        assert_int_equal(tiny->ops->update(tiny->state, 0, &values.update), 0);
        assert_int_equal(tiny->ops->metrics(&metrics, tiny->state, 0), 0);
        run->losses[i] = metrics.loss;
        run->finite[i] = metrics.finite;
        run->samples[i] = metrics.samples;
    }
    read_weights(run);
}

static void compare(const struct run *a, const struct run *b)
{
    assert_memory_equal(a->losses, b->losses, sizeof a->losses);
    for (int i = 0; i < STEPS; i++) {
        assert_true(a->samples[i] == RANKS * MICRO * small.batch);
        assert_true(b->samples[i] == a->samples[i]);
        assert_int_equal(a->finite[i], i != BAD_STEP);
        assert_int_equal(b->finite[i], i != BAD_STEP);
    }
    assert_int_equal(a->weight_count, b->weight_count);
    assert_memory_equal(a->weights, b->weights, a->weight_count * sizeof(float));
}

/* Captured, queued anew, and call by call: the same bits. */
static void test_equal(void **state)
{
    struct run captured, queued, singly;
    open_run(&captured, false);
    run_steps(&captured, STEPS);
    assert_int_equal(vgpu_counts().graphs, STEPS - 1);
    open_run(&queued, true);
    run_steps(&queued, STEPS);
    assert_int_equal(vgpu_counts().graphs, STEPS - 1);
    open_run(&singly, false);
    run_singly(&singly, STEPS);
    compare(&captured, &queued);
    compare(&captured, &singly);
    close_run(&captured);
    close_run(&queued);
    close_run(&singly);
    assert_int_equal(vgpu_counts().live_bytes, 0);
}

/* What the host asks of the runtime in a step that was captured. */
static void test_calls(void **state)
{
    struct run run;
    open_run(&run, false);
    for (int i = 0; i < 3; i++) {
        begin_step(&run, i);
        if (i > 0)
            take(&run, i - 1);
    }
    struct tiny *tiny = &run.tiny;
    double before = tiny->ops->program_seconds(tiny->program);
    double teacher_before = tiny->ops->program_seconds(tiny->teacher);
    assert_true(before > 0 && teacher_before > 0);
    vgpu_calls_reset();
    begin_step(&run, 3);
    take(&run, 2);
    assert_true(tiny->ops->program_seconds(tiny->program) > before);
    assert_true(tiny->ops->program_seconds(tiny->teacher) > teacher_before);
    const uint64_t copies = 2 * MICRO + 2; /* pixels and labels; the step's values, its report */
    assert_int_equal(vgpu_calls("cudaGraphLaunch"), 1);
    assert_int_equal(vgpu_calls("cudaMemcpyAsync"), copies);
    assert_int_equal(vgpu_calls("queued"), copies);
    assert_int_equal(vgpu_calls("cudaStreamSynchronize"), 1); /* for the step before */
    assert_int_equal(vgpu_calls(NULL), copies + 2);
    take(&run, 3);
    close_run(&run);
}

static void load(struct run *run, int step, int micro)
{
    struct tiny *tiny = &run->tiny;
    const struct batch batch = batch_of(run, step, micro);
    assert_int_equal(tiny->ops->step_load(tiny->program, micro, &batch), 0);
}

/* Buffers may be used again when their copies are done, which is before the step is: nothing but
 * copies runs meanwhile. Only when it is asked for the first time the step is waited for. */
static void test_inputs_read(void **state)
{
    struct run run;
    open_run(&run, false);
    struct tiny *tiny = &run.tiny;
    for (int i = 0; i < STEPS; i++) {
        const struct step_values values = values_of(i);
        for (int m = 0; m < MICRO; m++) {
            load(&run, i, m);
            struct vgpu_counts before = vgpu_counts();
            assert_int_equal(tiny->ops->inputs_read(tiny->program), 0);
            assert_true(vgpu_counts().kernels == before.kernels);
            assert_true(vgpu_counts().copies > before.copies);
            memset(run.pixels[i % 2 * MICRO + m], 0xff, pixel_count() * sizeof(uint16_t));
        }
        assert_int_equal(tiny->ops->step_run(tiny->program, &values, queue, &run), 0);
        if (i > 0)
            take(&run, i - 1);
    }
    take(&run, STEPS - 1);
    read_weights(&run);
    struct run whole;
    open_run(&whole, false);
    run_steps(&whole, STEPS);
    compare(&run, &whole);
    close_run(&run);
    close_run(&whole);
}

/* Between captured steps, while one is under way, everything else that a program may ask for: it is
 * behind the steps before and before those behind. */
static void test_between(void **state)
{
    struct run plain, asked;
    open_run(&plain, false);
    run_steps(&plain, STEPS);
    open_run(&asked, false);
    struct tiny *tiny = &asked.tiny;
    struct state *average = NULL;
    assert_int_equal(tiny->ops->state_open(&average, tiny->backend, tiny->net, 1), 0);
    float *values = calloc(1 << 16, sizeof *values);
    for (int i = 0; i < STEPS; i++) {
        begin_step(&asked, i);
        switch (i) {
        case 1:
        case 2:
            assert_int_equal(tiny->ops->state_average(average, tiny->state, 0.5), 0);
            break;
        case 3:
            assert_int_equal(tiny->ops->state_get(values, tiny->state, STATE_WEIGHT, 0), 0);
            assert_int_equal(tiny->ops->state_set(tiny->state, STATE_WEIGHT, 0, values), 0);
            break;
        case 4:
            assert_int_equal(tiny->ops->slot_get(values, tiny->state, 0, 0), 0);
            break;
        default:
            break;
        }
        if (i > 0)
            take(&asked, i - 1);
    }
    take(&asked, STEPS - 1);
    read_weights(&asked);
    compare(&plain, &asked);
    free(values);
    tiny->ops->state_close(average);
    close_run(&plain);
    close_run(&asked);
}

/* Three steps with overlap, and one of the waits left out. */
static int left_out;
static bool uncaptured;
static struct run whole;

static void three_steps(void)
{
    struct run run;
    open_run(&run, uncaptured);
    vgpu_waits_reset(left_out);
    run_steps(&run, 3);
    vgpu_waits_reset(-1);
    cudaDeviceSynchronize(); /* what nobody waited for */
    if (memcmp(run.losses, whole.losses, sizeof run.losses) != 0 ||
        memcmp(run.weights, whole.weights, run.weight_count * sizeof(float)) != 0) {
        fprintf(stderr, "vgpu: the results differ\n");
        abort();
    }
}

static void leave_out_each(bool queued_anew)
{
    uncaptured = queued_anew;
    open_run(&whole, uncaptured);
    vgpu_waits_reset(-1);
    run_steps(&whole, 3);
    int waits = vgpu_waits();
    for (left_out = 0; left_out < waits; left_out++)
        testing_dies(three_steps, "vgpu: "); /* a line of the double, or of three_steps */
    printf("%d waits in three steps (%s), each one needed\n", waits,
           queued_anew ? "queued anew" : "captured");
    close_run(&whole);
}

static void test_waits(void **state)
{
    leave_out_each(false);
    leave_out_each(true);
}

/* Runs timed by step of the schedule: each of them is told, with what it has to do. */
static void test_profile(void **state)
{
    struct run run;
    struct profile_line lines[512];
    double flops = 0;
    open_run(&run, false);
    struct tiny *tiny = &run.tiny;
    assert_int_equal(tiny->ops->profile_read(lines, 512, tiny->program), 0);
    assert_int_equal(tiny->ops->profile_start(tiny->program), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(tiny_run(tiny), 0);
    int count = tiny->ops->profile_read(lines, 512, tiny->program);
    assert_in_range(count, 20, 511);
    for (int i = 0; i < count; i++) {
        assert_true(fabs(lines[i].seconds - 2e-3) < 1e-6); /* an event of the double takes 1 ms */
        assert_non_null(lines[i].work);
        if (strcmp(lines[i].work, "convolution") == 0)
            assert_true(lines[i].bytes > 0);
        flops += lines[i].flops;
    }
    /* Forward, data's and weights' gradient, with channels padded; the first has no data's. */
    double macs = (double)net_macs(tiny->net) * small.batch;
    assert_true(flops > 4 * macs && flops < 12 * macs);
    assert_int_equal(tiny->ops->profile_start(tiny->program), 0);
    tiny->ops->profile_read(lines, 512, tiny->program);
    assert_true(lines[0].seconds == 0);
    close_run(&run);
}

/* What is planned, and printed, is what is taken. */
static void test_memory_plan(void **state)
{
    static const struct tiny_case net = {"resnet18d-w16", NULL,        32,    3,     10,     16,
                                         TINY_FREE,       TINY_SMOOTH, false, MICRO, 1 << 20};
    const struct backend_config config = {.threads = 2, .precision = PRECISION_FP16};
    struct tiny tiny;
    assert_int_equal(tiny_open(&tiny, &backend_cuda, &config, &net, 5), 0);
    uint64_t with = vgpu_counts().live_bytes, planned = tiny.ops->program_bytes(tiny.program);
    tiny.ops->program_close(tiny.program);
    tiny.program = NULL;
    double taken = (double)(with - vgpu_counts().live_bytes);
    printf("planned %.2f MiB, taken %.2f\n", (double)planned / (1 << 20), taken / (1 << 20));
    assert_true(fabs((double)planned - taken) <= 0.05 * taken);
    tiny_close(&tiny);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal),       cmocka_unit_test(test_calls),
        cmocka_unit_test(test_inputs_read), cmocka_unit_test(test_between),
        cmocka_unit_test(test_profile),     cmocka_unit_test(test_memory_plan),
        cmocka_unit_test(test_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

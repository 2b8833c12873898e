/* SPDX-License-Identifier: Apache-2.0 */
/* satchel-bench-step: how fast this machine trains: whole steps (forward, loss, backward, update)
 * on synthetic data, without loaders. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/half.h"
#include "common/log.h"
#include "common/opt.h"
#include "common/stop.h"
#include "proto/philox.h"
#include "proto/recipe.h"
#include "tools/bench_profile.h"
#include "trainer/backend.h"
#include "trainer/openmp.h"

enum { MAX_STEPS = 100000 };

struct values {
    const char *model, *device, *backend, *precision, *fusion, *autotune, *cuda_graph;
    int64_t batch, threads, size, channels, classes, steps, warmup;
    bool profile, infer;
};

static const struct opt options[] = {
    {"model", OPT_STRING, offsetof(struct values, model), .fallback = "resnet50a",
     .value_name = "NAME", .help = "the network, as satchel-trainer names it"},
    {"batch", OPT_INT, offsetof(struct values, batch), .fallback = "32", .min = 1, .max = 65536,
     .value_name = "N", .help = "images of a step"},
    {"size", OPT_INT, offsetof(struct values, size), .fallback = "224", .min = 1,
     .max = SPEC_MAX_SIZE_PX, .value_name = "PX", .help = "side of the images"},
    {"channels", OPT_INT, offsetof(struct values, channels), .fallback = "3", .min = 1, .max = 3,
     .value_name = "N", .help = "channels of the images"},
    {"classes", OPT_INT, offsetof(struct values, classes), .fallback = "1000", .min = 2,
     .max = 1000000, .value_name = "N", .help = "classes of the labels"},
    {"device", OPT_CHOICE, offsetof(struct values, device), .fallback = "auto",
     .choices = "auto|cpu|cuda", .help = "where the network runs"},
    {"backend", OPT_CHOICE, offsetof(struct values, backend), .fallback = "auto",
     .choices = "auto|ref|dnnl|cuda",
     .help = "what runs it; auto takes the fastest that works here"},
    {"precision", OPT_CHOICE, offsetof(struct values, precision), .fallback = "fp32",
     .choices = "fp32|bf16|fp16", .help = "of activations and gradients"},
    {"fusion", OPT_CHOICE, offsetof(struct values, fusion), .fallback = "auto",
     .choices = "auto|none|prologue|block",
     .help = "how much of batch normalisation a GPU's convolutions take over"},
    {"autotune", OPT_STRING, offsetof(struct values, autotune), .value_name = "FILE",
     .help = "time the GPU library's engines first and keep the choice in FILE"},
    {"cuda-graph", OPT_CHOICE, offsetof(struct values, cuda_graph), .fallback = "yes",
     .choices = "yes|no", .help = "run each step on a GPU as one CUDA graph"},
    {"threads", OPT_INT, offsetof(struct values, threads), .fallback = "0", .min = 0, .max = 1024,
     .value_name = "N", .help = "threads of a CPU backend; 0: all that the process may use"},
    {"steps", OPT_INT, offsetof(struct values, steps), .fallback = "10", .min = 1, .max = MAX_STEPS,
     .value_name = "N", .help = "steps that are timed; the median counts"},
    {"warmup", OPT_INT, offsetof(struct values, warmup), .fallback = "2", .min = 0,
     .max = MAX_STEPS, .value_name = "N", .help = "steps before those"},
    {"infer", OPT_FLAG, offsetof(struct values, infer),
     .help = "time inference (a forward with running statistics, as evaluation does) instead"},
    {"profile", OPT_FLAG, offsetof(struct values, profile),
     .help = "also print where the time goes, by kind of work and by node, beside what the machine "
             "does at best"},
};

struct bench {
    const struct values *values;
    const struct backend_ops *ops;
    struct backend *backend;
    struct net *net;
    struct state *state;
    struct program *program;
    uint16_t *pixels;           /* [batch][size][size][channels] */
    struct chunk_label *labels; /* [batch] */
    double *step_s;             /* [steps] */
    double update_s;            /* of all those */
    bool under_way;             /* a step whose result nobody has asked for */
};

/* Noise of about the range of normalised images. */
static void fill_batch(struct bench *bench)
{
    const struct values *values = bench->values;
    size_t count = (size_t)(values->batch * values->size * values->size * values->channels);
    const uint32_t key[2] = {0, 0};
    for (size_t i = 0; i < count; i += 4) {
        const uint32_t counter[4] = {(uint32_t)i, (uint32_t)((uint64_t)i >> 32), 0, 0};
        struct philox_block block = philox(counter, key);
        for (size_t k = 0; k < 4 && i + k < count; k++)
            bench->pixels[i + k] = half_from_float((float)block.word[k] * 0x1p-30f - 2);
    }
    for (int64_t i = 0; i < values->batch; i++) {
        uint32_t class = (uint32_t)i * 7919 % (uint32_t)values->classes;
        bench->labels[i] = (struct chunk_label){class, class, 1};
    }
}

static int fill_state(struct bench *bench)
{
    int code = 0;
    for (int i = 0; i < bench->net->tensor_count && !code; i++) {
        const struct tensor *tensor = &bench->net->tensors[i];
        float *values = malloc(tensor->count * sizeof *values);
        if (!values)
            return err_set(ERR_NOMEM, "out of memory for %s", tensor->name);
        net_init_tensor(values, tensor, "xavier", false, 0);
        code = bench->ops->state_set(bench->state, STATE_WEIGHT, i, values);
        free(values);
    }
    return code;
}

static enum precision precision_of(const char *name)
{
    return strcmp(name, "fp32") == 0   ? PRECISION_FP32
           : strcmp(name, "bf16") == 0 ? PRECISION_BF16
                                       : PRECISION_FP16;
}

static int open_bench(struct bench *bench, const struct values *values)
{
    const struct backend_config config = {.threads = (int)values->threads,
                                          .precision = precision_of(values->precision),
                                          .tune_path = values->autotune,
                                          .fusion = backend_fusion(values->fusion),
                                          .uncaptured = strcmp(values->cuda_graph, "no") == 0};
    const struct program_config program = {.mode = values->infer ? PROGRAM_INFER : PROGRAM_TRAIN,
                                           .batch = (int)values->batch};
    size_t pixels = (size_t)(values->batch * values->size * values->size * values->channels);
    bench->values = values;
    int code = backend_open(&bench->backend, &bench->ops, values->device, values->backend, &config);
    if (!code)
        code = net_open(&bench->net, values->model, (int)values->size, (int)values->channels,
                        (int)values->classes);
    if (!code)
        code = bench->ops->state_open(&bench->state, bench->backend, bench->net, 1);
    if (!code)
        code = bench->ops->program_open(&bench->program, bench->state, &program);
    if (code)
        return code;
    bench->pixels = bench->ops->host_alloc(bench->backend, pixels * sizeof *bench->pixels);
    bench->labels =
        bench->ops->host_alloc(bench->backend, (size_t)values->batch * sizeof *bench->labels);
    bench->step_s = calloc((size_t)values->steps, sizeof *bench->step_s);
    if (!bench->pixels || !bench->labels || !bench->step_s)
        return err_set(ERR_NOMEM, "out of memory for a batch of %lld images",
                       (long long)values->batch);
    fill_batch(bench);
    return fill_state(bench);
}

static void close_bench(struct bench *bench)
{
    if (bench->ops) {
        bench->ops->program_close(bench->program);
        bench->ops->state_close(bench->state);
        bench->ops->host_free(bench->backend, bench->pixels);
        bench->ops->host_free(bench->backend, bench->labels);
        bench->ops->close(bench->backend);
    }
    net_close(bench->net);
    free(bench->step_s);
}

static const struct update update = {
    .lr = 1e-3, .momentum = 0.9, .weight_decay = 1e-4, .grad_scale = 1, .micro_batches = 1};

static struct batch batch_of(const struct bench *bench)
{
    return (struct batch){bench->pixels, bench->labels, NULL, (int)bench->values->batch};
}

static int queue_step(void *user)
{
    struct bench *bench = user;
    int code = bench->ops->run(bench->program, NULL, 0, 0, NULL, NULL);
    return code ? code : bench->ops->update(bench->state, 0, NULL);
}

static int finish_step(struct bench *bench)
{
    struct batch_metrics metrics;
    if (!bench->under_way)
        return 0;
    bench->under_way = false;
    return bench->ops->step_wait(&metrics, bench->program);
}

/* As the trainer does: queued, then the one before is waited for. */
static int step_ahead(struct bench *bench)
{
    const struct batch batch = batch_of(bench);
    const struct step_values values = {
        .loss_scale = {1, 1}, .loss_share = 1.0 / (double)bench->values->batch, .update = update};
    int code = bench->ops->step_load(bench->program, 0, &batch);
    if (!code)
        code = bench->ops->step_run(bench->program, &values, queue_step, bench);
    if (!code)
        code = finish_step(bench);
    bench->under_way = !code;
    return code;
}

static int step(struct bench *bench)
{
    const struct batch batch = batch_of(bench);
    if (bench->ops->step_run && !bench->values->profile && !bench->values->infer)
        return step_ahead(bench);
    int code =
        bench->ops->run(bench->program, &batch, 0, 1.0 / (double)bench->values->batch, NULL, NULL);
    double begin_s = clock_seconds();
    if (!code && !bench->values->infer)
        code = bench->ops->update(bench->state, 0, &update);
    bench->update_s += clock_seconds() - begin_s;
    return code ? code : bench->ops->synchronise(bench->backend);
}

static int measure(struct bench *bench)
{
    const struct values *values = bench->values;
    for (int64_t i = -values->warmup; i < values->steps; i++) {
        if (stop_requested())
            return err_set(ERR_STOPPED, "stopped before the measurement was complete");
        int code = 0;
        if (i == 0) {
            bench->update_s = 0;
            if (values->profile && bench->ops->profile_start)
                code = bench->ops->profile_start(bench->program);
        }
        double begin = clock_seconds();
        if (!code)
            code = step(bench);
        if (code)
            return code;
        if (i >= 0)
            bench->step_s[i] = clock_seconds() - begin;
    }
    return finish_step(bench);
}

static int print_profile(struct bench *bench)
{
    struct bench_profile_times times = {.steps = (int)bench->values->steps,
                                        .update_s = bench->update_s};
    for (int i = 0; i < times.steps; i++)
        times.step_s += bench->step_s[i];
    return bench_profile_print(bench->ops, bench->backend, bench->program, bench->net, &times);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of the process so far, as the kernel counts it. */
static double peak_bytes(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (double)usage.ru_maxrss * 1024 : 0;
}

/* What the device holds for the step, or this process. */
static double memory_of(const struct bench *bench)
{
    bool on_device = strcmp(bench->ops->device, "cuda") == 0;
    return on_device ? (double)bench->ops->program_bytes(bench->program) : peak_bytes();
}

static void print(struct bench *bench, bool json)
{
    const struct values *values = bench->values;
    qsort(bench->step_s, (size_t)values->steps, sizeof *bench->step_s, by_value);
    double median_s =
        (bench->step_s[(values->steps - 1) / 2] + bench->step_s[values->steps / 2]) / 2;
    double rate = (double)values->batch / median_s;
    printf("%s, batch %lld, %lld px: %.1f images/s, %.1f ms a step (median of %lld, least %.1f), "
           "peak memory %.0f MiB (%s)\n",
           values->model, (long long)values->batch, (long long)values->size, rate, median_s * 1e3,
           (long long)values->steps, bench->step_s[0] * 1e3, memory_of(bench) / (1 << 20),
           bench->ops->describe(bench->backend));
    if (json)
        printf("{\"images_per_second\": %.2f, \"step_ms\": %.3f, \"peak_bytes\": %.0f}\n", rate,
               median_s * 1e3, memory_of(bench));
}

int main(int argc, char **argv)
{
    openmp_limit_spinning(argv);
    struct values values;
    struct bench bench = {0};
    struct opt_section section = {"Step", options, ARRAY_COUNT(options), &values, false};
    struct opt_program program = {
        .name = "satchel-bench-step",
        .usage = "[OPTIONS]",
        .summary = "Times whole training steps on synthetic data, without loaders.",
        .sections = &section,
        .section_count = 1,
        .json = true,
    };
    log_open(program.name);
    int code = opt_parse(&program, argc, argv);
    if (!code && !program.finished) {
        stop_install(false);
        code = open_bench(&bench, &values);
        if (!code)
            code = measure(&bench);
        if (!code && values.profile)
            code = print_profile(&bench);
        if (!code)
            print(&bench, program.json_wanted);
    }
    int status = opt_end(&program, code); /* first: closing may fail as well */
    close_bench(&bench);
    return status;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* satchel-bench-loader: how fast this machine makes samples: the whole path from record to fp16
 * pixels, without network. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/log.h"
#include "common/opt.h"
#include "common/stop.h"
#include "datasets/fault.h"
#include "loader/sample.h"
#include "proto/recipe.h"

struct values {
    int64_t threads;
    double seconds;
    const char *decoder;
};

static const struct opt options[] = {
    {"threads", OPT_INT, offsetof(struct values, threads), .fallback = "0", .min = 0, .max = 1024,
     .value_name = "N", .help = "builder threads; 0: one per core"},
    {"seconds", OPT_REAL, offsetof(struct values, seconds), .fallback = "10", .min = 0.1,
     .max = 86400, .value_name = "S", .help = "how long to measure"},
    {"decoder", OPT_CHOICE, offsetof(struct values, decoder), .fallback = "auto",
     .choices = "auto|reference|indexed", .help = "which JPEG decoder; the pixels are the same"},
};

/* Where threads wait until all of them are warm. */
struct gate {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int waiting;          /* under lock, as all below */
    bool open, cancelled; /* cancelled: not every thread could be started */
};

/* What all threads share. */
struct bench {
    const struct store *store;
    struct spec spec;
    enum decoder_choice decoder;
    uint64_t chunks;           /* of an epoch */
    atomic_uint_fast64_t next; /* chunk to be built, over all epochs */
    struct gate start;         /* opens when every thread has built one chunk: buffers are there */
    double seconds;
};

struct thread {
    pthread_t handle;
    struct bench *bench;
    uint64_t images, replaced;
    double cpu_seconds, end; /* end: clock_seconds() */
    int code;
    char message[1024];
};

struct totals {
    uint64_t images, replaced;
    double seconds, cpu_seconds;
};

/* False when there will be no measurement. */
static bool gate_pass(struct gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    gate->waiting++;
    pthread_cond_broadcast(&gate->changed);
    while (!gate->open)
        pthread_cond_wait(&gate->changed, &gate->lock);
    bool go = !gate->cancelled;
    pthread_mutex_unlock(&gate->lock);
    return go;
}

/* Waits for `threads` of them and lets them through. */
static void gate_open(struct gate *gate, int threads, bool cancelled)
{
    pthread_mutex_lock(&gate->lock);
    while (gate->waiting < threads)
        pthread_cond_wait(&gate->changed, &gate->lock);
    gate->open = true;
    gate->cancelled = cancelled;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->lock);
}

static double thread_cpu_seconds(void)
{
    struct timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static int build_next(struct bench *bench, struct builder *builder, struct chunk_build *build)
{
    uint64_t number = atomic_fetch_add(&bench->next, 1);
    return builder_chunk(builder, build, bench->store, &bench->spec,
                         (uint32_t)(number / bench->chunks), number % bench->chunks, false);
}

static int measure(struct thread *thread, struct builder *builder, struct chunk_build *build,
                   double begin)
{
    struct bench *bench = thread->bench;
    double cpu_begin = thread_cpu_seconds();
    int code = 0;
    do {
        code = build_next(bench, builder, build);
        thread->images += build->samples;
        thread->replaced += build->substituted + build->masked;
        thread->end = clock_seconds();
    } while (!code && thread->end - begin < bench->seconds && !stop_requested());
    thread->cpu_seconds = thread_cpu_seconds() - cpu_begin;
    return code;
}

static void *run_thread(void *argument)
{
    struct thread *thread = argument;
    struct bench *bench = thread->bench;
    struct builder *builder = NULL;
    size_t samples = bench->spec.chunk_size;
    struct chunk_build build = {
        .labels = malloc(samples * chunk_label_bytes_of(&bench->spec)),
        .pixels = malloc(samples * spec_sample_bytes(&bench->spec)),
        .ids = malloc(samples * sizeof *build.ids),
    };
    int code = builder_open(&builder, bench->decoder);
    if (!code && (!build.labels || !build.pixels || !build.ids))
        code = err_set(ERR_NOMEM, "out of memory for a chunk");
    if (!code)
        code = build_next(bench, builder, &build);
    if (gate_pass(&bench->start) && !code)
        code = measure(thread, builder, &build, clock_seconds());
    thread->code = code;
    if (code)
        snprintf(thread->message, sizeof thread->message, "%s", err_message());
    builder_close(builder);
    free(build.labels);
    free(build.pixels);
    free(build.ids);
    return NULL;
}

static int cores(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

/* All or none. */
static int start_threads(struct bench *bench, struct thread *threads, int count)
{
    for (int i = 0; i < count; i++) {
        threads[i].bench = bench;
        int error = pthread_create(&threads[i].handle, NULL, run_thread, &threads[i]);
        if (!error)
            continue;
        gate_open(&bench->start, i, true);
        while (i-- > 0)
            pthread_join(threads[i].handle, NULL);
        return err_set(ERR_IO, "cannot start %d threads: %s", count, strerror(error));
    }
    return 0;
}

static int bench_run(struct totals *totals, struct bench *bench, int count)
{
    struct thread *threads = calloc((size_t)count, sizeof *threads);
    if (!threads)
        return err_set(ERR_NOMEM, "out of memory for %d threads", count);
    int code = start_threads(bench, threads, count);
    if (code) {
        free(threads);
        return code;
    }
    gate_open(&bench->start, count, false);
    double begin = clock_seconds(), end = begin;
    for (int i = 0; i < count; i++) {
        const struct thread *thread = &threads[i];
        pthread_join(thread->handle, NULL);
        totals->images += thread->images;
        totals->replaced += thread->replaced;
        totals->cpu_seconds += thread->cpu_seconds;
        end = thread->end > end ? thread->end : end;
        if (thread->code)
            code = err_set(thread->code, "%s", thread->message);
    }
    totals->seconds = end - begin;
    free(threads);
    return code;
}

static void print(const struct totals *totals, int threads, bool json)
{
    double rate = (double)totals->images / totals->seconds;
    double cpu_rate = (double)totals->images / totals->cpu_seconds;
    printf("%.0f images/s on %d thread%s, %.0f a second of processor time (%llu images in %.1f s, "
           "%llu of them replaced or masked)\n",
           rate, threads, threads == 1 ? "" : "s", cpu_rate, (unsigned long long)totals->images,
           totals->seconds, (unsigned long long)totals->replaced);
    if (json)
        printf("{\"images_per_second\": %.1f, \"images_per_cpu_second\": %.1f, \"threads\": %d}\n",
               rate, cpu_rate, threads);
}

static int run(const struct opt_program *program, const struct values *values,
               const struct recipe *recipe)
{
    struct store *store = NULL;
    struct totals totals = {0};
    struct bench bench = {.decoder = builder_decoder_of(values->decoder),
                          .start = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER},
                          .seconds = values->seconds};
    int threads = values->threads ? (int)values->threads : cores();
    int code = recipe_check(recipe, 1);
    if (!code)
        code = store_open(&store, program->positional[0]);
    if (!code && bench.decoder == DECODER_INDEXED && !store_meta(store)->indexed)
        code = err_set(ERR_UNSUPPORTED, "%s has no side index: pack it with --index",
                       store_path(store));
    if (!code)
        code = recipe_train_spec(&bench.spec, recipe, store_meta(store)->channels);
    if (!code) {
        bench.store = store;
        bench.chunks = chunk_total(&bench.spec, store_meta(store)->sample_count);
        code = bench_run(&totals, &bench, threads);
    }
    if (!code)
        print(&totals, threads, program->json_wanted);
    store_close(store);
    return code;
}

int main(int argc, char **argv)
{
    struct values values;
    struct recipe recipe;
    struct opt_section sections[] = {{"Bench", options, ARRAY_COUNT(options), &values, false},
                                     recipe_section(&recipe)};
    struct opt_program program = {
        .name = "satchel-bench-loader",
        .usage = "FILE.lmdb [--threads N] [--seconds S] [--recipe FILE.ini] [OPTIONS]",
        .summary = "Builds successive chunks of the training stream on all threads, without "
                   "network, and prints the rate.",
        .sections = sections,
        .section_count = ARRAY_COUNT(sections),
        .min_positional = 1,
        .max_positional = 1,
        .find_recipe = recipe_find,
        .foreign_keys = recipe_foreign_keys(),
        .json = true,
    };
    log_open(program.name);
    fault_install();
    int code = opt_parse(&program, argc, argv);
    if (!code && !program.finished) {
        stop_install(false);
        code = run(&program, &values, &recipe);
    }
    return opt_end(&program, code);
}

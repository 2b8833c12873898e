/* SPDX-License-Identifier: Apache-2.0 */
/* The stream once more: the chunks of an epoch, by several threads, their hashes added. */
#include "tools/replay.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>

#include "common/err.h"
#include "common/progress.h"
#include "common/stop.h"
#include "loader/sample.h"
#include "proto/receipt.h"

enum { JOBS_MAX = 1024, MESSAGE_BYTES = 1024 };

/* What the threads share. */
struct work {
    struct replay *replay;
    const struct store *store;
    struct progress *progress;
    pthread_mutex_t lock;
    /* Owner: lock. */
    uint64_t next, samples;
    int code;
    char message[MESSAGE_BYTES];
};

/* ---- which chunks ---- */

static bool read_number(uint64_t *number, const char **text)
{
    char *end;
    errno = 0;
    if (**text < '0' || **text > '9')
        return false;
    *number = strtoull(*text, &end, 10);
    *text = end;
    return errno == 0;
}

static int read_what(struct replay *replay)
{
    const char *at = replay->what;
    uint64_t epoch;
    bool good = read_number(&epoch, &at) && epoch <= UINT32_MAX;
    replay->count = 0;
    if (good && *at == ':') {
        at++;
        good = read_number(&replay->first, &at);
        replay->count = 1;
    }
    if (!good || *at)
        return err_set(ERR_ARG, "--replay %s: expected EPOCH or EPOCH:CHUNK, counted from 0",
                       replay->what);
    replay->epoch = (uint32_t)epoch;
    return 0;
}

/* All chunks that an epoch's receipt covers. */
static int choose_chunks(struct replay *replay, const struct store *store,
                         const struct recipe *recipe)
{
    uint32_t samples = store_meta(store)->sample_count;
    uint64_t total = chunk_total(&replay->spec, samples);
    if (replay->count == 1 && replay->first < total)
        return 0;
    if (replay->count == 1)
        return err_set(ERR_ARG, "--replay %s: an epoch of this store has %" PRIu64 " chunks of %u",
                       replay->what, total, replay->spec.chunk_size);
    uint64_t batch = (uint64_t)recipe->total_batch;
    replay->first = 0;
    replay->count =
        replay->val ? total : chunk_steps(samples, batch) * batch / replay->spec.chunk_size;
    return replay->count > 0 ? 0
                             : err_set(ERR_ARG, "%s: %u samples are less than a step of %" PRIu64,
                                       store_path(store), samples, batch);
}

/* ---- the threads ---- */

/* False: nothing is left to do. */
static bool take_chunk(uint64_t *chunk, struct work *work)
{
    pthread_mutex_lock(&work->lock);
    bool taken = !work->code && !stop_requested() && work->next < work->replay->count;
    *chunk = work->replay->first + work->next;
    work->next += taken;
    pthread_mutex_unlock(&work->lock);
    return taken;
}

static void add_chunk(struct work *work, const struct chunk_build *build, uint64_t chunk)
{
    struct replay *replay = work->replay;
    struct hash128 hash =
        receipt_of_chunk(spec_hash(&replay->spec), replay->epoch, chunk, build->labels,
                         build->samples * chunk_label_bytes_of(&replay->spec), build->pixels,
                         build->samples * spec_sample_bytes(&replay->spec));
    pthread_mutex_lock(&work->lock);
    replay->receipt = hash128_add(replay->receipt, hash);
    replay->substituted += build->substituted;
    replay->masked += build->masked;
    work->samples += build->samples;
    progress_update(work->progress, work->samples, NULL);
    pthread_mutex_unlock(&work->lock);
}

static int build_chunks(struct work *work, struct builder *builder, struct chunk_build *build)
{
    uint64_t chunk;
    int code = 0;
    while (!code && take_chunk(&chunk, work)) {
        code = builder_chunk(builder, build, work->store, &work->replay->spec, work->replay->epoch,
                             chunk, false);
        if (!code)
            add_chunk(work, build, chunk);
    }
    return code;
}

static void *run_thread(void *argument)
{
    struct work *work = argument;
    const struct spec *spec = &work->replay->spec;
    struct builder *builder = NULL;
    struct chunk_build build = {
        .labels = malloc(spec->chunk_size * chunk_label_bytes_of(spec)),
        .pixels = malloc(spec->chunk_size * spec_sample_bytes(spec)),
        .ids = malloc(spec->chunk_size * sizeof *build.ids),
        .isolate = work->replay->isolate,
    };
    int code = builder_open(&builder, DECODER_AUTO);
    if (!code && (!build.labels || !build.pixels || !build.ids))
        code = err_set(ERR_NOMEM, "out of memory for a chunk");
    if (!code)
        code = build_chunks(work, builder, &build);
    pthread_mutex_lock(&work->lock);
    if (code && !work->code) {
        work->code = code;
        snprintf(work->message, sizeof work->message, "%s", err_message());
    }
    pthread_mutex_unlock(&work->lock);
    builder_close(builder);
    free(build.labels);
    free(build.pixels);
    free(build.ids);
    return NULL;
}

static int run_threads(struct work *work)
{
    static pthread_t threads[JOBS_MAX];
    int jobs = work->replay->jobs ? work->replay->jobs : get_nprocs(), started = 0, failed = 0;
    if ((uint64_t)jobs > work->replay->count)
        jobs = (int)work->replay->count;
    while (started < jobs && started < JOBS_MAX && !failed) {
        failed = pthread_create(&threads[started], NULL, run_thread, work);
        started += !failed;
    }
    for (int i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    if (work->code)
        return err_set(work->code, "%s", work->message);
    if (started == 0)
        return err_set(ERR_IO, "cannot start a thread: %s", strerror(failed));
    return stop_requested() ? err_set(ERR_STOPPED, "stopped on request") : 0;
}

int replay_run(struct replay *replay, const struct store *store, const struct recipe *recipe)
{
    unsigned channels = store_meta(store)->channels;
    int code = read_what(replay);
    if (!code)
        code = recipe_check(recipe, 1);
    if (!code)
        code = replay->val ? recipe_eval_spec(&replay->spec, recipe, channels)
                           : recipe_train_spec(&replay->spec, recipe, channels);
    if (!code)
        code = choose_chunks(replay, store, recipe);
    if (code)
        return code;
    struct work work = {.replay = replay, .store = store, .lock = PTHREAD_MUTEX_INITIALIZER};
    replay->receipt = (struct hash128){0, 0};
    replay->substituted = replay->masked = 0;
    work.progress = progress_open("replaying", replay->count * replay->spec.chunk_size, "images");
    code = run_threads(&work);
    progress_close(work.progress);
    return code;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The plans of a device. */
#include <cuda_runtime_api.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/log.h"
#include "common/progress.h"
#include "common/stop.h"
#include "trainer/cuda/plan_build.h"

enum { THREADS_MAX = 16, MESSAGE_BYTES = 1024 };

struct plans {
    struct plan_device device;
    cudnnBackendDescriptor_t description; /* of a device that is not there */
    struct plan **all;
    int count, room, built;

    /* One for each thread that builds: plans may refer to the handle that they were made with. */
    cudnnHandle_t handles[THREADS_MAX];

    /* During plans_build, under the lock. */
    pthread_mutex_t lock;
    pthread_cond_t moved;
    int next, done, workers, working;
    int code;
    char message[MESSAGE_BYTES];
};

static int describe_device(struct plans *plans)
{
    struct describe describe = {.count = 0};
    const char *text = plans->device.description;
    plans->description = describe_new(&describe, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
    describe_set(&describe, plans->description, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION,
                 CUDNN_TYPE_CHAR, (int64_t)strlen(text), text);
    describe_finalize(&describe, plans->description);
    if (!describe.status)
        return 0;
    describe_release(&describe, 0);
    plans->description = NULL;
    return err_set(ERR_ARG, "cuDNN does not take the device's description: %.300s",
                   describe.reason);
}

int plans_open(struct plans **out, const struct plan_device *device)
{
    *out = NULL;
    struct plans *plans = calloc(1, sizeof *plans);
    if (!plans)
        return err_set(ERR_NOMEM, "no memory for cuDNN's plans");
    plans->device = *device;
    pthread_mutex_init(&plans->lock, NULL);
    pthread_cond_init(&plans->moved, NULL);
    describe_listen();
    int code = device->present ? 0 : describe_device(plans);
    if (code) {
        plans_close(plans);
        return code;
    }
    *out = plans;
    return 0;
}

void plans_close(struct plans *plans)
{
    if (!plans)
        return;
    for (int i = 0; i < plans->count; i++) {
        plan_release(plans->all[i]);
        free(plans->all[i]);
    }
    if (plans->description)
        cudnnBackendDestroyDescriptor(plans->description);
    for (int i = 0; i < THREADS_MAX; i++)
        if (plans->handles[i])
            cudnnDestroy(plans->handles[i]);
    pthread_mutex_destroy(&plans->lock);
    pthread_cond_destroy(&plans->moved);
    free(plans->all);
    free(plans);
}

static int find(const struct plans *plans, const struct graph_spec *spec)
{
    for (int i = 0; i < plans->count; i++)
        if (memcmp(&plans->all[i]->spec, spec, sizeof *spec) == 0)
            return i;
    return -1;
}

bool plans_refused(const struct plans *plans, const struct graph_spec *spec)
{
    int there = find(plans, spec);
    return there >= 0 && plans->all[there]->refused;
}

int plans_want(struct plans *plans, const struct graph_spec *spec)
{
    int there = find(plans, spec);
    if (there >= 0)
        return there;
    if (plans->count == plans->room) {
        int room = plans->room ? 2 * plans->room : 64;
        struct plan **all = realloc(plans->all, (size_t)room * sizeof *all);
        if (!all)
            return -1;
        plans->all = all;
        plans->room = room;
    }
    struct plan *plan = calloc(1, sizeof *plan);
    if (!plan)
        return -1;
    plan->spec = *spec;
    plans->all[plans->count] = plan;
    return plans->count++;
}

struct plan *plans_plan(struct plans *plans, int number)
{
    return plans->all[number];
}

const struct plan *plans_get(const struct plans *plans, int number)
{
    return plans->all[number];
}

int plans_count(const struct plans *plans)
{
    return plans->count;
}

/* Of this thread, number `worker`. */
static int open_context(struct plan_context *context, struct plans *plans, int worker)
{
    *context = (struct plan_context){.device = plans->description,
                                     .workspace_limit = plans->device.workspace_limit};
    if (!plans->device.present)
        return 0;
    cudnnHandle_t *handle = &plans->handles[worker];
    if (cudaSetDevice(plans->device.ordinal) != cudaSuccess ||
        (!*handle && cudnnCreate(handle) != CUDNN_STATUS_SUCCESS))
        return err_set(ERR_UNSUPPORTED, "cuDNN cannot be opened on GPU %d in another thread",
                       plans->device.ordinal);
    context->handle = *handle;
    return 0;
}

/* The next plan to build, -1 when none is left or one has failed. */
static int take(struct plans *plans, int finished)
{
    int number = -1;
    pthread_mutex_lock(&plans->lock);
    plans->done += finished;
    if (!plans->code && stop_requested())
        plans->code = ERR_STOPPED;
    if (!plans->code && plans->next < plans->count)
        number = plans->next++;
    pthread_cond_signal(&plans->moved);
    pthread_mutex_unlock(&plans->lock);
    return number;
}

static void fail(struct plans *plans, int code)
{
    pthread_mutex_lock(&plans->lock);
    if (!plans->code) {
        plans->code = code;
        snprintf(plans->message, sizeof plans->message, "%s", err_message());
    }
    pthread_mutex_unlock(&plans->lock);
}

static int build(struct plan *plan, const struct plan_context *context)
{
    int code = plan_build(plan, context);
    if (code != ERR_UNSUPPORTED || !graph_is_fused(&plan->spec))
        return code;
    plan->refused = true;
    log_verbose("not fused: %s", err_message());
    return 0;
}

static void *work(void *user)
{
    struct plans *plans = user;
    struct plan_context context;
    pthread_mutex_lock(&plans->lock);
    int worker = plans->workers++;
    pthread_mutex_unlock(&plans->lock);
    int code = open_context(&context, plans, worker);
    for (int number = take(plans, 0); !code && number >= 0; number = take(plans, 1))
        if ((code = build(plans->all[number], &context)) != 0)
            break;
    if (code)
        fail(plans, code);
    pthread_mutex_lock(&plans->lock);
    plans->working--;
    pthread_cond_signal(&plans->moved);
    pthread_mutex_unlock(&plans->lock);
    return NULL;
}

static int processors(void)
{
    cpu_set_t set;
    int count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return count < THREADS_MAX ? count : THREADS_MAX;
}

/* Shows how far they are until all have ended. */
static void watch(struct plans *plans, int total)
{
    struct progress *progress = progress_open("building cuDNN plans", (uint64_t)total, "plans");
    pthread_mutex_lock(&plans->lock);
    while (plans->working > 0) {
        pthread_cond_wait(&plans->moved, &plans->lock);
        progress_update(progress, (uint64_t)plans->done, NULL);
    }
    pthread_mutex_unlock(&plans->lock);
    progress_close(progress);
}

int plans_build(struct plans *plans, int threads)
{
    pthread_t workers[THREADS_MAX];
    int total = plans->count - plans->built;
    if (total == 0)
        return 0;
    if (threads < 1 || threads > THREADS_MAX)
        threads = processors();
    if (threads > total)
        threads = total;
    plans->next = plans->built;
    plans->done = plans->workers = plans->code = 0;
    plans->working = threads;
    int started = 0;
    for (int i = 0; i < threads; i++)
        started += pthread_create(&workers[started], NULL, work, plans) == 0;
    pthread_mutex_lock(&plans->lock);
    plans->working -= threads - started;
    pthread_mutex_unlock(&plans->lock);
    if (started > 0)
        watch(plans, total);
    for (int i = 0; i < started; i++)
        pthread_join(workers[i], NULL);
    if (started == 0)
        return err_set(ERR_NOMEM, "no thread can be started to build cuDNN's plans");
    if (plans->code == ERR_STOPPED)
        return err_set(ERR_STOPPED, "stopped while cuDNN's plans were built");
    if (plans->code)
        return err_set(plans->code, "%s", plans->message);
    plans->built = plans->count;
    return 0;
}

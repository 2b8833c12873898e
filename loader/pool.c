/* SPDX-License-Identifier: Apache-2.0 */
/* The worker pool. */
#include "loader/pool.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/err.h"

struct queue {
    struct pool_job *first, **end;
};

struct worker {
    pthread_t thread;
    struct pool *pool;
    struct builder *builder; /* this thread's alone */
};

struct pool {
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct queue todo, done; /* owner: lock */
    bool stopping;           /* owner: lock */
    bool strict;
    int done_fd, workers, started;
    struct worker worker[];
};

static void queue_init(struct queue *queue)
{
    queue->first = NULL;
    queue->end = &queue->first;
}

static void queue_put(struct queue *queue, struct pool_job *job)
{
    job->next = NULL;
    *queue->end = job;
    queue->end = &job->next;
}

static struct pool_job *queue_get(struct queue *queue)
{
    struct pool_job *job = queue->first;
    if (job) {
        queue->first = job->next;
        if (!queue->first)
            queue->end = &queue->first;
    }
    return job;
}

static void wake(int fd)
{
    uint64_t one = 1;
    ssize_t ignored = write(fd, &one, sizeof(one));
    (void)ignored; /* a full counter means that a wake-up is pending anyway */
}

static void build(struct worker *worker, struct pool_job *job)
{
    int64_t start = clock_ns();
    job->code = builder_chunk(worker->builder, &job->build, job->store, job->spec, job->epoch,
                              job->chunk, worker->pool->strict);
    if (job->code)
        snprintf(job->message, sizeof(job->message), "%s", err_message());
    job->work_ns = clock_ns() - start;
}

static void *work(void *argument)
{
    struct worker *worker = argument;
    struct pool *pool = worker->pool;
    pthread_setname_np(pthread_self(), "worker");
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        struct pool_job *job = queue_get(&pool->todo);
        if (!job) {
            if (pool->stopping)
                break;
            pthread_cond_wait(&pool->work, &pool->lock);
            continue;
        }
        pthread_mutex_unlock(&pool->lock);
        build(worker, job);
        pthread_mutex_lock(&pool->lock);
        queue_put(&pool->done, job);
        wake(pool->done_fd);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

/* Workers take no signals: those belong to the thread that waits for them. But for the ones that a
 * thread raises itself, at a damaged or cut store (datasets/fault.h): blocked, they would be death
 * without a word. */
static int start_worker(struct worker *worker)
{
    sigset_t all, before;
    sigfillset(&all);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGSEGV);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    int failed = pthread_create(&worker->thread, NULL, work, worker);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed)
        return err_set(ERR_IO, "cannot start a worker thread: %s", strerror(failed));
    return ERR_OK;
}

int pool_open(struct pool **out, int workers, enum decoder_choice decoder, bool strict, int done_fd)
{
    struct pool *pool = calloc(1, sizeof(*pool) + (size_t)workers * sizeof(struct worker));
    if (!pool)
        return err_set(ERR_NOMEM, "worker pool: out of memory");
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    queue_init(&pool->todo);
    queue_init(&pool->done);
    pool->strict = strict;
    pool->done_fd = done_fd;
    pool->workers = workers;
    int code = ERR_OK;
    for (int i = 0; i < workers && !code; i++) {
        struct worker *worker = &pool->worker[i];
        worker->pool = pool;
        code = builder_open(&worker->builder, decoder);
        if (!code)
            code = start_worker(worker);
        if (!code)
            pool->started++;
    }
    if (code) {
        pool_close(pool);
        return code;
    }
    *out = pool;
    return ERR_OK;
}

void pool_stop(struct pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    pool->stopping = true;
    struct pool_job *job;
    while ((job = queue_get(&pool->todo))) {
        job->code = ERR_STOPPED;
        queue_put(&pool->done, job);
    }
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    while (pool->started > 0)
        pthread_join(pool->worker[--pool->started].thread, NULL);
}

void pool_close(struct pool *pool)
{
    if (!pool)
        return;
    pool_stop(pool);
    for (int i = 0; i < pool->workers; i++)
        builder_close(pool->worker[i].builder);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

void pool_submit(struct pool *pool, struct pool_job *job)
{
    pthread_mutex_lock(&pool->lock);
    queue_put(&pool->todo, job);
    pthread_cond_signal(&pool->work);
    pthread_mutex_unlock(&pool->lock);
}

struct pool_job *pool_take(struct pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    struct pool_job *job = queue_get(&pool->done);
    pthread_mutex_unlock(&pool->lock);
    return job;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The way of a job: from a trainer's queue to the pool, and as a chunk to the trainer. */
#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/log.h"
#include "loader/read_ahead.h"
#include "loader/sample.h"
#include "loader/server_state.h"

void job_free(struct job *job)
{
    read_ahead_end(job);
    buffer_give(job->buffer);
    job->spec->uses--;
    free(job);
}

void jobs_drop_queued(struct client *client)
{
    struct job *job;
    while ((job = client_unqueue(client)))
        job_free(job);
}

/* Gives the pool a client's oldest job. False: no buffer at the moment. */
static bool submit(struct server *server, struct client *client)
{
    struct job *job = client->first;
    const struct spec *spec = &job->spec->spec;
    job->buffer =
        buffer_take(server->buffers, spec->chunk_size * frame_label_bytes(spec), spec->chunk_size,
                    spec->chunk_size * spec_sample_bytes(spec), &client->holds);
    if (!job->buffer)
        return false;
    client_unqueue(client);
    client_charge(&server->clients, client, job);
    client->taken++;
    client->building++;
    server->in_pool++;
    job->work.store = job->spec->store->store;
    job->work.spec = spec;
    job->work.epoch = job->request.epoch;
    job->work.chunk = job->request.chunk;
    job->work.build.labels = job->buffer->labels;
    job->work.build.pixels = job->buffer->pixels;
    job->work.build.ids = job->buffer->ids;
    job->work.build.isolate = job->request.isolate;
    read_ahead_dispatch(server, job);
    pool_submit(server->pool, &job->work);
    return true;
}

/* Of the memory for chunks: trainers that take none of theirs leave room for one more. */
static size_t share_bytes(const struct server *server)
{
    size_t greeted = 0;
    for (int i = 0; i < server->clients.count; i++)
        greeted += server->clients.list[i]->greeted && !server->clients.list[i]->gone;
    return server->config.buffer_bytes / (greeted + 1);
}

/* Two jobs more than workers are in the pool, so that none waits for this thread, even when that
 * has to wait for its core for the time of a chunk; more would only take turns away. */
static void dispatch_some(struct server *server)
{
    struct client *client;
    size_t share = share_bytes(server);
    while (server->in_pool < (unsigned)server->config.workers + POOL_AHEAD &&
           (client = client_next(&server->clients, server->config.credits, share)))
        if (!submit(server, client))
            return;
}

void jobs_dispatch(struct server *server)
{
    dispatch_some(server);
    if (server->in_pool >= (unsigned)server->config.workers + POOL_AHEAD ||
        clients_queued(&server->clients) == 0)
        return;
    buffers_wake(server->buffers); /* requests wait for a buffer to come back */
    dispatch_some(server);
}

static void release_pixels(void *data, void *user)
{
    (void)data;
    buffer_give(user);
}

static void name_culprits(struct frame_chunk *chunk, const struct chunk_build *build,
                          const struct store *store)
{
    chunk->culprit_count = build->culprit_count;
    for (uint32_t i = 0; i < build->culprit_count; i++) {
        struct frame_culprit *culprit = &chunk->culprits[i];
        culprit->id = build->culprits[i];
        snprintf(culprit->class_id, sizeof(culprit->class_id), "%s",
                 store_class_of(store, culprit->id));
    }
}

static int send_chunk(struct server *server, struct job *job)
{
    const struct chunk_build *build = &job->work.build;
    const struct spec *spec = &job->spec->spec;
    struct frame frame = {.kind = FRAME_CHUNK,
                          .chunk = {job->request.spec_hash, job->request.epoch, job->request.chunk,
                                    job->request.id, build->samples, build->substituted,
                                    build->masked}};
    name_culprits(&frame.chunk, build, job->work.store);
    struct buffer *buffer = job->buffer;
    if (job->client->shares && buffer->share.map) {
        frame.chunk.is_shared = true;
        frame.chunk.shared = (struct frame_shared){(uint32_t)buffer->share.fd, buffer->share.serial,
                                                   buffer->generation};
    }
    uint8_t envelope[FRAME_MAX_BYTES];
    struct sock_part parts[3] = {
        {envelope, 0, NULL, NULL},
        {build->labels, build->samples * frame_label_bytes(spec), NULL, NULL},
        {build->pixels, build->samples * spec_sample_bytes(spec), release_pixels, buffer},
    };
    int code = frame_encode(envelope, &parts[0].bytes, &frame);
    if (!code)
        code = sock_send(server->sock, job->client->address, parts, frame.chunk.is_shared ? 2 : 3);
    if (code == SOCK_SENT) {
        struct metrics_counts *counts = &server->metrics.counts;
        counts->chunks++;
        counts->images += build->samples;
        counts->substituted += build->substituted;
        counts->masked += build->masked;
        counts->bytes += parts[0].bytes + parts[1].bytes + parts[2].bytes;
        job->buffer = NULL; /* ZeroMQ gives it back, or the trainer */
        if (frame.chunk.is_shared)
            client_lend(job->client, buffer, job->request.id);
    }
    return code;
}

/* Answers a job that was built. False: it has to wait, and stays the caller's. */
static bool answer(struct server *server, struct job *job)
{
    struct client *client = job->client;
    if (client->gone || client->banned || job->work.code == ERR_STOPPED) {
        job_free(job);
        return true;
    }
    if (job->work.code == ERR_IO) /* a store that changes: nothing of it may be served */
        snprintf(server->broken, sizeof(server->broken), "%s", job->work.message);
    if (job->work.code) {
        server->metrics.counts.failed++;
        talk_refuse(server, client,
                    job->work.code == ERR_DATA ? FRAME_REASON_DATA : FRAME_REASON_INTERNAL,
                    job->request.id, job->work.message);
        job_free(job);
        return true;
    }
    int code = send_chunk(server, job);
    if (code == SOCK_FULL)
        return false;
    if (code == SOCK_GONE)
        server_forget(server, client, "disconnected");
    else if (code != SOCK_SENT)
        log_error("%s: %s", client->name, err_message());
    job_free(job);
    return true;
}

void jobs_take_done(struct server *server)
{
    struct pool_job *work;
    while ((work = pool_take(server->pool))) {
        struct job *job = (struct job *)work;
        server->in_pool--;
        server->metrics.counts.work_ns += work->work_ns;
        struct client *client = job->client;
        client->building--;
        client_settle(client, job);
        read_ahead_end(job);
        if (answer(server, job))
            continue;
        if (!server->waiting)
            server->waiting_ns = clock_ns();
        job->next = server->waiting;
        server->waiting = job;
        client->waiting++;
    }
}

void jobs_retry_waiting(struct server *server)
{
    bool stuck = clock_ns() - server->waiting_ns > SERVER_STUCK_SECONDS * INT64_C(1000000000);
    struct job *job = server->waiting;
    server->waiting = NULL;
    while (job) {
        struct job *next = job->next;
        struct client *client = job->client;
        if (stuck)
            server_forget(server, client, "dropped: it takes none of its chunks");
        if (answer(server, job)) {
            client->waiting--;
            server->waiting_ns = clock_ns();
        } else {
            job->next = server->waiting;
            server->waiting = job;
        }
        job = next;
    }
}

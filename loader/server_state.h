/* SPDX-License-Identifier: Apache-2.0 */
/* The server's insides, shared by server.c (the loop), jobs.c (what is built) and talk.c (the
 * messages). */
#ifndef LOADER_SERVER_STATE_H
#define LOADER_SERVER_STATE_H

#include "common/log_limit.h"
#include "loader/access.h"
#include "loader/buffer.h"
#include "loader/client.h"
#include "loader/known.h"
#include "loader/metrics.h"
#include "loader/pool.h"
#include "loader/server.h"
#include "proto/sock.h"

enum {
    POOL_AHEAD = 2,            /* jobs more than workers in the pool: see dispatch_some() */
    SERVER_STUCK_SECONDS = 60, /* a trainer that takes nothing for so long is dropped */
};

struct server {
    struct server_config config; /* workers and credits resolved */
    struct known known;
    struct clients clients;
    struct pool *pool;
    struct buffers *buffers;
    struct aheads *aheads; /* NULL: all stores go through the page cache */
    struct sock_context *context;
    struct access access;
    struct sock *sock;
    struct sock_message *message;
    struct share_token token;
    struct share_file probe; /* none: pixels are not shared */
    int wake_fd;             /* eventfd: a job is done, or a buffer came back */
    struct metrics metrics;
    struct log_limit refusals, bans; /* lines about them */
    struct hash128 self_test;        /* selftest_run() */
    struct job *waiting;             /* done, but ZeroMQ's queue for their trainer was full */
    unsigned in_pool;
    bool stopping;
    char broken[256];   /* what makes it impossible to go on, empty: nothing */
    int64_t stop_ns;    /* when waiting for the last chunks ends */
    int64_t check_ns;   /* when stores were last looked at */
    int64_t ping_ns;    /* when trainers were last pinged */
    int64_t waiting_ns; /* since when jobs have been waiting without any progress */
};

/* Handles messages that are there, a bounded number of them. */
int talk_receive(struct server *server);

/* Sends an envelope; a trainer that is gone is forgotten. False when it was not sent. */
bool talk_send(struct server *server, struct client *client, const struct frame *frame);

/* Answers a request (id 0: the trainer as a whole) with a refusal. */
void talk_refuse(struct server *server, struct client *client, enum frame_reason reason,
                 uint64_t id, const char *what);

/* Gives back what a job holds. Not one that is in the pool. */
void job_free(struct job *job);

/* Drops what a trainer asked for and nobody began. */
void jobs_drop_queued(struct client *client);

/* Keeps the workers busy, all trainers getting the same share of them. */
void jobs_dispatch(struct server *server);

/* Sends what the pool has built. */
void jobs_take_done(struct server *server);

/* Tries again what ZeroMQ had no room for; drops a trainer that takes nothing. */
void jobs_retry_waiting(struct server *server);

/* Drops the trainer and all that it asked for. */
void server_forget(struct server *server, struct client *client, const char *why);

/* Cuts a trainer off: nothing it says counts any more, and its connection is closed a moment later,
 * so that the reason still reaches it. It is named in the log. */
void server_ban(struct server *server, struct client *client, enum frame_reason reason,
                const char *what);

#endif

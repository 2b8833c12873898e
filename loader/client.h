/* SPDX-License-Identifier: Apache-2.0 */
/* The trainers that a loader knows: who they are, what they asked for, and whose turn it is.
 * Nothing here outlives a connection. Used by the server's thread alone, but for `holds`. */
#ifndef LOADER_CLIENT_H
#define LOADER_CLIENT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "loader/pool.h"
#include "proto/frame.h"
#include "proto/keys.h"

enum {
    CLIENT_MAX = 256,        /* trainer ranks at one loader */
    CLIENT_KEY_MAX = 128,    /* of them, with one key */
    CLIENT_SPECS_MAX = 64,   /* new specs that one may bring */
    CLIENT_ASIDES_MAX = 4096 /* a minute: answers to one that are no chunks */
};

struct buffer;
struct known_spec;

/* A request on its way through: queued -> building -> (waiting to be sent) -> freed. */
struct job {
    struct pool_job work; /* first: pool_take returns it */
    struct client *client;
    struct known_spec *spec; /* counted in its uses */
    struct buffer *buffer;   /* NULL while queued */
    struct frame_request request;
    uint32_t samples;
    size_t bytes;       /* of its buffer */
    int64_t charged_ns; /* to its client when the work began */
    struct job *next;   /* in the client's queue, or in the list of those waiting to be sent */
};

struct client {
    uint32_t address;                                   /* of the ROUTER */
    uint64_t connection;                                /* for sock_cut; 0: not known */
    char key[KEY_TEXT_BYTES], key_name[KEY_NAME_BYTES]; /* "" without keys */
    char name[320];                                     /* run, key and address, for the log */
    bool greeted;
    bool banned;    /* sent something wrong: nothing it says counts any more */
    int64_t cut_ns; /* banned: when its connection is closed; 0: it was */
    bool gone;      /* forgotten once nothing refers to it */
    bool reserved;  /* buffers for its credits were made */
    bool shares;    /* reads pixels in shared memory */
    struct job *first, **end;
    unsigned queued, building, waiting;
    struct buffer *lent; /* a list: pixels in shared memory that it may be reading */
    unsigned lent_count;
    unsigned specs;  /* new ones that it brought */
    unsigned asides; /* answers that are no chunks, since asides_ns */
    int64_t asides_ns;
    int64_t served_ns;        /* worker time, on the scale of clients.floor_ns */
    int64_t cost_ns;          /* smoothed worker time of one of its chunks */
    unsigned taken, released; /* buffers: all it ever got; came back when last looked at */
    int64_t progress_ns;      /* when one came back */
    atomic_int holds; /* buffers built for it that ZeroMQ has not sent yet, or being filled */
};

struct clients {
    struct client *list[CLIENT_MAX];
    int count;
    int64_t floor_ns; /* served_ns of the one served last: whoever was idle begins there */
};

/* NULL when not known. */
struct client *client_find(struct clients *clients, uint32_t address);

/* NULL when there are CLIENT_MAX already or memory is out. */
struct client *client_add(struct clients *clients, uint32_t address);

void client_queue(struct clients *clients, struct client *client, struct job *job);
struct job *client_unqueue(struct client *client); /* the oldest; NULL when none */

/* It was sent the place of these pixels, as the answer to a request; the request that it gives them
 * back for (NULL: it has none of it); the next of all, NULL when none is left. */
void client_lend(struct client *client, struct buffer *buffer, uint64_t request);
struct buffer *client_take_back(struct client *client, uint64_t request);
struct buffer *client_take_back_any(struct client *client);

/* Requests not answered yet. */
unsigned client_outstanding(const struct client *client);

/* The next client that has a queued job, holds fewer than hold_limit buffers and would hold at most
 * share_bytes (or one buffer): the one that has had the least worker time. */
struct client *client_next(struct clients *clients, int hold_limit, size_t share_bytes);

/* A job begins, and has ended after this much work. */
void client_charge(struct clients *clients, struct client *client, struct job *job);
void client_settle(struct client *client, const struct job *job);

/* Counts an answer that is no chunk. False: more than an honest trainer causes. */
bool client_aside(struct client *client);

/* Connections of this key. */
unsigned clients_with_key(const struct clients *clients, const char *key);

/* Frees those that are gone and that nothing refers to; all of them when all is true. */
void clients_sweep(struct clients *clients, bool all);

unsigned clients_queued(const struct clients *clients);
unsigned clients_busy(const struct clients *clients); /* jobs of any state, and what is lent */

#endif

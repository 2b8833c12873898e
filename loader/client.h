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

enum { CLIENT_MAX = 256 }; /* trainer ranks at one loader */

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
    struct job *next; /* in the client's queue, or in the list of those waiting to be sent */
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
    struct job *first, **end;
    unsigned queued, building, waiting;
    atomic_int holds; /* buffers built for it that ZeroMQ has not sent yet, or being filled */
};

struct clients {
    struct client *list[CLIENT_MAX];
    int count, turn;
};

/* NULL when not known. */
struct client *client_find(struct clients *clients, uint32_t address);

/* NULL when there are CLIENT_MAX already or memory is out. */
struct client *client_add(struct clients *clients, uint32_t address);

void client_queue(struct client *client, struct job *job);
struct job *client_unqueue(struct client *client); /* the oldest; NULL when none */

/* Requests not answered yet. */
unsigned client_outstanding(const struct client *client);

/* The next client, round robin, that has a queued job and holds fewer than hold_limit buffers. */
struct client *client_next(struct clients *clients, int hold_limit);

/* Frees those that are gone and that nothing refers to; all of them when all is true. */
void clients_sweep(struct clients *clients, bool all);

unsigned clients_queued(const struct clients *clients);
unsigned clients_busy(const struct clients *clients); /* jobs of any state */

#endif

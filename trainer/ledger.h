/* SPDX-License-Identifier: Apache-2.0 */
/* The ledger of chunks on their way: which are wanted, which are asked for and where. It decides
 * what is asked next; who asks, when a request is overdue and what a loader is worth is the feed's
 * business. Each chunk is delivered once; at most two requests for it are alive. One thread. */
#ifndef TRAINER_LEDGER_H
#define TRAINER_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/hash.h"

enum { LEDGER_NOBODY = -1 };

struct ledger;

struct ledger_chunk {
    int spec; /* the owner's number for it */
    uint32_t epoch;
    uint64_t chunk;
    void *target;            /* the owner's: where it goes ... */
    uint32_t place;          /* ... and which place there */
    int shunned;             /* a peer that is not to have it, or LEDGER_NOBODY */
    struct hash128 expected; /* the owner's: of an audit, what the shunned peer sent */

    /* The ledger's own. */
    uint64_t sequence;                    /* earlier ones are asked for first */
    int holders[2];                       /* peers with a request alive, or LEDGER_NOBODY */
    unsigned losses;                      /* loaders that were lost while they had it */
    bool wanted;                          /* in the list of those to ask for */
    struct ledger_chunk *next;            /* in that list */
    struct ledger_chunk *before, *behind; /* among all */
};

struct ledger *ledger_open(void); /* NULL when memory is out */
void ledger_close(struct ledger *ledger);

/* Wants one more chunk, after all others. NULL when memory is out. */
struct ledger_chunk *ledger_add(struct ledger *ledger, int spec, uint32_t epoch, uint64_t chunk,
                                void *target, uint32_t place);

/* The first wanted chunk that this peer does not have already and whose spec usable() allows; NULL:
 * none. It stays wanted until ledger_asked. */
struct ledger_chunk *ledger_next(struct ledger *ledger, int peer,
                                 bool (*usable)(void *user, int spec), void *user);

/* A request for it is now alive at the peer. */
void ledger_asked(struct ledger *ledger, struct ledger_chunk *chunk, int peer);

/* The request at this peer is overdue: want the chunk once more elsewhere, unless that is done
 * already. True when it became wanted. */
bool ledger_overdue(struct ledger *ledger, struct ledger_chunk *chunk);

/* The request at this peer will not be answered. Wants the chunk again when no other is alive.
 * lost: because the loader went away. */
void ledger_lost(struct ledger *ledger, struct ledger_chunk *chunk, int peer, bool lost);

/* Delivered: forgets the chunk. */
void ledger_done(struct ledger *ledger, struct ledger_chunk *chunk);

/* Forgets all. */
void ledger_clear(struct ledger *ledger);

bool ledger_is_asked_twice(const struct ledger_chunk *chunk);
unsigned ledger_count(const struct ledger *ledger); /* chunks not delivered yet */

#endif

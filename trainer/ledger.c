/* SPDX-License-Identifier: Apache-2.0 */
/* The ledger: a list of all chunks under way, and one of those to ask for, in order. */
#include "trainer/ledger.h"

#include <stdlib.h>

struct ledger {
    struct ledger_chunk *wanted;    /* by sequence */
    struct ledger_chunk *last;      /* of the wanted ones; NULL when there are none */
    struct ledger_chunk *first_all; /* any order */
    uint64_t sequence;
    unsigned count;
};

struct ledger *ledger_open(void)
{
    return calloc(1, sizeof(struct ledger));
}

void ledger_close(struct ledger *ledger)
{
    if (!ledger)
        return;
    ledger_clear(ledger);
    free(ledger);
}

/* Puts it among the wanted ones by its sequence; nearly always first or last. */
static void want(struct ledger *ledger, struct ledger_chunk *chunk)
{
    struct ledger_chunk **link = &ledger->wanted;
    if (ledger->last && ledger->last->sequence < chunk->sequence)
        link = &ledger->last->next;
    while (*link && (*link)->sequence < chunk->sequence)
        link = &(*link)->next;
    chunk->next = *link;
    *link = chunk;
    if (!chunk->next)
        ledger->last = chunk;
    chunk->wanted = true;
}

static void unwant(struct ledger *ledger, struct ledger_chunk *chunk)
{
    struct ledger_chunk *before = NULL;
    struct ledger_chunk **link = &ledger->wanted;
    while (*link != chunk) {
        before = *link;
        link = &before->next;
    }
    *link = chunk->next;
    if (ledger->last == chunk)
        ledger->last = before;
    chunk->wanted = false;
}

struct ledger_chunk *ledger_add(struct ledger *ledger, int spec, uint32_t epoch, uint64_t chunk,
                                void *target, uint32_t place)
{
    struct ledger_chunk *added = calloc(1, sizeof(*added));
    if (!added)
        return NULL;
    added->spec = spec;
    added->epoch = epoch;
    added->chunk = chunk;
    added->target = target;
    added->place = place;
    added->sequence = ledger->sequence++;
    added->shunned = added->holders[0] = added->holders[1] = LEDGER_NOBODY;
    added->behind = ledger->first_all;
    if (added->behind)
        added->behind->before = added;
    ledger->first_all = added;
    ledger->count++;
    want(ledger, added);
    return added;
}

static bool holds(const struct ledger_chunk *chunk, int peer)
{
    return chunk->holders[0] == peer || chunk->holders[1] == peer;
}

struct ledger_chunk *ledger_next(struct ledger *ledger, int peer,
                                 bool (*usable)(void *user, int spec), void *user)
{
    for (struct ledger_chunk *chunk = ledger->wanted; chunk; chunk = chunk->next)
        if (!holds(chunk, peer) && chunk->shunned != peer && usable(user, chunk->spec))
            return chunk;
    return NULL;
}

void ledger_asked(struct ledger *ledger, struct ledger_chunk *chunk, int peer)
{
    unwant(ledger, chunk);
    chunk->holders[chunk->holders[0] == LEDGER_NOBODY ? 0 : 1] = peer;
}

bool ledger_is_asked_twice(const struct ledger_chunk *chunk)
{
    return chunk->holders[0] != LEDGER_NOBODY && chunk->holders[1] != LEDGER_NOBODY;
}

bool ledger_overdue(struct ledger *ledger, struct ledger_chunk *chunk)
{
    if (chunk->wanted || ledger_is_asked_twice(chunk))
        return false;
    want(ledger, chunk);
    return true;
}

void ledger_lost(struct ledger *ledger, struct ledger_chunk *chunk, int peer, bool lost)
{
    for (int i = 0; i < 2; i++)
        if (chunk->holders[i] == peer)
            chunk->holders[i] = LEDGER_NOBODY;
    chunk->losses += lost;
    bool alive = chunk->holders[0] != LEDGER_NOBODY || chunk->holders[1] != LEDGER_NOBODY;
    if (!alive && !chunk->wanted)
        want(ledger, chunk);
}

void ledger_done(struct ledger *ledger, struct ledger_chunk *chunk)
{
    if (chunk->wanted)
        unwant(ledger, chunk);
    if (chunk->before)
        chunk->before->behind = chunk->behind;
    else
        ledger->first_all = chunk->behind;
    if (chunk->behind)
        chunk->behind->before = chunk->before;
    ledger->count--;
    free(chunk);
}

void ledger_clear(struct ledger *ledger)
{
    while (ledger->first_all) {
        struct ledger_chunk *next = ledger->first_all->behind;
        free(ledger->first_all);
        ledger->first_all = next;
    }
    ledger->wanted = ledger->last = NULL;
    ledger->count = 0;
}

unsigned ledger_count(const struct ledger *ledger)
{
    return ledger->count;
}

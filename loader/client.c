/* SPDX-License-Identifier: Apache-2.0 */
/* The table of trainers. */
#include "loader/client.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "loader/buffer.h"

#define MINUTE_NS INT64_C(60000000000)
#define FIRST_COST_NS INT64_C(1000000) /* a guess, before a chunk of it was made */

struct client *client_find(struct clients *clients, uint32_t address)
{
    for (int i = 0; i < clients->count; i++)
        if (clients->list[i]->address == address && !clients->list[i]->gone)
            return clients->list[i];
    return NULL;
}

struct client *client_add(struct clients *clients, uint32_t address)
{
    if (clients->count == CLIENT_MAX)
        return NULL;
    struct client *client = calloc(1, sizeof(*client));
    if (!client)
        return NULL;
    client->address = address;
    client->progress_ns = clock_ns();
    client->end = &client->first;
    clients->list[clients->count++] = client;
    return client;
}

void client_queue(struct clients *clients, struct client *client, struct job *job)
{
    /* Time in which it asked for nothing is not saved up. */
    if (client_outstanding(client) == 0 && client->served_ns < clients->floor_ns)
        client->served_ns = clients->floor_ns;
    job->next = NULL;
    *client->end = job;
    client->end = &job->next;
    client->queued++;
}

struct job *client_unqueue(struct client *client)
{
    struct job *job = client->first;
    if (!job)
        return NULL;
    client->first = job->next;
    if (!client->first)
        client->end = &client->first;
    client->queued--;
    return job;
}

void client_lend(struct client *client, struct buffer *buffer, uint64_t request)
{
    buffer->request = request;
    buffer->next = client->lent;
    client->lent = buffer;
    client->lent_count++;
}

static struct buffer *unlend(struct client *client, struct buffer **link)
{
    struct buffer *buffer = *link;
    *link = buffer->next;
    client->lent_count--;
    return buffer;
}

struct buffer *client_take_back(struct client *client, uint64_t request)
{
    for (struct buffer **link = &client->lent; *link; link = &(*link)->next)
        if ((*link)->request == request)
            return unlend(client, link);
    return NULL;
}

struct buffer *client_take_back_any(struct client *client)
{
    return client->lent ? unlend(client, &client->lent) : NULL;
}

unsigned client_outstanding(const struct client *client)
{
    return client->queued + client->building + client->waiting;
}

static bool may_go_on(const struct client *client, int hold_limit, size_t share_bytes)
{
    int holds = atomic_load(&client->holds);
    if (client->queued == 0 || holds >= hold_limit)
        return false;
    return holds == 0 || (size_t)(holds + 1) * client->first->bytes <= share_bytes;
}

struct client *client_next(struct clients *clients, int hold_limit, size_t share_bytes)
{
    struct client *next = NULL;
    for (int i = 0; i < clients->count; i++) {
        struct client *client = clients->list[i];
        if (may_go_on(client, hold_limit, share_bytes) &&
            (!next || client->served_ns < next->served_ns))
            next = client;
    }
    return next;
}

void client_charge(struct clients *clients, struct client *client, struct job *job)
{
    if (client->served_ns > clients->floor_ns)
        clients->floor_ns = client->served_ns;
    job->charged_ns = client->cost_ns ? client->cost_ns : FIRST_COST_NS;
    client->served_ns += job->charged_ns;
}

void client_settle(struct client *client, const struct job *job)
{
    int64_t work_ns = job->work.work_ns > 0 ? job->work.work_ns : 1;
    client->served_ns += work_ns - job->charged_ns;
    client->cost_ns += client->cost_ns ? (work_ns - client->cost_ns) / 8 : work_ns;
}

bool client_aside(struct client *client)
{
    int64_t now = clock_ns();
    if (now - client->asides_ns > MINUTE_NS) {
        client->asides_ns = now;
        client->asides = 0;
    }
    return ++client->asides <= CLIENT_ASIDES_MAX;
}

unsigned clients_with_key(const struct clients *clients, const char *key)
{
    unsigned count = 0;
    for (int i = 0; i < clients->count; i++)
        count += strcmp(clients->list[i]->key, key) == 0 && !clients->list[i]->gone;
    return count;
}

void clients_sweep(struct clients *clients, bool all)
{
    int kept = 0;
    for (int i = 0; i < clients->count; i++) {
        struct client *client = clients->list[i];
        bool idle = client_outstanding(client) == 0 && atomic_load(&client->holds) == 0;
        if (all || (client->gone && idle))
            free(client);
        else
            clients->list[kept++] = client;
    }
    clients->count = kept;
}

unsigned clients_queued(const struct clients *clients)
{
    unsigned queued = 0;
    for (int i = 0; i < clients->count; i++)
        queued += clients->list[i]->queued;
    return queued;
}

unsigned clients_busy(const struct clients *clients)
{
    unsigned busy = 0;
    for (int i = 0; i < clients->count; i++)
        busy += client_outstanding(clients->list[i]) + clients->list[i]->lent_count;
    return busy;
}

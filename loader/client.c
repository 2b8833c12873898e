/* SPDX-License-Identifier: Apache-2.0 */
/* The table of trainers. */
#include "loader/client.h"

#include <stdlib.h>

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
    client->end = &client->first;
    clients->list[clients->count++] = client;
    return client;
}

void client_queue(struct client *client, struct job *job)
{
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

unsigned client_outstanding(const struct client *client)
{
    return client->queued + client->building + client->waiting;
}

struct client *client_next(struct clients *clients, int hold_limit)
{
    for (int i = 0; i < clients->count; i++) {
        int at = (clients->turn + i) % clients->count;
        struct client *client = clients->list[at];
        if (client->queued > 0 && atomic_load(&client->holds) < hold_limit) {
            clients->turn = (at + 1) % clients->count;
            return client;
        }
    }
    return NULL;
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
        busy += client_outstanding(clients->list[i]);
    return busy;
}

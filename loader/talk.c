/* SPDX-License-Identifier: Apache-2.0 */
/* What trainers say to the loader, and what it answers. Everything here comes from the network: a
 * trainer that sends what no trainer would is banned and named. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/log.h"
#include "loader/read_ahead.h"
#include "loader/server_state.h"

enum { MESSAGES_AT_ONCE = 256 };

bool talk_send(struct server *server, struct client *client, const struct frame *frame)
{
    uint8_t bytes[FRAME_MAX_BYTES];
    struct sock_part part = {bytes, 0, NULL, NULL};
    int code = frame_encode(bytes, &part.bytes, frame);
    if (!code)
        code = sock_send(server->sock, client->address, &part, 1);
    if (code == SOCK_GONE)
        server_forget(server, client, "disconnected");
    else if (code < 0)
        log_warn("%s: %s", client->name, err_message());
    return code == SOCK_SENT;
}

void talk_refuse(struct server *server, struct client *client, enum frame_reason reason,
                 uint64_t id, const char *what)
{
    struct frame frame = {.kind = FRAME_REFUSE, .refuse = {.reason = reason, .id = id}};
    snprintf(frame.refuse.what, sizeof(frame.refuse.what), "%s", what);
    server->metrics.counts.refused++;
    if (log_limit_passes(client->banned ? &server->bans : &server->refusals,
                         client->banned ? "trainers cut off" : "refusals"))
        log_warn("%s: %s (%s): %s", client->name, client->banned ? "cut off" : "refused",
                 frame_reason_name(reason), what);
    talk_send(server, client, &frame);
}

/* To be called for each answer that is no chunk. False: the trainer was cut off instead. */
static bool may_answer(struct server *server, struct client *client)
{
    if (client_aside(client))
        return true;
    server_ban(server, client, FRAME_REASON_LIMIT, "more messages in vain than a trainer sends");
    return false;
}

/* ---- hello ---- */

static bool wanted_is_here(struct server *server, struct client *client,
                           const struct frame_wanted *wanted)
{
    const struct known_store *store = known_store(&server->known, wanted->name);
    if (wanted->any || (store && hash128_equal(store->facts.fingerprint, wanted->fingerprint)))
        return true;
    char what[128], text[33];
    hash128_to_text(text, wanted->fingerprint);
    snprintf(what, sizeof(what), store ? "store %s here is another than %s" : "no store %s here",
             wanted->name, text);
    talk_refuse(server, client, FRAME_REASON_STORE, 0, what);
    return false;
}

static void on_hello(struct server *server, struct client *client, const struct frame_hello *hello,
                     const char *address)
{
    if (!may_answer(server, client))
        return;
    snprintf(client->name, sizeof(client->name), "trainer %s%s%s%s%s #%u", hello->run,
             client->key[0] ? " with key " : "", client->key_name, *address ? " at " : "", address,
             client->address);
    if (hello->protocol != FRAME_PROTOCOL) {
        char what[64];
        snprintf(what, sizeof(what), "protocol %u, this loader speaks %d", hello->protocol,
                 FRAME_PROTOCOL);
        talk_refuse(server, client, FRAME_REASON_PROTOCOL, 0, what);
        return;
    }
    if (server->stopping) {
        talk_refuse(server, client, FRAME_REASON_BUSY, 0, "this loader is stopping");
        return;
    }
    for (uint32_t i = 0; i < hello->wanted_count; i++)
        if (!wanted_is_here(server, client, &hello->wanted[i]))
            return;
    struct frame frame = {.kind = FRAME_HELLO_REPLY,
                          .hello_reply = {.protocol = FRAME_PROTOCOL,
                                          .program = "satchel-loader " SATCHEL_VERSION,
                                          .credits = (uint32_t)server->config.credits,
                                          .store_count = (uint32_t)server->known.store_count,
                                          .self_test = server->self_test,
                                          .shares = server->probe.map != NULL,
                                          .descriptor = (uint32_t)server->probe.fd}};
    for (int i = 0; i < server->known.store_count; i++)
        frame.hello_reply.stores[i] = server->known.stores[i].facts;
    bool is_new = !client->greeted;
    client->greeted = true;
    if (talk_send(server, client, &frame) && is_new)
        log_info("%s: connected", client->name);
}

/* ---- requests ---- */

/* Buffers for all credits of this trainer and the others, of the size of its first request. */
static void reserve(struct server *server, struct client *client, const struct spec *spec)
{
    if (client->reserved)
        return;
    client->reserved = true;
    unsigned trainers = 0;
    for (int i = 0; i < server->clients.count; i++)
        trainers += server->clients.list[i]->reserved && !server->clients.list[i]->gone;
    buffers_reserve(server->buffers, trainers * (unsigned)server->config.credits,
                    spec->chunk_size * frame_label_bytes(spec), spec->chunk_size,
                    spec->chunk_size * spec_sample_bytes(spec));
}

static void on_request(struct server *server, struct client *client,
                       const struct frame_request *request)
{
    struct known_spec *known = known_spec(&server->known, request->spec_hash);
    if (!known) {
        if (!may_answer(server, client))
            return;
        struct frame frame = {.kind = FRAME_NEED_SPEC,
                              .need_spec = {request->spec_hash, request->id}};
        talk_send(server, client, &frame);
        return;
    }
    if (client_outstanding(client) >= (unsigned)server->config.credits) {
        server_ban(server, client, FRAME_REASON_CREDITS, "more requests at once than advertised");
        return;
    }
    uint32_t samples =
        chunk_samples(&known->spec, request->chunk, known->store->facts.sample_count);
    if (samples == 0) {
        if (may_answer(server, client))
            talk_refuse(server, client, FRAME_REASON_CHUNK, request->id, "no such chunk");
        return;
    }
    struct job *job = calloc(1, sizeof(*job));
    if (!job) {
        talk_refuse(server, client, FRAME_REASON_INTERNAL, request->id, "out of memory");
        return;
    }
    job->client = client;
    job->spec = known;
    job->request = *request;
    job->samples = samples;
    job->bytes = buffer_bytes(known->spec.chunk_size * frame_label_bytes(&known->spec),
                              known->spec.chunk_size,
                              known->spec.chunk_size * spec_sample_bytes(&known->spec));
    known->uses++;
    client_queue(&server->clients, client, job);
    reserve(server, client, &known->spec);
    read_ahead_request(server, job);
}

static void on_spec(struct server *server, struct client *client, const struct spec *spec)
{
    bool is_new;
    if (known_learn(&server->known, &is_new, spec, server->config.buffer_bytes)) {
        if (may_answer(server, client))
            talk_refuse(server, client, FRAME_REASON_SPEC, 0, err_message());
        return;
    }
    client->specs += is_new;
    if (client->specs > CLIENT_SPECS_MAX)
        server_ban(server, client, FRAME_REASON_LIMIT, "more specs than a trainer has");
}

/* ---- shared memory ---- */

/* It has read the token, so it can read chunks as well. */
static void on_share(struct server *server, struct client *client, const struct share_token *token)
{
    if (!server->probe.map || !share_token_equal(token, &server->token)) {
        server_ban(server, client, FRAME_REASON_MESSAGE, "a token of shared memory not seen here");
        return;
    }
    if (!client->shares)
        log_info("%s: takes pixels from shared memory", client->name);
    client->shares = true;
}

static void on_release(struct server *server, struct client *client,
                       const struct frame_release *release)
{
    for (uint32_t i = 0; i < release->count; i++) {
        struct buffer *buffer = client_take_back(client, release->ids[i]);
        if (!buffer) {
            server_ban(server, client, FRAME_REASON_MESSAGE,
                       "pixels in shared memory given back that it does not have");
            return;
        }
        buffer_give(buffer);
    }
}

/* ---- all messages ---- */

static void on_frame(struct server *server, struct client *client, const struct frame *frame,
                     const char *address)
{
    if (!client->greeted && frame->kind != FRAME_HELLO && frame->kind != FRAME_GOODBYE) {
        server_ban(server, client, FRAME_REASON_MESSAGE, "no hello came first");
        return;
    }
    switch (frame->kind) {
    case FRAME_HELLO:
        on_hello(server, client, &frame->hello, address);
        return;
    case FRAME_SPEC_OFFER:
        on_spec(server, client, &frame->spec_offer);
        return;
    case FRAME_REQUEST:
        on_request(server, client, &frame->request);
        return;
    case FRAME_GOODBYE:
        server_forget(server, client, "said goodbye");
        return;
    case FRAME_SHARE:
        on_share(server, client, &frame->share);
        return;
    case FRAME_RELEASE:
        on_release(server, client, &frame->release);
        return;
    default:
        server_ban(server, client, FRAME_REASON_MESSAGE, "a message that only loaders send");
    }
}

/* Whose connection this is. One that was let in before its key was taken away is cut off. */
static void identify(struct server *server, struct client *client)
{
    client->connection = sock_message_connection(server->sock, server->message);
    snprintf(client->name, sizeof(client->name), "trainer #%u", client->address);
    if (!server->access.zap)
        return;
    snprintf(client->key, sizeof(client->key), "%s", sock_message_key(server->message));
    if (clients_with_key(&server->clients, client->key) > CLIENT_KEY_MAX)
        server_ban(server, client, FRAME_REASON_LIMIT, "too many connections with this key");
    else if (!zap_allows(server->access.zap, client->key, client->key_name))
        server_ban(server, client, FRAME_REASON_KEY, "this trainer's key is not on the allow-list");
}

static struct client *client_of_message(struct server *server, uint32_t address)
{
    struct client *client = client_find(&server->clients, address);
    if (client)
        return client;
    client = client_add(&server->clients, address);
    if (client) {
        identify(server, client);
        return client;
    }
    /* No place in the table: the answer goes out from a stand-in. */
    struct client stranger = {.address = address, .name = "trainer", .end = &stranger.first};
    talk_refuse(server, &stranger, FRAME_REASON_BUSY, 0, "too many trainers at this loader");
    return NULL;
}

static void on_message(struct server *server)
{
    struct client *client = client_of_message(server, sock_message_client(server->message));
    if (!client || client->banned)
        return;
    const char *address = sock_message_address(server->message);
    size_t bytes;
    const void *data = sock_message_data(server->message, 0, &bytes);
    struct frame frame;
    if (sock_message_parts(server->message) != 1)
        server_ban(server, client, FRAME_REASON_MESSAGE, "a message of several frames");
    else if (frame_decode(&frame, data, bytes))
        server_ban(server, client, FRAME_REASON_MESSAGE, err_message());
    else
        on_frame(server, client, &frame, address);
}

int talk_receive(struct server *server)
{
    for (int i = 0; i < MESSAGES_AT_ONCE; i++) {
        int result = sock_receive(server->sock, server->message);
        if (result < 0)
            return result;
        if (result == SOCK_NOTHING)
            return ERR_OK;
        if (result == SOCK_RECEIVED)
            on_message(server);
        else /* its sender is not told: the address may not be its own */
            server->metrics.counts.refused++;
    }
    return ERR_OK;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The conversation with one loader: hello, specs, requests, answers, and when to lose patience.
 * What arrives is hostile: a loader that sends what no loader would is refused for good, and named.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/log.h"
#include "proto/receipt.h"
#include "trainer/feed_state.h"

/* Of flow control; seconds. */
#define DEADLINE_LEAST 3.0
#define DEADLINE_FACTOR 4.0
#define WORK_AHEAD 0.5     /* how much work is put into a loader's queue */
#define SILENCE_LEAST 30.0 /* requests unanswered for so long: the connection is given up */
#define STEADY 5.0         /* a connection that held so long starts the back-off anew */

enum {
    RECEIVE_MESSAGES = 64, /* in ZeroMQ's queue; the network holds the rest back */
    MESSAGES_AT_ONCE = 32,
    FIRST_WINDOW = 2,
    RETRY_MS = 100,
    RETRY_MAX_MS = 5000,
    SUSPECT_LOSSES = 2,
};

static int64_t ns_of(double seconds)
{
    return (int64_t)(seconds * 1e9);
}

/* ---- opening, losing, refusing ---- */

int feed_peer_open(struct feed *feed, struct peer *peer)
{
    int code = sock_connect(&peer->sock, feed->context, peer->endpoint, RECEIVE_MESSAGES);
    peer->state = code ? PEER_CLOSED : PEER_OPENING;
    peer->window = FIRST_WINDOW;
    peer->credits = 0;
    peer->offered = 0;
    peer->service_s = 0;
    peer->answer_ns = 0;
    return code;
}

/* Closes the socket; what was asked there is wanted again. A new socket, so that no answer to an
 * old connection can be taken for one of the new. */
static void hang_up(struct feed *feed, int number, bool lost)
{
    struct peer *peer = feed->peers[number];
    for (unsigned i = 0; i < peer->request_count; i++) {
        struct ledger_chunk *chunk = peer->requests[i].chunk;
        if (!chunk)
            continue;
        ledger_lost(feed->ledger, chunk, number, lost);
        if (lost && chunk->losses == SUSPECT_LOSSES)
            log_warn("chunk %" PRIu64 " of epoch %u was at %d loaders that were lost: one of its "
                     "records may be the cause",
                     chunk->chunk, chunk->epoch, SUSPECT_LOSSES);
    }
    peer->request_count = 0;
    sock_close(peer->sock, 0);
    peer->sock = NULL;
}

static void lose(struct feed *feed, int number, const char *why)
{
    struct peer *peer = feed->peers[number];
    int64_t now = clock_ns();
    bool was_leaving = peer->state == PEER_LEAVING;
    if (peer->state == PEER_READY || was_leaving)
        log_info("loader %s: %s%s", peer->endpoint, why,
                 peer->request_count ? "; what it had is asked for elsewhere" : "");
    bool steady = peer->greeted_ns && now - peer->greeted_ns > ns_of(STEADY);
    peer->failures = steady ? 0 : peer->failures + 1;
    hang_up(feed, number, !was_leaving);
    peer->state = PEER_CLOSED;
    peer->greeted_ns = 0;
    peer->opened_ns = now;
    peer->said_missing = false;
    unsigned shift = peer->failures < 6 ? peer->failures : 6;
    int64_t wait_ms = (int64_t)RETRY_MS << shift;
    if (wait_ms > RETRY_MAX_MS)
        wait_ms = RETRY_MAX_MS;
    peer->retry_ns = now + wait_ms * 1000000;
}

void feed_peer_goodbye(struct feed *feed, int number)
{
    struct peer *peer = feed->peers[number];
    if (!peer->sock)
        return;
    const struct frame frame = {.kind = FRAME_GOODBYE};
    uint8_t bytes[FRAME_MAX_BYTES];
    struct sock_part part = {bytes, 0, NULL, NULL};
    if (peer->state >= PEER_GREETING && !frame_encode(bytes, &part.bytes, &frame))
        sock_send(peer->sock, 0, &part, 1);
    for (unsigned i = 0; i < peer->request_count; i++)
        if (peer->requests[i].chunk)
            ledger_lost(feed->ledger, peer->requests[i].chunk, number, false);
    peer->request_count = 0;
    sock_close(peer->sock, 100);
    peer->sock = NULL;
    peer->state = PEER_CLOSED;
}

static void refuse(struct feed *feed, int number, const char *why)
{
    struct peer *peer = feed->peers[number];
    log_error("loader %s: %s; it will not be used", peer->endpoint, why);
    hang_up(feed, number, false);
    peer->state = PEER_REFUSED;
    pthread_mutex_lock(&feed->lock);
    feed->counts.rejected++;
    snprintf(feed->refusal, sizeof(feed->refusal), "loader %s: %s", peer->endpoint, why);
    pthread_cond_broadcast(&feed->changed);
    pthread_mutex_unlock(&feed->lock);
}

static bool send_frame(struct feed *feed, int number, const struct frame *frame)
{
    struct peer *peer = feed->peers[number];
    uint8_t bytes[FRAME_MAX_BYTES];
    struct sock_part part = {bytes, 0, NULL, NULL};
    int code = frame_encode(bytes, &part.bytes, frame);
    if (!code)
        code = sock_send(peer->sock, 0, &part, 1);
    if (code < 0)
        feed_io_fail(feed, code);
    return code == SOCK_SENT;
}

static void say_hello(struct feed *feed, int number)
{
    struct peer *peer = feed->peers[number];
    struct frame frame = {.kind = FRAME_HELLO,
                          .hello = {.protocol = FRAME_PROTOCOL,
                                    .wanted_count = 2,
                                    .wanted = {{"train", true, {0, 0}}, {"val", true, {0, 0}}}}};
    snprintf(frame.hello.run, sizeof(frame.hello.run), "%.60s",
             feed->config.run ? feed->config.run : "");
    if (send_frame(feed, number, &frame))
        peer->state = PEER_GREETING;
}

/* ---- admission ---- */

static int store_by_name(const struct feed *feed, const char *name)
{
    for (int i = 0; i < feed->store_count; i++)
        if (strcmp(feed->stores[i].name, name) == 0)
            return i;
    return -1;
}

/* What it says of a store against what the first loader said. */
static int compare_store(const struct feed_store *known, const struct frame_store *store)
{
    char theirs[33], ours[33];
    hash128_to_text(theirs, store->fingerprint);
    hash128_to_text(ours, known->fingerprint);
    if (!hash128_equal(known->fingerprint, store->fingerprint))
        return err_set(ERR_PEER, "its store %s is another one (fingerprint %s, not %s)",
                       store->name, theirs, ours);
    if (known->sample_count != store->sample_count || known->class_count != store->class_count ||
        known->channels != store->channels || !hash128_equal(known->classes, store->classes))
        return err_set(ERR_PEER,
                       "its store %s has %u samples, %u classes, %u channels, not %u, "
                       "%u, %u, or other class ids",
                       store->name, store->sample_count, store->class_count, store->channels,
                       known->sample_count, known->class_count, known->channels);
    return ERR_OK;
}

/* All stores of one run have the same classes. */
static int compare_classes(const struct feed *feed, const struct frame_hello_reply *reply)
{
    for (uint32_t i = 0; i < reply->store_count; i++) {
        const struct frame_store *a = &reply->stores[i];
        for (uint32_t j = 0; j < i; j++)
            if (!hash128_equal(a->classes, reply->stores[j].classes))
                return err_set(ERR_PEER, "its stores %s and %s have different class ids",
                               reply->stores[j].name, a->name);
        for (int j = 0; j < feed->store_count; j++)
            if (!hash128_equal(a->classes, feed->stores[j].classes))
                return err_set(ERR_PEER, "its store %s has other class ids than %s", a->name,
                               feed->stores[j].name);
    }
    return ERR_OK;
}

static bool is_wanted(const char *name)
{
    return strcmp(name, "train") == 0 || strcmp(name, "val") == 0;
}

/* Keeps of a reply what this run is about. */
static void keep_wanted(struct frame_hello_reply *reply)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < reply->store_count; i++)
        if (is_wanted(reply->stores[i].name))
            reply->stores[kept++] = reply->stores[i];
    reply->store_count = kept;
}

static int admit(struct feed *feed, struct peer *peer, struct frame_hello_reply *reply)
{
    if (reply->protocol != FRAME_PROTOCOL)
        return err_set(ERR_PEER, "it speaks protocol %u, not %d", reply->protocol, FRAME_PROTOCOL);
    keep_wanted(reply);
    if (reply->store_count == 0)
        return err_set(ERR_PEER, "it has neither a store train nor val");
    for (uint32_t i = 0; i < reply->store_count; i++) {
        int known = store_by_name(feed, reply->stores[i].name);
        int code = known < 0 ? ERR_OK : compare_store(&feed->stores[known], &reply->stores[i]);
        if (code)
            return code;
    }
    int code = compare_classes(feed, reply);
    if (code)
        return code;
    peer->stores = 0;
    for (uint32_t i = 0; i < reply->store_count; i++) {
        const struct frame_store *store = &reply->stores[i];
        int known = store_by_name(feed, store->name);
        if (known < 0) { /* at most two names pass keep_wanted */
            known = feed->store_count++;
            struct feed_store *added = &feed->stores[known];
            memcpy(added->name, store->name, sizeof(added->name));
            added->fingerprint = store->fingerprint;
            added->sample_count = store->sample_count;
            added->class_count = store->class_count;
            added->channels = store->channels;
            added->classes = store->classes;
        }
        peer->stores |= 1u << known;
    }
    return ERR_OK;
}

static void on_hello_reply(struct feed *feed, int number, struct frame_hello_reply *reply)
{
    struct peer *peer = feed->peers[number];
    if (peer->state != PEER_GREETING) {
        refuse(feed, number, "it answered a hello that was not said");
        return;
    }
    pthread_mutex_lock(&feed->lock);
    int code = admit(feed, peer, reply);
    if (!code)
        feed->admitted++;
    pthread_cond_broadcast(&feed->changed);
    pthread_mutex_unlock(&feed->lock);
    if (code) {
        refuse(feed, number, err_message());
        return;
    }
    peer->credits = reply->credits;
    peer->state = PEER_READY;
    peer->greeted_ns = clock_ns();
    log_info("loader %s: ready (%s, %u credits)", peer->endpoint, reply->program, reply->credits);
}

/* ---- asking ---- */

bool feed_peer_has_room(const struct peer *peer)
{
    return peer->state == PEER_READY && peer->request_count < peer->window &&
           peer->request_count < peer->credits;
}

struct usable {
    const struct feed *feed;
    const struct peer *peer;
};

static bool has_store_of(void *user, int spec)
{
    const struct usable *usable = user;
    return usable->peer->stores >> usable->feed->specs[spec].store & 1;
}

static bool send_request(struct feed *feed, int number, const struct peer_request *request)
{
    struct peer *peer = feed->peers[number];
    const struct feed_spec *spec = &feed->specs[request->spec];
    if (!(peer->offered >> request->spec & 1)) {
        const struct frame offer = {.kind = FRAME_SPEC_OFFER, .spec_offer = spec->spec};
        if (!send_frame(feed, number, &offer))
            return false;
        peer->offered |= UINT64_C(1) << request->spec;
    }
    const struct frame frame = {
        .kind = FRAME_REQUEST,
        .request = {spec->hash, request->epoch, request->index, request->id, false}};
    return send_frame(feed, number, &frame);
}

bool feed_peer_ask(struct feed *feed, int number)
{
    struct peer *peer = feed->peers[number];
    struct usable usable = {feed, peer};
    struct ledger_chunk *chunk = ledger_next(feed->ledger, number, has_store_of, &usable);
    if (!chunk)
        return false;
    struct peer_request request = {++feed->next_request, chunk,      chunk->spec, chunk->epoch,
                                   chunk->chunk,         clock_ns(), false};
    if (!send_request(feed, number, &request))
        return false;
    ledger_asked(feed->ledger, chunk, number);
    peer->requests[peer->request_count++] = request;
    if (ledger_is_asked_twice(chunk) || chunk->losses > 0) {
        pthread_mutex_lock(&feed->lock);
        feed->counts.reasked++;
        pthread_mutex_unlock(&feed->lock);
    }
    return true;
}

/* ---- answers ---- */

static struct peer_request *find_request(struct peer *peer, uint64_t id)
{
    for (unsigned i = 0; i < peer->request_count; i++)
        if (peer->requests[i].id == id)
            return &peer->requests[i];
    return NULL;
}

static struct peer_request take_request(struct peer *peer, struct peer_request *request)
{
    struct peer_request taken = *request;
    *request = peer->requests[--peer->request_count];
    return taken;
}

/* Measures the loader and lets its window follow: about half a second of work lies in its queue, so
 * a slow one gets few chunks. */
static void measure(struct peer *peer, const struct peer_request *request)
{
    int64_t now = clock_ns();
    int64_t since = peer->answer_ns > request->asked_ns ? peer->answer_ns : request->asked_ns;
    double service = (double)(now - since) * 1e-9;
    peer->service_s += peer->service_s > 0 ? (service - peer->service_s) / 8 : service;
    peer->answer_ns = now;
    double aim = WORK_AHEAD / (peer->service_s > 1e-6 ? peer->service_s : 1e-6);
    unsigned window = aim >= peer->credits ? peer->credits : (unsigned)ceil(aim);
    if (window <= peer->window)
        peer->window = window < 1 ? 1 : window;
    else
        peer->window++;
}

/* Writes a checked chunk to its place. */
static void fill(struct feed_slot *slot, const struct spec *spec, uint32_t place,
                 const struct frame_chunk *chunk, const uint8_t *labels, const void *pixels,
                 size_t pixel_bytes)
{
    uint32_t first = place * spec->chunk_size;
    memcpy(slot->pixels + first * spec_sample_bytes(spec), pixels, pixel_bytes);
    size_t stride = frame_label_bytes(spec);
    for (uint32_t i = 0; i < chunk->samples; i++) {
        const uint8_t *src = labels + i * stride;
        slot->labels[first + i] = chunk_label_decode(src);
        if (slot->offsets)
            memcpy(slot->offsets[first + i], src + CHUNK_LABEL_BYTES, sizeof(slot->offsets[0]));
    }
}

/* The chunk is delivered: a request for it elsewhere is a duplicate from now on. */
static void settle(struct feed *feed, struct ledger_chunk *chunk)
{
    for (int i = 0; i < 2; i++) {
        if (chunk->holders[i] == LEDGER_NOBODY)
            continue;
        struct peer *peer = feed->peers[chunk->holders[i]];
        for (unsigned j = 0; j < peer->request_count; j++)
            if (peer->requests[j].chunk == chunk)
                peer->requests[j].chunk = NULL;
    }
    ledger_done(feed->ledger, chunk);
}

static struct frame_store facts_of(const struct feed_store *store)
{
    struct frame_store facts = {.fingerprint = store->fingerprint,
                                .sample_count = store->sample_count,
                                .class_count = store->class_count,
                                .channels = store->channels,
                                .classes = store->classes};
    memcpy(facts.name, store->name, sizeof(facts.name));
    return facts;
}

static int check_chunk(struct feed *feed, const struct peer_request *request,
                       const struct frame_chunk *chunk)
{
    const struct feed_spec *spec = &feed->specs[request->spec];
    if (!hash128_equal(chunk->spec_hash, spec->hash) || chunk->epoch != request->epoch ||
        chunk->chunk != request->index)
        return err_set(ERR_PEER, "it answered another request than the one it names");
    if (sock_message_parts(feed->message) != 3)
        return err_set(ERR_PEER, "a chunk of %d frames, not 3", sock_message_parts(feed->message));
    size_t label_bytes, pixel_bytes;
    const void *labels = sock_message_data(feed->message, 1, &label_bytes);
    sock_message_data(feed->message, 2, &pixel_bytes);
    const struct frame_store facts = facts_of(&feed->stores[spec->store]);
    return frame_check_chunk(chunk, &spec->spec, &facts, labels, label_bytes, pixel_bytes);
}

static void on_chunk(struct feed *feed, int number, const struct frame_chunk *chunk)
{
    struct peer *peer = feed->peers[number];
    struct peer_request *found = find_request(peer, chunk->id);
    if (!found) {
        refuse(feed, number, "it sent a chunk that was not asked for");
        return;
    }
    if (check_chunk(feed, found, chunk)) {
        refuse(feed, number, err_message());
        return;
    }
    struct peer_request request = take_request(peer, found);
    measure(peer, &request);
    if (!request.chunk) {
        pthread_mutex_lock(&feed->lock);
        feed->counts.duplicates++;
        pthread_mutex_unlock(&feed->lock);
        return;
    }
    const struct feed_spec *spec = &feed->specs[request.spec];
    struct feed_slot *slot = request.chunk->target;
    size_t label_bytes, pixel_bytes;
    const void *labels = sock_message_data(feed->message, 1, &label_bytes);
    const void *pixels = sock_message_data(feed->message, 2, &pixel_bytes);
    fill(slot, &spec->spec, request.chunk->place, chunk, labels, pixels, pixel_bytes);
    slot->receipt =
        hash128_add(slot->receipt, receipt_of_chunk(spec->hash, chunk->epoch, chunk->chunk, labels,
                                                    label_bytes, pixels, pixel_bytes));
    settle(feed, request.chunk);
    feed_io_delivered(feed, slot, chunk, label_bytes + pixel_bytes);
}

static void on_need_spec(struct feed *feed, int number, const struct frame_need_spec *need)
{
    struct peer *peer = feed->peers[number];
    struct peer_request *request = find_request(peer, need->id);
    if (!request || !hash128_equal(need->spec_hash, feed->specs[request->spec].hash)) {
        refuse(feed, number, "it wants the spec of a request that was not made");
        return;
    }
    peer->offered &= ~(UINT64_C(1) << request->spec);
    if (!send_request(feed, number, request))
        lose(feed, number, "it takes no more messages");
}

static void on_refuse(struct feed *feed, int number, const struct frame_refuse *refusal)
{
    struct peer *peer = feed->peers[number];
    char why[400];
    snprintf(why, sizeof(why), "refused (%s): %s", frame_reason_name(refusal->reason),
             refusal->what);
    struct peer_request *request = refusal->id ? find_request(peer, refusal->id) : NULL;
    if (refusal->id && !request) {
        refuse(feed, number, "it refused a request that was not made");
        return;
    }
    if (request && refusal->reason == FRAME_REASON_DATA) {
        uint64_t chunk = request->index;
        unsigned epoch = request->epoch;
        feed_io_fail(feed,
                     err_set(ERR_PEER, "loader %s cannot make chunk %" PRIu64 " of epoch %u: %s",
                             peer->endpoint, chunk, epoch, refusal->what));
        return;
    }
    if (refusal->reason == FRAME_REASON_BUSY || refusal->reason == FRAME_REASON_INTERNAL) {
        log_warn("loader %s: %s (trying again)", peer->endpoint, why);
        lose(feed, number, why);
        return;
    }
    refuse(feed, number, why);
}

static void on_frame(struct feed *feed, int number, struct frame *frame)
{
    struct peer *peer = feed->peers[number];
    if (frame->kind != FRAME_CHUNK && sock_message_parts(feed->message) != 1) {
        refuse(feed, number, "a message with frames that do not belong to it");
        return;
    }
    switch (frame->kind) {
    case FRAME_HELLO_REPLY:
        on_hello_reply(feed, number, &frame->hello_reply);
        return;
    case FRAME_CHUNK:
        on_chunk(feed, number, &frame->chunk);
        return;
    case FRAME_NEED_SPEC:
        on_need_spec(feed, number, &frame->need_spec);
        return;
    case FRAME_REFUSE:
        on_refuse(feed, number, &frame->refuse);
        return;
    case FRAME_GOODBYE:
        if (peer->state == PEER_READY)
            log_info("loader %s: is leaving", peer->endpoint);
        peer->state = PEER_LEAVING;
        return;
    case FRAME_PING:
        return;
    default:
        refuse(feed, number, "a message that only trainers send");
    }
}

static void on_message(struct feed *feed, int number)
{
    size_t bytes;
    const void *data = sock_message_data(feed->message, 0, &bytes);
    struct frame frame;
    if (frame_decode(&frame, data, bytes))
        refuse(feed, number, err_message());
    else
        on_frame(feed, number, &frame);
}

/* ---- its socket ---- */

static void receive(struct feed *feed, int number)
{
    struct peer *peer = feed->peers[number];
    for (int i = 0; i < MESSAGES_AT_ONCE && peer->sock; i++) {
        int result = sock_receive(peer->sock, feed->message);
        if (result == SOCK_NOTHING)
            return;
        if (result == SOCK_RECEIVED)
            on_message(feed, number);
        else if (result == SOCK_MALFORMED)
            refuse(feed, number, "a message of too many frames");
        else
            feed_io_fail(feed, result);
        if (result < 0)
            return;
    }
}

void feed_peer_events(struct feed *feed, int number)
{
    struct peer *peer = feed->peers[number];
    receive(feed, number); /* first: what came before a disconnect counts */
    while (peer->sock) {
        switch (sock_next_event(peer->sock)) {
        case SOCK_EVENT_NONE:
            return;
        case SOCK_EVENT_CONNECTED:
            say_hello(feed, number);
            break;
        case SOCK_EVENT_DISCONNECTED:
            receive(feed, number);
            if (peer->sock)
                lose(feed, number, peer->state == PEER_LEAVING ? "has left" : "disconnected");
            break;
        case SOCK_EVENT_HANDSHAKE_FAILED:
            log_verbose("loader %s: the handshake failed", peer->endpoint);
            break;
        }
    }
}

/* One deadline (docs/protocol.md): max(3 s, 4 x service time x requests outstanding). */
static double deadline_s(const struct peer *peer)
{
    double busy = DEADLINE_FACTOR * peer->service_s * peer->request_count;
    return busy > DEADLINE_LEAST ? busy : DEADLINE_LEAST;
}

void feed_peer_deadlines(struct feed *feed, int number, int64_t now_ns)
{
    struct peer *peer = feed->peers[number];
    if (peer->state == PEER_LEAVING && peer->request_count == 0) {
        lose(feed, number, "has left");
        return;
    }
    double deadline = deadline_s(peer);
    double silence = 10 * deadline > SILENCE_LEAST ? 10 * deadline : SILENCE_LEAST;
    for (unsigned i = 0; i < peer->request_count; i++) {
        struct peer_request *request = &peer->requests[i];
        double age = (double)(now_ns - request->asked_ns) * 1e-9;
        if (age > silence) {
            lose(feed, number, "does not answer any more");
            return;
        }
        if (age <= deadline || request->overdue || !request->chunk)
            continue;
        request->overdue = true;
        peer->window = 1;
        if (ledger_overdue(feed->ledger, request->chunk))
            log_verbose("loader %s: chunk %" PRIu64 " is overdue after %.1f s", peer->endpoint,
                        request->index, age);
    }
}

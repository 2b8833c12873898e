/* SPDX-License-Identifier: Apache-2.0 */
/* The connection with one loader: opening, hello, losing, refusing, and when to lose patience. What
 * it says is feed_admit.c's (hello) and feed_answer.c's (all else), what it is asked feed_ask.c's.
 */
#include <inttypes.h>
#include <stdio.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/log.h"
#include "trainer/feed_state.h"

/* Of flow control; seconds. */
#define DEADLINE_LEAST 3.0
#define DEADLINE_FACTOR 4.0
#define SILENCE_LEAST 30.0 /* requests unanswered for so long: the connection is given up */
#define MUTE_LEAST                                                                                 \
    10.0           /* not even a ping (one in 2 s) for so long, and something is overdue: too */
#define STEADY 5.0 /* a connection that held so long starts the back-off anew */

enum {
    /* In ZeroMQ's queue: all that it may be sent. Never full, see sock.c; the window bounds it. */
    RECEIVE_MESSAGES = FRAME_MAX_CREDITS + 64,
    MESSAGES_AT_ONCE = 32,
    FIRST_WINDOW = 2,
    RETRY_MS = 100,
    RETRY_MAX_MS = 1000,
    STALLED_RETRY_MS = 1000, /* lost with requests overdue: twice as long each time in a row ... */
    STALLED_DOUBLINGS = 6,   /* ... so often */
    MESSAGE_SLACK = 256 << 10,
};

static int64_t ns_of(double seconds)
{
    return (int64_t)(seconds * 1e9);
}

/* ---- opening, losing, refusing ---- */

int feed_peer_open(struct feed *feed, struct peer *peer)
{
    struct sock_keys keys;
    int code = sock_connect(&peer->sock, feed->context, peer->endpoint, RECEIVE_MESSAGES,
                            feed_keys_of(&keys, feed, peer));
    peer->state = code ? PEER_CLOSED : PEER_OPENING;
    peer->window = FIRST_WINDOW;
    peer->credits = 0;
    peer->offered = peer->challenged = peer->passed = 0;
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
        const struct peer_request *request = &peer->requests[i];
        struct ledger_chunk *chunk = request->chunk;
        if (request->challenge)
            feed->specs[request->spec].challenge_losses += lost;
        if (!chunk)
            continue;
        ledger_lost(feed->ledger, chunk, number, lost);
        if (lost && chunk->losses == FEED_SUSPECT_LOSSES)
            log_warn("chunk %" PRIu64 " of epoch %u was at %d loaders that were lost: one of its "
                     "records may be the cause; its samples are decoded in processes of their own",
                     chunk->chunk, chunk->epoch, FEED_SUSPECT_LOSSES);
    }
    peer->request_count = 0;
    feed_share_close(peer);
    sock_close(peer->sock, 0);
    peer->sock = NULL;
}

static bool has_overdue(const struct peer *peer)
{
    for (unsigned i = 0; i < peer->request_count; i++)
        if (peer->requests[i].overdue)
            return true;
    return false;
}

/* How long to leave it alone. One that comes back at once only to let its requests go overdue again
 * would hold up the run each time. */
static int64_t retry_wait_ms(struct peer *peer, bool steady, bool stalled)
{
    peer->failures = steady ? 0 : peer->failures + 1;
    peer->stalls = stalled ? peer->stalls + 1 : steady ? 0 : peer->stalls;
    if (stalled) {
        unsigned shift = peer->stalls - 1;
        return (int64_t)STALLED_RETRY_MS << (shift < STALLED_DOUBLINGS ? shift : STALLED_DOUBLINGS);
    }
    unsigned shift = peer->failures < 6 ? peer->failures : 6;
    int64_t wait_ms = (int64_t)RETRY_MS << shift;
    return wait_ms < RETRY_MAX_MS ? wait_ms : RETRY_MAX_MS;
}

void feed_peer_lose(struct feed *feed, int number, const char *why)
{
    struct peer *peer = feed->peers[number];
    int64_t now = clock_ns();
    bool was_leaving = peer->state == PEER_LEAVING, stalled = has_overdue(peer);
    bool steady = peer->greeted_ns && now - peer->greeted_ns > ns_of(STEADY);
    int64_t wait_ms = retry_wait_ms(peer, steady, stalled);
    if (peer->state == PEER_READY) {
        pthread_mutex_lock(&feed->lock);
        feed->counts.lost++;
        pthread_mutex_unlock(&feed->lock);
    }
    if (stalled)
        log_warn("loader %s: %s, with requests overdue; they are asked for elsewhere, and it is "
                 "tried again in %.0f s",
                 peer->endpoint, why, (double)wait_ms * 1e-3);
    else if (peer->state == PEER_READY || was_leaving)
        log_info("loader %s: %s%s", peer->endpoint, why,
                 peer->request_count ? "; what it had is asked for elsewhere" : "");
    hang_up(feed, number, !was_leaving);
    peer->state = PEER_CLOSED;
    peer->greeted_ns = 0;
    peer->opened_ns = now;
    peer->said_missing = false;
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
    feed_share_close(peer);
    sock_close(peer->sock, 100);
    peer->sock = NULL;
    peer->state = PEER_CLOSED;
}

void feed_peer_refuse(struct feed *feed, int number, const char *why)
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

bool feed_peer_send(struct feed *feed, int number, const struct frame *frame)
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
    if (feed_peer_send(feed, number, &frame))
        peer->state = PEER_GREETING;
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
            feed_answer(feed, number);
        else if (result == SOCK_MALFORMED)
            feed_peer_refuse(feed, number, "a message of too many frames");
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
        enum sock_event event = sock_next_event(peer->sock);
        switch (event) {
        case SOCK_EVENT_NONE:
            return;
        case SOCK_EVENT_CONNECTED:
            if (feed_keys_fit(feed, number))
                say_hello(feed, number);
            break;
        case SOCK_EVENT_DISCONNECTED:
            receive(feed, number);
            if (peer->sock)
                feed_peer_lose(feed, number,
                               peer->state == PEER_LEAVING ? "has left" : "disconnected");
            break;
        default:
            feed_keys_failed(feed, number, event);
            break;
        }
    }
}

/* One deadline (docs/protocol.md): max(3 s, 4 x service time x requests outstanding). */
double feed_peer_deadline_s(const struct peer *peer)
{
    double busy = DEADLINE_FACTOR * peer->service_s * peer->request_count;
    return busy > DEADLINE_LEAST ? busy : DEADLINE_LEAST;
}

/* What a loader may send at most before a message of it is complete. */
static size_t message_limit(const struct feed *feed, const struct peer *peer)
{
    size_t largest = 0;
    for (int i = 0; i < FEED_SPECS_MAX; i++) {
        const struct spec *spec = &feed->specs[i].spec;
        if (!(peer->offered >> i & 1))
            continue;
        size_t bytes = spec->chunk_size * (frame_label_bytes(spec) + spec_sample_bytes(spec));
        largest = bytes > largest ? bytes : largest;
    }
    return largest + largest / 4 + MESSAGE_SLACK; /* encryption adds to each frame */
}

void feed_peer_deadlines(struct feed *feed, int number, int64_t now_ns)
{
    struct peer *peer = feed->peers[number];
    if (sock_watch(peer->sock, message_limit(feed, peer)) > 0) {
        feed_peer_refuse(feed, number, "it sends a message without end");
        return;
    }
    if (peer->state == PEER_LEAVING && peer->request_count == 0) {
        feed_peer_lose(feed, number, "has left");
        return;
    }
    double deadline = feed_peer_deadline_s(peer);
    double silence = 10 * deadline > SILENCE_LEAST ? 10 * deadline : SILENCE_LEAST;
    double mute = 2 * deadline > MUTE_LEAST ? 2 * deadline : MUTE_LEAST;
    bool is_mute = (double)(now_ns - peer->heard_ns) * 1e-9 > mute;
    for (unsigned i = 0; i < peer->request_count; i++) {
        struct peer_request *request = &peer->requests[i];
        double age = (double)(now_ns - request->asked_ns) * 1e-9;
        if (age > silence || (request->overdue && is_mute)) {
            feed_peer_lose(feed, number, "does not answer any more");
            return;
        }
        if (age <= deadline || request->overdue)
            continue;
        request->overdue = true;
        if (!request->chunk)
            continue;
        peer->window = 1;
        if (ledger_overdue(feed->ledger, request->chunk))
            log_verbose("loader %s: chunk %" PRIu64 " is overdue after %.1f s", peer->endpoint,
                        request->index, age);
    }
}

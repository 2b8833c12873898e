/* SPDX-License-Identifier: Apache-2.0 */
/* What a loader answers. It is hostile: a loader that sends what no loader would is refused for
 * good, and named. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/half.h"
#include "common/log.h"
#include "proto/receipt.h"
#include "trainer/feed_state.h"

enum { PIECE_BYTES = 32 << 10 }; /* of pixels: stays in the first cache */

#define WORK_AHEAD 0.5 /* seconds of work that are put into a loader's queue */

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
 * a slow one gets few chunks. What took longer than its deadline counts as that: a loader that
 * stood still for a while must not have ten times as long the next time. */
static void measure(struct peer *peer, const struct peer_request *request, double deadline_s)
{
    int64_t now = clock_ns();
    int64_t since = peer->answer_ns > request->asked_ns ? peer->answer_ns : request->asked_ns;
    double service = (double)(now - since) * 1e-9;
    if (service > deadline_s)
        service = deadline_s;
    peer->service_s += peer->service_s > 0 ? (service - peer->service_s) / 8 : service;
    peer->answer_ns = now;
    double aim = WORK_AHEAD / (peer->service_s > 1e-6 ? peer->service_s : 1e-6);
    unsigned window = aim >= peer->credits ? peer->credits : (unsigned)ceil(aim);
    if (window <= peer->window)
        peer->window = window < 1 ? 1 : window;
    else
        peer->window++;
}

/* The content of a chunk that came. */
struct content {
    const uint8_t *labels; /* in the message */
    const void *pixels;    /* in the message, or in the loader's memory, where they may change */
    size_t label_bytes, pixel_bytes;
    struct share_view *view; /* NULL: they are in the message */
};

/* Copies pixels piece by piece and looks at each where it now is. False: some are no numbers. */
static bool copy_pixels(uint8_t *dst, const struct spec *spec, const struct content *content)
{
    bool numbers = true;
    for (size_t at = 0; at < content->pixel_bytes; at += PIECE_BYTES) {
        size_t left = content->pixel_bytes - at, bytes = left < PIECE_BYTES ? left : PIECE_BYTES;
        memcpy(dst + at, (const uint8_t *)content->pixels + at, bytes);
        if (spec->wire == SPEC_WIRE_FP16)
            numbers &= half_all_finite((const uint16_t *)(const void *)(dst + at), bytes / 2);
    }
    return numbers;
}

/* Writes a checked chunk to its place; where its pixels are now. NULL: they are no numbers. */
static const void *fill(struct feed_slot *slot, const struct spec *spec, uint32_t place,
                        const struct frame_chunk *chunk, const struct content *content)
{
    uint32_t first = place * spec->chunk_size;
    uint8_t *pixels = slot->pixels + first * spec_sample_bytes(spec);
    if (!copy_pixels(pixels, spec, content))
        return NULL;
    size_t stride = frame_label_bytes(spec);
    for (uint32_t i = 0; i < chunk->samples; i++) {
        const uint8_t *src = content->labels + i * stride;
        slot->labels[first + i] = chunk_label_decode(src);
        if (slot->offsets)
            memcpy(slot->offsets[first + i], src + CHUNK_LABEL_BYTES, sizeof(slot->offsets[0]));
    }
    return pixels;
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

/* Against its request; fills content but for pixels in shared memory. */
static int check_chunk(struct content *content, struct feed *feed,
                       const struct peer_request *request, const struct frame_chunk *chunk)
{
    const struct feed_spec *spec = &feed->specs[request->spec];
    if (!hash128_equal(chunk->spec_hash, spec->hash) || chunk->epoch != request->epoch ||
        chunk->chunk != request->index)
        return err_set(ERR_PEER, "it answered another request than the one it names");
    int parts = chunk->is_shared ? 2 : 3;
    if (sock_message_parts(feed->message) != parts)
        return err_set(ERR_PEER, "a chunk of %d frames, not %d", sock_message_parts(feed->message),
                       parts);
    content->labels = sock_message_data(feed->message, 1, &content->label_bytes);
    if (chunk->is_shared)
        content->pixel_bytes = chunk->samples * spec_sample_bytes(&spec->spec);
    else
        content->pixels = sock_message_data(feed->message, 2, &content->pixel_bytes);
    const struct frame_store facts = facts_of(&feed->stores[spec->store]);
    return frame_check_chunk(chunk, &spec->spec, &facts, content->labels, content->label_bytes,
                             content->pixel_bytes);
}

/* The chunk's hash, as it enters the epoch's receipt: of what will be trained on, so its pixels are
 * hashed where they were copied to. What is only compared is not copied. ERR_PEER: pixels that are
 * no numbers; the place is filled anew by whoever is asked next. */
static int take_in(struct hash128 *receipt, struct feed *feed, const struct peer_request *request,
                   const struct frame_chunk *chunk, const struct content *content)
{
    const struct feed_spec *spec = &feed->specs[request->spec];
    struct feed_slot *slot = request->chunk ? request->chunk->target : NULL;
    const void *pixels = content->pixels;
    if (slot)
        pixels = fill(slot, &spec->spec, request->chunk->place, chunk, content);
    if (!pixels)
        return err_set(ERR_PEER, "chunk %" PRIu64 " has pixels that are no numbers", chunk->chunk);
    *receipt = receipt_of_chunk(spec->hash, request->epoch, request->index, content->labels,
                                content->label_bytes, pixels, content->pixel_bytes);
    return ERR_OK;
}

static void count_duplicate(struct feed *feed)
{
    pthread_mutex_lock(&feed->lock);
    feed->counts.duplicates++;
    pthread_mutex_unlock(&feed->lock);
}

static void deliver(struct feed *feed, int number, const struct peer_request *request,
                    const struct frame_chunk *chunk, struct hash128 receipt, size_t bytes)
{
    struct feed_slot *slot = request->chunk->target;
    if (!slot) {
        feed_identity_audit(feed, number, request->chunk, receipt);
        settle(feed, request->chunk);
        return;
    }
    slot->receipt = hash128_add(slot->receipt, receipt);
    feed_identity_delivered(feed, number, request->chunk, receipt);
    settle(feed, request->chunk);
    feed_io_delivered(feed, slot, chunk, bytes);
}

static void on_chunk(struct feed *feed, int number, const struct frame_chunk *chunk)
{
    struct peer *peer = feed->peers[number];
    struct content content = {.view = NULL};
    struct hash128 receipt = {0, 0};
    struct peer_request *found = find_request(peer, chunk->id);
    if (!found) {
        feed_peer_refuse(feed, number, "it sent a chunk that was not asked for");
        return;
    }
    if (check_chunk(&content, feed, found, chunk) || feed_poison_learn(feed, found, chunk)) {
        feed_peer_refuse(feed, number, err_message());
        return;
    }
    if (chunk->is_shared &&
        !(content.pixels =
              feed_share_pixels(&content.view, feed, number, &chunk->shared, content.pixel_bytes)))
        return;
    if ((found->challenge || found->chunk) && take_in(&receipt, feed, found, chunk, &content)) {
        feed_peer_refuse(feed, number, err_message());
        return;
    }
    if (content.view && !feed_share_was_current(feed, number, content.view, &chunk->shared))
        return;
    double deadline_s = feed_peer_deadline_s(peer);
    struct peer_request request = take_request(peer, found);
    if (content.view)
        feed_share_read(peer, request.id);
    if (!request.isolate) /* processes for each sample say nothing of its speed */
        measure(peer, &request, deadline_s);
    if (request.challenge) {
        if (feed_identity_challenge(feed, number, request.spec, receipt))
            feed_peer_refuse(feed, number, err_message());
    } else if (!request.chunk) {
        count_duplicate(feed);
    } else {
        deliver(feed, number, &request, chunk, receipt, content.label_bytes + content.pixel_bytes);
    }
}

static void on_need_spec(struct feed *feed, int number, const struct frame_need_spec *need)
{
    struct peer *peer = feed->peers[number];
    struct peer_request *request = find_request(peer, need->id);
    if (!request || !hash128_equal(need->spec_hash, feed->specs[request->spec].hash)) {
        feed_peer_refuse(feed, number, "it wants the spec of a request that was not made");
        return;
    }
    peer->offered &= ~(UINT64_C(1) << request->spec);
    if (!feed_peer_request(feed, number, request))
        feed_peer_lose(feed, number, "it takes no more messages");
}

static void on_refuse(struct feed *feed, int number, const struct frame_refuse *refusal)
{
    struct peer *peer = feed->peers[number];
    char why[400];
    snprintf(why, sizeof(why), "refused (%s): %s", frame_reason_name(refusal->reason),
             refusal->what);
    struct peer_request *request = refusal->id ? find_request(peer, refusal->id) : NULL;
    if (refusal->id && !request) {
        feed_peer_refuse(feed, number, "it refused a request that was not made");
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
        feed_peer_lose(feed, number, why);
        return;
    }
    feed_peer_refuse(feed, number, why);
}

static void on_frame(struct feed *feed, int number, struct frame *frame)
{
    struct peer *peer = feed->peers[number];
    if (frame->kind != FRAME_CHUNK && sock_message_parts(feed->message) != 1) {
        feed_peer_refuse(feed, number, "a message with frames that do not belong to it");
        return;
    }
    switch (frame->kind) {
    case FRAME_HELLO_REPLY:
        feed_admit(feed, number, &frame->hello_reply);
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
        feed_peer_refuse(feed, number, "a message that only trainers send");
    }
}

void feed_answer(struct feed *feed, int number)
{
    feed->peers[number]->heard_ns = clock_ns();
    size_t bytes;
    const void *data = sock_message_data(feed->message, 0, &bytes);
    struct frame frame;
    if (frame_decode(&frame, data, bytes))
        feed_peer_refuse(feed, number, err_message());
    else
        on_frame(feed, number, &frame);
}

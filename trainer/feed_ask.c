/* SPDX-License-Identifier: Apache-2.0 */
/* What a loader is asked: how much it may have at once, and the request itself. */
#include "common/clock.h"
#include "trainer/feed_state.h"

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

bool feed_peer_request(struct feed *feed, int number, const struct peer_request *request)
{
    struct peer *peer = feed->peers[number];
    const struct feed_spec *spec = &feed->specs[request->spec];
    if (!(peer->offered >> request->spec & 1)) {
        const struct frame offer = {.kind = FRAME_SPEC_OFFER, .spec_offer = spec->spec};
        if (!feed_peer_send(feed, number, &offer))
            return false;
        peer->offered |= UINT64_C(1) << request->spec;
    }
    const struct frame frame = {
        .kind = FRAME_REQUEST,
        .request = {spec->hash, request->epoch, request->index, request->id, false}};
    return feed_peer_send(feed, number, &frame);
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
    if (!feed_peer_request(feed, number, &request))
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

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
    int challenge; /* out: the spec that it has to be challenged with first, or -1 */
};

/* Until the first answer is there few are challenged at a time: should one of the chunk's records
 * end those who decode it, the others are asked to isolate it. One that is overdue does not count.
 */
static bool is_next(const struct feed *feed, int spec)
{
    unsigned asked = 0;
    if (feed->specs[spec].challenge_known)
        return true;
    for (int i = 0; i < feed->peer_count; i++)
        for (unsigned j = 0; j < feed->peers[i]->request_count; j++) {
            const struct peer_request *request = &feed->peers[i]->requests[j];
            asked += request->challenge && request->spec == spec && !request->overdue;
        }
    return asked == 0 || asked + feed->specs[spec].challenge_losses < FEED_SUSPECT_LOSSES;
}

static bool may_serve(void *user, int spec)
{
    struct usable *usable = user;
    const struct peer *peer = usable->peer;
    if (!(peer->stores >> usable->feed->specs[spec].store & 1))
        return false;
    if (!(peer->challenged >> spec & 1) && usable->challenge < 0 && is_next(usable->feed, spec))
        usable->challenge = spec;
    return peer->passed >> spec & 1;
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
        .request = {spec->hash, request->epoch, request->index, request->id, request->isolate}};
    return feed_peer_send(feed, number, &frame);
}

static bool ask(struct feed *feed, int number, struct peer_request request)
{
    struct peer *peer = feed->peers[number];
    request.id = ++feed->next_request;
    request.asked_ns = clock_ns();
    if (!feed_peer_request(feed, number, &request))
        return false;
    peer->requests[peer->request_count++] = request;
    return true;
}

/* Nothing of a spec is asked before its challenge was answered as the first loader did. */
static bool ask_challenge(struct feed *feed, int number, int spec)
{
    const struct peer_request request = {
        .spec = spec,
        .epoch = FEED_CHALLENGE_EPOCH,
        .index = FEED_CHALLENGE_CHUNK,
        .challenge = true,
        .isolate = feed_poison_suspects(feed, spec, FEED_CHALLENGE_EPOCH, FEED_CHALLENGE_CHUNK,
                                        feed->specs[spec].challenge_losses),
    };
    if (!ask(feed, number, request))
        return false;
    feed->peers[number]->challenged |= UINT64_C(1) << spec;
    return true;
}

bool feed_peer_ask(struct feed *feed, int number)
{
    struct usable usable = {feed, feed->peers[number], -1};
    struct ledger_chunk *chunk = ledger_next(feed->ledger, number, may_serve, &usable);
    if (usable.challenge >= 0)
        return ask_challenge(feed, number, usable.challenge);
    if (!chunk)
        return false;
    const struct peer_request request = {
        .chunk = chunk,
        .spec = chunk->spec,
        .epoch = chunk->epoch,
        .index = chunk->chunk,
        .isolate =
            feed_poison_suspects(feed, chunk->spec, chunk->epoch, chunk->chunk, chunk->losses),
    };
    if (!ask(feed, number, request))
        return false;
    ledger_asked(feed->ledger, chunk, number);
    if (ledger_is_asked_twice(chunk) || chunk->losses > 0) {
        pthread_mutex_lock(&feed->lock);
        feed->counts.reasked++;
        pthread_mutex_unlock(&feed->lock);
    }
    return true;
}

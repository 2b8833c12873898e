/* SPDX-License-Identifier: Apache-2.0 */
/* Pixels that lie in a loader's memory instead of its messages (proto/share.h), where it runs on
 * this host as this user. A loader that cannot be looked into sends them.
 *
 * It takes a place back when it takes this trainer for gone, be it that this process stood still
 * for a minute: what was read may then be of another chunk. So pixels are copied first, and count
 * only when their generation is still the one that was told. */
#include <stdlib.h>

#include "common/err.h"
#include "common/log.h"
#include "trainer/feed_state.h"

enum {
    FAILURES_MAX = 3, /* in a row; then pixels come through the socket */
    VIEWS_MORE = 2,   /* than a loader can have lent at once */
};

void feed_share_close(struct peer *peer)
{
    struct peer_share *share = &peer->share;
    for (unsigned i = 0; i < share->view_count; i++)
        share_close(&share->views[i]);
    free(share->views);
    share->views = NULL;
    share->view_count = share->oldest = share->read_count = 0;
    share->agreed = false;
}

/* Opens a file of the loader's memory. */
static int look(struct share_view *view, const struct peer_share *share, uint32_t descriptor)
{
    int code = share_open(view, share->process, descriptor);
    if (code || !share->agreed)
        return code;
    const struct share_token token = share_view_token(view);
    if (share_token_equal(&token, &share->token))
        return ERR_OK;
    share_close(view);
    return err_set(ERR_IO, "shared memory: what is there is of another process");
}

static int agree(struct feed *feed, struct peer *peer, uint32_t descriptor)
{
    struct peer_share *share = &peer->share;
    struct share_view view;
    share->process = sock_peer_process(peer->sock);
    int code = look(&view, share, descriptor);
    if (code)
        return code;
    share->token = share_view_token(&view);
    share_close(&view);
    share->views = calloc(peer->credits + VIEWS_MORE, sizeof(*share->views));
    if (!share->views)
        return err_set(ERR_NOMEM, "shared memory: out of memory");
    return ERR_OK;
}

void feed_share_begin(struct feed *feed, int number, uint32_t descriptor)
{
    struct peer *peer = feed->peers[number];
    struct peer_share *share = &peer->share;
    if (feed->config.inline_pixels || share->failures >= FAILURES_MAX)
        return;
    if (agree(feed, peer, descriptor)) {
        if (!share->said)
            log_info("loader %s: %s; its pixels come through the socket", peer->endpoint,
                     err_message());
        share->said = true;
        return;
    }
    const struct frame frame = {.kind = FRAME_SHARE, .share = share->token};
    share->agreed = feed_peer_send(feed, number, &frame);
}

/* The map of a file that is known already, or a place for one. */
static struct share_view *place_of(struct peer *peer, uint32_t descriptor)
{
    struct peer_share *share = &peer->share;
    for (unsigned i = 0; i < share->view_count; i++)
        if (share->views[i].map && share->views[i].descriptor == descriptor)
            return &share->views[i];
    unsigned room = peer->credits + VIEWS_MORE;
    if (share->view_count < room)
        return &share->views[share->view_count++];
    share->oldest = (share->oldest + 1) % room;
    return &share->views[share->oldest];
}

/* Cuts the loader off, for good when it did what no loader does. */
static void fail(struct feed *feed, int number, int code)
{
    struct peer *peer = feed->peers[number];
    if (code == ERR_PEER) {
        feed_peer_refuse(feed, number, err_message());
        return;
    }
    peer->share.failures++;
    feed_peer_lose(feed, number, err_message());
    if (peer->share.failures == FAILURES_MAX)
        log_warn("loader %s: shared memory failed %d times; its pixels come through the socket",
                 peer->endpoint, FAILURES_MAX);
}

const void *feed_share_pixels(struct share_view **view, struct feed *feed, int number,
                              const struct frame_shared *shared, size_t bytes)
{
    struct peer *peer = feed->peers[number];
    if (!peer->share.agreed) {
        feed_peer_refuse(feed, number, "it shares memory, which was not agreed on");
        return NULL;
    }
    struct share_view *found = place_of(peer, shared->descriptor);
    int code = ERR_OK;
    if (!found->map || found->descriptor != shared->descriptor || found->serial != shared->serial) {
        share_close(found);
        code = look(found, &peer->share, shared->descriptor);
    }
    const void *pixels = NULL;
    if (!code && found->serial != shared->serial)
        code = err_set(ERR_IO, "shared memory: the place of a chunk is another one by now");
    if (!code && !(pixels = share_view_pixels(found, bytes)))
        code = err_set(ERR_PEER, "shared memory: a file too small for a chunk of %zu bytes", bytes);
    if (code)
        fail(feed, number, code);
    *view = found;
    return pixels;
}

bool feed_share_was_current(struct feed *feed, int number, const struct share_view *view,
                            const struct frame_shared *shared)
{
    if (share_is_current(view, shared->generation)) {
        feed->peers[number]->share.failures = 0;
        return true;
    }
    fail(feed, number, err_set(ERR_IO, "shared memory: a chunk was overwritten while it was read"));
    return false;
}

void feed_share_read(struct peer *peer, uint64_t request)
{
    /* More are only on the way to a loader that takes no messages, which will be given up. */
    if (peer->share.read_count < FRAME_MAX_CREDITS)
        peer->share.read[peer->share.read_count++] = request;
}

void feed_share_return(struct feed *feed, int number)
{
    struct peer_share *share = &feed->peers[number]->share;
    while (share->read_count > 0) {
        struct frame frame = {.kind = FRAME_RELEASE};
        unsigned count =
            share->read_count < FRAME_MAX_RELEASED ? share->read_count : FRAME_MAX_RELEASED;
        frame.release.count = count;
        for (unsigned i = 0; i < count; i++)
            frame.release.ids[i] = share->read[share->read_count - 1 - i];
        if (!feed_peer_send(feed, number, &frame))
            return;
        share->read_count -= count;
    }
}

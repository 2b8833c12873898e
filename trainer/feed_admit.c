/* SPDX-License-Identifier: Apache-2.0 */
/* Who is let in: what a loader says of itself in its answer to hello, against what the first one
 * said. */
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/log.h"
#include "trainer/feed_state.h"

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

/* What its decoders make of the built-in images against what the first loader's made. */
static int compare_self_test(const struct feed *feed, struct hash128 self_test)
{
    char theirs[33], ours[33];
    if (!*feed->self_test_witness || hash128_equal(feed->self_test, self_test))
        return ERR_OK;
    hash128_to_text(theirs, self_test);
    hash128_to_text(ours, feed->self_test);
    return err_set(ERR_PEER,
                   "its decoders make other pixels: the self-test gives %s, at loader %s %s; give "
                   "both the same version",
                   theirs, feed->self_test_witness, ours);
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
    int code = compare_self_test(feed, reply->self_test);
    if (code)
        return code;
    keep_wanted(reply);
    if (reply->store_count == 0)
        return err_set(ERR_PEER, "it has neither a store train nor val");
    for (uint32_t i = 0; i < reply->store_count; i++) {
        int known = store_by_name(feed, reply->stores[i].name);
        code = known < 0 ? ERR_OK : compare_store(&feed->stores[known], &reply->stores[i]);
        if (code)
            return code;
    }
    if ((code = compare_classes(feed, reply)))
        return code;
    if (!*feed->self_test_witness) {
        feed->self_test = reply->self_test;
        snprintf(feed->self_test_witness, sizeof(feed->self_test_witness), "%s", peer->endpoint);
    }
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

void feed_admit(struct feed *feed, int number, struct frame_hello_reply *reply)
{
    struct peer *peer = feed->peers[number];
    if (peer->state != PEER_GREETING) {
        feed_peer_refuse(feed, number, "it answered a hello that was not said");
        return;
    }
    pthread_mutex_lock(&feed->lock);
    int code = admit(feed, peer, reply);
    if (!code)
        feed->admitted++;
    pthread_cond_broadcast(&feed->changed);
    pthread_mutex_unlock(&feed->lock);
    if (code) {
        feed_peer_refuse(feed, number, err_message());
        return;
    }
    peer->credits = reply->credits;
    peer->state = PEER_READY;
    peer->greeted_ns = clock_ns();
    if (reply->shares)
        feed_share_begin(feed, number, reply->descriptor);
    log_info("loader %s: ready (%s, %u credits%s)", peer->endpoint, reply->program, reply->credits,
             peer->share.agreed ? ", pixels in shared memory" : "");
}

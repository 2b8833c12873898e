/* SPDX-License-Identifier: Apache-2.0 */
/* Keys of the feed: which key a loader must have, and what is said and done when there is no
 * handshake.
 *
 * A file of --server-keys that is named after an endpoint (HOST:PORT.pub, HOST.pub, for ipc:// the
 * socket's file name) pins that loader to that key. Without one, the keys of the directory are
 * tried in turn, and the one that fits is kept for this run. */
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/log.h"
#include "trainer/feed_state.h"

enum {
    ROUNDS_MAX = 3,       /* in which every key was tried: then none fits */
    PLAIN_ROUNDS_MAX = 6, /* of handshakes without keys that fail in a row */
    REMIND_SECONDS = 60,
};

static const char NO_KEYS_THERE[] = "it does not use keys: start it with --secret-key and --allow";
static const char NO_KEYS_HERE[] = "it wants keys: --secret-key and --server-keys are missing here";

int feed_keys_open(struct feed *feed)
{
    const char *secret_key = feed->config.secret_key, *server_keys = feed->config.server_keys;
    if (!secret_key && !server_keys)
        return ERR_OK;
    if (!secret_key || !server_keys)
        return err_set(ERR_ARG, "%s goes with %s: a connection has keys on both sides",
                       secret_key ? "--secret-key FILE" : "--server-keys DIR",
                       secret_key ? "--server-keys DIR" : "--secret-key FILE");
    int code = key_pair_read(&feed->own_key, secret_key);
    if (!code)
        code = key_list_read(&feed->loader_keys, server_keys, NULL);
    if (code)
        return err_wrap(code, secret_key && !feed->loader_keys.count ? "keys" : "--server-keys");
    if (feed->loader_keys.count == 0)
        return err_set(ERR_DATA, "--server-keys %s: there is no key; copy the loaders' .pub there",
                       server_keys);
    feed->keyed = true;
    return ERR_OK;
}

void feed_keys_close(struct feed *feed)
{
    key_pair_wipe(&feed->own_key);
    key_list_free(&feed->loader_keys);
}

/* The key pinned for an endpoint, NULL: none. */
static const struct named_key *pinned(const struct feed *feed, const char *endpoint)
{
    char name[ENDPOINT_BYTES];
    const char *last = endpoint;
    for (const char *at = endpoint; *at; at++)
        last = *at == '/' ? at + 1 : last;
    snprintf(name, sizeof(name), "%s", last);
    char *colon = strncmp(endpoint, "tcp://", 6) == 0 ? strrchr(name, ':') : NULL;
    if (name[0] == '[' && colon && colon[-1] == ']') { /* [::1]:5555 is ::1:5555 as a file name */
        memmove(colon - 1, colon, strlen(colon) + 1);
        memmove(name, name + 1, strlen(name));
        colon -= 2;
    }
    const struct named_key *key = key_list_named(&feed->loader_keys, name);
    if (!key && colon) {
        *colon = 0;
        key = key_list_named(&feed->loader_keys, name);
    }
    return key;
}

const struct sock_keys *feed_keys_of(struct sock_keys *keys, const struct feed *feed,
                                     const struct peer *peer)
{
    if (!feed->keyed || peer->probing)
        return NULL;
    const struct named_key *key = pinned(feed, peer->endpoint);
    if (!key)
        key = &feed->loader_keys.keys[peer->key_at % feed->loader_keys.count];
    *keys = (struct sock_keys){&feed->own_key, &key->key};
    return keys;
}

/* Goes on to the next key. False: all were tried. */
static bool try_next(struct feed *feed, struct peer *peer)
{
    unsigned count = pinned(feed, peer->endpoint) ? 1 : (unsigned)feed->loader_keys.count;
    peer->key_at++;
    return peer->key_at % count != 0;
}

/* For a loader that was in use before: it is tried again, and this is said now and then. */
static void complain(struct peer *peer, const char *why)
{
    int64_t now = clock_ns();
    if (peer->complained_ns && now - peer->complained_ns < REMIND_SECONDS * INT64_C(1000000000))
        return;
    peer->complained_ns = now;
    log_warn("loader %s: %s (still trying)", peer->endpoint, why);
}

static void no_handshake(struct feed *feed, int number, const char *why)
{
    struct peer *peer = feed->peers[number];
    if (peer->stores == 0) { /* it was never let in: this is a mistake, not a change */
        feed_peer_refuse(feed, number, why);
        return;
    }
    complain(peer, why);
    feed_peer_lose(feed, number, why);
}

/* No key of the directory fits. */
static void no_key_fits(struct feed *feed, int number)
{
    char why[512];
    const struct named_key *only = pinned(feed, feed->peers[number]->endpoint);
    if (only)
        snprintf(why, sizeof(why), "it does not have the key %s.pub in %s", only->name,
                 feed->config.server_keys);
    else
        snprintf(why, sizeof(why), "it has none of the %zu keys in %s (--server-keys)",
                 feed->loader_keys.count, feed->config.server_keys);
    no_handshake(feed, number, why);
}

static void try_again_now(struct feed *feed, int number)
{
    feed_peer_lose(feed, number, "it hung up");
    feed->peers[number]->failures = 0;
    feed->peers[number]->retry_ns = 0;
}

/* It hung up. A loader does so when a trainer takes it for one with another key; one that uses no
 * keys may do so as well. So the other keys are tried, all of them a few times because it may just
 * have ended, and at last a handshake without keys, over which nothing is sent. */
static void hung_up(struct feed *feed, int number)
{
    struct peer *peer = feed->peers[number];
    if (peer->probing) {
        peer->probing = false;
        no_key_fits(feed, number);
    } else if (try_next(feed, peer)) {
        try_again_now(feed, number);
    } else if (++peer->key_rounds < ROUNDS_MAX) {
        feed_peer_lose(feed, number, "it hung up");
    } else {
        peer->key_rounds = 0;
        peer->probing = true;
        try_again_now(feed, number);
    }
}

bool feed_keys_fit(struct feed *feed, int number)
{
    struct peer *peer = feed->peers[number];
    peer->key_rounds = 0;
    if (!peer->probing) {
        peer->complained_ns = 0;
        return true;
    }
    peer->probing = false;
    no_handshake(feed, number, NO_KEYS_THERE);
    return false;
}

static void not_allowed(struct feed *feed, int number)
{
    char why[512], text[KEY_TEXT_BYTES];
    key_to_text(text, &feed->own_key.public_key);
    snprintf(why, sizeof(why),
             "it does not allow this trainer's key (public key %s): put the .pub file into the "
             "loader's --allow directory and send the loader SIGHUP",
             text);
    no_handshake(feed, number, why);
}

/* Without keys: it may just have ended, and ZeroMQ tries again. One that does so again and again
 * wants keys, or is no loader. */
static void hung_up_plain(struct feed *feed, int number)
{
    struct peer *peer = feed->peers[number];
    if (++peer->key_rounds < PLAIN_ROUNDS_MAX)
        return;
    peer->key_rounds = 0;
    no_handshake(feed, number, NO_KEYS_HERE);
}

void feed_keys_failed(struct feed *feed, int number, enum sock_event event)
{
    struct peer *peer = feed->peers[number];
    log_verbose("loader %s: the handshake failed (%d)", peer->endpoint, (int)event);
    switch (event) {
    case SOCK_EVENT_REFUSED:
        not_allowed(feed, number);
        return;
    case SOCK_EVENT_MISMATCH:
        if (peer->probing)
            hung_up(feed, number);
        else
            no_handshake(feed, number, feed->keyed ? NO_KEYS_THERE : NO_KEYS_HERE);
        return;
    case SOCK_EVENT_FOREIGN:
        no_handshake(feed, number, "what answers there is no loader");
        return;
    case SOCK_EVENT_HUNG_UP:
        if (feed->keyed)
            hung_up(feed, number);
        else
            hung_up_plain(feed, number);
        return;
    default: /* silent: ZeroMQ tries again by itself */
        return;
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Whether loaders make the same stream: the challenge that each answers before it may serve a spec,
 * and the audit, which fetches some chunks from two loaders. */
#include <inttypes.h>
#include <stdio.h>

#include "common/err.h"
#include "common/log.h"
#include "trainer/feed_state.h"

int feed_identity_challenge(struct feed *feed, int number, int spec, struct hash128 hash)
{
    struct peer *peer = feed->peers[number];
    struct feed_spec *about = &feed->specs[spec];
    int code = ERR_OK;
    pthread_mutex_lock(&feed->lock);
    if (!about->challenge_known) {
        about->challenge_known = true;
        about->challenge = hash;
        snprintf(about->witness, sizeof(about->witness), "loader %.250s", peer->endpoint);
    } else if (!hash128_equal(about->challenge, hash)) {
        char theirs[33], ours[33];
        hash128_to_text(theirs, hash);
        hash128_to_text(ours, about->challenge);
        code =
            err_set(ERR_PEER,
                    "it makes other bytes: its chunk %d of epoch %d of store %s has the hash %s, "
                    "that of %s %s; satchel-inspect --replay %d:%d tells who is right",
                    FEED_CHALLENGE_CHUNK, FEED_CHALLENGE_EPOCH, about->spec.store, theirs,
                    about->witness, ours, FEED_CHALLENGE_EPOCH, FEED_CHALLENGE_CHUNK);
    }
    feed->counts.admitted += !code;
    pthread_mutex_unlock(&feed->lock);
    if (!code)
        peer->passed |= UINT64_C(1) << spec;
    return code;
}

/* ---- the audit ---- */

/* The same chunks whoever asks, a share of them all. */
static bool is_audited(const struct feed *feed, const struct ledger_chunk *chunk)
{
    const uint64_t name[] = {feed->specs[chunk->spec].hash.low, chunk->epoch, chunk->chunk};
    return (double)hash64_of(name, sizeof(name)) < feed->config.audit_share * 0x1p64;
}

void feed_identity_delivered(struct feed *feed, int number, const struct ledger_chunk *chunk,
                             struct hash128 hash)
{
    if (!is_audited(feed, chunk))
        return;
    if (feed->audits == FEED_AUDITS_MAX) {
        if (!feed->said_unaudited)
            log_warn("--audit: %d chunks wait for a second loader; others are not audited",
                     FEED_AUDITS_MAX);
        feed->said_unaudited = true;
        return;
    }
    struct ledger_chunk *again =
        ledger_add(feed->ledger, chunk->spec, chunk->epoch, chunk->chunk, NULL, 0);
    if (!again)
        return; /* no memory: one audit less */
    again->shunned = number;
    again->expected = hash;
    feed->audits++;
}

void feed_identity_audit(struct feed *feed, int number, const struct ledger_chunk *chunk,
                         struct hash128 hash)
{
    feed->audits--;
    if (hash128_equal(chunk->expected, hash)) {
        pthread_mutex_lock(&feed->lock);
        feed->counts.audited++;
        pthread_mutex_unlock(&feed->lock);
        return;
    }
    char theirs[33], first[33];
    hash128_to_text(theirs, hash);
    hash128_to_text(first, chunk->expected);
    feed_io_fail(feed,
                 err_set(ERR_DATA,
                         "audit: chunk %" PRIu64 " of epoch %u of store %s differs: loader %s sent "
                         "%s, loader %s sent %s; satchel-inspect --replay %u:%" PRIu64
                         " --recipe FILE on a sound copy tells who is right",
                         chunk->chunk, chunk->epoch, feed->specs[chunk->spec].spec.store,
                         feed->peers[chunk->shunned]->endpoint, first,
                         feed->peers[number]->endpoint, theirs, chunk->epoch, chunk->chunk));
}

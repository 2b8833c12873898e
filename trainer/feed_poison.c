/* SPDX-License-Identifier: Apache-2.0 */
/* Records that end the process which decodes them. A chunk that was at two loaders when they were
 * lost is asked for with its samples in processes of their own; what is learned so is remembered,
 * so that no later epoch costs another loader. */
#include "common/err.h"
#include "common/log.h"
#include "proto/order.h"
#include "trainer/feed_state.h"

static bool is_known(const struct feed *feed, int store, uint32_t id)
{
    for (int i = 0; i < feed->culprit_count; i++)
        if (feed->culprits[i].store == store && feed->culprits[i].id == id)
            return true;
    return false;
}

int feed_poison_learn(struct feed *feed, const struct peer_request *request,
                      const struct frame_chunk *chunk)
{
    const struct feed_spec *spec = &feed->specs[request->spec];
    if (chunk->culprit_count > 0 && !request->isolate)
        return err_set(ERR_PEER, "it names culprits of a chunk that was not to be isolated");
    for (uint32_t i = 0; i < chunk->culprit_count; i++) {
        const struct frame_culprit *culprit = &chunk->culprits[i];
        if (culprit->id >= feed->stores[spec->store].sample_count)
            return err_set(ERR_PEER, "it names a culprit %u that store %s does not have",
                           culprit->id, spec->spec.store);
        if (is_known(feed, spec->store, culprit->id))
            continue;
        log_error("store %s: record %u (class %s) ends the process that decodes it; it is left out "
                  "as a damaged one is",
                  spec->spec.store, culprit->id, culprit->class_id);
        if (feed->culprit_count < FEED_CULPRITS_MAX)
            feed->culprits[feed->culprit_count++] = (struct feed_culprit){spec->store, culprit->id};
        pthread_mutex_lock(&feed->lock);
        feed->counts.poisonous++;
        pthread_mutex_unlock(&feed->lock);
    }
    return ERR_OK;
}

bool feed_poison_suspects(const struct feed *feed, int spec, uint32_t epoch, uint64_t chunk,
                          unsigned losses)
{
    if (losses >= FEED_SUSPECT_LOSSES)
        return true;
    if (feed->culprit_count == 0)
        return false;
    const struct feed_spec *about = &feed->specs[spec];
    uint32_t count = feed->stores[about->store].sample_count;
    uint32_t samples = chunk_samples(&about->spec, chunk, count);
    uint32_t first = (uint32_t)(chunk * about->spec.chunk_size);
    for (uint32_t i = 0; i < samples; i++)
        if (is_known(feed, about->store, order_at(&about->spec, epoch, first + i, count)))
            return true;
    return false;
}

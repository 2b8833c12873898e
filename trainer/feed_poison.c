/* SPDX-License-Identifier: Apache-2.0 */
/* Records that end the process which decodes them. A chunk that was at two loaders when they were
 * lost is asked for with its samples in processes of their own; what is learned so is remembered,
 * so that no later epoch costs another loader, and kept in a file, so that no later process does.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/err.h"
#include "common/file.h"
#include "common/log.h"
#include "proto/order.h"
#include "trainer/feed_state.h"

enum { FILE_BYTES_MAX = 1 << 20 };

static struct feed_culprit *find(struct feed *feed, int store, uint32_t id)
{
    const struct hash128 fingerprint = feed->stores[store].fingerprint;
    for (int i = 0; i < feed->culprit_count; i++)
        if (feed->culprits[i].id == id && hash128_equal(feed->culprits[i].fingerprint, fingerprint))
            return &feed->culprits[i];
    return NULL;
}

/* ---- the file: a line a record, STORE FINGERPRINT ID CLASS ---- */

/* What a killed process left of a line counts as none. */
static bool read_line(struct feed_culprit *culprit, const char *line)
{
    char store[SPEC_STORE_NAME_BYTES], fingerprint[33];
    return sscanf(line, "%15s %32s %" SCNu32 " ", store, fingerprint, &culprit->id) == 3 &&
           hash128_from_text(&culprit->fingerprint, fingerprint) == 0;
}

int feed_poison_open(struct feed *feed)
{
    const char *path = feed->config.poisonous;
    uint8_t *text = NULL;
    size_t bytes;
    if (!path || access(path, F_OK) != 0)
        return ERR_OK;
    int code = file_read(&text, &bytes, path, FILE_BYTES_MAX);
    if (code)
        return code;
    char *rest = (char *)text;
    for (char *line; (line = strsep(&rest, "\n"));) {
        struct feed_culprit culprit = {.named = false};
        if (rest && *line && feed->culprit_count < FEED_CULPRITS_MAX && read_line(&culprit, line))
            feed->culprits[feed->culprit_count++] = culprit;
    }
    free(text);
    log_info("%s: %d records are known to end the process that decodes them", path,
             feed->culprit_count);
    return ERR_OK;
}

static void write_class(char *dst, const char *class_id)
{
    while (*class_id) { /* it comes from a peer */
        char c = *class_id++;
        *dst++ = c > ' ' && c < 0x7f ? c : '_';
    }
    *dst = 0;
}

/* In one write, so that lines of several processes do not mix; the newline in front ends what one
 * that was killed left of its line. */
static void remember(const struct feed *feed, const struct feed_store *store,
                     const struct frame_culprit *culprit)
{
    char fingerprint[33], class_id[FRAME_CLASS_ID_BYTES], line[256];
    const char *path = feed->config.poisonous;
    if (!path)
        return;
    hash128_to_text(fingerprint, store->fingerprint);
    write_class(class_id, culprit->class_id);
    int bytes = snprintf(line, sizeof(line), "\n%s %s %u %s\n", store->name, fingerprint,
                         culprit->id, class_id);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (fd < 0 || write(fd, line, (size_t)bytes) != bytes || fsync(fd) != 0)
        log_warn("%s: %s: when this run is resumed, that record costs loaders again", path,
                 strerror(errno));
    if (fd >= 0)
        close(fd);
}

/* ---- during the run ---- */

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
        struct feed_culprit *known = find(feed, spec->store, culprit->id);
        if (known && known->named)
            continue;
        log_error("store %s: record %u (class %s) ends the process that decodes it; it is left out "
                  "as a damaged one is",
                  spec->spec.store, culprit->id, culprit->class_id);
        const struct feed_store *store = &feed->stores[spec->store];
        if (known) {
            known->named = true;
        } else {
            if (feed->culprit_count < FEED_CULPRITS_MAX)
                feed->culprits[feed->culprit_count++] =
                    (struct feed_culprit){store->fingerprint, culprit->id, true};
            remember(feed, store, culprit);
        }
        pthread_mutex_lock(&feed->lock);
        feed->counts.poisonous++;
        pthread_mutex_unlock(&feed->lock);
    }
    return ERR_OK;
}

bool feed_poison_suspects(struct feed *feed, int spec, uint32_t epoch, uint64_t chunk,
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
        if (find(feed, about->store, order_at(&about->spec, epoch, first + i, count)))
            return true;
    return false;
}

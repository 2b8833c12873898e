/* SPDX-License-Identifier: Apache-2.0 */
/* The caller's side of the feed: ranges in, micro-batches out. Memory is allocated here, so that a
 * backend's allocator sees one thread only. */
#include "trainer/feed.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/log.h"
#include "common/stop.h"
#include "trainer/feed_state.h"

enum {
    WAIT_MS = 1000, /* waits look around at least so often */
    GRACE_MS = 500, /* feed_open waits so long for further loaders that are just connecting */
    SLOTS_LEAST = 2,
    ALIGNMENT = 64,
};

/* ---- memory ---- */

static void *default_alloc(void *user, size_t bytes)
{
    (void)user;
    return aligned_alloc(ALIGNMENT, (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT);
}

static void default_free(void *user, void *memory)
{
    (void)user;
    free(memory);
}

static size_t round_up(size_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static size_t range_bytes(const struct feed_range *range)
{
    size_t samples = range->micro_batch;
    size_t offsets = range->spec.wire == SPEC_WIRE_UINT8 ? 3 * sizeof(float) : 0;
    return round_up(samples * spec_sample_bytes(&range->spec)) +
           round_up(samples * sizeof(struct chunk_label)) + round_up(samples * offsets);
}

/* A free slot, the one with the most memory; NULL when there is none. */
static struct feed_slot *free_slot(struct feed *feed)
{
    struct feed_slot *best = NULL;
    for (int i = 0; i < feed->slot_count; i++) {
        struct feed_slot *slot = feed->slots[i];
        if (slot->state == SLOT_FREE && (!best || slot->capacity > best->capacity))
            best = slot;
    }
    if (best || feed->slot_count == FEED_SLOTS_MAX)
        return best;
    best = calloc(1, sizeof(*best));
    if (best)
        feed->slots[feed->slot_count++] = best;
    return best;
}

static int give_memory(struct feed *feed, struct feed_slot *slot, const struct feed_range *range)
{
    size_t bytes = range_bytes(range);
    if (slot->capacity < bytes) {
        if (slot->memory)
            feed->config.free(feed->config.user, slot->memory);
        slot->capacity = 0;
        slot->memory = feed->config.alloc(feed->config.user, bytes);
        if (!slot->memory)
            return err_set(ERR_NOMEM, "feed: no memory for a micro-batch of %zu bytes", bytes);
        slot->capacity = bytes;
        slot->pattern_spec = -1;
    }
    size_t samples = range->micro_batch;
    slot->bytes = bytes;
    slot->pixels = slot->memory;
    uint8_t *labels = slot->pixels + round_up(samples * spec_sample_bytes(&range->spec));
    slot->labels = (struct chunk_label *)(void *)labels;
    slot->offsets = NULL;
    if (range->spec.wire == SPEC_WIRE_UINT8)
        slot->offsets =
            (float(*)[3])(void *)(labels + round_up(samples * sizeof(struct chunk_label)));
    return ERR_OK;
}

/* ---- arming: the next micro-batches get a slot and go to the I/O thread ---- */

/* May one more of these bytes be under way? */
static bool within_budget(const struct feed *feed, size_t bytes)
{
    size_t sum = 0;
    if (feed->order_count < SLOTS_LEAST)
        return true;
    for (int i = 0; i < feed->order_count; i++)
        sum += feed->order[(feed->first_order + i) % FEED_SLOTS_MAX]->bytes;
    return sum + bytes <= feed->prefetch_bytes;
}

static bool next_batch(struct feed_plan_batch *batch, struct feed *feed, int *at)
{
    while (feed->range_count > 0) {
        *at = feed->first_range;
        if (feed_plan_next(batch, &feed->ranges[*at]))
            return true;
        feed->first_range = (feed->first_range + 1) % FEED_RANGES_MAX;
        feed->range_count--;
    }
    return false;
}

static int arm(struct feed *feed)
{
    int code = ERR_OK, armed = 0;
    pthread_mutex_lock(&feed->lock);
    while (!code && feed->range_count > 0 && feed->order_count < FEED_SLOTS_MAX) {
        const struct feed_plan *plan = &feed->ranges[feed->first_range];
        struct feed_slot *slot;
        if (!within_budget(feed, range_bytes(&plan->range)) || !(slot = free_slot(feed)))
            break;
        struct feed_plan_batch batch;
        int at;
        if (!next_batch(&batch, feed, &at))
            break;
        plan = &feed->ranges[at];
        code = give_memory(feed, slot, &plan->range);
        if (code)
            break;
        slot->spec = feed->range_specs[at];
        slot->epoch = plan->range.epoch;
        slot->batch = batch;
        slot->missing = batch.chunks;
        slot->masked = 0;
        slot->receipt = (struct hash128){0, 0};
        slot->state = SLOT_ARMED;
        feed->order[(feed->first_order + feed->order_count++) % FEED_SLOTS_MAX] = slot;
        if (feed->synthetic)
            feed_synthetic_fill(feed, slot);
        else
            feed->armed++;
        armed++;
    }
    pthread_mutex_unlock(&feed->lock);
    if (armed > 0 && !feed->synthetic)
        feed_io_wake(feed);
    return code;
}

/* ---- opening and closing ---- */

/* Waits for news until `until_ns` at most, and WAIT_MS at most; the lock is held. */
static void wait_changed(struct feed *feed, int64_t until_ns)
{
    int64_t limit = clock_ns() + WAIT_MS * INT64_C(1000000);
    if (until_ns && until_ns < limit)
        limit = until_ns;
    struct timespec deadline = {limit / 1000000000, limit % 1000000000};
    pthread_cond_timedwait(&feed->changed, &feed->lock, &deadline);
}

/* When the stall limit is reached; 0: never. */
static int64_t limit_ns(const struct feed *feed, int64_t since_ns)
{
    double seconds = feed->config.stall_limit_seconds;
    return seconds > 0 ? since_ns + (int64_t)(seconds * 1e9) : 0;
}

static bool over_limit(const struct feed *feed, int64_t since_ns)
{
    int64_t limit = limit_ns(feed, since_ns);
    return limit && clock_ns() >= limit;
}

/* The reasons why no waiting can help; the lock is held. */
static int hopeless(const struct feed *feed)
{
    if (feed->io_code)
        return err_set(feed->io_code, "%s", feed->io_message);
    if (feed->usable == 0 && !feed->watched)
        return err_set(ERR_PEER, "no loader is left that may be used; the last: %s", feed->refusal);
    return ERR_OK;
}

static int await_loader(struct feed *feed)
{
    int64_t start = clock_ns();
    int64_t grace = start + GRACE_MS * INT64_C(1000000);
    int code = ERR_OK;
    pthread_mutex_lock(&feed->lock);
    while (!feed->admitted || (feed->answering > 0 && clock_ns() < grace)) {
        if ((code = hopeless(feed)))
            break;
        if (stop_requested()) {
            code = err_set(ERR_STOPPED, "stopped while waiting for a loader");
            break;
        }
        if (over_limit(feed, start)) {
            code = err_set(ERR_PEER, "no loader answered within %g s (--stall-limit): %s",
                           feed->config.stall_limit_seconds, feed->config.loaders);
            break;
        }
        wait_changed(feed, feed->admitted ? grace : limit_ns(feed, start));
    }
    pthread_mutex_unlock(&feed->lock);
    return code;
}

static int init_sync(struct feed *feed)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    int failed = pthread_mutex_init(&feed->lock, NULL);
    if (!failed)
        failed = pthread_cond_init(&feed->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    return failed ? err_set(ERR_NOMEM, "feed: %s", strerror(failed)) : ERR_OK;
}

int feed_open(struct feed **out, const struct feed_config *config)
{
    if (!config->loaders || !*config->loaders)
        return err_set(ERR_ARG, "no loader is named: ENDPOINT,ENDPOINT..., @FILE or synthetic");
    struct feed *feed = calloc(1, sizeof(*feed));
    if (!feed)
        return err_set(ERR_NOMEM, "feed: out of memory");
    feed->config = *config;
    feed->wake_fd = -1;
    if (!config->alloc) {
        feed->config.alloc = default_alloc;
        feed->config.free = default_free;
    }
    feed->prefetch_bytes = config->prefetch_bytes ? config->prefetch_bytes : FEED_PREFETCH_BYTES;
    feed->synthetic = strcmp(config->loaders, "synthetic") == 0;
    int code = init_sync(feed);
    if (code) {
        free(feed);
        return code;
    }
    if (feed->synthetic) {
        feed->prefetch_bytes = 0; /* nothing is waited for */
        feed_synthetic_stores(feed);
    } else if ((code = feed_keys_open(feed)) || (code = feed_poison_open(feed)) ||
               (code = feed_io_start(feed)) || (code = await_loader(feed))) {
        feed_close(feed);
        return code;
    }
    *out = feed;
    return ERR_OK;
}

static void report(const struct feed *feed)
{
    const struct feed_counts *counts = &feed->counts;
    if (counts->chunks > 0)
        log_info("stream: %" PRIu64 " chunks, %" PRIu64 " asked for again, %" PRIu64
                 " duplicates dropped, %" PRIu64 " connections lost, %" PRIu64 " audited, %" PRIu64
                 " samples substituted, %" PRIu64 " poisonous records, %" PRIu64 " loaders refused",
                 counts->chunks, counts->reasked, counts->duplicates, counts->lost, counts->audited,
                 counts->substituted, counts->poisonous, counts->rejected);
}

void feed_close(struct feed *feed)
{
    if (!feed)
        return;
    feed_io_stop(feed);
    report(feed);
    feed_keys_close(feed);
    for (int i = 0; i < feed->slot_count; i++) {
        if (feed->slots[i]->memory)
            feed->config.free(feed->config.user, feed->slots[i]->memory);
        free(feed->slots[i]);
    }
    pthread_cond_destroy(&feed->changed);
    pthread_mutex_destroy(&feed->lock);
    free(feed);
}

/* ---- stores and ranges ---- */

static int store_number(const struct feed *feed, const char *name)
{
    struct feed *shared = (struct feed *)feed; /* the lock is not part of what const means here */
    int number = -1;
    pthread_mutex_lock(&shared->lock);
    for (int i = 0; i < feed->store_count; i++)
        if (strcmp(feed->stores[i].name, name) == 0)
            number = i;
    pthread_mutex_unlock(&shared->lock);
    return number;
}

const struct feed_store *feed_store(const struct feed *feed, const char *name)
{
    int number = store_number(feed, name);
    return number < 0 ? NULL : &feed->stores[number];
}

/* -1: not used yet. */
static int number_of_spec(const struct feed *feed, struct hash128 hash)
{
    for (int i = 0; i < feed->spec_count; i++)
        if (hash128_equal(feed->specs[i].hash, hash))
            return i;
    return -1;
}

/* The feed's number for a spec; ERR_ARG when there are too many. */
static int spec_number(int *number, struct feed *feed, const struct spec *spec, int store)
{
    struct hash128 hash = spec_hash(spec);
    if ((*number = number_of_spec(feed, hash)) >= 0)
        return ERR_OK;
    if (feed->spec_count == FEED_SPECS_MAX)
        return err_set(ERR_ARG, "more than %d specs in one run", FEED_SPECS_MAX);
    pthread_mutex_lock(&feed->lock);
    *number = feed->spec_count++;
    feed->specs[*number] = (struct feed_spec){.spec = *spec, .hash = hash, .store = store};
    pthread_mutex_unlock(&feed->lock);
    return ERR_OK;
}

bool feed_challenge(struct hash128 *hash, const struct feed *feed, const struct spec *spec)
{
    struct feed *shared = (struct feed *)feed;
    int number = number_of_spec(feed, spec_hash(spec));
    if (number < 0)
        return false;
    pthread_mutex_lock(&shared->lock);
    bool known = feed->specs[number].challenge_known;
    *hash = feed->specs[number].challenge;
    pthread_mutex_unlock(&shared->lock);
    return known;
}

uint64_t feed_range_batches(const struct feed *feed, const struct feed_range *range)
{
    int store = store_number(feed, range->spec.store);
    if (store < 0 || feed_plan_check(range))
        return 0;
    struct feed_plan plan;
    feed_plan_begin(&plan, range, feed->stores[store].sample_count);
    return feed_plan_batches(&plan);
}

/* Checks the spec against its store and gives it a number. */
static int use_spec(int *number, int *store, struct feed *feed, const struct spec *spec)
{
    int code = spec_check(spec);
    if (code)
        return code;
    *store = store_number(feed, spec->store);
    if (*store < 0)
        return err_set(ERR_ARG, "no loader has a store %s", spec->store);
    if (feed->stores[*store].channels != spec->channels)
        return err_set(ERR_ARG, "store %s has %u channels, the spec wants %u", spec->store,
                       feed->stores[*store].channels, spec->channels);
    return spec_number(number, feed, spec, *store);
}

int feed_expect(struct feed *feed, const struct spec *spec, struct hash128 challenge)
{
    int number, store;
    int code = use_spec(&number, &store, feed, spec);
    if (code)
        return code;
    pthread_mutex_lock(&feed->lock);
    struct feed_spec *about = &feed->specs[number];
    about->challenge_known = true;
    about->challenge = challenge;
    snprintf(about->witness, sizeof(about->witness), "the checkpoint");
    pthread_mutex_unlock(&feed->lock);
    return ERR_OK;
}

/* What the feed takes at most: micro-batches fetched ahead, those that the caller holds, and their
 * chunks on the way, each once; said again when a range needs more. */
static void print_memory(struct feed *feed, const struct feed_range *range)
{
    const double mib = 1 << 20;
    size_t batch = range_bytes(range);
    if (feed->synthetic || batch <= feed->printed_bytes)
        return;
    feed->printed_bytes = batch;
    size_t ahead =
        SLOTS_LEAST * batch > feed->prefetch_bytes ? SLOTS_LEAST * batch : feed->prefetch_bytes;
    log_info(
        "memory: the feed takes at most %.0f MiB: %.0f MiB of micro-batches ahead, as much for "
        "their chunks on the way, %d micro-batches x %.1f MiB in use",
        (double)(2 * ahead + FEED_HELD_MAX * batch) / mib, (double)ahead / mib, FEED_HELD_MAX,
        (double)batch / mib);
}

int feed_push(struct feed *feed, const struct feed_range *range)
{
    int number, store;
    int code = feed_plan_check(range);
    if (code)
        return code;
    if (feed->range_count == FEED_RANGES_MAX)
        return err_set(ERR_ARG, "more than %d ranges are queued", FEED_RANGES_MAX);
    if ((code = use_spec(&number, &store, feed, &range->spec)))
        return code;
    print_memory(feed, range);
    int at = (feed->first_range + feed->range_count++) % FEED_RANGES_MAX;
    feed_plan_begin(&feed->ranges[at], range, feed->stores[store].sample_count);
    feed->range_specs[at] = number;
    return arm(feed);
}

void feed_flush(struct feed *feed)
{
    feed->range_count = 0;
    pthread_mutex_lock(&feed->lock);
    if (!feed->synthetic) {
        feed->flush = true;
        feed_io_wake(feed);
        while (feed->flush && !feed->io_code)
            wait_changed(feed, 0);
        feed->flush = false;
    }
    for (; feed->order_count > 0; feed->order_count--) {
        feed->order[feed->first_order]->state = SLOT_FREE;
        feed->first_order = (feed->first_order + 1) % FEED_SLOTS_MAX;
    }
    feed->armed = 0;
    pthread_mutex_unlock(&feed->lock);
}

/* ---- popping ---- */

/* Waits until the oldest slot is ready; the lock is held. */
static int await_slot(struct feed *feed, const struct feed_slot *slot, int64_t start_ns)
{
    while (slot->state != SLOT_READY) {
        int code = hopeless(feed);
        if (code)
            return code;
        if (stop_requested())
            return err_set(ERR_STOPPED, "stopped on request");
        int64_t since = feed->progress_ns > start_ns ? feed->progress_ns : start_ns;
        if (over_limit(feed, since)) {
            feed->stalled = true;
            return err_set(ERR_STOPPED,
                           "no chunk came for %g s (--stall-limit); %u loaders are "
                           "connected",
                           feed->config.stall_limit_seconds, feed->counts.loaders);
        }
        wait_changed(feed, limit_ns(feed, since));
    }
    return ERR_OK;
}

int feed_pop(struct feed_batch *batch, struct feed *feed)
{
    feed->stalled = false;
    if (feed->alloc_code)
        return err_set(feed->alloc_code, "feed: no memory for a micro-batch");
    if (feed->held == FEED_HELD_MAX)
        return err_set(ERR_ARG, "%d micro-batches are held already", FEED_HELD_MAX);
    if (stop_requested())
        return err_set(ERR_STOPPED, "stopped on request");
    int64_t start = clock_ns();
    pthread_mutex_lock(&feed->lock);
    int code = feed->order_count == 0 ? err_set(ERR_ARG, "no range is queued") : ERR_OK;
    struct feed_slot *slot = NULL;
    if (!code) {
        slot = feed->order[feed->first_order];
        code = await_slot(feed, slot, start);
    }
    if (!code) {
        slot->state = SLOT_HELD;
        feed->first_order = (feed->first_order + 1) % FEED_SLOTS_MAX;
        feed->order_count--;
    }
    pthread_mutex_unlock(&feed->lock);
    if (code)
        return code;
    feed->held++;
    *batch = (struct feed_batch){
        .pixels = slot->pixels,
        .labels = slot->labels,
        .offsets = (const float(*)[3])slot->offsets,
        .samples = slot->batch.samples,
        .masked = slot->masked,
        .epoch = slot->epoch,
        .step = slot->batch.step,
        .receipt = slot->receipt,
        .wait_seconds = (double)(clock_ns() - start) * 1e-9,
        .slot = slot,
    };
    feed->alloc_code = arm(feed);
    return ERR_OK;
}

void feed_release(struct feed *feed, struct feed_batch *batch)
{
    struct feed_slot *slot = batch->slot;
    if (!slot)
        return;
    batch->slot = NULL;
    feed->held--;
    pthread_mutex_lock(&feed->lock);
    slot->state = SLOT_FREE;
    pthread_mutex_unlock(&feed->lock);
    int code = arm(feed);
    if (code)
        feed->alloc_code = code;
}

int feed_depth(const struct feed *feed)
{
    (void)feed;
    return FEED_HELD_MAX;
}

bool feed_stalled(const struct feed *feed)
{
    return feed->stalled;
}

void feed_counts(struct feed_counts *counts, const struct feed *feed)
{
    struct feed *shared = (struct feed *)feed;
    pthread_mutex_lock(&shared->lock);
    *counts = feed->counts;
    pthread_mutex_unlock(&shared->lock);
}

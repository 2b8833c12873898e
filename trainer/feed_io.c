/* SPDX-License-Identifier: Apache-2.0 */
/* The feed's I/O thread: listens to all loaders, gives out requests, keeps the list of loaders. */
#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/file.h"
#include "common/log.h"
#include "common/stop.h"
#include "trainer/feed_state.h"

enum {
    TICK_MS = 100,       /* deadlines and the like are looked at so often */
    STILL_MS = 2000,     /* longer between two looks: this process was stopped */
    MISSING_SECONDS = 4, /* then it is said that nobody answers there */
    REMIND_SECONDS = 60,
    OPENING_GRACE_MS = 300, /* a loader that is up has shaken hands by then */
    WATCH_MS = 1000,
    LIST_BYTES_MAX = 1 << 20,
    MAP_LEAST = 32 << 20, /* glibc takes no larger one */
    CONTEXT_THREADS = 2,
};

static const int64_t SECOND_NS = 1000000000;

void feed_io_wake(struct feed *feed)
{
    uint64_t one = 1;
    ssize_t ignored = write(feed->wake_fd, &one, sizeof(one));
    (void)ignored; /* a full counter means that a wake-up is pending anyway */
}

void feed_io_fail(struct feed *feed, int code)
{
    pthread_mutex_lock(&feed->lock);
    if (!feed->io_code) {
        feed->io_code = code;
        snprintf(feed->io_message, sizeof(feed->io_message), "%s", err_message());
    }
    pthread_cond_broadcast(&feed->changed);
    pthread_mutex_unlock(&feed->lock);
}

void feed_io_delivered(struct feed *feed, struct feed_slot *slot, const struct frame_chunk *chunk,
                       size_t bytes)
{
    slot->masked += chunk->masked;
    slot->missing--;
    pthread_mutex_lock(&feed->lock);
    feed->counts.chunks++;
    feed->counts.samples += chunk->samples;
    feed->counts.bytes += bytes;
    feed->counts.substituted += chunk->substituted;
    feed->counts.masked += chunk->masked;
    feed->progress_ns = clock_ns();
    if (slot->missing == 0) {
        slot->state = SLOT_READY;
        pthread_cond_broadcast(&feed->changed);
    }
    pthread_mutex_unlock(&feed->lock);
}

/* ---- the list of loaders ---- */

/* The place of a loader that left the list and did nothing wrong, -1: none. */
static int vacant_peer(const struct feed *feed)
{
    for (int i = 0; i < feed->peer_count; i++)
        if (feed->peers[i]->unlisted && feed->peers[i]->state == PEER_CLOSED)
            return i;
    return -1;
}

static int add_peer(int *at, struct feed *feed, const char *endpoint)
{
    bool full = feed->peer_count == FEED_PEERS_MAX;
    *at = full ? vacant_peer(feed) : feed->peer_count;
    if (*at < 0)
        return err_set(ERR_ARG, "more than %d loaders", FEED_PEERS_MAX);
    struct peer *peer = full ? feed->peers[*at] : calloc(1, sizeof(*peer));
    if (!peer)
        return err_set(ERR_NOMEM, "loaders: out of memory");
    *peer = (struct peer){.opened_ns = clock_ns()};
    snprintf(peer->endpoint, sizeof(peer->endpoint), "%s", endpoint);
    feed->peers[*at] = peer;
    feed->peer_count += !full;
    if (!feed->keyed && !endpoint_is_local(endpoint))
        log_warn("loader %s: plain TCP, neither encrypted nor authenticated", endpoint);
    return ERR_OK;
}

/* Makes the list of peers follow that of endpoints. A peer keeps its number, and what it did wrong.
 */
static int follow_list(struct feed *feed, char (*endpoints)[ENDPOINT_BYTES], int count)
{
    for (int i = 0; i < feed->peer_count; i++)
        feed->peers[i]->unlisted = true;
    for (int i = 0; i < count; i++) {
        int at = 0;
        while (at < feed->peer_count && strcmp(feed->peers[at]->endpoint, endpoints[i]) != 0)
            at++;
        if (at == feed->peer_count) {
            int code = add_peer(&at, feed, endpoints[i]);
            if (code)
                return code;
        }
        feed->peers[at]->unlisted = false;
    }
    for (int i = 0; i < feed->peer_count; i++)
        if (feed->peers[i]->unlisted && feed->peers[i]->sock) {
            log_info("loader %s: no longer listed", feed->peers[i]->endpoint);
            feed_peer_goodbye(feed, i);
        }
    return ERR_OK;
}

static int read_list(struct feed *feed)
{
    char(*endpoints)[ENDPOINT_BYTES] = calloc(FEED_PEERS_MAX, sizeof(*endpoints));
    if (!endpoints)
        return err_set(ERR_NOMEM, "%s: out of memory", feed->watched);
    uint8_t *text = NULL;
    size_t bytes;
    int count;
    int code = file_read(&text, &bytes, feed->watched, LIST_BYTES_MAX);
    if (!code)
        code = endpoint_lines(endpoints, &count, FEED_PEERS_MAX, (const char *)text, feed->watched);
    if (!code)
        code = follow_list(feed, endpoints, count);
    free(text);
    free(endpoints);
    return code;
}

static bool list_changed(struct feed *feed)
{
    struct stat facts;
    if (stat(feed->watched, &facts) != 0)
        return false; /* being replaced, perhaps: the list stands until there is a new one */
    int64_t mtime_ns = facts.st_mtim.tv_sec * SECOND_NS + facts.st_mtim.tv_nsec;
    bool changed = mtime_ns != feed->watched_mtime_ns || facts.st_size != feed->watched_size;
    feed->watched_mtime_ns = mtime_ns;
    feed->watched_size = facts.st_size;
    return changed;
}

static void watch_list(struct feed *feed, int64_t now)
{
    if (!feed->watched || now - feed->watched_at_ns < WATCH_MS * INT64_C(1000000))
        return;
    feed->watched_at_ns = now;
    if (list_changed(feed) && read_list(feed))
        log_warn("%s (the loaders stay as they were)", err_message());
}

static int parse_loaders(struct feed *feed)
{
    const char *loaders = feed->config.loaders;
    if (loaders[0] == '@') {
        feed->watched = loaders + 1;
        list_changed(feed);
        int code = read_list(feed);
        if (!code && feed->peer_count == 0)
            log_warn("%s names no loader yet (waiting)", feed->watched);
        return code;
    }
    char(*endpoints)[ENDPOINT_BYTES] = calloc(FEED_PEERS_MAX, sizeof(*endpoints));
    if (!endpoints)
        return err_set(ERR_NOMEM, "loaders: out of memory");
    int count;
    int code = endpoint_split(endpoints, &count, FEED_PEERS_MAX, loaders);
    if (!code)
        code = follow_list(feed, endpoints, count);
    free(endpoints);
    return code;
}

/* ---- what the caller wants ---- */

/* Puts the chunks of slots armed since the last time into the ledger. */
static void take_armed(struct feed *feed)
{
    pthread_mutex_lock(&feed->lock);
    int code = ERR_OK;
    while (feed->armed > 0 && !code) {
        int at = (feed->first_order + feed->order_count - feed->armed) % FEED_SLOTS_MAX;
        struct feed_slot *slot = feed->order[at];
        slot->state = SLOT_FILLING;
        feed->armed--;
        for (uint32_t i = 0; i < slot->batch.chunks && !code; i++)
            if (!ledger_add(feed->ledger, slot->spec, slot->epoch, slot->batch.first_chunk + i,
                            slot, i))
                code = err_set(ERR_NOMEM, "the ledger of chunks: out of memory");
    }
    pthread_mutex_unlock(&feed->lock);
    if (code)
        feed_io_fail(feed, code);
}

static void flush(struct feed *feed)
{
    for (int i = 0; i < feed->peer_count; i++)
        for (unsigned j = 0; j < feed->peers[i]->request_count; j++)
            feed->peers[i]->requests[j].chunk = NULL;
    ledger_clear(feed->ledger);
    feed->audits = 0;
    pthread_mutex_lock(&feed->lock);
    feed->armed = 0;
    feed->flush = false;
    pthread_cond_broadcast(&feed->changed);
    pthread_mutex_unlock(&feed->lock);
}

/* ---- giving out work ---- */

/* The loader that would answer one more request first. */
static int best_peer(struct feed *feed, const bool *idle)
{
    int best = -1;
    double best_s = 0;
    for (int i = 0; i < feed->peer_count; i++) {
        const struct peer *peer = feed->peers[i];
        if (idle[i] || !feed_peer_has_room(peer))
            continue;
        double seconds = (peer->request_count + 1) * peer->service_s;
        if (best < 0 || seconds < best_s) {
            best = i;
            best_s = seconds;
        }
    }
    return best;
}

static void give_out(struct feed *feed)
{
    bool idle[FEED_PEERS_MAX] = {false}; /* there is nothing for this one */
    int number;
    while (ledger_count(feed->ledger) > 0 && (number = best_peer(feed, idle)) >= 0)
        if (!feed_peer_ask(feed, number))
            idle[number] = true;
    for (int i = 0; i < feed->peer_count; i++)
        if (feed->peers[i]->share.read_count > 0)
            feed_share_return(feed, i);
}

/* ---- the loop ---- */

static void open_peers(struct feed *feed, int64_t now)
{
    for (int i = 0; i < feed->peer_count; i++) {
        struct peer *peer = feed->peers[i];
        if (peer->state != PEER_CLOSED || peer->unlisted || now < peer->retry_ns)
            continue;
        if (feed_peer_open(feed, peer)) {
            log_warn("loader %s: %s (trying again)", peer->endpoint, err_message());
            peer->retry_ns = now + MISSING_SECONDS * SECOND_NS;
        }
    }
}

/* Says of each loader that does not answer that it does not, now and then. */
static void complain(struct feed *feed, int64_t now)
{
    for (int i = 0; i < feed->peer_count; i++) {
        struct peer *peer = feed->peers[i];
        if (peer->state >= PEER_READY || peer->unlisted)
            continue;
        int64_t limit = (peer->said_missing ? REMIND_SECONDS : MISSING_SECONDS) * SECOND_NS;
        if (now - peer->opened_ns < limit)
            continue;
        log_warn("no loader answers at %s (still trying)", peer->endpoint);
        peer->said_missing = true;
        peer->opened_ns = now;
    }
}

/* Says that nobody is there to make what is wanted. */
static void complain_idle(struct feed *feed, int64_t now, unsigned ready)
{
    if (ready > 0 || ledger_count(feed->ledger) == 0) {
        if (feed->said_idle && ready > 0)
            log_info("a loader is there again after %.1f s",
                     (double)(now - feed->idle_ns) / (double)SECOND_NS);
        feed->idle_ns = 0;
        feed->said_idle = false;
        return;
    }
    if (!feed->idle_ns)
        feed->idle_ns = now;
    if (feed->said_idle || now - feed->idle_ns < MISSING_SECONDS * SECOND_NS)
        return;
    char limit[64] = "for ever";
    if (feed->config.stall_limit_seconds > 0)
        snprintf(limit, sizeof(limit), "%g s (--stall-limit)", feed->config.stall_limit_seconds);
    log_warn("no loader is connected: %u chunks are waited for, %s", ledger_count(feed->ledger),
             limit);
    feed->said_idle = true;
}

/* What feed_open and feed_pop want to know. */
static void publish_state(struct feed *feed, int64_t now)
{
    int answering = 0, usable = 0;
    unsigned ready = 0;
    for (int i = 0; i < feed->peer_count; i++) {
        const struct peer *peer = feed->peers[i];
        bool opening = peer->state == PEER_OPENING || peer->state == PEER_CLOSED;
        bool young = now - peer->opened_ns < OPENING_GRACE_MS * INT64_C(1000000);
        answering += peer->state == PEER_GREETING || (opening && young && !peer->said_missing);
        usable += peer->state != PEER_REFUSED && !peer->unlisted;
        ready += peer->state == PEER_READY;
    }
    complain_idle(feed, now, ready);
    pthread_mutex_lock(&feed->lock);
    bool changed = answering != feed->answering || usable != feed->usable;
    feed->answering = answering;
    feed->usable = usable;
    feed->counts.loaders = ready;
    if (changed)
        pthread_cond_broadcast(&feed->changed);
    pthread_mutex_unlock(&feed->lock);
}

static int wait_for_news(struct feed *feed)
{
    struct sock_poll_item items[FEED_PEERS_MAX + 2];
    int numbers[FEED_PEERS_MAX + 2];
    int count = 0;
    items[count++] = (struct sock_poll_item){.fd = feed->wake_fd};
    if (!feed->stop_seen)
        items[count++] = (struct sock_poll_item){.fd = stop_fd()};
    int first_peer = count;
    for (int i = 0; i < feed->peer_count; i++)
        if (feed->peers[i]->sock) {
            numbers[count] = i;
            items[count++] = (struct sock_poll_item){.sock = feed->peers[i]->sock};
        }
    int code = sock_poll(items, count, TICK_MS);
    if (code)
        return code;
    uint64_t woken;
    if (items[0].readable && read(feed->wake_fd, &woken, sizeof(woken)) < 0 && errno != EAGAIN)
        return err_set(ERR_IO, "eventfd: %s", strerror(errno));
    if (!feed->stop_seen && stop_requested()) {
        feed->stop_seen = true;
        pthread_mutex_lock(&feed->lock);
        pthread_cond_broadcast(&feed->changed);
        pthread_mutex_unlock(&feed->lock);
    }
    for (int i = first_peer; i < count; i++)
        if (items[i].readable)
            feed_peer_events(feed, numbers[i]);
    return ERR_OK;
}

/* This process stood still (a signal, a machine that slept, a debugger): the time was not the
 * loaders'. */
static void forgive(struct feed *feed, int64_t pause_ns)
{
    for (int i = 0; i < feed->peer_count; i++) {
        struct peer *peer = feed->peers[i];
        peer->heard_ns += pause_ns;
        for (unsigned j = 0; j < peer->request_count; j++)
            peer->requests[j].asked_ns += pause_ns;
    }
}

static void *run(void *argument)
{
    struct feed *feed = argument;
    int64_t looked_ns = clock_ns();
    int code = ERR_OK;
    for (;;) {
        pthread_mutex_lock(&feed->lock);
        bool closing = feed->closing, want_flush = feed->flush;
        pthread_mutex_unlock(&feed->lock);
        if (closing)
            break;
        if (want_flush)
            flush(feed);
        int64_t now = clock_ns();
        if (now - looked_ns > STILL_MS * INT64_C(1000000))
            forgive(feed, now - looked_ns);
        looked_ns = now;
        watch_list(feed, now);
        open_peers(feed, now);
        for (int i = 0; i < feed->peer_count; i++)
            if (feed->peers[i]->sock)
                feed_peer_deadlines(feed, i, now);
        complain(feed, now);
        take_armed(feed);
        give_out(feed);
        publish_state(feed, now);
        if ((code = wait_for_news(feed))) {
            feed_io_fail(feed, code);
            break;
        }
    }
    for (int i = 0; i < feed->peer_count; i++)
        feed_peer_goodbye(feed, i);
    return NULL;
}

/* ---- starting and stopping ---- */

/* ZeroMQ allocates memory for each message. Left alone, glibc gets that from the kernel time and
 * again, which zeroes it page by page: a quarter of the CPU of receiving (docs/performance.md). */
static void keep_freed_memory(const struct feed *feed)
{
#ifdef __GLIBC__
    mallopt(M_MMAP_THRESHOLD, MAP_LEAST);
    mallopt(M_TRIM_THRESHOLD, feed->prefetch_bytes < INT_MAX ? (int)feed->prefetch_bytes : INT_MAX);
#endif
}

int feed_io_start(struct feed *feed)
{
    keep_freed_memory(feed);
    feed->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    feed->ledger = ledger_open();
    feed->message = sock_message_open();
    if (feed->wake_fd < 0 || !feed->ledger || !feed->message)
        return err_set(ERR_NOMEM, "feed: %s", strerror(errno));
    int code = sock_context_open(&feed->context, CONTEXT_THREADS);
    if (!code)
        code = parse_loaders(feed);
    if (code)
        return code;
    feed->usable = feed->answering = feed->peer_count;
    sigset_t all, before; /* signals belong to the program's own threads */
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    int failed = pthread_create(&feed->thread, NULL, run, feed);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed)
        return err_set(ERR_IO, "cannot start the I/O thread: %s", strerror(failed));
    feed->started = true;
    return ERR_OK;
}

void feed_io_stop(struct feed *feed)
{
    if (feed->started) {
        pthread_mutex_lock(&feed->lock);
        feed->closing = true;
        pthread_mutex_unlock(&feed->lock);
        feed_io_wake(feed);
        pthread_join(feed->thread, NULL);
    }
    sock_message_close(feed->message);
    sock_context_close(feed->context);
    ledger_close(feed->ledger);
    for (int i = 0; i < feed->peer_count; i++)
        free(feed->peers[i]);
    if (feed->wake_fd >= 0)
        close(feed->wake_fd);
}

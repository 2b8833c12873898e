/* SPDX-License-Identifier: Apache-2.0 */
/* The ZAP handler: a REP socket at the endpoint that libzmq asks. */
#include "proto/zap.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <zmq.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/log.h"
#include "proto/sock_private.h"

/* Frames of a request and of an answer (RFC 27). */
enum {
    ASK_VERSION,
    ASK_ID,
    ASK_DOMAIN,
    ASK_ADDRESS,
    ASK_IDENTITY,
    ASK_MECHANISM,
    ASK_CREDENTIAL,
    ASK_FRAMES,

    FRAME_BYTES = 256,
    BANS_MAX = 64,
};

struct ban {
    char key[KEY_TEXT_BYTES];
    int64_t end_ns;
};

struct zap {
    struct sock_context *context;
    void *socket; /* owner: the thread, once it runs */
    pthread_t thread;
    bool started;
    int stop_fd; /* eventfd */
    pthread_mutex_t lock;
    struct key_list allowed; /* owner: lock */
    struct ban bans[BANS_MAX];
    struct log_limit refusals; /* owner: the thread */
};

struct ask {
    uint8_t frames[ASK_FRAMES][FRAME_BYTES];
    size_t bytes[ASK_FRAMES];
};

/* ---- the list ---- */

void zap_allow(struct zap *zap, struct key_list *allowed)
{
    pthread_mutex_lock(&zap->lock);
    struct key_list before = zap->allowed;
    zap->allowed = *allowed;
    pthread_mutex_unlock(&zap->lock);
    *allowed = (struct key_list){0};
    key_list_free(&before);
}

void zap_ban(struct zap *zap, const char *key_text, int seconds)
{
    pthread_mutex_lock(&zap->lock);
    struct ban *place = &zap->bans[0]; /* the one that ends first */
    for (int i = 1; i < BANS_MAX; i++)
        if (zap->bans[i].end_ns < place->end_ns)
            place = &zap->bans[i];
    place->end_ns = clock_ns() + seconds * INT64_C(1000000000);
    memcpy(place->key, key_text, strnlen(key_text, sizeof(place->key) - 1) + 1);
    place->key[sizeof(place->key) - 1] = 0;
    pthread_mutex_unlock(&zap->lock);
}

/* The lock is held. */
static bool is_banned(const struct zap *zap, const char *key_text)
{
    int64_t now = clock_ns();
    for (int i = 0; i < BANS_MAX; i++)
        if (zap->bans[i].end_ns > now && strcmp(zap->bans[i].key, key_text) == 0)
            return true;
    return false;
}

bool zap_allows(struct zap *zap, const char *key_text, char name[KEY_NAME_BYTES])
{
    bool found = false;
    pthread_mutex_lock(&zap->lock);
    for (size_t i = 0; i < zap->allowed.count && !found; i++) {
        char text[KEY_TEXT_BYTES];
        key_to_text(text, &zap->allowed.keys[i].key);
        found = strcmp(text, key_text) == 0;
        if (found)
            memcpy(name, zap->allowed.keys[i].name, KEY_NAME_BYTES);
    }
    pthread_mutex_unlock(&zap->lock);
    return found;
}

/* ---- the conversation ---- */

/* A whole request; ERR_DATA when it is none, which libzmq never sends. */
static int receive(struct zap *zap, struct ask *ask)
{
    int count = 0, more = 1;
    bool good = true;
    while (more) {
        size_t size = sizeof(more);
        zmq_msg_t part;
        zmq_msg_init(&part);
        if (zmq_msg_recv(&part, zap->socket, count ? 0 : ZMQ_DONTWAIT) < 0) {
            zmq_msg_close(&part);
            return ERR_IO;
        }
        good = good && count < ASK_FRAMES && zmq_msg_size(&part) < FRAME_BYTES;
        if (good) {
            ask->bytes[count] = zmq_msg_size(&part);
            memcpy(ask->frames[count], zmq_msg_data(&part), ask->bytes[count]);
            ask->frames[count][ask->bytes[count]] = 0;
        }
        count++;
        zmq_msg_close(&part);
        if (zmq_getsockopt(zap->socket, ZMQ_RCVMORE, &more, &size) != 0)
            return ERR_IO;
    }
    return good && count == ASK_FRAMES ? ERR_OK : ERR_DATA;
}

static bool decide(struct zap *zap, const struct ask *ask, char key_text[KEY_TEXT_BYTES])
{
    struct key key;
    if (strcmp((const char *)ask->frames[ASK_MECHANISM], "CURVE") != 0 ||
        ask->bytes[ASK_CREDENTIAL] != KEY_BYTES)
        return false;
    memcpy(key.bytes, ask->frames[ASK_CREDENTIAL], KEY_BYTES);
    key_to_text(key_text, &key);
    pthread_mutex_lock(&zap->lock);
    bool listed = key_list_find(&zap->allowed, &key) != NULL;
    bool banned = is_banned(zap, key_text);
    size_t count = zap->allowed.count;
    pthread_mutex_unlock(&zap->lock);
    if ((!listed || banned) && log_limit_passes(&zap->refusals, "refused keys"))
        log_warn("refused a trainer at %s: its key %s %s (%zu keys are allowed)",
                 (const char *)ask->frames[ASK_ADDRESS], key_text,
                 banned ? "is kept out for a minute for what it sent" : "is not on the allow-list",
                 count);
    return listed && !banned;
}

static void answer(struct zap *zap, const struct ask *ask, bool allowed, const char *key_text)
{
    const char *code = allowed ? "200" : "400", *text = allowed ? "OK" : "not on the allow-list";
    const char *user = allowed ? key_text : "";
    zmq_send(zap->socket, "1.0", 3, ZMQ_SNDMORE);
    zmq_send(zap->socket, ask->frames[ASK_ID], ask->bytes[ASK_ID], ZMQ_SNDMORE);
    zmq_send(zap->socket, code, 3, ZMQ_SNDMORE);
    zmq_send(zap->socket, text, strlen(text), ZMQ_SNDMORE);
    zmq_send(zap->socket, user, strlen(user), ZMQ_SNDMORE);
    zmq_send(zap->socket, "", 0, 0);
}

static void *run(void *argument)
{
    struct zap *zap = argument;
    zmq_pollitem_t items[] = {{zap->socket, -1, ZMQ_POLLIN, 0},
                              {NULL, zap->stop_fd, ZMQ_POLLIN, 0}};
    while (!(items[1].revents & ZMQ_POLLIN)) {
        static const struct ask none;
        struct ask ask = none;
        char key_text[KEY_TEXT_BYTES] = "";
        if (zmq_poll(items, 2, -1) < 0 && errno != EINTR)
            break;
        int code = receive(zap, &ask);
        if (code != ERR_IO)
            answer(zap, &ask, !code && decide(zap, &ask, key_text), key_text);
    }
    return NULL;
}

/* ---- starting and stopping ---- */

static int start(struct zap *zap)
{
    int none = 0;
    zap->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    zap->socket = zmq_socket(zap->context->zmq, ZMQ_REP);
    if (zap->stop_fd < 0 || !zap->socket ||
        zmq_setsockopt(zap->socket, ZMQ_LINGER, &none, sizeof(none)) != 0 ||
        zmq_bind(zap->socket, "inproc://zeromq.zap.01") != 0)
        return err_set(ERR_IO, "the authentication handler: %s", zmq_strerror(errno));
    sigset_t all, before; /* signals belong to the program's own threads */
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    int failed = pthread_create(&zap->thread, NULL, run, zap);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed)
        return err_set(ERR_IO, "the authentication handler: %s", strerror(failed));
    zap->started = true;
    atomic_store(&zap->context->has_zap, true);
    return ERR_OK;
}

int zap_open(struct zap **out, struct sock_context *context, struct key_list *allowed)
{
    struct zap *zap = calloc(1, sizeof(*zap));
    if (!zap)
        return err_set(ERR_NOMEM, "the authentication handler: out of memory");
    pthread_mutex_init(&zap->lock, NULL);
    zap->context = context;
    zap->stop_fd = -1;
    int code = start(zap);
    if (code) {
        zap_close(zap);
        return code;
    }
    zap_allow(zap, allowed);
    *out = zap;
    return ERR_OK;
}

void zap_close(struct zap *zap)
{
    if (!zap)
        return;
    if (zap->started) {
        uint64_t one = 1;
        ssize_t ignored = write(zap->stop_fd, &one, sizeof(one));
        (void)ignored; /* it was never written before, so there is room */
        atomic_store(&zap->context->has_zap, false);
        pthread_join(zap->thread, NULL);
    }
    if (zap->socket)
        zmq_close(zap->socket);
    if (zap->stop_fd >= 0)
        close(zap->stop_fd);
    key_list_free(&zap->allowed);
    pthread_mutex_destroy(&zap->lock);
    free(zap);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets on libzmq, with the options that this protocol needs and why. */
#include "proto/sock.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include "common/clock.h"
#include "common/err.h"
#include "proto/endpoint.h"
#include "proto/frame.h"
#include "proto/sock_private.h"
#include "proto/spec.h"

struct sock_message {
    zmq_msg_t parts[SOCK_PARTS_MAX];
    int count;
    uint32_t client;
};

enum {
    /* Heartbeats clean up dead connections; they decide nothing (the trainer's deadline does). Only
     * trainers send them, with a time to live that loaders heed: a socket with heartbeats of its
     * own whose receive queue is full ends the process when the peer hangs up (zeromq/libzmq#3937,
     * #4364), and a trainer can fill a loader's queue. For the same reason a trainer's queue has
     * room for all that it may be sent. A TTL above 65,599 ms is mangled (zeromq/libzmq#4226). */
    HEARTBEAT_INTERVAL_MS = 1000,
    HEARTBEAT_TIMEOUT_MS = 10000,
    /* The default of 30 s lets idle connections hold descriptors long enough to lock others out. */
    HANDSHAKE_MS = 2000,
    CONNECT_MS = 2000,
    RECONNECT_MS = 100,
    RECONNECT_MAX_MS = 1000, /* a loader that is back is found within two seconds */
    CONTROL_MESSAGES = 64,   /* room for messages without payload */
    BACKLOG = 4096,          /* connections not yet accepted; the default of 100 is soon full */
    CURVE_BYTES = 64,        /* that CURVE adds to a frame, and some */
    ADDRESS_BYTES = 5,       /* the ROUTER's own addresses: a zero and a 32-bit number */
};

/* ZMQ_ZAP_ENFORCE_DOMAIN: the headers of 4.3 hide it among the drafts, the library has it. */
enum { OPTION_ZAP_ENFORCE_DOMAIN = 93 };

int sock_context_open(struct sock_context **out, int io_threads)
{
    int major, minor, patch;
    zmq_version(&major, &minor, &patch);
    if (major * 10000 + minor * 100 + patch < 40303)
        return err_set(ERR_UNSUPPORTED, "libzmq %d.%d.%d is too old, 4.3.3 fixes security holes",
                       major, minor, patch);
    struct sock_context *context = calloc(1, sizeof(*context));
    if (!context)
        return err_set(ERR_NOMEM, "sockets: out of memory");
    context->zmq = zmq_ctx_new();
    if (!context->zmq || zmq_ctx_set(context->zmq, ZMQ_IO_THREADS, io_threads) != 0) {
        int code = err_set(ERR_IO, "sockets: %s", zmq_strerror(errno));
        sock_context_close(context);
        return code;
    }
    *out = context;
    return ERR_OK;
}

void sock_context_close(struct sock_context *context)
{
    if (!context)
        return;
    if (context->zmq)
        while (zmq_ctx_term(context->zmq) != 0 && errno == EINTR) {
        }
    free(context);
}

/* ---- opening ---- */

struct option {
    int name, value;
};

static int set_options(struct sock *sock, const struct option *options, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (zmq_setsockopt(sock->zmq, options[i].name, &options[i].value,
                           sizeof(options[i].value)) != 0)
            return err_set(ERR_IO, "%s: socket option %d: %s", sock->endpoint, options[i].name,
                           zmq_strerror(errno));
    return ERR_OK;
}

static int set_bytes(struct sock *sock, int option, const void *value, size_t bytes)
{
    if (zmq_setsockopt(sock->zmq, option, value, bytes) != 0)
        return err_set(ERR_IO, "%s: socket option %d: %s", sock->endpoint, option,
                       errno == EINVAL ? "this libzmq has no CURVE" : zmq_strerror(errno));
    return ERR_OK;
}

static int set_message_limit(struct sock *sock, int64_t bytes)
{
    bytes += sock->keyed ? CURVE_BYTES : 0;
    if (zmq_setsockopt(sock->zmq, ZMQ_MAXMSGSIZE, &bytes, sizeof(bytes)) != 0)
        return err_set(ERR_IO, "%s: message limit: %s", sock->endpoint, zmq_strerror(errno));
    return ERR_OK;
}

static int open_socket(struct sock **out, struct sock_context *context, const char *endpoint,
                       int type)
{
    struct sock *sock = calloc(1, sizeof(*sock));
    if (!sock)
        return err_set(ERR_NOMEM, "%s: out of memory", endpoint);
    snprintf(sock->endpoint, sizeof(sock->endpoint), "%s", endpoint);
    sock->router = type == ZMQ_ROUTER;
    sock->fd = -1;
    sock->zmq = zmq_socket(context->zmq, type);
    if (!sock->zmq) {
        int code = err_set(ERR_IO, "%s: %s", endpoint, zmq_strerror(errno));
        free(sock);
        return code;
    }
    const struct option common[] = {
        {ZMQ_LINGER, 0}, /* closing never waits for a peer; sock_close may say otherwise */
        {ZMQ_TCP_MAXRT, HEARTBEAT_TIMEOUT_MS}, /* sent and not acknowledged for so long: gone */
        {ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS},
        {ZMQ_IPV6, strchr(endpoint, '[') != NULL},
    };
    int code = set_options(sock, common, sizeof(common) / sizeof(common[0]));
    if (code) {
        sock_close(sock, 0);
        return code;
    }
    *out = sock;
    return ERR_OK;
}

static int open_monitor(struct sock *sock, struct sock_context *context, int events)
{
    char name[48];
    int no_limit = 0; /* the I/O thread would wait for a reader of a full queue */
    snprintf(name, sizeof(name), "inproc://monitor-%u", atomic_fetch_add(&context->monitors, 1));
    events |= ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
              ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;
    if (zmq_socket_monitor(sock->zmq, name, events) == 0)
        sock->monitor = zmq_socket(context->zmq, ZMQ_PAIR);
    if (!sock->monitor ||
        zmq_setsockopt(sock->monitor, ZMQ_RCVHWM, &no_limit, sizeof(no_limit)) != 0 ||
        zmq_connect(sock->monitor, name) != 0)
        return err_set(ERR_IO, "%s: monitor: %s", sock->endpoint, zmq_strerror(errno));
    return ERR_OK;
}

/* CURVE for a ROUTER. libzmq asks the handler only when there is a domain, and lets everybody in
 * when there is no handler: everything that could fail open is made to fail. */
static int set_server_keys(struct sock *sock, struct sock_context *context,
                           const struct key_pair *own)
{
    static const char domain[] = "satchel";
    const struct option options[] = {{ZMQ_CURVE_SERVER, 1}, {OPTION_ZAP_ENFORCE_DOMAIN, 1}};
    sock->keyed = true;
    if (!atomic_load(&context->has_zap))
        return err_set(ERR_INTERNAL, "%s: keys without a handler that checks them", sock->endpoint);
    int code = set_bytes(sock, ZMQ_ZAP_DOMAIN, domain, sizeof(domain) - 1);
    if (!code)
        code = set_options(sock, options, sizeof(options) / sizeof(options[0]));
    if (!code)
        code = set_bytes(sock, ZMQ_CURVE_SECRETKEY, own->secret_key.bytes, KEY_BYTES);
    return code;
}

static int set_client_keys(struct sock *sock, const struct sock_keys *keys)
{
    sock->keyed = true;
    int code = set_bytes(sock, ZMQ_CURVE_SERVERKEY, keys->loader->bytes, KEY_BYTES);
    if (!code)
        code = set_bytes(sock, ZMQ_CURVE_PUBLICKEY, keys->own->public_key.bytes, KEY_BYTES);
    if (!code)
        code = set_bytes(sock, ZMQ_CURVE_SECRETKEY, keys->own->secret_key.bytes, KEY_BYTES);
    return code;
}

/* What to do about a failed bind, behind the reason. */
static const char *bind_advice(int failure, const char *endpoint)
{
    bool tcp = strncmp(endpoint, "tcp:", 4) == 0;
    if (failure == EADDRINUSE)
        return ": another program uses it; choose another";
    if (tcp && (failure == EADDRNOTAVAIL || failure == ENODEV))
        return ": this host has no such address or interface; tcp://*:PORT listens on all it has";
    if (tcp && failure == EACCES)
        return ": low ports are not for every user; choose one of 1024 to 65535";
    return "";
}

int sock_bind(struct sock **out, struct sock_context *context, const char *endpoint,
              int send_messages, const struct key_pair *own)
{
    struct sock *sock;
    int code = endpoint_check_free(endpoint);
    if (!code)
        code = open_socket(&sock, context, endpoint, ZMQ_ROUTER);
    if (code)
        return code;
    const struct option options[] = {
        {ZMQ_SNDHWM, send_messages + CONTROL_MESSAGES},
        {ZMQ_RCVHWM, CONTROL_MESSAGES},
        {ZMQ_ROUTER_MANDATORY, 1}, /* sending to a trainer that left is an error, not silence */
        {ZMQ_ROUTER_HANDOVER, 0},  /* nobody takes over another's address */
        {ZMQ_BACKLOG, BACKLOG},
    };
    code = set_options(sock, options, sizeof(options) / sizeof(options[0]));
    if (!code && own)
        code = set_server_keys(sock, context, own);
    if (!code)
        code = set_message_limit(sock, FRAME_MAX_BYTES); /* trainers send envelopes only */
    if (!code)
        code = open_monitor(sock, context, ZMQ_EVENT_ACCEPTED);
    if (!code && zmq_bind(sock->zmq, endpoint) != 0)
        code = err_set(ERR_IO, "cannot listen on %s: %s%s", endpoint, zmq_strerror(errno),
                       bind_advice(errno, endpoint));
    if (code) {
        sock_close(sock, 0);
        return code;
    }
    size_t bytes = sizeof(sock->endpoint);
    zmq_getsockopt(sock->zmq, ZMQ_LAST_ENDPOINT, sock->endpoint, &bytes);
    *out = sock;
    return ERR_OK;
}

int sock_connect(struct sock **out, struct sock_context *context, const char *endpoint,
                 int receive_messages, const struct sock_keys *keys)
{
    struct sock *sock;
    int code = open_socket(&sock, context, endpoint, ZMQ_DEALER);
    if (code)
        return code;
    const struct option options[] = {
        {ZMQ_SNDHWM, FRAME_MAX_CREDITS + CONTROL_MESSAGES},
        {ZMQ_RCVHWM, receive_messages},
        {ZMQ_HEARTBEAT_IVL, HEARTBEAT_INTERVAL_MS},
        {ZMQ_HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS},
        {ZMQ_HEARTBEAT_TTL, HEARTBEAT_TIMEOUT_MS},
        {ZMQ_IMMEDIATE, 1}, /* never queue requests for a loader that is not there */
        {ZMQ_CONNECT_TIMEOUT, CONNECT_MS},
        {ZMQ_RECONNECT_IVL, RECONNECT_MS},
        {ZMQ_RECONNECT_IVL_MAX, RECONNECT_MAX_MS},
    };
    code = set_options(sock, options, sizeof(options) / sizeof(options[0]));
    if (!code && keys)
        code = set_client_keys(sock, keys);
    if (!code)
        code = set_message_limit(sock, SPEC_MAX_CHUNK_BYTES + FRAME_MAX_BYTES);
    if (!code)
        code = open_monitor(sock, context, ZMQ_EVENT_CONNECTED | ZMQ_EVENT_HANDSHAKE_SUCCEEDED);
    if (!code && zmq_connect(sock->zmq, endpoint) != 0)
        code = err_set(ERR_IO, "cannot connect to %s: %s", endpoint, zmq_strerror(errno));
    if (code) {
        sock_close(sock, 0);
        return code;
    }
    *out = sock;
    return ERR_OK;
}

void sock_close(struct sock *sock, int linger_ms)
{
    if (!sock)
        return;
    if (sock->monitor) {
        zmq_socket_monitor(sock->zmq, NULL, 0);
        int none = 0;
        zmq_setsockopt(sock->monitor, ZMQ_LINGER, &none, sizeof(none));
        zmq_close(sock->monitor);
    }
    zmq_setsockopt(sock->zmq, ZMQ_LINGER, &linger_ms, sizeof(linger_ms));
    zmq_close(sock->zmq);
    sock_watch_close(sock);
    free(sock);
}

const char *sock_endpoint(const struct sock *sock)
{
    return sock->endpoint;
}

pid_t sock_peer_process(const struct sock *sock)
{
    struct ucred peer = {.pid = 0};
    socklen_t bytes = sizeof(peer);
    if (sock->fd < 0 || strncmp(sock->endpoint, "ipc://", 6) != 0 ||
        getsockopt(sock->fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) != 0)
        return 0;
    return peer.pid;
}

/* ---- events and waiting ---- */

bool sock_monitor_next(struct sock *sock, uint16_t *event, uint32_t *value)
{
    zmq_msg_t part;
    zmq_msg_init(&part);
    bool there = zmq_msg_recv(&part, sock->monitor, ZMQ_DONTWAIT) >= 6;
    if (there) {
        memcpy(event, zmq_msg_data(&part), sizeof(*event));
        memcpy(value, (const char *)zmq_msg_data(&part) + sizeof(*event), sizeof(*value));
    }
    while (zmq_msg_more(&part)) /* the second frame is the address, which we know */
        if (zmq_msg_recv(&part, sock->monitor, ZMQ_DONTWAIT) < 0)
            break;
    zmq_msg_close(&part);
    return there;
}

/* The value of a failure without detail is whatever errno was: only the time tells. */
static bool ran_out_of_time(const struct sock *sock)
{
    int64_t age_ns = clock_ns() - sock->connected_ns;
    return age_ns > HANDSHAKE_MS * INT64_C(900000);
}

static enum sock_event handshake_event(const struct sock *sock, uint16_t event, uint32_t value)
{
    if (event == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH)
        return SOCK_EVENT_REFUSED;
    if (event == ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL)
        return ran_out_of_time(sock) ? SOCK_EVENT_SILENT : SOCK_EVENT_HUNG_UP;
    return value == ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH ? SOCK_EVENT_MISMATCH
                                                               : SOCK_EVENT_FOREIGN;
}

enum sock_event sock_next_event(struct sock *sock)
{
    uint16_t event;
    uint32_t value;
    while (sock_monitor_next(sock, &event, &value)) {
        switch (event) {
        case ZMQ_EVENT_CONNECTED: /* no handshake yet */
            sock->fd = (int)value;
            sock->connected_ns = clock_ns();
            sock_watch_opened(sock, sock->fd);
            break;
        case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
            return SOCK_EVENT_CONNECTED;
        case ZMQ_EVENT_DISCONNECTED:
            sock_watch_closed(sock, sock->fd);
            sock->fd = -1;
            return SOCK_EVENT_DISCONNECTED;
        default:
            return handshake_event(sock, event, value);
        }
    }
    return SOCK_EVENT_NONE;
}

/* A ROUTER's events can wait for sock_watch: strangers that come and go shall not wake its owner.
 */
static bool has_news(const struct sock *sock)
{
    return sock && sock->monitor && !sock->router;
}

int sock_poll(struct sock_poll_item *items, int count, int timeout_ms)
{
    zmq_pollitem_t polled[2 * SOCK_POLL_MAX];
    int polled_count = 0;
    if (count > SOCK_POLL_MAX)
        return err_set(ERR_INTERNAL, "polling %d sockets, %d are possible", count, SOCK_POLL_MAX);
    for (int i = 0; i < count; i++) {
        struct sock *sock = items[i].sock;
        polled[polled_count++] =
            (zmq_pollitem_t){sock ? sock->zmq : NULL, sock ? -1 : items[i].fd, ZMQ_POLLIN, 0};
        if (has_news(sock))
            polled[polled_count++] = (zmq_pollitem_t){sock->monitor, -1, ZMQ_POLLIN, 0};
    }
    if (zmq_poll(polled, polled_count, timeout_ms) < 0) {
        if (errno != EINTR)
            return err_set(ERR_IO, "waiting for messages: %s", zmq_strerror(errno));
        for (int i = 0; i < polled_count; i++)
            polled[i].revents = 0;
    }
    for (int i = 0, at = 0; i < count; i++) {
        items[i].readable = polled[at++].revents != 0;
        if (has_news(items[i].sock))
            items[i].readable |= polled[at++].revents != 0;
    }
    return ERR_OK;
}

/* ---- receiving ---- */

struct sock_message *sock_message_open(void)
{
    struct sock_message *message = calloc(1, sizeof(*message));
    for (int i = 0; message && i < SOCK_PARTS_MAX; i++)
        zmq_msg_init(&message->parts[i]);
    return message;
}

void sock_message_close(struct sock_message *message)
{
    if (!message)
        return;
    for (int i = 0; i < SOCK_PARTS_MAX; i++)
        zmq_msg_close(&message->parts[i]);
    free(message);
}

/* The frame before the message on a ROUTER. *good: it is one that the ROUTER made itself. */
static int receive_address(struct sock *sock, struct sock_message *message, bool *good)
{
    uint8_t address[256];
    int bytes = zmq_recv(sock->zmq, address, sizeof(address), ZMQ_DONTWAIT);
    if (bytes < 0)
        return bytes;
    *good = bytes == ADDRESS_BYTES && address[0] == 0;
    if (*good)
        memcpy(&message->client, address + 1, sizeof(message->client));
    return bytes;
}

/* Receives and drops the rest of a message. */
static void drop_rest(struct sock *sock)
{
    zmq_msg_t part;
    int more = 1;
    zmq_msg_init(&part);
    while (more) {
        if (zmq_msg_recv(&part, sock->zmq, ZMQ_DONTWAIT) < 0)
            break;
        more = zmq_msg_more(&part);
    }
    zmq_msg_close(&part);
}

static bool more_follows(struct sock *sock)
{
    int more = 0;
    size_t bytes = sizeof(more);
    return zmq_getsockopt(sock->zmq, ZMQ_RCVMORE, &more, &bytes) == 0 && more;
}

static int receive_failed(struct sock *sock)
{
    if (errno == EAGAIN || errno == EINTR)
        return SOCK_NOTHING;
    return err_set(ERR_IO, "%s: receiving: %s", sock->endpoint, zmq_strerror(errno));
}

int sock_receive(struct sock *sock, struct sock_message *message)
{
    bool good = true;
    message->count = 0;
    if (sock->router && receive_address(sock, message, &good) < 0)
        return receive_failed(sock);
    if (sock->router && !more_follows(sock))
        return SOCK_MALFORMED;
    for (int i = 0; i < SOCK_PARTS_MAX; i++) {
        if (zmq_msg_recv(&message->parts[i], sock->zmq, ZMQ_DONTWAIT) < 0)
            return receive_failed(sock);
        message->count = i + 1;
        if (!zmq_msg_more(&message->parts[i])) {
            sock_watch_delivered(sock, sock->router ? sock_message_fd(message) : sock->fd);
            return good ? SOCK_RECEIVED : SOCK_MALFORMED;
        }
    }
    drop_rest(sock);
    sock_watch_delivered(sock, sock->router ? sock_message_fd(message) : sock->fd);
    return SOCK_MALFORMED;
}

int sock_message_parts(const struct sock_message *message)
{
    return message->count;
}

const void *sock_message_data(struct sock_message *message, int part, size_t *bytes)
{
    *bytes = zmq_msg_size(&message->parts[part]);
    return zmq_msg_data(&message->parts[part]);
}

uint32_t sock_message_client(const struct sock_message *message)
{
    return message->client;
}

const char *sock_message_address(struct sock_message *message)
{
    /* From a body frame: 4.3.4's ROUTER may lose the metadata of the address frame. */
    const char *address = zmq_msg_gets(&message->parts[0], "Peer-Address");
    return address ? address : "";
}

const char *sock_message_key(struct sock_message *message)
{
    const char *key = zmq_msg_gets(&message->parts[0], "User-Id"); /* as the ZAP handler said */
    return key ? key : "";
}

int sock_message_fd(struct sock_message *message)
{
    return zmq_msg_get(&message->parts[0], ZMQ_SRCFD);
}

/* ---- sending ---- */

static int make_part(zmq_msg_t *dst, const struct sock_part *part)
{
    if (part->release)
        return zmq_msg_init_data(dst, (void *)part->data, part->bytes, part->release, part->user);
    if (zmq_msg_init_size(dst, part->bytes) != 0)
        return -1;
    memcpy(zmq_msg_data(dst), part->data, part->bytes);
    return 0;
}

static int send_failed(struct sock *sock)
{
    switch (errno) {
    case EAGAIN:
    case EINTR:
        return SOCK_FULL;
    case EHOSTUNREACH:
        return SOCK_GONE;
    default:
        return err_set(ERR_IO, "%s: sending: %s", sock->endpoint, zmq_strerror(errno));
    }
}

int sock_send(struct sock *sock, uint32_t client, const struct sock_part *parts, int count)
{
    zmq_msg_t messages[SOCK_PARTS_MAX];
    if (count < 1 || count > SOCK_PARTS_MAX)
        return err_set(ERR_INTERNAL, "sending %d frames, %d are possible", count, SOCK_PARTS_MAX);
    /* Copied frames are made first, so that nothing can fail once the first one went out: a frame
     * that is handed over (the last one) is made right before it is sent. */
    for (int i = 0; i < count; i++)
        if (!parts[i].release && make_part(&messages[i], &parts[i]) != 0)
            return err_set(ERR_NOMEM, "%s: sending: out of memory", sock->endpoint);
    int sent = 0;
    if (sock->router) {
        uint8_t address[ADDRESS_BYTES] = {0};
        memcpy(address + 1, &client, sizeof(client));
        sent = zmq_send(sock->zmq, address, sizeof(address), ZMQ_SNDMORE | ZMQ_DONTWAIT);
    }
    for (int i = 0; i < count && sent >= 0; i++) {
        if (parts[i].release && make_part(&messages[i], &parts[i]) != 0)
            return err_set(ERR_NOMEM, "%s: sending: out of memory", sock->endpoint);
        /* ZeroMQ sends a message whole or not at all: only its first frame can be refused. */
        sent =
            zmq_msg_send(&messages[i], sock->zmq, ZMQ_DONTWAIT | (i + 1 < count ? ZMQ_SNDMORE : 0));
    }
    if (sent >= 0)
        return SOCK_SENT;
    int result = send_failed(sock);
    for (int i = 0; i < count; i++)
        if (!parts[i].release)
            zmq_msg_close(&messages[i]);
    return result;
}

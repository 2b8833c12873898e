/* SPDX-License-Identifier: Apache-2.0 */
/* What ZeroMQ does not look after itself: which connections a socket has, whose handshake failed
 * and why, cutting one connection of a ROUTER, and peers that send a message without end.
 *
 * ZeroMQ hands a message over once its last frame is there, counts no frames before that, and so
 * keeps whatever a peer sends until memory is out. The kernel knows how much has come over a TCP
 * connection; when that grows past a whole message and none was handed over, the peer is cut off.
 * On ipc:// there is no such count. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <zmq.h>

#include "common/clock.h"
#include "common/log.h"
#include "proto/sock_private.h"

enum {
    SCAN_MS = 100,
    SCAN_AT_ONCE = 1024,       /* descriptors looked at in one scan */
    HEARTBEAT_ALLOWANCE = 200, /* bytes a second: commands are counted by the kernel as well */
    DESCRIPTOR_BITS = 20,      /* of a serial: the low ones are the descriptor */
    DESCRIPTORS_MAX = 1 << DESCRIPTOR_BITS,
};

/* ---- the table ---- */

static struct sock_connection *connection_at(struct sock *sock, int fd)
{
    if (fd < 0 || fd >= sock->connection_room || sock->connections[fd].serial == 0)
        return NULL;
    return &sock->connections[fd];
}

static bool make_room(struct sock *sock, int fd)
{
    if (fd < sock->connection_room)
        return true;
    if (fd >= DESCRIPTORS_MAX)
        return false;
    int room = sock->connection_room ? sock->connection_room : 64;
    while (room <= fd)
        room *= 2;
    struct sock_connection *larger = realloc(sock->connections, (size_t)room * sizeof(*larger));
    if (!larger)
        return false;
    memset(larger + sock->connection_room, 0,
           (size_t)(room - sock->connection_room) * sizeof(*larger));
    sock->connections = larger;
    sock->connection_room = room;
    return true;
}

void sock_watch_opened(struct sock *sock, int fd)
{
    if (fd < 0 || !make_room(sock, fd))
        return; /* it is served all the same, but cannot be cut */
    sock->connections[fd] = (struct sock_connection){
        .serial = ++sock->next_serial << DESCRIPTOR_BITS | (unsigned)fd, .base_ns = clock_ns()};
    struct sockaddr_storage *peer = &sock->connections[fd].peer;
    socklen_t bytes = sizeof(*peer);
    if (getpeername(fd, (struct sockaddr *)peer, &bytes) != 0)
        peer->ss_family = AF_UNSPEC;
}

void sock_watch_closed(struct sock *sock, int fd)
{
    struct sock_connection *connection = connection_at(sock, fd);
    if (connection)
        connection->serial = 0;
}

void sock_watch_delivered(struct sock *sock, int fd)
{
    struct sock_connection *connection = connection_at(sock, fd);
    if (connection)
        connection->delivered++;
}

void sock_watch_close(struct sock *sock)
{
    free(sock->connections);
    sock->connections = NULL;
    sock->connection_room = 0;
}

enum { PEER_TEXT_BYTES = INET6_ADDRSTRLEN + 16 };

static const char *peer_text(char text[PEER_TEXT_BYTES], const struct sockaddr_storage *peer)
{
    char host[INET6_ADDRSTRLEN] = "?";
    unsigned port = 0;
    if (peer->ss_family == AF_INET) {
        const struct sockaddr_in *four = (const struct sockaddr_in *)(const void *)peer;
        inet_ntop(AF_INET, &four->sin_addr, host, sizeof(host));
        port = ntohs(four->sin_port);
    } else if (peer->ss_family == AF_INET6) {
        const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)(const void *)peer;
        inet_ntop(AF_INET6, &six->sin6_addr, host, sizeof(host));
        port = ntohs(six->sin6_port);
    } else {
        return peer->ss_family == AF_UNIX ? "this machine" : "an address that is gone already";
    }
    snprintf(text, PEER_TEXT_BYTES, "%s port %u", host, port);
    return text;
}

/* ---- a ROUTER's events ---- */

/* Why a handshake failed, as the loader's owner should read it; NULL: it was said already. */
static const char *failure_text(const struct sock *sock, uint16_t event, uint32_t value)
{
    if (event == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH)
        return NULL; /* the handler has said so */
    if (event == ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL)
        return "it left, or was silent for 2 s, before the handshake ended";
    if (value == ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH)
        return sock->keyed ? "it does not use keys, and this loader does"
                           : "it uses keys, and this loader does not";
    if (value == ZMQ_PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC)
        return "it takes this loader for one with another key";
    return "what it sent is no handshake of ZeroMQ";
}

static void say_failure(struct sock *sock, int fd)
{
    const struct sock_connection *connection = connection_at(sock, fd);
    char text[PEER_TEXT_BYTES];
    if (log_limit_passes(&sock->handshakes, "failed handshakes"))
        log_warn("turned away a connection from %s: %s",
                 connection ? peer_text(text, &connection->peer) : "?", sock->failure);
    sock->failure = NULL;
}

static void follow_events(struct sock *sock)
{
    uint16_t event;
    uint32_t value;
    while (sock_monitor_next(sock, &event, &value)) {
        if (event == ZMQ_EVENT_ACCEPTED) {
            sock_watch_opened(sock, (int)value);
        } else if (event == ZMQ_EVENT_DISCONNECTED) { /* follows a failed handshake */
            if (sock->failure)
                say_failure(sock, (int)value);
            sock_watch_closed(sock, (int)value);
        } else {
            sock->failure = failure_text(sock, event, value);
        }
    }
}

/* ---- messages without end ---- */

/* How much ZeroMQ has taken from this connection. False: not known. */
static bool bytes_taken(uint64_t *bytes, int fd)
{
    struct tcp_info info = {0};
    socklen_t size = sizeof(info);
    int waiting = 0;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0 ||
        size < offsetof(struct tcp_info, tcpi_bytes_received) + sizeof(info.tcpi_bytes_received) ||
        ioctl(fd, FIONREAD, &waiting) != 0)
        return false;
    uint64_t left = waiting > 0 ? (uint64_t)waiting : 0;
    *bytes = info.tcpi_bytes_received > left ? info.tcpi_bytes_received - left : 0;
    return true;
}

static bool is_endless(struct sock_connection *connection, int fd, size_t limit_bytes)
{
    uint64_t taken;
    int64_t now = clock_ns();
    if (!bytes_taken(&taken, fd))
        return false;
    if (connection->delivered != connection->seen_delivered || taken < connection->base_bytes) {
        connection->seen_delivered = connection->delivered;
        connection->base_bytes = taken;
        connection->base_ns = now;
        connection->suspect = false;
        return false;
    }
    /* Whole messages may just not have been received yet: their owner does so between two scans. */
    bool was_suspect = connection->suspect;
    uint64_t seconds = (uint64_t)(now - connection->base_ns) / 1000000000;
    connection->suspect =
        taken - connection->base_bytes > limit_bytes + seconds * HEARTBEAT_ALLOWANCE;
    return was_suspect && connection->suspect;
}

static void cut(int fd)
{
    /* ZeroMQ notices the end of the stream and closes it. */
    shutdown(fd, SHUT_RDWR);
}

int sock_watch(struct sock *sock, size_t limit_bytes)
{
    int found = 0;
    int64_t now = clock_ns();
    if (sock->router)
        follow_events(sock);
    if (now - sock->scan_ns < SCAN_MS * INT64_C(1000000))
        return 0;
    sock->scan_ns = now;
    for (int i = 0; i < SCAN_AT_ONCE && i < sock->connection_room; i++) {
        int fd = sock->scan_at = (sock->scan_at + 1) % sock->connection_room;
        struct sock_connection *connection = connection_at(sock, fd);
        if (!connection || !is_endless(connection, fd, limit_bytes))
            continue;
        found++;
        if (!sock->router)
            continue;
        char text[PEER_TEXT_BYTES];
        if (log_limit_passes(&sock->floods, "messages without end"))
            log_warn("cut off a trainer at %s: it sends a message without end",
                     peer_text(text, &connection->peer));
        cut(fd);
    }
    return found;
}

/* ---- one connection of a ROUTER ---- */

uint64_t sock_message_connection(struct sock *sock, struct sock_message *message)
{
    follow_events(sock); /* it was accepted before it could send */
    const struct sock_connection *connection = connection_at(sock, sock_message_fd(message));
    return connection ? connection->serial : 0;
}

bool sock_is_open(const struct sock *sock, uint64_t connection)
{
    int fd = (int)(connection & (DESCRIPTORS_MAX - 1));
    return connection && fd < sock->connection_room && sock->connections[fd].serial == connection;
}

void sock_cut(struct sock *sock, uint64_t connection)
{
    follow_events(sock);
    if (sock_is_open(sock, connection))
        cut((int)(connection & (DESCRIPTORS_MAX - 1)));
}

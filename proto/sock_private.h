/* SPDX-License-Identifier: Apache-2.0 */
/* The insides of sockets, for sock.c, sock_watch.c and zap.c. */
#ifndef PROTO_SOCK_PRIVATE_H
#define PROTO_SOCK_PRIVATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "common/log_limit.h"
#include "proto/endpoint.h"
#include "proto/sock.h"

struct sock_context {
    void *zmq;
    atomic_uint monitors; /* numbers their inproc names */
    atomic_bool has_zap;  /* a handler answers: keys may be used */
};

/* A connection, at the place of its descriptor. Zero serial: none. */
struct sock_connection {
    uint64_t serial;    /* no two are the same in the life of a socket */
    uint64_t delivered; /* whole messages that came over it */
    /* At the last look at it: */
    uint64_t seen_delivered,
        base_bytes; /* taken from the network when that message was delivered */
    int64_t base_ns;
    bool suspect; /* too much was taken by then */
    struct sockaddr_storage peer;
};

struct sock {
    void *zmq;
    void *monitor; /* PAIR */
    bool router, keyed;
    char endpoint[ENDPOINT_BYTES];
    struct sock_connection *connections; /* [connection_room], by descriptor */
    int connection_room, scan_at;
    int64_t scan_ns;
    int fd; /* DEALER: of its connection, -1: none */
    int64_t connected_ns;
    uint64_t next_serial;
    const char *failure; /* ROUTER: why the handshake failed that is just being closed */
    struct log_limit handshakes, floods;
};

/* A monitor's event. False: none at the moment. */
bool sock_monitor_next(struct sock *sock, uint16_t *event, uint32_t *value);

int sock_message_fd(struct sock_message *message); /* it came over this one; -1: not known */

void sock_watch_close(struct sock *sock);
void sock_watch_opened(struct sock *sock, int fd);
void sock_watch_closed(struct sock *sock, int fd);
void sock_watch_delivered(struct sock *sock, int fd);

#endif

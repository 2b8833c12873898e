/* SPDX-License-Identifier: Apache-2.0 */
/* slow-link PORT HOST PORT DELAY_MS MBIT [BYTES]: a TCP relay on 127.0.0.1 that delays what passes,
 * each way, and lets MBIT megabits a second of each direction of all connections together through
 * (0: no limit). With BYTES only what comes back from HOST is limited, once so much of it came over
 * a connection. For machines whose kernel has no netem; prints nothing, ends on a signal. */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"

enum { LINKS_MAX = 64, PIECES = 4096, PIECE_BYTES = 1448, IN_FLIGHT_BYTES = 256 << 10 };

struct piece {
    int64_t due_ns;
    size_t bytes, sent;
    uint8_t data[PIECE_BYTES];
};

/* One direction of one connection. */
struct flow {
    int from, to;
    bool ended;     /* nothing more comes in */
    uint64_t taken; /* bytes, ever */
    struct piece pieces[PIECES];
    unsigned first, count;
    size_t bytes;
};

struct link {
    bool used;
    struct flow way[2];
};

static struct link links[LINKS_MAX];
static int64_t delay_ns, free_ns[2]; /* when each direction's line is free again */
static double ns_per_byte;
static uint64_t free_bytes; /* of a connection, before the limit */
static bool back_only;

static int listen_on(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_ANY)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 16) != 0)
        return -1;
    return fd;
}

static int connect_to(const char *host, const char *port)
{
    const struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found;
    if (getaddrinfo(host, port, &hints, &found) != 0)
        return -1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    int failed = connect(fd, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (failed) {
        close(fd);
        return -1;
    }
    return fd;
}

static void accept_one(int listener, const char *host, const char *port)
{
    int one = 1, fd = accept(listener, NULL, NULL);
    int other = fd < 0 ? -1 : connect_to(host, port);
    struct link *link = links;
    while (link < links + LINKS_MAX && link->used)
        link++;
    if (other < 0 || link == links + LINKS_MAX) {
        close(fd);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    memset(link, 0, sizeof *link);
    link->used = true;
    link->way[0].from = link->way[1].to = fd;
    link->way[0].to = link->way[1].from = other;
}

static void close_link(struct link *link)
{
    close(link->way[0].from);
    close(link->way[0].to);
    link->used = false;
}

static bool has_room(const struct flow *flow)
{
    return !flow->ended && flow->count < PIECES && flow->bytes < IN_FLIGHT_BYTES;
}

static void take_in(struct flow *flow, int direction)
{
    struct piece *piece = &flow->pieces[(flow->first + flow->count) % PIECES];
    bool limited = direction == 1 ? flow->taken >= free_bytes : !back_only;
    /* A slow line passes bytes on one by one. */
    size_t most = limited && ns_per_byte > 1e6 ? 1 : PIECE_BYTES;
    ssize_t got = recv(flow->from, piece->data, most, MSG_DONTWAIT);
    if (got <= 0) {
        flow->ended = got == 0 || (errno != EAGAIN && errno != EINTR);
        return;
    }
    int64_t now = clock_ns();
    if (free_ns[direction] < now)
        free_ns[direction] = now;
    if (limited)
        free_ns[direction] += (int64_t)((double)got * ns_per_byte);
    piece->due_ns = (limited ? free_ns[direction] : now) + delay_ns;
    flow->taken += (uint64_t)got;
    piece->bytes = (size_t)got;
    piece->sent = 0;
    flow->count++;
    flow->bytes += piece->bytes;
}

/* False: the other side is gone. */
static bool let_out(struct flow *flow, int64_t now)
{
    while (flow->count > 0) {
        struct piece *piece = &flow->pieces[flow->first];
        if (piece->due_ns > now)
            return true;
        ssize_t put = send(flow->to, piece->data + piece->sent, piece->bytes - piece->sent,
                           MSG_DONTWAIT | MSG_NOSIGNAL);
        if (put < 0)
            return errno == EAGAIN || errno == EINTR;
        piece->sent += (size_t)put;
        if (piece->sent < piece->bytes)
            return true;
        flow->bytes -= piece->bytes;
        flow->first = (flow->first + 1) % PIECES;
        flow->count--;
    }
    return !flow->ended;
}

static void serve(struct link *link)
{
    int64_t now = clock_ns();
    bool alive = true;
    for (int i = 0; i < 2; i++) {
        while (has_room(&link->way[i])) {
            unsigned before = link->way[i].count;
            take_in(&link->way[i], i);
            if (link->way[i].count == before)
                break;
        }
        alive = let_out(&link->way[i], now) && alive;
    }
    if (!alive)
        close_link(link);
}

int main(int argc, char **argv)
{
    if (argc != 6 && argc != 7) {
        fprintf(stderr, "usage: slow-link PORT HOST PORT DELAY_MS MBIT [BYTES]\n");
        return 2;
    }
    int listener = listen_on(atoi(argv[1]));
    double mbit = strtod(argv[5], NULL);
    delay_ns = (int64_t)(strtod(argv[4], NULL) * 1e6);
    ns_per_byte = mbit > 0 ? 8e3 / mbit : 0;
    back_only = argc == 7;
    free_bytes = back_only ? strtoull(argv[6], NULL, 10) : 0;
    if (listener < 0) {
        perror("slow-link: listening");
        return 1;
    }
    for (;;) {
        struct pollfd fd = {listener, POLLIN, 0};
        if (poll(&fd, 1, 1) > 0)
            accept_one(listener, argv[2], argv[3]);
        for (int i = 0; i < LINKS_MAX; i++)
            if (links[i].used)
                serve(&links[i]);
    }
}

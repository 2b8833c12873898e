/* SPDX-License-Identifier: Apache-2.0 */
/* A peer that nobody wants, for tests and measurements of a loader on TCP:
 *   hostile idle ENDPOINT SECONDS COUNT       COUNT connections that say nothing
 *   hostile churn ENDPOINT SECONDS RATE       RATE connections a second, each dropped at once
 *   hostile endless ENDPOINT SECONDS 0        a trainer that sends a message without end
 *   hostile endless-loader ENDPOINT SECONDS 0 a loader that does, at this endpoint
 *   hostile requests ENDPOINT SECONDS [KEYS]  a trainer that asks and asks
 *   hostile specs ENDPOINT SECONDS [KEYS]     ... that brings ever new specs
 *   hostile deaf ENDPOINT SECONDS [KEYS]      ... that asks for what it may and reads nothing, not
 *                                             even heartbeats, which would end the connection
 * KEYS: SECRET.key LOADER.pub. Prints what it did, and how often it was cut off. */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zmq.h>

#include "common/clock.h"
#include "common/err.h"
#include "proto/frame.h"
#include "proto/sock.h"
#include "proto/sock_private.h"

enum { FRAMES_AT_ONCE = 10000, DEAF_REQUESTS = 8, GREETING_BYTES = 64 };

struct task {
    const char *mode, *endpoint;
    double end_s;
    long number;
    struct key_pair own;
    struct key loader;
    bool keyed;
};

static bool time_is_left(const struct task *task)
{
    return clock_seconds() < task->end_s;
}

static int fail(const char *what)
{
    return err_set(ERR_IO, "%s: %s", what, strerror(errno));
}

/* ---- strangers ---- */

static int address_of(struct sockaddr_in *address, const char *endpoint)
{
    char host[64];
    unsigned port;
    *address = (struct sockaddr_in){.sin_family = AF_INET};
    if (sscanf(endpoint, "tcp://%63[0-9.]:%u", host, &port) != 2 ||
        inet_pton(AF_INET, host, &address->sin_addr) != 1)
        return err_set(ERR_ARG, "%s: tcp://A.B.C.D:PORT is expected", endpoint);
    address->sin_port = htons((uint16_t)port);
    return ERR_OK;
}

static int open_connection(const struct sockaddr_in *address)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof(*address)) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static int be_idle(const struct task *task)
{
    struct sockaddr_in address;
    int code = address_of(&address, task->endpoint);
    struct pollfd *held = code ? NULL : calloc((size_t)task->number, sizeof(*held));
    if (!held)
        return code ? code : err_set(ERR_NOMEM, "out of memory");
    double start_s = clock_seconds();
    long opened = 0, closed = 0;
    for (; opened < task->number; opened++)
        if ((held[opened].fd = open_connection(&address)) < 0)
            break;
    double opening_s = clock_seconds() - start_s;
    if (opened < task->number)
        fprintf(stderr, "hostile: stopped at %ld connections: %s\n", opened, strerror(errno));
    while (time_is_left(task))
        poll(NULL, 0, 100);
    for (long i = 0; i < opened; i++) {
        char byte;
        while (recv(held[i].fd, &byte, 1, MSG_DONTWAIT) > 0) {
        }
        closed += !(errno == EAGAIN || errno == EWOULDBLOCK);
        close(held[i].fd);
    }
    free(held);
    printf("%ld connections opened in %.1f s, %ld of them closed by the loader\n", opened,
           opening_s, closed);
    return ERR_OK;
}

static int churn(const struct task *task)
{
    struct sockaddr_in address;
    int code = address_of(&address, task->endpoint);
    long count = 0;
    double start_s = clock_seconds();
    while (!code && time_is_left(task)) {
        int fd = open_connection(&address);
        if (fd < 0)
            return fail("connect");
        close(fd);
        double next_s = start_s + (double)++count / (double)task->number;
        int wait_ms = (int)((next_s - clock_seconds()) * 1e3);
        if (wait_ms > 0)
            poll(NULL, 0, wait_ms);
    }
    printf("%ld connections in %.1f s\n", count, clock_seconds() - start_s);
    return code;
}

/* ---- a message without end, in ZMTP 3.0 by hand: libzmq sends whole messages only ---- */

static int shake_hands(int fd, const char *type)
{
    uint8_t greeting[GREETING_BYTES] = {0xff, 0,    0, 0, 0,   0,   0,   0,
                                        0,    0x7f, 3, 0, 'N', 'U', 'L', 'L'};
    uint8_t theirs[GREETING_BYTES];
    uint8_t ready[64] = "\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06";
    memcpy(ready + 24, type, 6);
    if (send(fd, greeting, sizeof(greeting), MSG_NOSIGNAL) != sizeof(greeting) ||
        recv(fd, theirs, sizeof(theirs), MSG_WAITALL) != sizeof(theirs) ||
        send(fd, ready, 30, MSG_NOSIGNAL) != 30)
        return fail("handshake");
    return ERR_OK;
}

/* Frames of one byte with the flag that more follow, until the other side hangs up. */
static bool send_endlessly(const struct task *task, int fd, uint64_t *frames)
{
    static uint8_t bytes[3 * FRAMES_AT_ONCE];
    for (int i = 0; i < FRAMES_AT_ONCE; i++)
        memcpy(bytes + 3 * i, (const uint8_t[]){1, 1, 'x'}, 3);
    size_t at = 0; /* frames stay whole */
    while (time_is_left(task)) {
        struct pollfd ready = {fd, POLLOUT | POLLRDHUP, 0};
        poll(&ready, 1, 100);
        if (ready.revents & (POLLRDHUP | POLLERR | POLLHUP))
            return true;
        ssize_t sent = send(fd, bytes + at, sizeof(bytes) - at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent > 0) {
            *frames += (uint64_t)sent / 3;
            at = (at + (size_t)sent) % sizeof(bytes);
        }
    }
    return false;
}

static int be_endless(const struct task *task)
{
    struct sockaddr_in address;
    const int on = 1;
    uint64_t frames = 0;
    long cut = 0;
    bool loader = strcmp(task->mode, "endless-loader") == 0;
    int listening = loader ? socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0) : -1;
    int code = address_of(&address, task->endpoint);
    if (!code && loader &&
        (setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
         bind(listening, (struct sockaddr *)&address, sizeof(address)) != 0 ||
         listen(listening, 8) != 0))
        code = fail("listen");
    while (!code && time_is_left(task)) {
        struct pollfd wait = {listening, POLLIN, 0};
        if (loader && poll(&wait, 1, 100) <= 0)
            continue;
        int fd = loader ? accept(listening, NULL, NULL) : open_connection(&address);
        if (fd < 0)
            return fail("connection");
        if (!(code = shake_hands(fd, loader ? "ROUTER" : "DEALER")))
            cut += send_endlessly(task, fd, &frames);
        close(fd);
    }
    printf("%llu frames sent, cut off %ld times\n", (unsigned long long)frames, cut);
    return code;
}

/* ---- trainers with a key ---- */

static bool say(struct sock *sock, const struct frame *frame)
{
    uint8_t bytes[FRAME_MAX_BYTES];
    struct sock_part part = {bytes, 0, NULL, NULL};
    return !frame_encode(bytes, &part.bytes, frame) && sock_send(sock, 0, &part, 1) == SOCK_SENT;
}

static struct spec some_spec(uint64_t seed, uint32_t channels)
{
    struct spec spec = {.store = "train",
                        .seed = 1 + seed,
                        .order = SPEC_ORDER_SHUFFLED,
                        .channels = (uint8_t)channels,
                        .flip = 1,
                        .size_px = 1024, /* as large as there is */
                        .resize_short_px = 1024,
                        .chunk_size = channels == 1 ? 16 : 4};
    for (uint32_t i = 0; i < channels; i++) {
        spec.mean[i] = 127;
        spec.std[i] = 64;
    }
    return spec;
}

/* One more message of the kind that the mode is about. */
static bool bother(const struct task *task, struct sock *sock, uint32_t channels, uint64_t number)
{
    const struct spec spec = some_spec(0, channels);
    if (strcmp(task->mode, "specs") == 0)
        return say(sock, &(struct frame){.kind = FRAME_SPEC_OFFER,
                                         .spec_offer = some_spec(1 + number, channels)});
    return say(sock, &(struct frame){.kind = FRAME_REQUEST,
                                     .request = {spec_hash(&spec), 0, 0, 1 + number, false}});
}

/* The channels of its store, from the answer to hello; 0: none came. All else that the loader says
 * is passed over, as far as it is read at all. */
static uint32_t hear_channels(struct sock *sock, struct sock_message *message)
{
    struct frame frame;
    size_t bytes;
    if (sock_receive(sock, message) != SOCK_RECEIVED)
        return 0;
    const void *data = sock_message_data(message, 0, &bytes);
    bool heard = !frame_decode(&frame, data, bytes) && frame.kind == FRAME_HELLO_REPLY &&
                 frame.hello_reply.store_count > 0;
    return heard ? frame.hello_reply.stores[0].channels : 0;
}

static bool greet(struct sock *sock)
{
    return say(sock, &(struct frame){.kind = FRAME_HELLO, .hello = {.protocol = FRAME_PROTOCOL}});
}

static bool offer(struct sock *sock, uint32_t channels)
{
    return say(sock,
               &(struct frame){.kind = FRAME_SPEC_OFFER, .spec_offer = some_spec(0, channels)});
}

/* A trainer's own heartbeats notice that nothing comes, for it does not read. */
static void leave_out_heartbeats(struct sock *sock)
{
    const int none = 0;
    zmq_disconnect(sock->zmq, sock->endpoint);
    zmq_setsockopt(sock->zmq, ZMQ_HEARTBEAT_IVL, &none, sizeof(none));
    zmq_setsockopt(sock->zmq, ZMQ_HEARTBEAT_TTL, &none, sizeof(none));
    zmq_connect(sock->zmq, sock->endpoint);
}

/* A connection, until it is cut off or the time is over. */
static int connection(const struct task *task, struct sock_context *context, uint64_t *sent,
                      long *cut)
{
    const struct sock_keys keys = {&task->own, &task->loader};
    struct sock_message *message = sock_message_open();
    struct sock *sock;
    bool deaf = strcmp(task->mode, "deaf") == 0;
    int code = sock_connect(&sock, context, task->endpoint, deaf ? 1 : 1000000,
                            task->keyed ? &keys : NULL);
    uint64_t number = 0;
    uint32_t channels = 0;
    if (!code && deaf)
        leave_out_heartbeats(sock);
    bool open = !code && message, greeted = false;
    while (open && time_is_left(task)) {
        struct sock_poll_item item = {.sock = sock};
        enum sock_event event = sock_next_event(sock);
        if (event == SOCK_EVENT_CONNECTED)
            greeted = greet(sock);
        else if (event != SOCK_EVENT_NONE) /* the first one may be of the connection given up */
            open = event == SOCK_EVENT_DISCONNECTED && !greeted;
        else if (greeted && !channels && (channels = hear_channels(sock, message)))
            open = offer(sock, channels);
        else if (deaf && number == DEAF_REQUESTS)
            poll(NULL, 0, 10); /* what came is not even looked at */
        else if (!channels || !bother(task, sock, channels, number))
            sock_poll(&item, 1, 10);
        else
            number++;
    }
    *sent += number;
    *cut += !open;
    sock_close(sock, 0);
    sock_message_close(message);
    return code;
}

static int be_trainer(const struct task *task)
{
    struct sock_context *context;
    uint64_t sent = 0;
    long cut = 0;
    int code = sock_context_open(&context, 1);
    if (code)
        return code;
    while (!code && time_is_left(task))
        code = connection(task, context, &sent, &cut);
    sock_context_close(context);
    printf("%llu messages sent, cut off or turned away %ld times\n", (unsigned long long)sent, cut);
    return code;
}

static int run(int argc, char **argv)
{
    struct task task = {.mode = argc > 1 ? argv[1] : ""};
    bool endless = strncmp(task.mode, "endless", 7) == 0;
    bool stranger = endless || strcmp(task.mode, "idle") == 0 || strcmp(task.mode, "churn") == 0;
    if (argc < 4 || (stranger && argc != 5) || (!stranger && argc != 4 && argc != 6))
        return err_set(
            ERR_ARG,
            "usage: hostile idle|churn|endless|endless-loader|requests|specs|deaf ENDPOINT "
            "SECONDS [NUMBER | SECRET.key LOADER.pub]");
    task.endpoint = argv[2];
    task.end_s = clock_seconds() + atof(argv[3]);
    task.number = stranger ? atol(argv[4]) : 0;
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    int code = ERR_OK;
    task.keyed = !stranger && argc == 6;
    if (task.keyed && !(code = key_pair_read(&task.own, argv[4])))
        code = key_read_public(&task.loader, argv[5]);
    if (code)
        return code;
    if (endless)
        return be_endless(&task);
    if (stranger)
        return strcmp(task.mode, "idle") == 0 ? be_idle(&task) : churn(&task);
    return be_trainer(&task);
}

int main(int argc, char **argv)
{
    int code = run(argc, argv);
    if (code)
        fprintf(stderr, "hostile: %s\n", err_message());
    return err_exit_status(code);
}

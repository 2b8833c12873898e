/* SPDX-License-Identifier: Apache-2.0 */
/* bare-wire {zmq|curve|raw|shm} ENDPOINT BYTES SECONDS: how fast one process hands messages of the
 * size of a chunk to another when nothing is made of them: a plain ROUTER and DEALER with credits
 * and no copy at the sender, the same encrypted, plain sockets, or the former with the large part
 * in shared memory, which the receiver copies once. The measure for the wire of loader and trainer.
 * Prints messages/s, and the microseconds of CPU a message costs the sender and the receiver. */
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#include "common/clock.h"

enum { CREDITS = 12, LABEL_BYTES = 96 };

static char public_key[41], secret_key[41]; /* curve: of both sides; empty: plain */

/* Nobody asks whose key it is: this measures. */
static void use_keys(void *socket, int server)
{
    if (!*public_key)
        return;
    if (server)
        zmq_setsockopt(socket, ZMQ_CURVE_SERVER, &server, sizeof server);
    else
        zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, public_key, sizeof public_key);
    zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, public_key, sizeof public_key);
    zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, secret_key, sizeof secret_key);
}

static double cpu_us(int who)
{
    struct rusage usage;
    getrusage(who, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static void keep(void *data, void *hint)
{
    (void)data;
    (void)hint;
}

/* Answers each request with three frames; the large one, as a loader's, lies elsewhere each time.
 */
static void zmq_sender(const char *endpoint, const uint8_t *data, size_t bytes)
{
    uint64_t messages = 0;
    void *context = zmq_ctx_new(), *router = zmq_socket(context, ZMQ_ROUTER);
    use_keys(router, 1);
    if (zmq_bind(router, endpoint) != 0)
        _exit(1);
    for (;;) {
        uint8_t address[8], request[64];
        int length = zmq_recv(router, address, sizeof address, 0);
        if (length <= 0 || zmq_recv(router, request, sizeof request, 0) <= 0)
            break;
        zmq_msg_t pixels;
        const uint8_t *next = data + messages++ % CREDITS * bytes;
        zmq_msg_init_data(&pixels, (void *)next, bytes, keep, NULL);
        zmq_send(router, address, (size_t)length, ZMQ_SNDMORE);
        zmq_send(router, request, sizeof request, ZMQ_SNDMORE);
        zmq_send(router, data, LABEL_BYTES, ZMQ_SNDMORE);
        zmq_msg_send(&pixels, router, 0);
    }
    zmq_close(router);
    zmq_ctx_term(context);
    _exit(0);
}

/* shared: where the large part lies for the receiver to copy; NULL: it comes in the message. */
static uint64_t zmq_receiver(const char *endpoint, const uint8_t *shared, size_t bytes,
                             double seconds)
{
    uint8_t *copy = malloc(bytes);
    if (!copy)
        exit(1);
    void *context = zmq_ctx_new(), *dealer = zmq_socket(context, ZMQ_DEALER);
    uint8_t request[64] = "r";
    uint64_t messages = 0;
    use_keys(dealer, 0);
    zmq_connect(dealer, endpoint);
    for (int i = 0; i < CREDITS; i++)
        zmq_send(dealer, request, sizeof request, 0);
    int64_t end = clock_ns() + (int64_t)(seconds * 1e9);
    while (clock_ns() < end) {
        zmq_msg_t part;
        int more = 1;
        while (more) {
            zmq_msg_init(&part);
            if (zmq_msg_recv(&part, dealer, 0) < 0)
                exit(1);
            more = zmq_msg_more(&part);
            zmq_msg_close(&part);
        }
        messages++;
        if (shared)
            memcpy(copy, shared + messages % CREDITS * bytes, bytes);
        zmq_send(dealer, request, sizeof request, 0);
    }
    int none = 0;
    zmq_setsockopt(dealer, ZMQ_LINGER, &none, sizeof none);
    zmq_close(dealer);
    zmq_ctx_term(context);
    free(copy);
    return messages;
}

/* tcp://127.0.0.1:PORT or ipc://PATH. */
static int raw_socket(const char *endpoint, int listening)
{
    struct sockaddr_in tcp = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_un path = {.sun_family = AF_UNIX};
    int is_tcp = strncmp(endpoint, "tcp://", 6) == 0;
    const char *colon = strrchr(endpoint, ':');
    tcp.sin_port = htons((uint16_t)atoi(colon + 1));
    snprintf(path.sun_path, sizeof path.sun_path, "%s", endpoint + 6);
    struct sockaddr *address = is_tcp ? (struct sockaddr *)&tcp : (struct sockaddr *)&path;
    socklen_t length = is_tcp ? sizeof tcp : sizeof path;
    int one = 1, fd = socket(is_tcp ? AF_INET : AF_UNIX, SOCK_STREAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (listening) {
        if (bind(fd, address, length) != 0 || listen(fd, 1) != 0)
            _exit(1);
        return accept(fd, NULL, NULL);
    }
    int64_t end = clock_ns() + INT64_C(10000000000);
    while (connect(fd, address, length) != 0)
        if (clock_ns() > end)
            exit(1);
    return fd;
}

static void raw_sender(const char *endpoint, const uint8_t *data, size_t bytes)
{
    int fd = raw_socket(endpoint, 1);
    for (size_t at = 0;;) {
        ssize_t put = send(fd, data + at, bytes - at, MSG_NOSIGNAL);
        if (put <= 0)
            _exit(0);
        at = (at + (size_t)put) % bytes;
    }
}

static uint64_t raw_receiver(const char *endpoint, size_t bytes, double seconds)
{
    int fd = raw_socket(endpoint, 0);
    uint8_t *data = malloc(bytes);
    uint64_t total = 0;
    int64_t end = clock_ns() + (int64_t)(seconds * 1e9);
    while (data && clock_ns() < end) {
        ssize_t got = recv(fd, data + total % bytes, bytes - total % bytes, 0);
        if (got <= 0)
            exit(1);
        total += (uint64_t)got;
    }
    close(fd);
    free(data);
    return total / bytes;
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "usage: bare-wire {zmq|curve|raw|shm} ENDPOINT BYTES SECONDS\n");
        return 2;
    }
    size_t bytes = strtoul(argv[3], NULL, 10);
    double seconds = strtod(argv[4], NULL);
    int raw = strcmp(argv[1], "raw") == 0, shm = strcmp(argv[1], "shm") == 0;
    size_t room = CREDITS * bytes;
    uint8_t *data = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED)
        return 1;
    memset(data, 7, room);
    if (strcmp(argv[1], "curve") == 0 && zmq_curve_keypair(public_key, secret_key) != 0)
        return 1;
    pid_t pid = fork();
    if (pid == 0) {
        if (raw)
            raw_sender(argv[2], data, bytes);
        zmq_sender(argv[2], data, shm ? 1 : bytes);
    }
    int64_t begin = clock_ns();
    uint64_t messages = raw ? raw_receiver(argv[2], bytes, seconds)
                            : zmq_receiver(argv[2], shm ? data : NULL, bytes, seconds);
    double took = (double)(clock_ns() - begin) * 1e-9;
    kill(pid, SIGKILL);
    if (waitpid(pid, NULL, 0) != pid || messages == 0)
        return 1;
    printf("%.1f messages/s, %.1f us sender, %.1f us receiver\n", (double)messages / took,
           cpu_us(RUSAGE_CHILDREN) / (double)messages, cpu_us(RUSAGE_SELF) / (double)messages);
    munmap(data, room);
    return 0;
}

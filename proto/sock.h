/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets between trainers and loaders: a ROUTER that loaders bind, a DEALER per loader that
 * trainers connect. The only place where ZeroMQ is used.
 *
 * A context may be shared by threads; a socket belongs to one thread at a time. Errors: ERR_IO with
 * the endpoint and the reason. */
#ifndef PROTO_SOCK_H
#define PROTO_SOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/keys.h"

enum {
    SOCK_PARTS_MAX = 3,   /* frames of a message, without the ROUTER's address frame */
    SOCK_POLL_MAX = 1024, /* items of one sock_poll */
};

struct sock_context;
struct sock;

/* One per process. io_threads 1..64. Needs libzmq 4.3.3 or later (security fixes): ERR_UNSUPPORTED.
 */
int sock_context_open(struct sock_context **out, int io_threads);
void sock_context_close(struct sock_context *context); /* after its sockets; accepts NULL */

/* A loader's ROUTER. send_messages: how many answers may wait for one trainer. own: the loader's
 * keys, for CURVE; NULL: plain text. With keys a ZAP handler (proto/zap.h) must answer in this
 * context already, for without one ZeroMQ lets everybody in: ERR_INTERNAL. */
int sock_bind(struct sock **out, struct sock_context *context, const char *endpoint,
              int send_messages, const struct key_pair *own);

struct sock_keys { /* of a trainer */
    const struct key_pair *own;
    const struct key *loader; /* the other side must have the secret half of this one */
};

/* A trainer's DEALER, with events (sock_next_event). Connects in the background, and again
 * whenever the connection is lost. receive_messages: how many answers may wait here. keys NULL:
 * plain text. */
int sock_connect(struct sock **out, struct sock_context *context, const char *endpoint,
                 int receive_messages, const struct sock_keys *keys);

/* linger_ms: how long messages already sent may still take to leave. Accepts NULL. */
void sock_close(struct sock *sock, int linger_ms);

/* Where it is bound (a port of * is resolved) or connects to. */
const char *sock_endpoint(const struct sock *sock);

/* The process that listens at the other end of a connected ipc:// endpoint, as the kernel knows it
 * and as this process sees it; 0: not known, or out of sight (another container). */
pid_t sock_peer_process(const struct sock *sock);

/* ---- events of a connecting socket ---- */

enum sock_event {
    SOCK_EVENT_NONE,
    SOCK_EVENT_CONNECTED,    /* the handshake is done: messages can be sent */
    SOCK_EVENT_DISCONNECTED, /* what was sent and not answered is lost */
    /* No handshake, and why: */
    SOCK_EVENT_HUNG_UP,  /* the other side closed it: with keys, its key is another one */
    SOCK_EVENT_SILENT,   /* the other side said nothing in time */
    SOCK_EVENT_REFUSED,  /* the other side does not allow this trainer's key */
    SOCK_EVENT_MISMATCH, /* one side uses keys and the other does not */
    SOCK_EVENT_FOREIGN,  /* no loader */
};

/* The next event, SOCK_EVENT_NONE when there is none at the moment. */
enum sock_event sock_next_event(struct sock *sock);

/* ---- waiting ---- */

struct sock_poll_item {
    struct sock *sock; /* or NULL: fd */
    int fd;
    bool readable; /* filled: a message (or an event of a connecting socket) is there */
};

/* Waits until something is readable or timeout_ms went by (-1: for ever; a signal ends it early).
 */
int sock_poll(struct sock_poll_item *items, int count, int timeout_ms);

/* ---- connections ---- */

/* Looks after the connections of a socket: to be called every 100 ms or more often. Returns how
 * many peers have sent more than limit_bytes without finishing a message; those of a ROUTER are cut
 * off and named in the log, a DEALER is the caller's to close. TCP only. A ROUTER's failed
 * handshakes are logged here, a few a minute. */
int sock_watch(struct sock *sock, size_t limit_bytes);

/* False once a connection of a ROUTER is closed (as far as sock_watch knows), and for 0. */
bool sock_is_open(const struct sock *sock, uint64_t connection);

/* Closes a connection of a ROUTER; 0 and those that are gone already are ignored. */
void sock_cut(struct sock *sock, uint64_t connection);

/* ---- messages ---- */

/* A received message; its frames stay valid until the next sock_receive into it. */
struct sock_message;

struct sock_message *sock_message_open(void); /* NULL when memory is out */
void sock_message_close(struct sock_message *message);

/* Never waits. SOCK_RECEIVED, SOCK_NOTHING, or SOCK_MALFORMED: a message came that no honest peer
 * sends (too many frames, an address of its own choice); it is dropped. ERR_IO. */
enum { SOCK_RECEIVED = 1, SOCK_NOTHING = 0, SOCK_MALFORMED = 2 };
int sock_receive(struct sock *sock, struct sock_message *message);

int sock_message_parts(const struct sock_message *message);
const void *sock_message_data(struct sock_message *message, int part, size_t *bytes);
uint32_t sock_message_client(const struct sock_message *message); /* ROUTER: who sent it */
/* ROUTER: the sender's IP address, "" when unknown (ipc). */
const char *sock_message_address(struct sock_message *message);
/* ROUTER: the sender's public key as text, proven by its handshake; "" without keys. */
const char *sock_message_key(struct sock_message *message);
/* ROUTER: the connection that it came over, for sock_cut; 0: not known. Valid for the message that
 * was received last. */
uint64_t sock_message_connection(struct sock *sock, struct sock_message *message);

/* A frame to send. release NULL: the bytes are copied. Otherwise they are sent from where they are
 * and release(data, user) is called once they are no longer needed, from any thread. */
struct sock_part {
    const void *data;
    size_t bytes;
    void (*release)(void *data, void *user);
    void *user;
};

/* Never waits. SOCK_SENT: the frames are ZeroMQ's now. SOCK_FULL: nothing was sent, too much waits
 * for this peer already. SOCK_GONE: no such peer (any more). In the last two cases, and on errors,
 * release is not called. client: ROUTER only. */
enum { SOCK_SENT = 0, SOCK_FULL = 3, SOCK_GONE = 4 };
int sock_send(struct sock *sock, uint32_t client, const struct sock_part *parts, int count);

#endif

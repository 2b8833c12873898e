/* SPDX-License-Identifier: Apache-2.0 */
/* The feed's insides, shared by feed.c (the caller's side), feed_io.c (the I/O thread), and the
 * parts of the conversation with one loader: feed_peer.c, feed_admit.c, feed_ask.c, feed_answer.c.
 *
 * Owners: "lock" means feed->lock; "io" the I/O thread alone; "caller" the thread that calls
 * feed_*. A slot changes hands under the lock: the caller arms it, the I/O thread fills it and
 * makes it ready, the caller pops and releases it. */
#ifndef TRAINER_FEED_STATE_H
#define TRAINER_FEED_STATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "proto/endpoint.h"
#include "proto/frame.h"
#include "proto/share.h"
#include "proto/sock.h"
#include "trainer/feed.h"
#include "trainer/feed_plan.h"
#include "trainer/ledger.h"

enum {
    FEED_PEERS_MAX = 256,
    FEED_SPECS_MAX = 64,
    FEED_SLOTS_MAX = 1024,
    FEED_RANGES_MAX = 256,
    FEED_CULPRITS_MAX = 256,
    FEED_AUDITS_MAX = 64,    /* waiting for a second loader */
    FEED_SUSPECT_LOSSES = 2, /* so many loaders lost: its samples are isolated */
    FEED_CHALLENGE_EPOCH = 0,
    FEED_CHALLENGE_CHUNK = 0,
};

enum slot_state { SLOT_FREE, SLOT_ARMED, SLOT_FILLING, SLOT_READY, SLOT_HELD };

struct feed_slot {
    enum slot_state state; /* owner: lock */
    void *memory;          /* from config.alloc; owner: caller */
    size_t capacity;
    uint8_t *pixels; /* within memory, like the next two */
    struct chunk_label *labels;
    float (*offsets)[3]; /* NULL for the fp16 wire */
    size_t bytes;        /* that this micro-batch takes */
    int spec;            /* in feed->specs */
    uint32_t epoch;
    struct feed_plan_batch batch;
    int pattern_spec;         /* synthetic: whose pattern it holds, -1: none ... */
    uint32_t pattern_samples; /* ... in how many samples */
    /* Owner: io while filling. */
    uint32_t missing; /* chunks */
    uint32_t masked;
    struct hash128 receipt;
};

struct feed_spec {
    /* Complete before a slot that uses it is armed, then constant. */
    struct spec spec;
    struct hash128 hash;
    int store; /* in feed->stores */
    /* Owner: lock. */
    bool challenge_known;
    struct hash128 challenge;
    char witness[ENDPOINT_BYTES + 8]; /* who said so */
    unsigned challenge_losses;        /* owner: io */
};

/* A record that ended the process which decoded it. */
struct feed_culprit {
    struct hash128 fingerprint; /* of its store */
    uint32_t id;
    bool named; /* by a loader, to this process; or only read from the file */
};

enum peer_state {
    PEER_CLOSED,   /* no socket: to be opened at retry_ns */
    PEER_OPENING,  /* connecting */
    PEER_GREETING, /* connected, hello sent */
    PEER_READY,
    PEER_LEAVING, /* said goodbye: answers may still come */
    PEER_REFUSED, /* never to be used again */
};

struct peer_request {
    uint64_t id;
    struct ledger_chunk *chunk; /* NULL: answered by another, or flushed, or a challenge */
    int spec;
    uint32_t epoch;
    uint64_t index;
    int64_t asked_ns;
    bool challenge, isolate, overdue;
};

/* What is read from a loader's memory. */
struct peer_share {
    bool agreed; /* on this connection */
    bool said;   /* why it is not */
    pid_t process;
    struct share_token token;
    struct share_view *views; /* [credits + a few] files that are mapped, any order */
    unsigned view_count, oldest;
    unsigned failures; /* in a row, over all connections */
    unsigned read_count;
    uint64_t read[FRAME_MAX_CREDITS]; /* requests whose pixels are to be given back */
};

struct peer { /* owner: io */
    char endpoint[ENDPOINT_BYTES];
    enum peer_state state;
    struct sock *sock;
    unsigned credits; /* advertised */
    unsigned window;  /* that we use of them */
    unsigned stores;  /* bit i: has feed->stores[i] */
    uint64_t offered; /* bit i: knows feed->specs[i] */
    uint64_t challenged,
        passed;        /* bit i: was asked for the challenge of feed->specs[i], answered it */
    double service_s;  /* smoothed time between its answers while busy; 0: not known */
    int64_t answer_ns; /* last answer */
    int64_t heard_ns;  /* last message of any kind */
    int64_t opened_ns, greeted_ns, retry_ns;
    unsigned failures; /* connections lost in a row, for the back-off */
    unsigned stalls;   /* ... with requests overdue */
    bool said_missing, unlisted;
    unsigned key_at, key_rounds; /* of --server-keys: which is tried, how often all were */
    bool probing;                /* it is tried without keys, to tell why those do not fit */
    int64_t complained_ns;       /* when it was last said that there is no handshake */
    unsigned request_count;
    struct peer_request requests[FRAME_MAX_CREDITS];
    struct peer_share share;
};

struct feed {
    struct feed_config config;
    bool synthetic;
    size_t prefetch_bytes;

    /* Owner: caller. */
    struct feed_plan ranges[FEED_RANGES_MAX]; /* a ring */
    int range_specs[FEED_RANGES_MAX];
    int first_range, range_count;
    int held;
    bool stalled;
    size_t printed_bytes; /* of the largest micro-batch that a budget was printed for */
    pthread_t thread;
    bool started;
    int alloc_code; /* of arming outside feed_push, told by the next feed_pop */

    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* Owner: lock. */
    struct feed_slot *slots[FEED_SLOTS_MAX];
    int slot_count;
    struct feed_slot
        *order[FEED_SLOTS_MAX]; /* a ring: armed, filling or ready, as they are popped */
    int first_order, order_count;
    int armed; /* how many at the end of it the I/O thread has not taken up */
    struct feed_store stores[FRAME_MAX_STORES];
    int store_count;
    struct feed_spec specs[FEED_SPECS_MAX];
    int spec_count;
    struct feed_counts counts;
    int admitted;      /* loaders ready now, or once */
    int answering;     /* loaders connected or just being connected that have not answered hello */
    int usable;        /* peers not refused */
    char refusal[512]; /* why the last loader was refused */
    int io_code;       /* why the I/O thread ended before its time */
    char io_message[512];
    int64_t progress_ns; /* a chunk arrived */
    bool flush;          /* asked by the caller, cleared when done */
    bool closing;

    /* Constant once the I/O thread runs. */
    bool keyed;
    struct key_pair own_key;
    struct key_list loader_keys; /* at least one when keyed */

    /* Owner: io. */
    struct sock_context *context;
    struct sock_message *message;
    struct ledger *ledger;
    struct hash128 self_test; /* the first loader's */
    char self_test_witness[ENDPOINT_BYTES];
    struct feed_culprit culprits[FEED_CULPRITS_MAX];
    int culprit_count;
    int audits; /* chunks in the ledger that are fetched a second time */
    bool said_unaudited;
    int64_t idle_ns; /* since when no loader is connected; 0: one is */
    bool said_idle;
    struct peer *peers[FEED_PEERS_MAX];
    int peer_count;
    uint64_t next_request;
    int wake_fd;         /* eventfd: the caller wants something; any thread writes */
    const char *watched; /* the @FILE, NULL: a fixed list */
    int64_t watched_mtime_ns, watched_size, watched_at_ns;
    bool stop_seen;
};

/* ---- feed_io.c ---- */

int feed_io_start(struct feed *feed); /* parses the loaders, starts the thread */
void feed_io_stop(struct feed *feed);
void feed_io_wake(struct feed *feed);

/* A chunk of the slot is complete: counts it, and hands the slot over when it was the last. */
void feed_io_delivered(struct feed *feed, struct feed_slot *slot, const struct frame_chunk *chunk,
                       size_t bytes);

/* Nothing can go on: the caller is told this thread's err_message(). */
void feed_io_fail(struct feed *feed, int code);

/* ---- feed_peer.c ---- */

int feed_peer_open(struct feed *feed, struct peer *peer);
void feed_peer_events(struct feed *feed, int number); /* what its socket has to tell */
double feed_peer_deadline_s(const struct peer *peer);
void feed_peer_deadlines(struct feed *feed, int number, int64_t now_ns);
void feed_peer_goodbye(struct feed *feed, int number); /* leaves it, for now or for good */
bool feed_peer_send(struct feed *feed, int number, const struct frame *frame); /* false: not sent */
void feed_peer_lose(struct feed *feed, int number, const char *why);   /* to be opened again */
void feed_peer_refuse(struct feed *feed, int number, const char *why); /* never to be used again */

/* ---- feed_keys.c ---- */

int feed_keys_open(struct feed *feed); /* reads them. ERR_ARG, ERR_IO, ERR_DATA */
void feed_keys_close(struct feed *feed);
/* The keys to be tried now, in *keys; NULL: none. */
const struct sock_keys *feed_keys_of(struct sock_keys *keys, const struct feed *feed,
                                     const struct peer *peer);
/* There was a handshake. False: it was one that must not lead to anything. */
bool feed_keys_fit(struct feed *feed, int number);
/* There was no handshake, for the reason that the event gives. */
void feed_keys_failed(struct feed *feed, int number, enum sock_event event);

/* ---- feed_admit.c ---- */

/* Its answer to hello: admits or refuses it. */
void feed_admit(struct feed *feed, int number, struct frame_hello_reply *reply);

/* ---- feed_ask.c ---- */

bool feed_peer_has_room(const struct peer *peer);
bool feed_peer_ask(struct feed *feed, int number); /* one chunk more; false: nothing to ask */
/* Sends a request, behind the offer of its spec where that is due. False: not sent. */
bool feed_peer_request(struct feed *feed, int number, const struct peer_request *request);

/* ---- feed_answer.c ---- */

/* Takes the message that was received from it. */
void feed_answer(struct feed *feed, int number);

/* ---- feed_share.c: pixels in a loader's memory ---- */

/* A loader that was admitted shares its memory: agrees to that when it can be read. */
void feed_share_begin(struct feed *feed, int number, uint32_t descriptor);
void feed_share_close(struct peer *peer);

/* Where the pixels of a chunk are; NULL: nowhere, and the loader was cut off. */
const void *feed_share_pixels(struct share_view **view, struct feed *feed, int number,
                              const struct frame_shared *shared, size_t bytes);

/* After they were copied. False: they are worth nothing, and the loader was cut off. */
bool feed_share_was_current(struct feed *feed, int number, const struct share_view *view,
                            const struct frame_shared *shared);

/* The pixels of this request are needed no longer; all those are given back. */
void feed_share_read(struct peer *peer, uint64_t request);
void feed_share_return(struct feed *feed, int number);

/* ---- feed_identity.c: whether loaders make the same stream ---- */

/* The answer to a challenge. ERR_PEER: it would make another stream. */
int feed_identity_challenge(struct feed *feed, int number, int spec, struct hash128 hash);

/* A chunk was delivered: wants it once more from another loader when it is one to be audited. */
void feed_identity_delivered(struct feed *feed, int number, const struct ledger_chunk *chunk,
                             struct hash128 hash);

/* The second answer to an audited chunk. */
void feed_identity_audit(struct feed *feed, int number, const struct ledger_chunk *chunk,
                         struct hash128 hash);

/* ---- feed_poison.c: records that end the loaders which decode them ---- */

/* Reads config.poisonous, where it is there. ERR_IO; lines that say nothing are left out. Before
 * the I/O thread runs. */
int feed_poison_open(struct feed *feed);

/* An isolated chunk's culprits. ERR_PEER: it names impossible ones. */
int feed_poison_learn(struct feed *feed, const struct peer_request *request,
                      const struct frame_chunk *chunk);

/* Whether the samples of this chunk, which was at so many loaders that were lost, have to be
 * decoded in processes of their own. */
bool feed_poison_suspects(struct feed *feed, int spec, uint32_t epoch, uint64_t chunk,
                          unsigned losses);

/* ---- feed_synthetic.c ---- */

void feed_synthetic_stores(struct feed *feed);
/* Makes the slot's micro-batch; receipts stay 0. */
void feed_synthetic_fill(struct feed *feed, struct feed_slot *slot);

#endif

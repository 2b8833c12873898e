/* SPDX-License-Identifier: Apache-2.0 */
/* The messages between trainers and loaders, as plain structs: encoding, and decoding with every
 * field checked. A message is one envelope (these structs), and for a chunk two frames more: labels
 * and pixels (which may lie in shared memory instead). docs/protocol.md describes the conversation.
 *
 * What arrives is hostile: decoding checks the range of every field and refuses (ERR_PEER, one line
 * that names the field) before anybody uses it. */
#ifndef PROTO_FRAME_H
#define PROTO_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/hash.h"
#include "proto/share.h"
#include "proto/spec.h"

enum {
    FRAME_PROTOCOL = 1,         /* both sides must speak the same */
    FRAME_MAX_BYTES = 4096,     /* of an envelope */
    FRAME_MAX_STORES = 8,       /* in a Hello and its reply */
    FRAME_MAX_CREDITS = 1024,   /* that a loader may advertise */
    FRAME_MAX_CULPRITS = 8,     /* named in a chunk; more are only counted */
    FRAME_MAX_RELEASED = 64,    /* ids in one message */
    FRAME_CLASS_ID_BYTES = 64,  /* of a culprit, with the final NUL; longer ones are cut */
    FRAME_MAX_CLASSES = 1 << 24 /* of a store: float32 still counts them exactly */
};

enum frame_kind {
    FRAME_HELLO = 1, /* trainer -> loader: who I am, which stores I want */
    FRAME_HELLO_REPLY,
    FRAME_SPEC_OFFER, /* trainer -> loader: a spec that requests will name by its hash */
    FRAME_REQUEST,    /* trainer -> loader: make this chunk */
    FRAME_CHUNK,      /* loader -> trainer, followed by the labels and the pixels frame */
    FRAME_REFUSE,     /* loader -> trainer */
    FRAME_NEED_SPEC,  /* loader -> trainer: offer the spec of this request, and ask again */
    FRAME_GOODBYE,    /* either: no more requests, please; I am leaving */
    FRAME_PING,       /* loader -> trainer: shows a loader whether its trainer is still there */
    FRAME_SHARE,      /* trainer -> loader: I can read your memory, send pixels that way */
    FRAME_RELEASE,    /* trainer -> loader: these pixels in your memory are read */
};

enum frame_reason { /* why a loader refuses */
                    FRAME_REASON_PROTOCOL = 1,
                    FRAME_REASON_BUSY,  /* too many trainers at this loader */
                    FRAME_REASON_STORE, /* it has no such store, or another one of that name */
                    FRAME_REASON_SPEC,  /* the spec does not fit the store */
                    FRAME_REASON_CHUNK, /* no such chunk */
                    FRAME_REASON_DATA, /* the chunk's records are damaged and may not be substituted
                                        */
                    FRAME_REASON_CREDITS, /* more requests outstanding than advertised */
                    FRAME_REASON_INTERNAL,
                    FRAME_REASON_MESSAGE, /* what was sent is no valid message */
                    FRAME_REASON_KEY,     /* the trainer's key is not allowed (any more) */
                    FRAME_REASON_LIMIT,   /* more work than one trainer may cause */
};

struct frame_wanted {
    char name[SPEC_STORE_NAME_BYTES];
    bool any; /* fingerprint is not given */
    struct hash128 fingerprint;
};

struct frame_hello {
    uint32_t protocol;
    char run[64]; /* name of the run, for the loader's log; may be empty */
    uint32_t wanted_count;
    struct frame_wanted wanted[FRAME_MAX_STORES];
};

struct frame_store {
    char name[SPEC_STORE_NAME_BYTES];
    struct hash128 fingerprint;
    uint32_t sample_count, class_count, channels;
    struct hash128 classes; /* frame_classes_hash */
};

struct frame_hello_reply {
    uint32_t protocol;
    char program[64]; /* "satchel-loader 0.1.0" */
    uint32_t credits; /* requests that may be outstanding, 1..FRAME_MAX_CREDITS */
    uint32_t store_count;
    struct frame_store stores[FRAME_MAX_STORES];
    struct hash128 self_test; /* loader/selftest.h */
    bool shares;              /* its memory may be read by a trainer that can (proto/share.h) */
    uint32_t descriptor;      /* of a memory file with nothing but a header */
};

struct frame_request {
    struct hash128 spec_hash;
    uint32_t epoch;
    uint64_t chunk, id; /* id is the trainer's own, not 0; the answer repeats it */
    bool isolate;       /* decode each sample in a process of its own */
};

/* A record that ended the process which decoded it. */
struct frame_culprit {
    uint32_t id;
    char class_id[FRAME_CLASS_ID_BYTES];
};

/* Where pixels lie in the loader's memory, see proto/share.h. */
struct frame_shared {
    uint32_t descriptor;
    uint64_t serial, generation; /* not 0 */
};

struct frame_chunk {
    struct hash128 spec_hash;
    uint32_t epoch;
    uint64_t chunk, id;
    uint32_t samples, substituted, masked;
    uint32_t culprit_count; /* of an isolated request only */
    struct frame_culprit culprits[FRAME_MAX_CULPRITS];
    bool is_shared; /* there is no pixels frame */
    struct frame_shared shared;
};

struct frame_refuse {
    enum frame_reason reason;
    uint64_t id; /* 0: the peer as a whole */
    char what[256];
};

struct frame_need_spec {
    struct hash128 spec_hash;
    uint64_t id;
};

struct frame_goodbye {
    char reason[64];
};

struct frame_release {
    uint32_t count;
    uint64_t ids[FRAME_MAX_RELEASED]; /* of chunks whose pixels were shared */
};

struct frame {
    enum frame_kind kind;
    union {
        struct frame_hello hello;
        struct frame_hello_reply hello_reply;
        struct spec spec_offer;
        struct frame_request request;
        struct frame_chunk chunk;
        struct frame_refuse refuse;
        struct frame_need_spec need_spec;
        struct frame_goodbye goodbye;
        struct share_token share;
        struct frame_release release;
    };
};

/* Writes the envelope. ERR_INTERNAL when a field is out of its range (a bug of the caller). */
int frame_encode(uint8_t dst[FRAME_MAX_BYTES], size_t *bytes, const struct frame *frame);

/* Reads an envelope. ERR_PEER; ERR_NOMEM. */
int frame_decode(struct frame *frame, const void *src, size_t bytes);

/* Bytes of a label on the wire: 12, or 24 with the uint8 wire. */
size_t frame_label_bytes(const struct spec *spec);

/* A chunk's message against its spec and store: samples as chunk_samples() says, frame sizes,
 * counts within samples, and each label by chunk_label_check(); as many masked labels as the
 * header says; PCA offsets finite. ERR_PEER. */
int frame_check_chunk(const struct frame_chunk *chunk, const struct spec *spec,
                      const struct frame_store *store, const void *labels, size_t label_bytes,
                      size_t pixel_bytes);

/* XXH3-128 over the class ids, each with its final NUL, in order. ERR_NOMEM. */
int frame_classes_hash(struct hash128 *hash, const char *const *class_ids, uint32_t count);

const char *frame_kind_name(enum frame_kind kind);
const char *frame_reason_name(enum frame_reason reason);

#endif

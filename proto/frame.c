/* SPDX-License-Identifier: Apache-2.0 */
/* Envelopes: plain structs to protobuf and back. The .proto says what is transmitted, this file
 * says what is accepted. */
#include "proto/frame.h"

#include <limits.h>
#include <math.h>
#include <string.h>

#include "common/err.h"
#include "proto/chunk.h"
#include "satchel.pb-c.h"

_Static_assert((int)FRAME_HELLO == (int)SATCHEL__ENVELOPE__BODY_HELLO, "kinds follow the .proto");
_Static_assert((int)FRAME_RELEASE == (int)SATCHEL__ENVELOPE__BODY_RELEASE,
               "kinds follow the .proto");

static const char *const KIND_NAMES[] = {
    [FRAME_HELLO] = "hello",         [FRAME_HELLO_REPLY] = "hello-reply",
    [FRAME_SPEC_OFFER] = "spec",     [FRAME_REQUEST] = "request",
    [FRAME_CHUNK] = "chunk",         [FRAME_REFUSE] = "refuse",
    [FRAME_NEED_SPEC] = "need-spec", [FRAME_GOODBYE] = "goodbye",
    [FRAME_PING] = "ping",           [FRAME_SHARE] = "share",
    [FRAME_RELEASE] = "release",
};

static const char *const REASON_NAMES[] = {
    [FRAME_REASON_PROTOCOL] = "protocol", [FRAME_REASON_BUSY] = "busy",
    [FRAME_REASON_STORE] = "store",       [FRAME_REASON_SPEC] = "spec",
    [FRAME_REASON_CHUNK] = "chunk",       [FRAME_REASON_DATA] = "data",
    [FRAME_REASON_CREDITS] = "credits",   [FRAME_REASON_INTERNAL] = "internal",
    [FRAME_REASON_MESSAGE] = "message",   [FRAME_REASON_KEY] = "key",
    [FRAME_REASON_LIMIT] = "limit",
};

const char *frame_kind_name(enum frame_kind kind)
{
    return kind >= FRAME_HELLO && kind <= FRAME_RELEASE ? KIND_NAMES[kind] : "unknown";
}

const char *frame_reason_name(enum frame_reason reason)
{
    return reason >= FRAME_REASON_PROTOCOL && reason <= FRAME_REASON_LIMIT ? REASON_NAMES[reason]
                                                                           : "unknown";
}

/* ---- what a field may hold ---- */

static bool name_is_good(const char *name)
{
    size_t length = strnlen(name, SPEC_STORE_NAME_BYTES);
    return length > 0 && length < SPEC_STORE_NAME_BYTES &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") ==
               length;
}

static bool store_is_good(const struct frame_store *store)
{
    return name_is_good(store->name) && store->sample_count > 0 &&
           store->sample_count < UINT32_MAX && store->class_count > 0 &&
           store->class_count <= FRAME_MAX_CLASSES &&
           (store->channels == 1 || store->channels == 3);
}

static int check_hello(const struct frame_hello *hello)
{
    if (hello->wanted_count > FRAME_MAX_STORES)
        return err_set(ERR_PEER, "hello: %u stores wanted, %d at most", hello->wanted_count,
                       FRAME_MAX_STORES);
    for (uint32_t i = 0; i < hello->wanted_count; i++)
        if (!name_is_good(hello->wanted[i].name))
            return err_set(ERR_PEER, "hello: bad store name");
    return ERR_OK;
}

static int check_hello_reply(const struct frame_hello_reply *reply)
{
    if (reply->credits < 1 || reply->credits > FRAME_MAX_CREDITS)
        return err_set(ERR_PEER, "hello-reply: %u credits, 1 to %d are possible", reply->credits,
                       FRAME_MAX_CREDITS);
    if (reply->descriptor > INT_MAX)
        return err_set(ERR_PEER, "hello-reply: impossible shared memory");
    if (reply->store_count > FRAME_MAX_STORES)
        return err_set(ERR_PEER, "hello-reply: %u stores, %d at most", reply->store_count,
                       FRAME_MAX_STORES);
    for (uint32_t i = 0; i < reply->store_count; i++) {
        if (!store_is_good(&reply->stores[i]))
            return err_set(ERR_PEER, "hello-reply: store %u has an impossible name or count", i);
        for (uint32_t j = 0; j < i; j++)
            if (strcmp(reply->stores[i].name, reply->stores[j].name) == 0)
                return err_set(ERR_PEER, "hello-reply: two stores of one name");
    }
    return ERR_OK;
}

/* The ranges that hold without knowing spec or store. */
static int check_frame(const struct frame *frame)
{
    switch (frame->kind) {
    case FRAME_HELLO:
        return check_hello(&frame->hello);
    case FRAME_HELLO_REPLY:
        return check_hello_reply(&frame->hello_reply);
    case FRAME_REQUEST:
        if (frame->request.id == 0)
            return err_set(ERR_PEER, "request: no id");
        return ERR_OK;
    case FRAME_CHUNK: {
        const struct frame_chunk *chunk = &frame->chunk;
        if (chunk->id == 0)
            return err_set(ERR_PEER, "chunk: no id");
        if (chunk->samples < 1 || chunk->samples > SPEC_MAX_CHUNK_SIZE ||
            chunk->substituted > chunk->samples || chunk->masked > chunk->samples ||
            chunk->culprit_count > FRAME_MAX_CULPRITS)
            return err_set(ERR_PEER, "chunk: impossible counts");
        if (chunk->is_shared && (chunk->shared.descriptor > INT_MAX || chunk->shared.serial == 0 ||
                                 chunk->shared.generation == 0))
            return err_set(ERR_PEER, "chunk: impossible shared memory");
        return ERR_OK;
    }
    case FRAME_REFUSE:
        if (frame->refuse.reason < FRAME_REASON_PROTOCOL ||
            frame->refuse.reason > FRAME_REASON_LIMIT)
            return err_set(ERR_PEER, "refuse: unknown reason %u", (unsigned)frame->refuse.reason);
        return ERR_OK;
    case FRAME_NEED_SPEC:
        if (frame->need_spec.id == 0)
            return err_set(ERR_PEER, "need-spec: no id");
        return ERR_OK;
    case FRAME_RELEASE:
        if (frame->release.count < 1 || frame->release.count > FRAME_MAX_RELEASED)
            return err_set(ERR_PEER, "release: %u ids, 1 to %d are possible", frame->release.count,
                           FRAME_MAX_RELEASED);
        return ERR_OK;
    case FRAME_SPEC_OFFER:
    case FRAME_GOODBYE:
    case FRAME_PING:
    case FRAME_SHARE:
        return ERR_OK;
    }
    return err_set(ERR_PEER, "unknown kind of message");
}

/* ---- encoding ---- */

/* Memory that the protobuf structs of one envelope point into while it is packed. */
struct encoder {
    Satchel__WantedStore wanted[FRAME_MAX_STORES];
    Satchel__WantedStore *wanted_list[FRAME_MAX_STORES];
    Satchel__Store stores[FRAME_MAX_STORES];
    Satchel__Store *store_list[FRAME_MAX_STORES];
    Satchel__Culprit culprits[FRAME_MAX_CULPRITS];
    Satchel__Culprit *culprit_list[FRAME_MAX_CULPRITS];
    Satchel__Memory memory;
    Satchel__SharedPixels pixels;
    uint8_t hashes[2 * FRAME_MAX_STORES + 1][16];
    size_t hash_count;
    uint8_t spec[SPEC_ENCODED_BYTES];
};

static ProtobufCBinaryData put_hash(struct encoder *encoder, struct hash128 hash)
{
    uint8_t *bytes = encoder->hashes[encoder->hash_count++];
    hash128_to_bytes(bytes, hash);
    return (ProtobufCBinaryData){16, bytes};
}

static void put_hello(Satchel__Hello *dst, struct encoder *encoder, const struct frame_hello *src)
{
    dst->protocol = src->protocol;
    dst->run = (char *)src->run;
    dst->n_wanted = src->wanted_count;
    dst->wanted = encoder->wanted_list;
    for (uint32_t i = 0; i < src->wanted_count; i++) {
        satchel__wanted_store__init(&encoder->wanted[i]);
        encoder->wanted[i].name = (char *)src->wanted[i].name;
        if (!src->wanted[i].any)
            encoder->wanted[i].fingerprint = put_hash(encoder, src->wanted[i].fingerprint);
        encoder->wanted_list[i] = &encoder->wanted[i];
    }
}

static void put_hello_reply(Satchel__HelloReply *dst, struct encoder *encoder,
                            const struct frame_hello_reply *src)
{
    dst->protocol = src->protocol;
    dst->program = (char *)src->program;
    dst->credits = src->credits;
    dst->self_test = put_hash(encoder, src->self_test);
    satchel__memory__init(&encoder->memory);
    encoder->memory.descriptor = src->descriptor;
    if (src->shares)
        dst->memory = &encoder->memory;
    dst->n_stores = src->store_count;
    dst->stores = encoder->store_list;
    for (uint32_t i = 0; i < src->store_count; i++) {
        const struct frame_store *store = &src->stores[i];
        Satchel__Store *message = &encoder->stores[i];
        satchel__store__init(message);
        message->name = (char *)store->name;
        message->fingerprint = put_hash(encoder, store->fingerprint);
        message->sample_count = store->sample_count;
        message->class_count = store->class_count;
        message->channels = store->channels;
        message->classes = put_hash(encoder, store->classes);
        encoder->store_list[i] = message;
    }
}

static void put_chunk(Satchel__Chunk *dst, struct encoder *encoder, const struct frame_chunk *src)
{
    dst->spec_hash = put_hash(encoder, src->spec_hash);
    dst->epoch = src->epoch;
    dst->chunk = src->chunk;
    dst->id = src->id;
    dst->samples = src->samples;
    dst->substituted = src->substituted;
    dst->masked = src->masked;
    dst->n_culprits = src->culprit_count;
    dst->culprits = encoder->culprit_list;
    for (uint32_t i = 0; i < src->culprit_count; i++) {
        satchel__culprit__init(&encoder->culprits[i]);
        encoder->culprits[i].id = src->culprits[i].id;
        encoder->culprits[i].class_id = (char *)src->culprits[i].class_id;
        encoder->culprit_list[i] = &encoder->culprits[i];
    }
    if (!src->is_shared)
        return;
    satchel__shared_pixels__init(&encoder->pixels);
    encoder->pixels.descriptor = src->shared.descriptor;
    encoder->pixels.serial = src->shared.serial;
    encoder->pixels.generation = src->shared.generation;
    dst->pixels = &encoder->pixels;
}

static void put_request(Satchel__Request *dst, struct encoder *encoder,
                        const struct frame_request *src)
{
    dst->spec_hash = put_hash(encoder, src->spec_hash);
    dst->epoch = src->epoch;
    dst->chunk = src->chunk;
    dst->id = src->id;
    dst->isolate = src->isolate;
}

/* What an envelope may point to. */
struct bodies {
    Satchel__Hello hello;
    Satchel__HelloReply reply;
    Satchel__SpecOffer offer;
    Satchel__Request request;
    Satchel__Chunk chunk;
    Satchel__Refuse refuse;
    Satchel__NeedSpec need_spec;
    Satchel__Goodbye goodbye;
    Satchel__Ping ping;
    Satchel__Share share;
    Satchel__Release release;
};

static const struct bodies empty_bodies = {
    .hello = SATCHEL__HELLO__INIT,
    .reply = SATCHEL__HELLO_REPLY__INIT,
    .offer = SATCHEL__SPEC_OFFER__INIT,
    .request = SATCHEL__REQUEST__INIT,
    .chunk = SATCHEL__CHUNK__INIT,
    .refuse = SATCHEL__REFUSE__INIT,
    .need_spec = SATCHEL__NEED_SPEC__INIT,
    .goodbye = SATCHEL__GOODBYE__INIT,
    .ping = SATCHEL__PING__INIT,
    .share = SATCHEL__SHARE__INIT,
    .release = SATCHEL__RELEASE__INIT,
};

/* Points the envelope at the one of bodies that is of the frame's kind, and fills it. */
static void put_body(Satchel__Envelope *envelope, struct bodies *bodies, struct encoder *encoder,
                     const struct frame *frame)
{
    switch (frame->kind) {
    case FRAME_HELLO:
        put_hello(&bodies->hello, encoder, &frame->hello);
        envelope->hello = &bodies->hello;
        break;
    case FRAME_HELLO_REPLY:
        put_hello_reply(&bodies->reply, encoder, &frame->hello_reply);
        envelope->hello_reply = &bodies->reply;
        break;
    case FRAME_SPEC_OFFER:
        spec_encode(encoder->spec, &frame->spec_offer);
        bodies->offer.spec = (ProtobufCBinaryData){sizeof(encoder->spec), encoder->spec};
        envelope->spec_offer = &bodies->offer;
        break;
    case FRAME_REQUEST:
        put_request(&bodies->request, encoder, &frame->request);
        envelope->request = &bodies->request;
        break;
    case FRAME_CHUNK:
        put_chunk(&bodies->chunk, encoder, &frame->chunk);
        envelope->chunk = &bodies->chunk;
        break;
    case FRAME_REFUSE:
        bodies->refuse.reason = frame->refuse.reason;
        bodies->refuse.id = frame->refuse.id;
        bodies->refuse.what = (char *)frame->refuse.what;
        envelope->refuse = &bodies->refuse;
        break;
    case FRAME_NEED_SPEC:
        bodies->need_spec.spec_hash = put_hash(encoder, frame->need_spec.spec_hash);
        bodies->need_spec.id = frame->need_spec.id;
        envelope->need_spec = &bodies->need_spec;
        break;
    case FRAME_GOODBYE:
        bodies->goodbye.reason = (char *)frame->goodbye.reason;
        envelope->goodbye = &bodies->goodbye;
        break;
    case FRAME_PING:
        envelope->ping = &bodies->ping;
        break;
    case FRAME_SHARE:
        bodies->share.token =
            (ProtobufCBinaryData){SHARE_TOKEN_BYTES, (uint8_t *)frame->share.bytes};
        envelope->share = &bodies->share;
        break;
    case FRAME_RELEASE:
        bodies->release.n_ids = frame->release.count;
        bodies->release.ids = (uint64_t *)frame->release.ids;
        envelope->release = &bodies->release;
        break;
    }
}

int frame_encode(uint8_t dst[FRAME_MAX_BYTES], size_t *bytes, const struct frame *frame)
{
    if (check_frame(frame))
        return err_wrap(ERR_INTERNAL, "encoding");
    struct encoder encoder = {.hash_count = 0};
    struct bodies bodies = empty_bodies;
    Satchel__Envelope envelope = SATCHEL__ENVELOPE__INIT;
    envelope.body_case = (Satchel__Envelope__BodyCase)frame->kind;
    put_body(&envelope, &bodies, &encoder, frame);
    if (satchel__envelope__get_packed_size(&envelope) > FRAME_MAX_BYTES)
        return err_set(ERR_INTERNAL, "%s: longer than %d bytes", frame_kind_name(frame->kind),
                       FRAME_MAX_BYTES);
    *bytes = satchel__envelope__pack(&envelope, dst);
    return ERR_OK;
}

/* ---- decoding ---- */

static int get_hash(struct hash128 *dst, ProtobufCBinaryData src, const char *field)
{
    if (src.len != 16)
        return err_set(ERR_PEER, "%s has %zu bytes, not 16", field, src.len);
    *dst = hash128_from_bytes(src.data);
    return ERR_OK;
}

static int get_text(char *dst, size_t dst_bytes, const char *src, const char *field)
{
    size_t length = strlen(src);
    if (length >= dst_bytes)
        return err_set(ERR_PEER, "%s has %zu bytes, %zu at most", field, length, dst_bytes - 1);
    memcpy(dst, src, length + 1);
    return ERR_OK;
}

static int get_hello(struct frame_hello *dst, const Satchel__Hello *src)
{
    int code = get_text(dst->run, sizeof(dst->run), src->run, "hello: run");
    if (code)
        return code;
    if (src->n_wanted > FRAME_MAX_STORES)
        return err_set(ERR_PEER, "hello: %zu stores wanted, %d at most", src->n_wanted,
                       FRAME_MAX_STORES);
    dst->protocol = src->protocol;
    dst->wanted_count = (uint32_t)src->n_wanted;
    for (uint32_t i = 0; i < dst->wanted_count; i++) {
        struct frame_wanted *wanted = &dst->wanted[i];
        const Satchel__WantedStore *message = src->wanted[i];
        code = get_text(wanted->name, sizeof(wanted->name), message->name, "hello: store name");
        if (code)
            return code;
        wanted->any = message->fingerprint.len == 0;
        if (!wanted->any &&
            (code = get_hash(&wanted->fingerprint, message->fingerprint, "hello: fingerprint")))
            return code;
    }
    return ERR_OK;
}

static int get_hello_reply(struct frame_hello_reply *dst, const Satchel__HelloReply *src)
{
    int code = get_text(dst->program, sizeof(dst->program), src->program, "hello-reply: program");
    if (code)
        return code;
    if (src->n_stores > FRAME_MAX_STORES)
        return err_set(ERR_PEER, "hello-reply: %zu stores, %d at most", src->n_stores,
                       FRAME_MAX_STORES);
    if ((code = get_hash(&dst->self_test, src->self_test, "hello-reply: self-test")))
        return code;
    dst->protocol = src->protocol;
    dst->credits = src->credits;
    dst->store_count = (uint32_t)src->n_stores;
    dst->shares = src->memory != NULL;
    dst->descriptor = src->memory ? src->memory->descriptor : 0;
    for (uint32_t i = 0; i < dst->store_count; i++) {
        struct frame_store *store = &dst->stores[i];
        const Satchel__Store *message = src->stores[i];
        if ((code = get_text(store->name, sizeof(store->name), message->name,
                             "hello-reply: store name")) ||
            (code =
                 get_hash(&store->fingerprint, message->fingerprint, "hello-reply: fingerprint")) ||
            (code = get_hash(&store->classes, message->classes, "hello-reply: classes")))
            return code;
        store->sample_count = message->sample_count;
        store->class_count = message->class_count;
        store->channels = message->channels;
    }
    return ERR_OK;
}

static int get_request(struct frame_request *dst, const Satchel__Request *src)
{
    dst->epoch = src->epoch;
    dst->chunk = src->chunk;
    dst->id = src->id;
    dst->isolate = src->isolate != 0;
    return get_hash(&dst->spec_hash, src->spec_hash, "request: spec hash");
}

static int get_chunk(struct frame_chunk *dst, const Satchel__Chunk *src)
{
    dst->epoch = src->epoch;
    dst->chunk = src->chunk;
    dst->id = src->id;
    dst->samples = src->samples;
    dst->substituted = src->substituted;
    dst->masked = src->masked;
    if (src->n_culprits > FRAME_MAX_CULPRITS)
        return err_set(ERR_PEER, "chunk: %zu culprits, %d at most", src->n_culprits,
                       FRAME_MAX_CULPRITS);
    dst->culprit_count = (uint32_t)src->n_culprits;
    for (uint32_t i = 0; i < dst->culprit_count; i++) {
        struct frame_culprit *culprit = &dst->culprits[i];
        culprit->id = src->culprits[i]->id;
        int code = get_text(culprit->class_id, sizeof(culprit->class_id),
                            src->culprits[i]->class_id, "chunk: class of a culprit");
        if (code)
            return code;
    }
    dst->is_shared = src->pixels != NULL;
    if (dst->is_shared)
        dst->shared = (struct frame_shared){src->pixels->descriptor, src->pixels->serial,
                                            src->pixels->generation};
    return get_hash(&dst->spec_hash, src->spec_hash, "chunk: spec hash");
}

static int get_share(struct share_token *dst, const Satchel__Share *src)
{
    if (src->token.len != SHARE_TOKEN_BYTES)
        return err_set(ERR_PEER, "share: a token of %zu bytes, not %d", src->token.len,
                       SHARE_TOKEN_BYTES);
    memcpy(dst->bytes, src->token.data, SHARE_TOKEN_BYTES);
    return ERR_OK;
}

static int get_release(struct frame_release *dst, const Satchel__Release *src)
{
    if (src->n_ids > FRAME_MAX_RELEASED)
        return err_set(ERR_PEER, "release: %zu ids, %d at most", src->n_ids, FRAME_MAX_RELEASED);
    dst->count = (uint32_t)src->n_ids;
    for (uint32_t i = 0; i < dst->count; i++)
        dst->ids[i] = src->ids[i];
    return ERR_OK;
}

static int get_body(struct frame *frame, const Satchel__Envelope *envelope)
{
    switch (frame->kind) {
    case FRAME_HELLO:
        return get_hello(&frame->hello, envelope->hello);
    case FRAME_HELLO_REPLY:
        return get_hello_reply(&frame->hello_reply, envelope->hello_reply);
    case FRAME_SPEC_OFFER:
        return spec_decode(&frame->spec_offer, envelope->spec_offer->spec.data,
                           envelope->spec_offer->spec.len);
    case FRAME_REQUEST:
        return get_request(&frame->request, envelope->request);
    case FRAME_CHUNK:
        return get_chunk(&frame->chunk, envelope->chunk);
    case FRAME_REFUSE:
        frame->refuse.reason = (enum frame_reason)envelope->refuse->reason;
        frame->refuse.id = envelope->refuse->id;
        return get_text(frame->refuse.what, sizeof(frame->refuse.what), envelope->refuse->what,
                        "refuse: what");
    case FRAME_NEED_SPEC:
        frame->need_spec.id = envelope->need_spec->id;
        return get_hash(&frame->need_spec.spec_hash, envelope->need_spec->spec_hash,
                        "need-spec: spec hash");
    case FRAME_GOODBYE:
        return get_text(frame->goodbye.reason, sizeof(frame->goodbye.reason),
                        envelope->goodbye->reason, "goodbye: reason");
    case FRAME_PING:
        return ERR_OK;
    case FRAME_SHARE:
        return get_share(&frame->share, envelope->share);
    case FRAME_RELEASE:
        return get_release(&frame->release, envelope->release);
    }
    return err_set(ERR_PEER, "unknown kind of message");
}

int frame_decode(struct frame *frame, const void *src, size_t bytes)
{
    if (bytes == 0 || bytes > FRAME_MAX_BYTES)
        return err_set(ERR_PEER, "an envelope of %zu bytes, 1 to %d are possible", bytes,
                       FRAME_MAX_BYTES);
    Satchel__Envelope *envelope = satchel__envelope__unpack(NULL, bytes, src);
    if (!envelope)
        return err_set(ERR_PEER, "not an envelope of this protocol");
    memset(frame, 0, sizeof(*frame));
    frame->kind = (enum frame_kind)envelope->body_case;
    int code = get_body(frame, envelope);
    if (!code)
        code = check_frame(frame);
    satchel__envelope__free_unpacked(envelope, NULL);
    return code;
}

/* ---- a chunk's other frames ---- */

size_t frame_label_bytes(const struct spec *spec)
{
    return spec->wire == SPEC_WIRE_UINT8 ? CHUNK_LABEL_UINT8_BYTES : CHUNK_LABEL_BYTES;
}

static int check_offsets(const uint8_t *label)
{
    for (int i = 0; i < 3; i++) {
        const uint8_t *src = label + CHUNK_LABEL_BYTES + 4 * i;
        uint32_t bits = (uint32_t)src[0] | (uint32_t)src[1] << 8 | (uint32_t)src[2] << 16 |
                        (uint32_t)src[3] << 24;
        float offset;
        memcpy(&offset, &bits, sizeof(offset));
        if (!isfinite(offset))
            return err_set(ERR_PEER, "a PCA offset that is not finite");
    }
    return ERR_OK;
}

int frame_check_chunk(const struct frame_chunk *chunk, const struct spec *spec,
                      const struct frame_store *store, const void *labels, size_t label_bytes,
                      size_t pixel_bytes)
{
    uint32_t samples = chunk_samples(spec, chunk->chunk, store->sample_count);
    size_t stride = frame_label_bytes(spec);
    if (samples == 0 || chunk->samples != samples)
        return err_set(ERR_PEER, "chunk %llu has %u samples, not %u",
                       (unsigned long long)chunk->chunk, chunk->samples, samples);
    if (label_bytes != samples * stride)
        return err_set(ERR_PEER, "labels frame of %zu bytes, not %zu", label_bytes,
                       samples * stride);
    if (pixel_bytes != samples * spec_sample_bytes(spec))
        return err_set(ERR_PEER, "pixels frame of %zu bytes, not %zu", pixel_bytes,
                       samples * spec_sample_bytes(spec));
    if (spec->damaged_masked ? chunk->substituted != 0 : chunk->masked != 0)
        return err_set(ERR_PEER, "damaged samples were %s against the spec",
                       spec->damaged_masked ? "substituted" : "masked");
    uint32_t masked = 0;
    for (uint32_t i = 0; i < samples; i++) {
        const uint8_t *src = (const uint8_t *)labels + i * stride;
        struct chunk_label label = chunk_label_decode(src);
        int code = chunk_label_check(label, spec, chunk->epoch, store->class_count);
        if (!code && stride == CHUNK_LABEL_UINT8_BYTES)
            code = check_offsets(src);
        if (code)
            return code;
        masked += label.a == CHUNK_LABEL_MASKED;
    }
    if (masked != chunk->masked)
        return err_set(ERR_PEER, "%u masked labels, the header says %u", masked, chunk->masked);
    return ERR_OK;
}

int frame_classes_hash(struct hash128 *hash, const char *const *class_ids, uint32_t count)
{
    struct hash_stream *stream = hash_stream_open();
    if (!stream)
        return err_set(ERR_NOMEM, "class ids: out of memory");
    for (uint32_t i = 0; i < count; i++)
        hash_stream_add(stream, class_ids[i], strlen(class_ids[i]) + 1);
    *hash = hash_stream_end(stream);
    hash_stream_close(stream);
    return ERR_OK;
}

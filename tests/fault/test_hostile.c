/* SPDX-License-Identifier: Apache-2.0 */
/* Peers that send what no honest one would. A loader bans such a trainer and goes on serving
 * others; a trainer refuses such a loader by name, whatever it lies about. Ends with the stop,
 * which cannot be taken back within a process. */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/stop.h"
#include "proto/frame.h"
#include "proto/sock.h"
#include "tests/fault/stream.h"
#include "tests/unit/testing.h"

enum { SAMPLES = 200, GARBAGE = 300, WAIT_MS = 30000 };

/* ---- a hostile trainer ---- */

struct rogue {
    struct sock_context *context;
    struct sock *sock;
    struct sock_message *message;
};

static void rogue_open(struct rogue *rogue, const char *endpoint)
{
    assert_int_equal(sock_context_open(&rogue->context, 1), 0);
    assert_int_equal(sock_connect(&rogue->sock, rogue->context, endpoint, 64, NULL), 0);
    rogue->message = sock_message_open();
    assert_non_null(rogue->message);
}

static void rogue_close(struct rogue *rogue)
{
    sock_message_close(rogue->message);
    sock_close(rogue->sock, 0);
    sock_context_close(rogue->context);
}

static void rogue_send(struct rogue *rogue, const void *bytes, size_t count)
{
    const struct sock_part part = {bytes, count, NULL, NULL};
    stream_await(sock_send(rogue->sock, 0, &part, 1) == SOCK_SENT, 30);
}

static void rogue_say(struct rogue *rogue, const struct frame *frame)
{
    uint8_t bytes[FRAME_MAX_BYTES];
    size_t count;
    assert_int_equal(frame_encode(bytes, &count, frame), 0);
    rogue_send(rogue, bytes, count);
}

/* The next envelope of this kind; others are passed over. */
static void rogue_hear(struct rogue *rogue, struct frame *frame, enum frame_kind kind)
{
    do {
        stream_await(sock_receive(rogue->sock, rogue->message) == SOCK_RECEIVED, 30);
        size_t bytes;
        const void *data = sock_message_data(rogue->message, 0, &bytes);
        assert_int_equal(frame_decode(frame, data, bytes), 0);
    } while (frame->kind != kind);
}

static const struct frame HELLO = {.kind = FRAME_HELLO, .hello = {.protocol = FRAME_PROTOCOL}};

struct place {
    char endpoint[TESTING_PATH_BYTES];
    struct stream_data train;
    struct stream_loader loader;
};

static int open_place(void **state)
{
    static struct place place;
    const char *directory = testing_directory();
    stream_make_data(&place.train, directory, "train", SAMPLES, 1, "class");
    const char *list[] = {place.train.entry, NULL};
    testing_endpoint(place.endpoint, directory);
    stream_start(&place.loader, directory, place.endpoint, list, 1, 4);
    stream_wait_ready(&place.loader);
    *state = &place;
    return 0;
}

static int close_place(void **state)
{
    struct place *place = *state;
    return place ? stream_stop(&place->loader) : 0;
}

/* An honest trainer is served as ever. */
static void assert_serves(const struct place *place)
{
    struct feed *feed = stream_feed(place->endpoint, 60);
    stream_check_epoch(feed, place->train.path);
    feed_close(feed);
}

static void garbage_bans_its_sender(void **state)
{
    struct place *place = *state;
    uint64_t seed = testing_seed();
    for (int round = 0; round < 2; round++) {
        struct rogue rogue;
        struct frame answer;
        rogue_open(&rogue, place->endpoint);
        if (round % 2)
            rogue_say(&rogue, &HELLO);
        for (int i = 0; i < GARBAGE; i++) {
            uint8_t bytes[256];
            size_t count = 1 + testing_random(&seed) % sizeof(bytes);
            for (size_t j = 0; j < count; j++)
                bytes[j] = (uint8_t)testing_random(&seed);
            rogue_send(&rogue, bytes, count);
        }
        rogue_hear(&rogue, &answer, FRAME_REFUSE);
        assert_int_equal(answer.refuse.reason, FRAME_REASON_MESSAGE);
        stream_await(sock_next_event(rogue.sock) == SOCK_EVENT_DISCONNECTED, 30); /* cut off */
        rogue_close(&rogue);
    }
    assert_serves(place);
}

static void more_than_the_credits_bans(void **state)
{
    struct place *place = *state;
    struct rogue rogue;
    struct frame answer;
    const struct spec spec = stream_spec(SPEC_WIRE_FP16);
    rogue_open(&rogue, place->endpoint);
    rogue_say(&rogue, &HELLO);
    rogue_hear(&rogue, &answer, FRAME_HELLO_REPLY);
    assert_int_equal(answer.hello_reply.credits, 4);
    rogue_say(&rogue, &(struct frame){.kind = FRAME_SPEC_OFFER, .spec_offer = spec});
    for (uint64_t id = 1; id <= 2000; id++)
        rogue_say(&rogue, &(struct frame){.kind = FRAME_REQUEST,
                                          .request = {spec_hash(&spec), 0, 0, id, false}});
    rogue_hear(&rogue, &answer, FRAME_REFUSE);
    assert_int_equal(answer.refuse.reason, FRAME_REASON_CREDITS);
    rogue_close(&rogue);
    assert_serves(place);
}

static void refusals_name_their_reason(void **state)
{
    struct place *place = *state;
    struct frame answer;
    struct rogue rogue;
    struct spec spec = stream_spec(SPEC_WIRE_FP16);
    rogue_open(&rogue, place->endpoint);
    struct frame hello = HELLO;
    hello.hello.protocol = FRAME_PROTOCOL + 1;
    rogue_say(&rogue, &hello);
    rogue_hear(&rogue, &answer, FRAME_REFUSE);
    assert_int_equal(answer.refuse.reason, FRAME_REASON_PROTOCOL);
    hello = HELLO;
    hello.hello.wanted_count = 1;
    strcpy(hello.hello.wanted[0].name, "train");
    rogue_say(&rogue, &hello); /* a fingerprint of zeros is another store */
    rogue_hear(&rogue, &answer, FRAME_REFUSE);
    assert_int_equal(answer.refuse.reason, FRAME_REASON_STORE);
    rogue_say(&rogue, &HELLO);
    rogue_hear(&rogue, &answer, FRAME_HELLO_REPLY);
    strcpy(spec.store, "missing");
    rogue_say(&rogue, &(struct frame){.kind = FRAME_SPEC_OFFER, .spec_offer = spec});
    rogue_hear(&rogue, &answer, FRAME_REFUSE);
    assert_int_equal(answer.refuse.reason, FRAME_REASON_SPEC);
    assert_non_null(strstr(answer.refuse.what, "missing"));
    spec = stream_spec(SPEC_WIRE_FP16);
    spec.channels = 3;
    for (int i = 1; i < 3; i++) {
        spec.mean[i] = spec.mean[0];
        spec.std[i] = spec.std[0];
    }
    rogue_say(&rogue, &(struct frame){.kind = FRAME_SPEC_OFFER, .spec_offer = spec});
    rogue_hear(&rogue, &answer, FRAME_REFUSE);
    assert_non_null(strstr(answer.refuse.what, "channels"));
    spec = stream_spec(SPEC_WIRE_FP16);
    spec.seed = 12345; /* not offered */
    const struct frame_request request = {spec_hash(&spec), 0, 1u << 30, 7, false};
    rogue_say(&rogue, &(struct frame){.kind = FRAME_REQUEST, .request = request});
    rogue_hear(&rogue, &answer, FRAME_NEED_SPEC);
    assert_int_equal(answer.need_spec.id, 7);
    rogue_say(&rogue, &(struct frame){.kind = FRAME_SPEC_OFFER, .spec_offer = spec});
    rogue_say(&rogue, &(struct frame){.kind = FRAME_REQUEST, .request = request});
    rogue_hear(&rogue, &answer, FRAME_REFUSE);
    assert_int_equal(answer.refuse.reason, FRAME_REASON_CHUNK);
    assert_int_equal(answer.refuse.id, 7);
    rogue_close(&rogue);
    assert_serves(place);
}

/* ---- a hostile loader ---- */

enum lie {
    LIE_NONE,
    LIE_PIXELS_SHORT,
    LIE_PIXELS_LONG,
    LIE_LABELS_SHORT,
    LIE_LABEL_RANGE,
    LIE_LAM,
    LIE_MASKED,
    LIE_SAMPLES,
    LIE_ID,
    LIE_EPOCH,
    LIE_FRAMES,
    LIE_REPEAT,
    LIE_KIND,
    LIE_GARBAGE,
    LIE_COUNT,
    LIE_SILENT, /* never answers a request */
};

struct liar {
    enum lie lie;
    struct sock_context *context;
    struct sock *sock;
    pthread_t thread;
    atomic_bool end;
    atomic_int requests;
};

static void liar_hello(struct liar *liar, uint32_t client)
{
    struct frame reply = {.kind = FRAME_HELLO_REPLY,
                          .hello_reply = {.protocol = FRAME_PROTOCOL,
                                          .credits = 2,
                                          .store_count = 1,
                                          .stores = {{.name = "train",
                                                      .sample_count = SAMPLES,
                                                      .class_count = STREAM_CLASSES,
                                                      .channels = STREAM_CHANNELS}}}};
    uint8_t bytes[FRAME_MAX_BYTES];
    struct sock_part part = {bytes, 0, NULL, NULL};
    if (!frame_encode(bytes, &part.bytes, &reply))
        sock_send(liar->sock, client, &part, 1);
}

static void liar_answer(struct liar *liar, uint32_t client, const struct frame_request *request)
{
    static const uint8_t pixels[2 * STREAM_CHUNK * STREAM_SIZE_PX * STREAM_SIZE_PX * 2];
    uint8_t labels[STREAM_CHUNK * CHUNK_LABEL_BYTES], envelope[FRAME_MAX_BYTES];
    struct chunk_label label = {3, 3, 1.0f};
    struct frame frame = {.kind = FRAME_CHUNK,
                          .chunk = {request->spec_hash, request->epoch, request->chunk, request->id,
                                    STREAM_CHUNK, 0, 0}};
    if (liar->lie == LIE_LABEL_RANGE)
        label.a = STREAM_CLASSES;
    if (liar->lie == LIE_LAM)
        label.lam = 1.5f;
    if (liar->lie == LIE_MASKED)
        label.a = label.b = CHUNK_LABEL_MASKED;
    for (int i = 0; i < STREAM_CHUNK; i++)
        chunk_label_encode(labels + i * CHUNK_LABEL_BYTES, label);
    struct sock_part parts[3] = {{envelope, 0, NULL, NULL},
                                 {labels, sizeof(labels), NULL, NULL},
                                 {pixels, sizeof(pixels) / 2, NULL, NULL}};
    int count = 3;
    frame.chunk.masked = liar->lie == LIE_MASKED ? STREAM_CHUNK : 0;
    parts[2].bytes += liar->lie == LIE_PIXELS_LONG;
    parts[2].bytes -= liar->lie == LIE_PIXELS_SHORT;
    parts[1].bytes -= liar->lie == LIE_LABELS_SHORT;
    frame.chunk.samples -= liar->lie == LIE_SAMPLES;
    frame.chunk.id += liar->lie == LIE_ID ? 1000 : 0;
    frame.chunk.epoch += liar->lie == LIE_EPOCH;
    if (liar->lie == LIE_FRAMES)
        count = 2;
    if (liar->lie == LIE_KIND)
        frame = (struct frame){.kind = FRAME_REQUEST, .request = *request};
    if (frame_encode(envelope, &parts[0].bytes, &frame))
        return;
    if (liar->lie == LIE_GARBAGE)
        memset(envelope, 0xff, parts[0].bytes);
    sock_send(liar->sock, client, parts, count);
    if (liar->lie == LIE_REPEAT)
        sock_send(liar->sock, client, parts, count);
}

static void *liar_run(void *argument)
{
    struct liar *liar = argument;
    struct sock_message *message = sock_message_open();
    while (!atomic_load(&liar->end)) {
        struct sock_poll_item item = {.sock = liar->sock};
        sock_poll(&item, 1, 5);
        while (sock_receive(liar->sock, message) == SOCK_RECEIVED) {
            size_t bytes;
            const void *data = sock_message_data(message, 0, &bytes);
            struct frame frame;
            if (frame_decode(&frame, data, bytes))
                continue;
            if (frame.kind == FRAME_HELLO)
                liar_hello(liar, sock_message_client(message));
            atomic_fetch_add(&liar->requests, frame.kind == FRAME_REQUEST);
            if (frame.kind == FRAME_REQUEST && liar->lie != LIE_SILENT)
                liar_answer(liar, sock_message_client(message), &frame.request);
        }
    }
    sock_message_close(message);
    return NULL;
}

static void liar_open(struct liar *liar, enum lie lie, const char *endpoint)
{
    *liar = (struct liar){.lie = lie};
    assert_int_equal(sock_context_open(&liar->context, 1), 0);
    assert_int_equal(sock_bind(&liar->sock, liar->context, endpoint, 8, NULL), 0);
    assert_int_equal(pthread_create(&liar->thread, NULL, liar_run, liar), 0);
}

static void liar_close(struct liar *liar)
{
    atomic_store(&liar->end, true);
    pthread_join(liar->thread, NULL);
    sock_close(liar->sock, 0);
    sock_context_close(liar->context);
}

static void lying_loaders_are_refused_by_name(void **state)
{
    (void)state;
    const char *directory = testing_directory();
    for (enum lie lie = LIE_NONE; lie < LIE_COUNT; lie++) {
        struct liar liar;
        char endpoint[TESTING_PATH_BYTES];
        testing_endpoint(endpoint, directory);
        liar_open(&liar, lie, endpoint);
        struct feed *feed = stream_feed(endpoint, 60);
        struct spec spec = stream_spec(SPEC_WIRE_FP16);
        const struct feed_range range = stream_range(feed, &spec, 0);
        assert_int_equal(feed_push(feed, &range), 0);
        uint64_t batches = feed_range_batches(feed, &range), got = 0;
        struct feed_batch batch;
        int code = 0;
        while (got < batches && (code = feed_pop(&batch, feed)) == 0) {
            got++;
            feed_release(feed, &batch);
        }
        struct feed_counts counts;
        feed_counts(&counts, feed);
        if (lie == LIE_NONE) { /* the honest answer passes, so the lies fail for what they are */
            assert_int_equal(code, 0);
            assert_int_equal(counts.rejected, 0);
        } else {
            if (code != ERR_PEER || counts.rejected != 1)
                fail_msg("lie %d: code %d, %d refused", lie, code, (int)counts.rejected);
            assert_non_null(strstr(err_message(), endpoint));
        }
        feed_close(feed);
        liar_close(&liar);
    }
}

/* ---- stopping ---- */

struct stopper {
    struct liar *liar;
    int64_t asked_ns;
};

/* Once the loader was asked, the trainer can do nothing but wait. */
static void *stop_soon(void *argument)
{
    struct stopper *stopper = argument;
    while (atomic_load(&stopper->liar->requests) == 0)
        sched_yield();
    stopper->asked_ns = clock_ns();
    stop_request();
    return NULL;
}

static void pop_wakes_on_stop(void **state)
{
    (void)state;
    struct liar liar;
    char endpoint[TESTING_PATH_BYTES];
    testing_endpoint(endpoint, testing_directory());
    liar_open(&liar, LIE_SILENT, endpoint);
    struct feed *feed = stream_feed(endpoint, 0);
    struct spec spec = stream_spec(SPEC_WIRE_FP16);
    const struct feed_range range = stream_range(feed, &spec, 0);
    assert_int_equal(feed_push(feed, &range), 0);
    pthread_t stopper;
    struct stopper stop = {&liar, 0};
    assert_int_equal(pthread_create(&stopper, NULL, stop_soon, &stop), 0);
    struct feed_batch batch;
    assert_int_equal(feed_pop(&batch, feed), ERR_STOPPED);
    int64_t woken_ns = clock_ns();
    assert_false(feed_stalled(feed));
    pthread_join(stopper, NULL);
    assert_true(woken_ns - stop.asked_ns <
                INT64_C(700000000)); /* it looks by itself once a second */
    feed_close(feed);
    liar_close(&liar);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(garbage_bans_its_sender),
        cmocka_unit_test(more_than_the_credits_bans),
        cmocka_unit_test(refusals_name_their_reason),
        cmocka_unit_test(lying_loaders_are_refused_by_name),
        cmocka_unit_test(pop_wakes_on_stop),
    };
    return cmocka_run_group_tests(tests, open_place, close_place);
}

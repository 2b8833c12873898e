/* SPDX-License-Identifier: Apache-2.0 */
/* Messages that were right before a few bits, bytes or lengths were changed, towards a loader and
 * towards a trainer; a run beside gets every bit. SATCHEL_MUTATIONS says how many each way. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "common/err.h"
#include "proto/frame.h"
#include "proto/sock.h"
#include "tests/fault/stream.h"
#include "tests/unit/testing.h"

enum {
    SAMPLES = 200,
    FEW = 600,    /* messages each way, when nothing else is said */
    BESIDE = 500, /* after so many the run beside is looked at */
    AT_ONCE = 8,  /* messages on one connection to the loader */
    LIARS = 48,   /* loaders of one attacked trainer */
    ENVELOPE_ROOM = 2 * FRAME_MAX_BYTES,
};

static struct {
    char endpoint[TESTING_PATH_BYTES];
    struct stream_data train;
    struct stream_loader loader;
    uint64_t seed;
    long wanted;
} place;

static int open_place(void **state)
{
    (void)state;
    const char *directory = testing_directory(), *many = getenv("SATCHEL_MUTATIONS");
    stream_make_data(&place.train, directory, "train", SAMPLES, 1, "class");
    const char *list[] = {place.train.entry, NULL};
    testing_endpoint(place.endpoint, directory);
    stream_start(&place.loader, directory, place.endpoint, list, 1, 4);
    stream_wait_ready(&place.loader);
    place.seed = testing_seed();
    place.wanted = many ? atol(many) : FEW;
    return 0;
}

static int close_place(void **state)
{
    (void)state;
    return stream_stop(&place.loader);
}

/* The run beside: an honest trainer at the honest loader. */
static void look_beside(void)
{
    struct feed *feed = stream_feed(place.endpoint, 60);
    stream_check_epoch(feed, place.train.path);
    feed_close(feed);
}

/* ---- towards the loader ---- */

static struct frame trainer_frame(const struct spec *spec, uint64_t *seed)
{
    const struct hash128 none = {1, 2};
    switch (testing_random(seed) % 4) {
    case 0:
        return (struct frame){.kind = FRAME_HELLO,
                              .hello = {FRAME_PROTOCOL, "run", 1, {{"train", false, none}}}};
    case 1:
        return (struct frame){.kind = FRAME_SPEC_OFFER, .spec_offer = *spec};
    case 2:
        return (struct frame){.kind = FRAME_GOODBYE, .goodbye = {"leaving"}};
    default:
        return (struct frame){.kind = FRAME_REQUEST,
                              .request = {.spec_hash = spec_hash(spec),
                                          .chunk = 3,
                                          .id = 1 + testing_random(seed) / 2}};
    }
}

static void send_one(struct sock *sock, const struct frame *frame, bool changed)
{
    uint8_t bytes[ENVELOPE_ROOM];
    struct sock_part part = {bytes, 0, NULL, NULL};
    assert_int_equal(frame_encode(bytes, &part.bytes, frame), 0);
    if (changed)
        part.bytes = testing_mutate(bytes, part.bytes, FRAME_MAX_BYTES, &place.seed);
    stream_await(sock_send(sock, 0, &part, 1) == SOCK_SENT, 30);
}

static void towards_the_loader(void **state)
{
    (void)state;
    const struct spec spec = stream_spec(SPEC_WIRE_FP16);
    const struct frame hello = {.kind = FRAME_HELLO, .hello = {.protocol = FRAME_PROTOCOL}};
    struct sock_context *context;
    assert_int_equal(sock_context_open(&context, 1), 0);
    for (long sent = 0, looked = 0; sent < place.wanted; sent += AT_ONCE) {
        struct sock *sock;
        assert_int_equal(sock_connect(&sock, context, place.endpoint, 64, NULL), 0);
        send_one(sock, &hello, false);
        send_one(sock, &(struct frame){.kind = FRAME_SPEC_OFFER, .spec_offer = spec}, false);
        for (int i = 0; i < AT_ONCE; i++) {
            struct frame frame = trainer_frame(&spec, &place.seed);
            send_one(sock, &frame, true);
        }
        sock_close(sock, 1000);
        if (sent - looked >= BESIDE) {
            look_beside();
            looked = sent;
        }
    }
    sock_context_close(context);
    look_beside();
}

/* ---- towards the trainer ---- */

struct liars {
    struct sock *socks[LIARS];
    pthread_t thread;
    atomic_bool end;
    atomic_long sent; /* changed ones */
    uint64_t seed;
};

static void tell(struct liars *liars, struct sock *sock, uint32_t client, const struct frame *frame)
{
    enum { LABELS = STREAM_CHUNK * CHUNK_LABEL_BYTES };
    static const uint8_t pixels[2 * STREAM_CHUNK * STREAM_SIZE_PX * STREAM_SIZE_PX * 2];
    uint8_t envelope[ENVELOPE_ROOM], labels[2 * LABELS];
    size_t bytes;
    if (frame_encode(envelope, &bytes, frame))
        return;
    for (int i = 0; i < STREAM_CHUNK; i++)
        chunk_label_encode(labels + i * CHUNK_LABEL_BYTES, (struct chunk_label){3, 3, 1});
    struct sock_part parts[3] = {{envelope, bytes, NULL, NULL},
                                 {labels, LABELS, NULL, NULL},
                                 {pixels, sizeof(pixels) / 2, NULL, NULL}};
    int count = frame->kind == FRAME_CHUNK ? 3 : 1;
    uint64_t what = testing_random(&liars->seed) % 8; /* half of them are left as they are */
    if (what < 2)
        parts[0].bytes = testing_mutate(envelope, bytes, sizeof(envelope), &liars->seed);
    else if (what == 2)
        parts[1].bytes = testing_mutate(labels, LABELS, sizeof(labels), &liars->seed);
    else if (what == 3 && count == 3)
        parts[2].bytes = testing_random(&liars->seed) % sizeof(pixels);
    else if (what == 3)
        count = 1 + (int)(testing_random(&liars->seed) % 3);
    if (sock_send(sock, client, parts, count) == SOCK_SENT && what < 4)
        atomic_fetch_add(&liars->sent, 1);
}

static void answer(struct liars *liars, struct sock *sock, struct sock_message *message)
{
    size_t bytes;
    struct frame frame, reply;
    const void *data = sock_message_data(message, 0, &bytes);
    if (frame_decode(&frame, data, bytes))
        return;
    if (frame.kind == FRAME_HELLO)
        reply = (struct frame){.kind = FRAME_HELLO_REPLY,
                               .hello_reply = {.protocol = FRAME_PROTOCOL,
                                               .credits = 2,
                                               .store_count = 1,
                                               .stores = {{.name = "train",
                                                           .sample_count = SAMPLES,
                                                           .class_count = STREAM_CLASSES,
                                                           .channels = STREAM_CHANNELS}}}};
    else if (frame.kind == FRAME_REQUEST)
        reply = (struct frame){.kind = FRAME_CHUNK,
                               .chunk = {.spec_hash = frame.request.spec_hash,
                                         .epoch = frame.request.epoch,
                                         .chunk = frame.request.chunk,
                                         .id = frame.request.id,
                                         .samples = STREAM_CHUNK}};
    else
        return;
    tell(liars, sock, sock_message_client(message), &reply);
}

static void *lie(void *argument)
{
    struct liars *liars = argument;
    struct sock_message *message = sock_message_open();
    while (!atomic_load(&liars->end)) {
        struct sock_poll_item items[LIARS];
        for (int i = 0; i < LIARS; i++)
            items[i] = (struct sock_poll_item){.sock = liars->socks[i]};
        sock_poll(items, LIARS, 5);
        for (int i = 0; i < LIARS; i++) {
            sock_watch(liars->socks[i], SIZE_MAX / 2);
            while (sock_receive(liars->socks[i], message) == SOCK_RECEIVED)
                answer(liars, liars->socks[i], message);
        }
    }
    sock_message_close(message);
    return NULL;
}

/* One trainer at all these loaders, until it uses none of them any more or has all it wants. */
static void be_lied_to(const char *endpoints)
{
    const struct feed_config config = {
        .loaders = endpoints, .stall_limit_seconds = 1, .prefetch_bytes = 1};
    struct spec spec = stream_spec(SPEC_WIRE_FP16);
    struct feed *feed;
    if (feed_open(&feed, &config))
        return; /* whoever answered was refused */
    const struct feed_store *store = feed_store(feed, "train");
    struct feed_batch batch;
    if (store && store->sample_count == SAMPLES) {
        const struct feed_range range = stream_range(feed, &spec, 0);
        assert_int_equal(feed_push(feed, &range), 0);
        while (feed_pop(&batch, feed) == 0) {
            for (uint32_t i = 0; i < batch.samples; i++)
                assert_true(batch.labels[i].a < store->class_count);
            feed_release(feed, &batch);
        }
    }
    feed_close(feed);
}

static void towards_the_trainer(void **state)
{
    (void)state;
    static struct liars liars;
    static char endpoints[LIARS * TESTING_PATH_BYTES];
    struct sock_context *context;
    const char *directory = testing_directory();
    size_t used = 0;
    liars.seed = place.seed;
    assert_int_equal(sock_context_open(&context, 1), 0);
    for (int i = 0; i < LIARS; i++) {
        char endpoint[TESTING_PATH_BYTES];
        testing_endpoint(endpoint, directory);
        used += (size_t)snprintf(endpoints + used, sizeof(endpoints) - used, "%s%s", i ? "," : "",
                                 endpoint);
        assert_int_equal(sock_bind(&liars.socks[i], context, endpoint, 8, NULL), 0);
    }
    assert_int_equal(pthread_create(&liars.thread, NULL, lie, &liars), 0);
    for (long looked = 0; atomic_load(&liars.sent) < place.wanted;) {
        be_lied_to(endpoints);
        if (atomic_load(&liars.sent) - looked >= BESIDE) {
            look_beside();
            looked = atomic_load(&liars.sent);
        }
    }
    look_beside();
    atomic_store(&liars.end, true);
    pthread_join(liars.thread, NULL);
    for (int i = 0; i < LIARS; i++)
        sock_close(liars.socks[i], 0);
    sock_context_close(context);
    print_message("%ld changed messages towards the trainer\n", atomic_load(&liars.sent));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(towards_the_loader),
        cmocka_unit_test(towards_the_trainer),
    };
    return cmocka_run_group_tests(tests, open_place, close_place);
}

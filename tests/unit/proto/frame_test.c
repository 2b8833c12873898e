/* SPDX-License-Identifier: Apache-2.0 */
/* Envelopes: every kind comes back as it went; whatever is mutated is refused or within its ranges,
 * and never crashes; a chunk's frames must fit the spec to the byte. Endpoints as users write them.
 */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "common/err.h"
#include "proto/chunk.h"
#include "proto/endpoint.h"
#include "proto/frame.h"
#include "tests/unit/testing.h"

enum { MUTATIONS = 20000, KINDS = FRAME_RELEASE };

static struct spec some_spec(void)
{
    return (struct spec){.store = "train",
                         .seed = 5,
                         .order = SPEC_ORDER_SHUFFLED,
                         .channels = 1,
                         .flip = 1,
                         .size_px = 8,
                         .resize_short_px = 8,
                         .chunk_size = 4,
                         .mixup_off_epoch = UINT32_MAX,
                         .mean = {127},
                         .std = {64},
                         .mixup_alpha = 0.2f};
}

/* One frame of each kind with every field set. */
static struct frame some_frame(enum frame_kind kind)
{
    struct frame frame = {.kind = kind};
    const struct hash128 a = {1, 2}, b = {UINT64_MAX, 3};
    switch (kind) {
    case FRAME_HELLO:
        frame.hello = (struct frame_hello){.protocol = FRAME_PROTOCOL,
                                           .run = "run 7",
                                           .wanted_count = 2,
                                           .wanted = {{"train", false, a}, {"val", true, {0, 0}}}};
        break;
    case FRAME_HELLO_REPLY:
        frame.hello_reply = (struct frame_hello_reply){.protocol = FRAME_PROTOCOL,
                                                       .program = "satchel-loader",
                                                       .credits = 9,
                                                       .store_count = FRAME_MAX_STORES,
                                                       .self_test = a,
                                                       .shares = true,
                                                       .descriptor = INT_MAX};
        for (int i = 0; i < FRAME_MAX_STORES; i++) {
            struct frame_store *store = &frame.hello_reply.stores[i];
            *store = (struct frame_store){.fingerprint = a,
                                          .sample_count = UINT32_MAX - 1,
                                          .class_count = FRAME_MAX_CLASSES,
                                          .channels = 3,
                                          .classes = b};
            memset(store->name, 'a' + i, SPEC_STORE_NAME_BYTES - 1);
        }
        break;
    case FRAME_SPEC_OFFER:
        frame.spec_offer = some_spec();
        break;
    case FRAME_REQUEST:
        frame.request = (struct frame_request){a, UINT32_MAX, UINT64_MAX, 77, true};
        break;
    case FRAME_CHUNK:
        frame.chunk = (struct frame_chunk){b,
                                           3,
                                           4,
                                           5,
                                           4,
                                           1,
                                           2,
                                           .culprit_count = FRAME_MAX_CULPRITS,
                                           .is_shared = true,
                                           .shared = {INT_MAX, UINT64_MAX, UINT64_MAX}};
        for (int i = 0; i < FRAME_MAX_CULPRITS; i++) {
            frame.chunk.culprits[i].id = UINT32_MAX;
            memset(frame.chunk.culprits[i].class_id, 'n', FRAME_CLASS_ID_BYTES - 1);
        }
        break;
    case FRAME_REFUSE:
        frame.refuse = (struct frame_refuse){FRAME_REASON_LIMIT, 6, ""};
        memset(frame.refuse.what, 'x', sizeof(frame.refuse.what) - 1);
        break;
    case FRAME_NEED_SPEC:
        frame.need_spec = (struct frame_need_spec){a, 1};
        break;
    case FRAME_GOODBYE:
        strcpy(frame.goodbye.reason, "bye");
        break;
    case FRAME_PING:
        break;
    case FRAME_SHARE:
        memset(frame.share.bytes, 0xa5, sizeof(frame.share.bytes));
        break;
    case FRAME_RELEASE:
        frame.release.count = FRAME_MAX_RELEASED;
        for (int i = 0; i < FRAME_MAX_RELEASED; i++)
            frame.release.ids[i] = UINT64_MAX;
        break;
    }
    return frame;
}

static void round_trip(void **state)
{
    (void)state;
    for (int kind = FRAME_HELLO; kind <= KINDS; kind++) {
        struct frame frame = some_frame((enum frame_kind)kind), back;
        uint8_t bytes[FRAME_MAX_BYTES], again[FRAME_MAX_BYTES];
        size_t count, again_count;
        assert_int_equal(frame_encode(bytes, &count, &frame), 0);
        if (frame_decode(&back, bytes, count))
            fail_msg("%s: %s", frame_kind_name(frame.kind), err_message());
        assert_int_equal(back.kind, kind);
        assert_int_equal(frame_encode(again, &again_count, &back), 0);
        assert_int_equal(again_count, count);
        assert_memory_equal(again, bytes, count);
    }
    const struct frame request = some_frame(FRAME_REQUEST);
    struct frame back;
    uint8_t bytes[FRAME_MAX_BYTES];
    size_t count;
    assert_int_equal(frame_encode(bytes, &count, &request), 0);
    assert_int_equal(frame_decode(&back, bytes, count), 0);
    assert_true(hash128_equal(back.request.spec_hash, request.request.spec_hash));
    assert_true(back.request.epoch == UINT32_MAX && back.request.chunk == UINT64_MAX);
    assert_true(back.request.id == 77 && back.request.isolate);
}

/* What decoding promises of an accepted frame. */
static void assert_within_ranges(const struct frame *frame)
{
    switch (frame->kind) {
    case FRAME_HELLO:
        assert_true(frame->hello.wanted_count <= FRAME_MAX_STORES);
        assert_true(memchr(frame->hello.run, 0, sizeof(frame->hello.run)) != NULL);
        break;
    case FRAME_HELLO_REPLY:
        assert_in_range(frame->hello_reply.credits, 1, FRAME_MAX_CREDITS);
        assert_true(frame->hello_reply.store_count <= FRAME_MAX_STORES);
        for (uint32_t i = 0; i < frame->hello_reply.store_count; i++) {
            const struct frame_store *store = &frame->hello_reply.stores[i];
            assert_in_range(strnlen(store->name, sizeof(store->name)), 1, sizeof(store->name) - 1);
            assert_in_range(store->class_count, 1, FRAME_MAX_CLASSES);
            assert_true(store->channels == 1 || store->channels == 3);
            assert_true(store->sample_count > 0);
        }
        break;
    case FRAME_SPEC_OFFER:
        assert_int_equal(spec_check(&frame->spec_offer), 0);
        break;
    case FRAME_CHUNK:
        assert_in_range(frame->chunk.samples, 1, SPEC_MAX_CHUNK_SIZE);
        assert_true(frame->chunk.masked <= frame->chunk.samples);
        assert_true(frame->chunk.culprit_count <= FRAME_MAX_CULPRITS);
        assert_true(!frame->chunk.is_shared ||
                    (frame->chunk.shared.descriptor <= INT_MAX && frame->chunk.shared.serial != 0));
        break;
    case FRAME_RELEASE:
        assert_in_range(frame->release.count, 1, FRAME_MAX_RELEASED);
        break;
    case FRAME_REFUSE:
        assert_in_range(frame->refuse.reason, FRAME_REASON_PROTOCOL, FRAME_REASON_LIMIT);
        break;
    default:
        assert_in_range(frame->kind, FRAME_HELLO, FRAME_RELEASE);
    }
}

static void mutations(void **state)
{
    (void)state;
    uint64_t seed = testing_seed();
    unsigned accepted = 0;
    for (int i = 0; i < MUTATIONS; i++) {
        struct frame frame = some_frame((enum frame_kind)(1 + i % KINDS));
        uint8_t bytes[FRAME_MAX_BYTES];
        size_t count;
        assert_int_equal(frame_encode(bytes, &count, &frame), 0);
        count = testing_mutate(bytes, count, sizeof(bytes), &seed);
        /* On the heap and no longer than it says, so that sanitizers see a read behind the end. */
        uint8_t *exact = malloc(count ? count : 1);
        assert_non_null(exact);
        memcpy(exact, bytes, count);
        int code = frame_decode(&frame, exact, count);
        free(exact);
        if (code == 0) {
            assert_within_ranges(&frame);
            accepted++;
        } else {
            assert_int_equal(code, ERR_PEER);
        }
    }
    assert_in_range(accepted, 1, MUTATIONS - 1);
}

static void refuses_what_is_too_long(void **state)
{
    (void)state;
    static const uint8_t zeros[FRAME_MAX_BYTES + 1];
    struct frame frame;
    assert_int_equal(frame_decode(&frame, zeros, 0), ERR_PEER);
    assert_int_equal(frame_decode(&frame, zeros, sizeof(zeros)), ERR_PEER);
    frame = some_frame(FRAME_HELLO);
    frame.hello.wanted_count = FRAME_MAX_STORES + 1;
    uint8_t bytes[FRAME_MAX_BYTES];
    size_t count;
    assert_int_equal(frame_encode(bytes, &count, &frame), ERR_INTERNAL);
    frame = some_frame(FRAME_RELEASE);
    frame.release.count = 0;
    assert_int_equal(frame_encode(bytes, &count, &frame), ERR_INTERNAL);
    frame = some_frame(FRAME_CHUNK);
    frame.chunk.shared.generation = 0;
    assert_int_equal(frame_encode(bytes, &count, &frame), ERR_INTERNAL);
}

/* A chunk of 4 samples of 8 x 8 x 1 half floats, the last of a store of 11 has 3. */
static void chunk_frames_fit_to_the_byte(void **state)
{
    (void)state;
    struct spec spec = some_spec();
    const struct frame_store store = {
        .name = "train", .sample_count = 11, .class_count = 10, .channels = 1};
    uint8_t labels[4 * CHUNK_LABEL_BYTES];
    for (int i = 0; i < 4; i++)
        chunk_label_encode(labels + i * CHUNK_LABEL_BYTES, (struct chunk_label){1, 2, 0.25f});
    for (uint64_t index = 0; index < 5; index++) {
        uint32_t samples = index < 2 ? 4 : index == 2 ? 3 : 0;
        for (uint32_t told = 1; told <= 5; told++)
            for (int extra_label = -1; extra_label <= 1; extra_label++)
                for (int extra_pixel = -1; extra_pixel <= 1; extra_pixel++) {
                    const struct frame_chunk chunk = {.chunk = index, .samples = told};
                    size_t label_bytes = samples * CHUNK_LABEL_BYTES + (size_t)extra_label;
                    size_t pixel_bytes = samples * 128 + (size_t)extra_pixel;
                    int code =
                        frame_check_chunk(&chunk, &spec, &store, labels, label_bytes, pixel_bytes);
                    bool good = samples && told == samples && !extra_label && !extra_pixel;
                    assert_int_equal(code, good ? 0 : ERR_PEER);
                }
    }
    struct frame_chunk chunk = {.samples = 4};
    chunk_label_encode(labels + CHUNK_LABEL_BYTES, (struct chunk_label){1, 10, 0.5f});
    assert_int_equal(frame_check_chunk(&chunk, &spec, &store, labels, sizeof(labels), 512),
                     ERR_PEER);
    spec.mixup_alpha = 0;
    spec.mixup_off_epoch = 0;
    spec.damaged_masked = 1;
    for (int i = 0; i < 4; i++)
        chunk_label_encode(labels + i * CHUNK_LABEL_BYTES, (struct chunk_label){1, 1, 1});
    chunk_label_encode(labels, (struct chunk_label){CHUNK_LABEL_MASKED, CHUNK_LABEL_MASKED, 1});
    chunk.masked = 1;
    assert_int_equal(frame_check_chunk(&chunk, &spec, &store, labels, sizeof(labels), 512), 0);
    chunk.masked = 2;
    assert_int_equal(frame_check_chunk(&chunk, &spec, &store, labels, sizeof(labels), 512),
                     ERR_PEER);
    chunk.masked = 1;
    chunk.substituted = 1;
    assert_int_equal(frame_check_chunk(&chunk, &spec, &store, labels, sizeof(labels), 512),
                     ERR_PEER);
}

static void endpoints(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool connects, binds, local;
    } cases[] = {
        {"tcp://127.0.0.1:5555", true, true, true},
        {"tcp://127.3.2.1:1", true, true, true},
        {"tcp://localhost:65535", true, true, true},
        {"tcp://[::1]:5555", true, true, true},
        {"tcp://[fe80::1]:5555", true, true, false},
        {"tcp://127.0.0.1:*", false, true, true},
        {"tcp://*:5555", false, true, false},
        {"tcp://loader7:5555", true, true, false},
        {"tcp://127.0.0.1.example.org:5555", true, true, false},
        {"tcp://128.0.0.1:5555", true, true, false},
        {"ipc:///tmp/a", true, true, true},
        {"tcp://::1:5555", false, false, false},
        {"tcp://a:0", false, false, false},
        {"tcp://a:65536", false, false, false},
        {"tcp://a:5x", false, false, false},
        {"tcp://:5", false, false, false},
        {"tcp://a", false, false, false},
        {"tcp://eth0;a:5", false, false, false},
        {"tcp://a b:5", false, false, false},
        {"ipc://", false, false, true},
        {"inproc://a", false, false, false},
        {"", false, false, false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if ((endpoint_check(cases[i].text, false) == 0) != cases[i].connects ||
            (endpoint_check(cases[i].text, true) == 0) != cases[i].binds ||
            endpoint_is_local(cases[i].text) != cases[i].local)
            fail_msg("%s is taken for what it is not", cases[i].text);
    }
    char list[3][ENDPOINT_BYTES];
    int count;
    assert_int_equal(endpoint_split(list, &count, 3, " ipc:///a, tcp://b:1 ,"), 0);
    assert_int_equal(count, 2);
    assert_string_equal(list[1], "tcp://b:1");
    assert_int_equal(endpoint_split(list, &count, 3, "ipc:///a,ipc:///b,ipc:///c,ipc:///d"),
                     ERR_ARG);
    assert_int_equal(endpoint_split(list, &count, 3, "ipc:///a,ipc:///a"), ERR_ARG);
    assert_int_equal(
        endpoint_lines(list, &count, 3, "# none\n\n ipc:///a # one\r\ntcp://b:1", "list"), 0);
    assert_int_equal(count, 2);
    assert_string_equal(list[0], "ipc:///a");
    assert_int_equal(endpoint_lines(list, &count, 3, "\nwhat\n", "list"), ERR_ARG);
    assert_non_null(strstr(err_message(), "list, line 2"));
    assert_int_equal(endpoint_lines(list, &count, 3, "", "list"), 0);
    assert_int_equal(count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(mutations),
        cmocka_unit_test(refuses_what_is_too_long),
        cmocka_unit_test(chunk_frames_fit_to_the_byte),
        cmocka_unit_test(endpoints),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

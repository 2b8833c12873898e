/* SPDX-License-Identifier: Apache-2.0 */
/* Pixels in shared memory: the same stream with it and without; whoever is killed, nothing is left
 * behind; a loader that lies about its memory, and a trainer that keeps or gives back what it must
 * not, are cut off and named, and whoever is beside them gets every bit. */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "common/err.h"
#include "common/file.h"
#include "proto/frame.h"
#include "proto/sock.h"
#include "tests/fault/feeds.h"
#include "tests/fault/stream.h"
#include "tests/unit/testing.h"

enum { SAMPLES = 400, ROOM = 3 * TESTING_PATH_BYTES, CREDITS = 4, KILLS = 6 };

#define TAKES "takes pixels from shared memory"

static struct {
    const char *directory;
    struct stream_data train;
    char metrics[TESTING_PATH_BYTES];
} place;

static int open_place(void **state)
{
    (void)state;
    place.directory = testing_directory();
    stream_make_data(&place.train, place.directory, "train", SAMPLES, 1, "class");
    testing_path(place.metrics, place.directory, "metrics");
    return 0;
}

/* option: one more of the loader's, or NULL. */
static void start_at(struct stream_loader *loader, const char *endpoint, const char *option)
{
    const char *arguments[] = {place.train.entry, "--metrics-file", place.metrics, option, NULL};
    stream_start(loader, place.directory, endpoint, arguments, 1, CREDITS);
    stream_wait_ready(loader);
}

static void start(struct stream_loader *loader, const char *option)
{
    char endpoint[TESTING_PATH_BYTES];
    start_at(loader, testing_endpoint(endpoint, place.directory), option);
}

static struct feed *open_feed(const char *loaders, bool inline_pixels)
{
    const struct feed_config config = {.loaders = loaders,
                                       .run = "test",
                                       .stall_limit_seconds = 60,
                                       .prefetch_bytes = 1,
                                       .inline_pixels = inline_pixels};
    return feeds_open(&config);
}

static void pull_epoch(const char *endpoint, bool inline_pixels)
{
    struct feed *feed = open_feed(endpoint, inline_pixels);
    stream_check_epoch(feed, place.train.path);
    feed_close(feed);
}

/* Of memory files in a process's address space. */
static int maps(pid_t pid)
{
    char line[512], path[64];
    int count = 0;
    snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while (fgets(line, sizeof(line), file))
        count += strstr(line, "memfd:satchel-chunk") != NULL;
    fclose(file);
    return count;
}

/* ---- the stream ---- */

static void the_same_with_and_without(void **state)
{
    (void)state;
    struct stream_loader shares, keeps, none;
    start(&shares, NULL);
    start(&keeps, NULL);
    start(&none, "--shared-memory=false");
    pull_epoch(shares.endpoint, false); /* compares with the receipt made without any wire */
    pull_epoch(keeps.endpoint, true);
    pull_epoch(none.endpoint, false);
    assert_true(stream_log_has(&shares, TAKES));
    assert_false(stream_log_has(&keeps, TAKES));
    assert_false(stream_log_has(&none, TAKES));
    assert_int_equal(maps(getpid()), 0);
    assert_int_equal(stream_stop(&shares), 0);
    assert_int_equal(stream_stop(&keeps), 0);
    assert_int_equal(stream_stop(&none), 0);
}

static void both_wires_and_sizes(void **state)
{
    (void)state;
    struct stream_loader loader;
    start(&loader, NULL);
    struct feed *feed = open_feed(loader.endpoint, false);
    for (int i = 0; i < 4; i++) { /* buffers of one size are followed by those of another */
        struct spec spec = stream_spec(i % 2 ? SPEC_WIRE_UINT8 : SPEC_WIRE_FP16);
        const struct feed_range range = stream_range(feed, &spec, (uint32_t)i);
        struct hash128 receipt = {0, 0};
        assert_int_equal(feed_push(feed, &range), 0);
        stream_pull(feed, feed_range_batches(feed, &range), &receipt);
        stream_assert_equal(receipt, stream_offline_receipt(place.train.path, &spec, (uint32_t)i));
    }
    assert_true(maps(getpid()) > 0);
    feed_close(feed);
    assert_int_equal(stream_stop(&loader), 0);
}

/* ---- whoever dies ---- */

static void loaders_are_killed(void **state)
{
    (void)state;
    struct stream_loader loaders[2];
    char both[ROOM], endpoint[STREAM_PATH_BYTES];
    uint64_t seed = testing_seed();
    for (int i = 0; i < 2; i++)
        start(&loaders[i], NULL);
    snprintf(both, sizeof(both), "%.500s,%.500s", loaders[0].endpoint, loaders[1].endpoint);
    struct feed *feed = open_feed(both, false);
    struct spec spec = stream_spec(SPEC_WIRE_FP16);
    for (uint32_t epoch = 0; epoch < KILLS; epoch++) {
        const struct feed_range range = stream_range(feed, &spec, epoch);
        uint64_t batches = feed_range_batches(feed, &range), before;
        struct hash128 receipt = {0, 0};
        assert_int_equal(feed_push(feed, &range), 0);
        before = 1 + testing_random(&seed) % (batches - 1);
        stream_pull(feed, before, &receipt);
        struct stream_loader *victim = &loaders[testing_random(&seed) % 2];
        strcpy(endpoint, victim->endpoint);
        stream_kill(victim);
        start_at(victim, endpoint, NULL);
        stream_pull(feed, batches - before, &receipt);
        stream_assert_equal(receipt, stream_offline_receipt(place.train.path, &spec, epoch));
        stream_await(feeds_counts(feed).loaders == 2, 30);
    }
    for (int i = 0; i < 2; i++)
        stream_kill(&loaders[i]);
    stream_await(maps(getpid()) == 0, 30); /* nothing holds on to the memory of the dead */
    feed_close(feed);
}

/* In a process of its own, until it is killed: pulls epoch after epoch. */
static pid_t start_trainer(const char *endpoint)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid > 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    struct spec spec = stream_spec(SPEC_WIRE_FP16);
    struct feed *feed = open_feed(endpoint, false);
    for (uint32_t epoch = 0;; epoch++) {
        const struct feed_range range = stream_range(feed, &spec, epoch);
        struct hash128 receipt;
        if (feed_push(feed, &range))
            _exit(1);
        stream_pull(feed, feed_range_batches(feed, &range), &receipt);
    }
}

static void trainers_are_killed(void **state)
{
    (void)state;
    struct stream_loader loader;
    uint8_t *metrics;
    size_t bytes;
    start(&loader, NULL);
    for (int i = 0; i < KILLS; i++) {
        pid_t pid = start_trainer(loader.endpoint);
        stream_await(maps(pid) > 0, 60);
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
    }
    pull_epoch(loader.endpoint, false);
    /* The probe, and chunks for two trainers at most; none is lent to anybody. */
    assert_in_range(maps(loader.pid), 2, 1 + 2 * CREDITS);
    assert_int_equal(stream_stop(&loader), 0);
    assert_int_equal(file_read(&metrics, &bytes, place.metrics, 1 << 16), 0);
    assert_non_null(strstr((const char *)metrics, "\nsatchel_loader_buffer_bytes 0\n"));
    free(metrics);
}

/* ---- a loader that lies about its memory ---- */

enum lie {
    NO_LIE,
    NOT_OFFERED, /* shares what the trainer did not ask for */
    CLOSED,      /* nothing is open there */
    A_PIPE,
    A_DEVICE,
    UNSEALED,
    HOLES,
    SMALL,
    OTHER_TOKEN,
    OTHER_SERIAL,
    OVERWRITTEN, /* the generation is a later one */
    TOO_MANY_FRAMES,
};

struct liar {
    enum lie lie;
    char endpoint[TESTING_PATH_BYTES];
    struct sock *sock;
    struct sock_message *message;
    struct share_token token, other;
    struct share_file probe, file;
    int fd; /* of what is told in place of a memory file, -1: none */
    bool shares;
    unsigned shared; /* chunks sent that way */
    unsigned released;
    pthread_t thread;
    atomic_bool end;
};

enum { PIXEL_BYTES = STREAM_CHUNK * STREAM_SIZE_PX * STREAM_SIZE_PX * 2 };

static int memory_of(bool pages, int seals)
{
    int fd = memfd_create("lie", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    off_t bytes = SHARE_HEADER_BYTES + PIXEL_BYTES;
    if (fd < 0 || (pages ? posix_fallocate(fd, 0, bytes) : ftruncate(fd, bytes)) ||
        (seals && fcntl(fd, F_ADD_SEALS, seals)))
        abort();
    return fd;
}

static void prepare(struct liar *liar)
{
    int ends[2], seals = F_SEAL_SHRINK | F_SEAL_WRITE | 0x10 /* F_SEAL_FUTURE_WRITE */;
    size_t bytes = liar->lie == SMALL ? PIXEL_BYTES - 1 : PIXEL_BYTES;
    liar->fd = -1;
    if (share_token_make(&liar->token) || share_token_make(&liar->other) ||
        share_create(&liar->probe, &liar->token, 0, 0) ||
        share_create(&liar->file, liar->lie == OTHER_TOKEN ? &liar->other : &liar->token, 1, bytes))
        abort();
    share_stamp(&liar->file, 1);
    if (liar->lie == A_PIPE && pipe(ends) == 0)
        liar->fd = ends[0];
    else if (liar->lie == A_DEVICE)
        liar->fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    else if (liar->lie == UNSEALED)
        liar->fd = memory_of(true, 0);
    else if (liar->lie == HOLES)
        liar->fd = memory_of(false, seals);
    else if (liar->lie == CLOSED)
        liar->fd = 1 << 20;
}

static void say(struct liar *liar, uint32_t client, const struct frame *frame, int parts)
{
    static const uint8_t pixels[PIXEL_BYTES];
    uint8_t envelope[FRAME_MAX_BYTES], labels[STREAM_CHUNK * CHUNK_LABEL_BYTES];
    for (int i = 0; i < STREAM_CHUNK; i++)
        chunk_label_encode(labels + i * CHUNK_LABEL_BYTES, (struct chunk_label){3, 3, 1});
    const struct sock_part list[3] = {{envelope, 0, NULL, NULL},
                                      {labels, sizeof(labels), NULL, NULL},
                                      {pixels, sizeof(pixels), NULL, NULL}};
    struct sock_part own[3];
    memcpy(own, list, sizeof(own));
    if (frame_encode(envelope, &own[0].bytes, frame) ||
        sock_send(liar->sock, client, own, parts) < 0)
        abort();
}

static void send_chunk(struct liar *liar, uint32_t client, const struct frame_request *request)
{
    struct frame frame = {.kind = FRAME_CHUNK,
                          .chunk = {.spec_hash = request->spec_hash,
                                    .epoch = request->epoch,
                                    .chunk = request->chunk,
                                    .id = request->id,
                                    .samples = STREAM_CHUNK,
                                    .is_shared = liar->shares || liar->lie == NOT_OFFERED}};
    frame.chunk.shared = (struct frame_shared){
        (uint32_t)(liar->fd >= 0 ? liar->fd : liar->file.fd),
        liar->lie == OTHER_SERIAL ? 2 : 1,
        liar->lie == OVERWRITTEN ? 2 : 1,
    };
    liar->shared += frame.chunk.is_shared;
    say(liar, client, &frame, frame.chunk.is_shared && liar->lie != TOO_MANY_FRAMES ? 2 : 3);
}

static void hear(struct liar *liar, const struct frame *frame)
{
    uint32_t client = sock_message_client(liar->message);
    struct frame reply = {.kind = FRAME_HELLO_REPLY,
                          .hello_reply = {.protocol = FRAME_PROTOCOL,
                                          .credits = CREDITS,
                                          .store_count = 1,
                                          .stores = {{.name = "train",
                                                      .sample_count = SAMPLES,
                                                      .class_count = STREAM_CLASSES,
                                                      .channels = STREAM_CHANNELS}},
                                          .shares = true,
                                          .descriptor = (uint32_t)liar->probe.fd}};
    if (frame->kind == FRAME_HELLO) {
        liar->shares = false;
        say(liar, client, &reply, 1);
    } else if (frame->kind == FRAME_SHARE) {
        liar->shares = share_token_equal(&frame->share, &liar->token);
    } else if (frame->kind == FRAME_RELEASE) {
        liar->released += frame->release.count;
    } else if (frame->kind == FRAME_REQUEST) {
        send_chunk(liar, client, &frame->request);
    }
}

static void *serve(void *argument)
{
    struct liar *liar = argument;
    while (!atomic_load(&liar->end)) {
        struct sock_poll_item item = {.sock = liar->sock};
        struct frame frame;
        size_t bytes;
        sock_poll(&item, 1, 5);
        sock_watch(liar->sock, SIZE_MAX / 2);
        while (sock_receive(liar->sock, liar->message) == SOCK_RECEIVED) {
            const void *data = sock_message_data(liar->message, 0, &bytes);
            if (frame_decode(&frame, data, bytes) == 0)
                hear(liar, &frame);
        }
    }
    return NULL;
}

/* What comes of this lie: what is said, whether the loader is refused for good; if not, then it is
 * lost three times and serves through its socket. */
static void lie(enum lie kind, const char *says, bool refused)
{
    struct liar liar = {.lie = kind};
    struct sock_context *context;
    testing_endpoint(liar.endpoint, place.directory);
    prepare(&liar);
    liar.message = sock_message_open();
    assert_int_equal(sock_context_open(&context, 1), 0);
    assert_int_equal(sock_bind(&liar.sock, context, liar.endpoint, 64, NULL), 0);
    assert_int_equal(pthread_create(&liar.thread, NULL, serve, &liar), 0);

    stream_capture_begin(place.directory);
    struct feed *feed = open_feed(liar.endpoint, kind == NOT_OFFERED);
    struct spec spec = stream_spec(SPEC_WIRE_FP16);
    const struct feed_range range = stream_range(feed, &spec, 0);
    uint64_t batches = feed_range_batches(feed, &range), popped = 0;
    struct feed_batch batch;
    assert_int_equal(feed_push(feed, &range), 0);
    while (popped < batches && feed_pop(&batch, feed) == 0) {
        popped++;
        feed_release(feed, &batch);
    }
    const struct feed_counts counts = feeds_counts(feed);
    feed_close(feed);
    char *text = stream_capture_end();
    atomic_store(&liar.end, true);
    pthread_join(liar.thread, NULL);
    sock_close(liar.sock, 0);
    sock_context_close(context);
    sock_message_close(liar.message);

    if (says && (!strstr(text, says) || !strstr(text, liar.endpoint)))
        fail_msg("'%s' is not in: %s", says, text);
    free(text);
    assert_int_equal(popped, refused ? 0 : batches);
    assert_int_equal(counts.rejected, refused);
    assert_int_equal(counts.lost, says && !refused ? 3 : 0);
    assert_true(liar.shared > 0);
    if (kind == NO_LIE) /* each was given back, but for those that the end came before */
        assert_in_range(liar.released, liar.shared - CREDITS, liar.shared);
    else
        assert_int_equal(liar.released, 0);
    assert_int_equal(maps(getpid()), 2); /* this process's own two files, as a loader's */
    share_destroy(&liar.probe);
    share_destroy(&liar.file);
    if (liar.fd >= 0)
        close(liar.fd);
}

static void lies_about_memory(void **state)
{
    (void)state;
    lie(NO_LIE, NULL, false);
    lie(NOT_OFFERED, "it shares memory, which was not agreed on", true);
    lie(TOO_MANY_FRAMES, "a chunk of 3 frames, not 2", true);
    lie(UNSEALED, "a file that may become shorter", true);
    lie(HOLES, "a file that may become shorter", true);
    lie(SMALL, "a file too small for a chunk of 2048 bytes", true);
    /* What the place of a chunk that is gone looks like as well. */
    lie(CLOSED, "its process cannot be looked into", false);
    lie(A_PIPE, "its memory cannot be opened", false);
    lie(A_DEVICE, "its memory cannot be opened", false);
    lie(OTHER_TOKEN, "what is there is of another process", false);
    lie(OTHER_SERIAL, "the place of a chunk is another one by now", false);
    lie(OVERWRITTEN, "a chunk was overwritten while it was read", false);
}

/* ---- a trainer that keeps what it was lent, or gives back what it was not ---- */

struct borrower {
    struct sock_context *context;
    struct sock *sock;
    struct sock_message *message;
    struct share_token token;
};

static void tell(struct borrower *borrower, const struct frame *frame)
{
    uint8_t bytes[FRAME_MAX_BYTES];
    struct sock_part part = {bytes, 0, NULL, NULL};
    assert_int_equal(frame_encode(bytes, &part.bytes, frame), 0);
    stream_await(sock_send(borrower->sock, 0, &part, 1) == SOCK_SENT, 30);
}

/* The next message of this kind. */
static struct frame await_frame(struct borrower *borrower, enum frame_kind kind)
{
    struct frame frame = {.kind = FRAME_PING};
    while (frame.kind != kind) {
        size_t bytes;
        stream_await(sock_receive(borrower->sock, borrower->message) == SOCK_RECEIVED, 30);
        const void *data = sock_message_data(borrower->message, 0, &bytes);
        assert_int_equal(frame_decode(&frame, data, bytes), 0);
    }
    return frame;
}

static void borrow(struct borrower *borrower, const struct stream_loader *loader)
{
    struct share_view view;
    const struct spec spec = stream_spec(SPEC_WIRE_FP16);
    assert_int_equal(sock_context_open(&borrower->context, 1), 0);
    assert_int_equal(sock_connect(&borrower->sock, borrower->context, loader->endpoint, 1000, NULL),
                     0);
    borrower->message = sock_message_open();
    tell(borrower,
         &(struct frame){.kind = FRAME_HELLO, .hello = {.protocol = FRAME_PROTOCOL, .run = "bad"}});
    const struct frame reply = await_frame(borrower, FRAME_HELLO_REPLY);
    assert_true(reply.hello_reply.shares);
    assert_int_equal(share_open(&view, loader->pid, reply.hello_reply.descriptor), 0);
    borrower->token = share_view_token(&view);
    share_close(&view);
    tell(borrower, &(struct frame){.kind = FRAME_SPEC_OFFER, .spec_offer = spec});
}

static void stop_borrowing(struct borrower *borrower)
{
    sock_close(borrower->sock, 0);
    sock_context_close(borrower->context);
    sock_message_close(borrower->message);
}

static void share(struct borrower *borrower)
{
    tell(borrower, &(struct frame){.kind = FRAME_SHARE, .share = borrower->token});
}

static void ask(struct borrower *borrower, uint64_t id)
{
    const struct spec spec = stream_spec(SPEC_WIRE_FP16);
    tell(borrower, &(struct frame){.kind = FRAME_REQUEST,
                                   .request = {.spec_hash = spec_hash(&spec), .id = id}});
}

static void give_back(struct borrower *borrower, uint64_t id)
{
    tell(borrower, &(struct frame){.kind = FRAME_RELEASE, .release = {1, {id}}});
}

enum misuse { WRONG_TOKEN, UNASKED, NEVER_HAD, TWICE, FOREIGN };

static void misuse(enum misuse kind, const char *says)
{
    struct stream_loader loader;
    struct borrower borrower;
    start(&loader, NULL);
    borrow(&borrower, &loader);
    if (kind == WRONG_TOKEN)
        borrower.token.bytes[0] ^= 1;
    if (kind != UNASKED)
        share(&borrower);
    if (kind != WRONG_TOKEN)
        ask(&borrower, 7);
    if (kind == UNASKED || kind == NEVER_HAD || kind == TWICE)
        assert_int_equal(await_frame(&borrower, FRAME_CHUNK).chunk.is_shared, kind != UNASKED);
    if (kind == UNASKED || kind == TWICE)
        give_back(&borrower, 7);
    if (kind == NEVER_HAD || kind == FOREIGN)
        give_back(&borrower, 8);
    if (kind == TWICE)
        give_back(&borrower, 7);
    stream_await(stream_log_has(&loader, says), 30);
    assert_true(stream_log_has(&loader, "trainer bad"));
    pull_epoch(loader.endpoint, false);
    stop_borrowing(&borrower);
    assert_int_equal(stream_stop(&loader), 0);
}

static void misuses_of_what_is_lent(void **state)
{
    (void)state;
    const char *not_its = "pixels in shared memory given back that it does not have";
    misuse(WRONG_TOKEN, "a token of shared memory not seen here");
    misuse(UNASKED, not_its);
    misuse(NEVER_HAD, not_its);
    misuse(TWICE, not_its);
    misuse(FOREIGN, not_its);
}

/* It stalls itself: after its credits nothing more is made for it, and all for the other. */
static void a_trainer_that_gives_nothing_back(void **state)
{
    (void)state;
    struct stream_loader loader;
    struct borrower borrower;
    start(&loader, NULL);
    borrow(&borrower, &loader);
    share(&borrower);
    for (uint64_t id = 1; id <= CREDITS; id++)
        ask(&borrower, id);
    for (int i = 0; i < CREDITS; i++)
        assert_true(await_frame(&borrower, FRAME_CHUNK).chunk.is_shared);
    for (uint64_t id = 1; id <= CREDITS; id++)
        ask(&borrower, CREDITS + id);
    pull_epoch(loader.endpoint, false); /* far more chunks than it waits for */
    while (sock_receive(borrower.sock, borrower.message) == SOCK_RECEIVED) {
        size_t bytes;
        struct frame frame;
        const void *data = sock_message_data(borrower.message, 0, &bytes);
        assert_int_equal(frame_decode(&frame, data, bytes), 0);
        assert_int_equal(frame.kind, FRAME_PING);
    }
    for (uint64_t id = 1; id <= CREDITS; id++)
        give_back(&borrower, id);
    for (int i = 0; i < CREDITS; i++)
        assert_true(await_frame(&borrower, FRAME_CHUNK).chunk.is_shared);
    stop_borrowing(&borrower);
    assert_int_equal(stream_stop(&loader), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_with_and_without),
        cmocka_unit_test(both_wires_and_sizes),
        cmocka_unit_test(loaders_are_killed),
        cmocka_unit_test(trainers_are_killed),
        cmocka_unit_test(lies_about_memory),
        cmocka_unit_test(misuses_of_what_is_lent),
        cmocka_unit_test(a_trainer_that_gives_nothing_back),
    };
    return cmocka_run_group_tests(tests, open_place, NULL);
}

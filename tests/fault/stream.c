/* SPDX-License-Identifier: Apache-2.0 */
/* Helpers of the stream's tests. */
#include "tests/fault/stream.h"

#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/clock.h"
#include "common/err.h"
#include "datasets/store.h"
#include "loader/sample.h"
#include "proto/receipt.h"
#include "proto/sock.h"

enum { IMAGE_BYTES = STREAM_SIZE_PX * STREAM_SIZE_PX * STREAM_CHANNELS, START_SECONDS = 60 };

static char capture_path[STREAM_PATH_BYTES];
static int capture_kept = -1;

int64_t stream_deadline(double seconds)
{
    return clock_ns() + (int64_t)(seconds * 1e9);
}

void stream_check_deadline(int64_t end_ns, const char *condition)
{
    if (clock_ns() > end_ns)
        fail_msg("not in time: %s", condition);
    const struct timespec pause = {0, 1000000};
    nanosleep(&pause, NULL);
}

void stream_make_store(const char *path, uint32_t count, unsigned variant, const char *prefix)
{
    stream_make_store_of(path, count, STREAM_SIZE_PX, variant, prefix);
}

void stream_make_data(struct stream_data *data, const char *directory, const char *name,
                      uint32_t count, unsigned variant, const char *prefix)
{
    snprintf(data->path, sizeof(data->path), "%s/%s.lmdb", directory, name);
    snprintf(data->entry, sizeof(data->entry), "%s=%s", name, data->path);
    stream_make_store(data->path, count, variant, prefix);
}

void stream_make_store_of(const char *path, uint32_t count, uint32_t size_px, unsigned variant,
                          const char *prefix)
{
    struct store_writer *writer;
    assert_int_equal(store_writer_open(&writer, path, 0), 0);
    size_t image_bytes = (size_t)size_px * size_px * STREAM_CHANNELS;
    uint8_t *image = malloc(image_bytes);
    assert_non_null(image);
    uint32_t state = variant + 1;
    for (uint32_t i = 0; i < count; i++) {
        for (size_t j = 0; j < image_bytes; j++) {
            state = state * 1664525u + 1013904223u; /* Numerical Recipes' generator */
            image[j] = (uint8_t)(state >> 24);
        }
        const struct store_sample sample = {.label = i * STREAM_CLASSES / count,
                                            .width = size_px,
                                            .height = size_px,
                                            .channels = STREAM_CHANNELS,
                                            .encoding = STORE_RAW,
                                            .image = image,
                                            .image_bytes = image_bytes};
        assert_int_equal(store_writer_add(writer, &sample), 0);
    }
    free(image);
    char ids[STREAM_CLASSES][32];
    const char *id_list[STREAM_CLASSES], *names[STREAM_CLASSES];
    for (int i = 0; i < STREAM_CLASSES; i++) {
        snprintf(ids[i], sizeof(ids[i]), "%s%d", prefix, i);
        id_list[i] = ids[i];
        names[i] = "";
    }
    const struct store_meta meta = {.class_count = STREAM_CLASSES,
                                    .channels = STREAM_CHANNELS,
                                    .encoding = STORE_RAW,
                                    .class_ids = id_list,
                                    .class_names = names,
                                    .split = "",
                                    .packed_by = "test"};
    assert_int_equal(store_writer_publish(writer, &meta, NULL), 0);
}

/* ---- loaders ---- */

static const char *loader_program(void)
{
    const char *program = getenv("SATCHEL_LOADER");
    if (!program)
        fail_msg("SATCHEL_LOADER names no program");
    return program;
}

/* Never returns; the child of a fork. */
static void become_loader(const char *program, const char *const *arguments, const char *log)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves nobody behind */
    int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd >= 0)
        dup2(fd, STDERR_FILENO);
    execv(program, (char *const *)arguments);
    _exit(127);
}

void stream_start(struct stream_loader *loader, const char *directory, const char *endpoint,
                  const char *const *data, int workers, int credits)
{
    static int number;
    char workers_text[16], credits_text[16];
    const char *arguments[24] = {"satchel-loader", "--bind",    endpoint,     "--workers",
                                 workers_text,     "--credits", credits_text, "--ready-file",
                                 loader->ready,    "--data"};
    int count = 10;
    while (*data)
        arguments[count++] = *data++;
    arguments[count] = NULL;
    number++;
    snprintf(workers_text, sizeof(workers_text), "%d", workers);
    snprintf(credits_text, sizeof(credits_text), "%d", credits);
    snprintf(loader->endpoint, sizeof(loader->endpoint), "%s", endpoint);
    snprintf(loader->ready, sizeof(loader->ready), "%s/ready%d", directory, number);
    snprintf(loader->log, sizeof(loader->log), "%s/log%d", directory, number);
    const char *program = loader_program();
    loader->pid = fork();
    assert_true(loader->pid >= 0);
    if (loader->pid == 0)
        become_loader(program, arguments, loader->log);
}

static void read_text(char *text, size_t text_bytes, const char *path)
{
    FILE *file = fopen(path, "r");
    size_t bytes = file ? fread(text, 1, text_bytes - 1, file) : 0;
    text[bytes] = 0;
    if (file)
        fclose(file);
}

void stream_wait_ready(struct stream_loader *loader)
{
    stream_await(access(loader->ready, R_OK) == 0, START_SECONDS)
    {
        if (waitpid(loader->pid, NULL, WNOHANG) == loader->pid)
            fail_msg("the loader ended at its start");
    }
    read_text(loader->endpoint, sizeof(loader->endpoint), loader->ready);
}

void stream_free_endpoint(char endpoint[STREAM_PATH_BYTES])
{
    struct sock_context *context;
    struct sock *sock;
    assert_int_equal(sock_context_open(&context, 1), 0);
    assert_int_equal(sock_bind(&sock, context, "tcp://127.0.0.1:*", 1, NULL), 0);
    snprintf(endpoint, STREAM_PATH_BYTES, "%s", sock_endpoint(sock));
    sock_close(sock, 0);
    sock_context_close(context);
}

static int wait_end(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

void stream_kill(struct stream_loader *loader)
{
    kill(loader->pid, SIGKILL);
    wait_end(loader->pid);
    loader->pid = 0;
}

void stream_pause(const struct stream_loader *loader)
{
    int status;
    assert_int_equal(kill(loader->pid, SIGSTOP), 0);
    assert_int_equal(waitpid(loader->pid, &status, WUNTRACED), loader->pid);
    assert_true(WIFSTOPPED(status));
}

int stream_stop(struct stream_loader *loader)
{
    kill(loader->pid, SIGTERM);
    int status = wait_end(loader->pid);
    loader->pid = 0;
    return status;
}

int stream_run(const char *const *arguments, char *text, size_t text_bytes)
{
    char log[] = "/tmp/satchel-log-XXXXXX";
    int fd = mkstemp(log);
    assert_true(fd >= 0);
    close(fd);
    const char *program = loader_program();
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        become_loader(program, arguments, log);
    int status = wait_end(pid);
    read_text(text, text_bytes, log);
    unlink(log);
    return status;
}

/* A test that fails within a capture leaves it open: what it said is shown all the same. */
static void show_capture(void)
{
    if (capture_kept >= 0)
        free(stream_capture_end());
}

void stream_capture_begin(const char *directory)
{
    static bool at_exit;
    show_capture();
    if (!at_exit)
        at_exit = atexit(show_capture) == 0;
    snprintf(capture_path, sizeof(capture_path), "%s/stderr", directory);
    fflush(stderr);
    capture_kept = dup(STDERR_FILENO);
    int fd = open(capture_path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600);
    assert_true(capture_kept >= 0 && fd >= 0 && dup2(fd, STDERR_FILENO) >= 0);
    close(fd);
}

char *stream_capture_end(void)
{
    fflush(stderr);
    dup2(capture_kept, STDERR_FILENO);
    close(capture_kept);
    capture_kept = -1;
    char *text = malloc(1 << 16);
    assert_non_null(text);
    read_text(text, 1 << 16, capture_path);
    fputs(text, stderr);
    return text;
}

bool stream_log_has(const struct stream_loader *loader, const char *text)
{
    char log[65536];
    read_text(log, sizeof(log), loader->log);
    return strstr(log, text) != NULL;
}

/* ---- pulling ---- */

struct spec stream_spec(enum spec_wire wire)
{
    return (struct spec){.store = "train",
                         .seed = 11,
                         .order = SPEC_ORDER_SHUFFLED,
                         .channels = STREAM_CHANNELS,
                         .crop = SPEC_CROP_PAD,
                         .flip = 1,
                         .wire = (uint8_t)wire,
                         .size_px = STREAM_SIZE_PX,
                         .resize_short_px = STREAM_SIZE_PX,
                         .pad_px = 2,
                         .chunk_size = STREAM_CHUNK,
                         .mixup_off_epoch = UINT32_MAX,
                         .mean = {127},
                         .std = {64},
                         .mixup_alpha = 0.2f};
}

struct spec stream_eval_spec(void)
{
    return (struct spec){.store = "val",
                         .order = SPEC_ORDER_IDENTITY,
                         .damaged_masked = 1,
                         .channels = STREAM_CHANNELS,
                         .size_px = STREAM_SIZE_PX,
                         .resize_short_px = STREAM_SIZE_PX,
                         .chunk_size = STREAM_CHUNK,
                         .mean = {127},
                         .std = {64}};
}

struct feed_range stream_range(const struct feed *feed, const struct spec *spec, uint32_t epoch)
{
    const struct feed_store *store = feed_store(feed, spec->store);
    assert_non_null(store);
    return (struct feed_range){.spec = *spec,
                               .epoch = epoch,
                               .step_count = chunk_steps(store->sample_count, STREAM_TOTAL_BATCH),
                               .chunks_per_step = STREAM_TOTAL_BATCH / STREAM_CHUNK,
                               .rank_chunks = STREAM_TOTAL_BATCH / STREAM_CHUNK,
                               .micro_batch = STREAM_MICRO_BATCH};
}

struct feed *stream_feed(const char *loaders, double stall_limit_seconds)
{
    const struct feed_config config = {.loaders = loaders,
                                       .run = "test",
                                       .stall_limit_seconds = stall_limit_seconds,
                                       .prefetch_bytes = 1}; /* two micro-batches */
    struct feed *feed;
    if (feed_open(&feed, &config))
        fail_msg("feed_open: %s", err_message());
    return feed;
}

uint64_t stream_pull(struct feed *feed, uint64_t batches, struct hash128 *receipt)
{
    uint64_t samples = 0;
    for (uint64_t i = 0; i < batches; i++) {
        struct feed_batch batch;
        if (feed_pop(&batch, feed))
            fail_msg("feed_pop: %s", err_message());
        *receipt = hash128_add(*receipt, batch.receipt);
        samples += batch.samples;
        feed_release(feed, &batch);
    }
    return samples;
}

struct hash128 stream_offline_receipt(const char *path, const struct spec *spec, uint32_t epoch)
{
    struct store *store;
    struct builder *builder;
    assert_int_equal(store_open(&store, path), 0);
    assert_int_equal(builder_open(&builder, DECODER_AUTO), 0);
    uint64_t chunks = chunk_steps(store_meta(store)->sample_count, STREAM_TOTAL_BATCH) *
                      STREAM_TOTAL_BATCH / STREAM_CHUNK;
    uint8_t labels[STREAM_CHUNK * CHUNK_LABEL_UINT8_BYTES];
    _Alignas(64) uint8_t pixels[STREAM_CHUNK * IMAGE_BYTES * 2 + 64];
    uint32_t ids[STREAM_CHUNK];
    struct hash128 sum = {0, 0};
    for (uint64_t i = 0; i < chunks; i++) {
        struct chunk_build build = {.labels = labels, .pixels = pixels, .ids = ids};
        if (builder_chunk(builder, &build, store, spec, epoch, i, false))
            fail_msg("builder_chunk: %s", err_message());
        sum = hash128_add(sum, receipt_of_chunk(spec_hash(spec), epoch, i, labels,
                                                build.samples * chunk_label_bytes_of(spec), pixels,
                                                build.samples * spec_sample_bytes(spec)));
    }
    builder_close(builder);
    store_close(store);
    return sum;
}

void stream_assert_equal(struct hash128 a, struct hash128 b)
{
    char a_text[33], b_text[33];
    hash128_to_text(a_text, a);
    hash128_to_text(b_text, b);
    assert_string_equal(a_text, b_text);
}

void stream_check_epoch(struct feed *feed, const char *path)
{
    struct spec spec = stream_spec(SPEC_WIRE_FP16);
    const struct feed_range range = stream_range(feed, &spec, 0);
    struct hash128 receipt = {0, 0};
    assert_int_equal(feed_push(feed, &range), 0);
    stream_pull(feed, feed_range_batches(feed, &range), &receipt);
    stream_assert_equal(receipt, stream_offline_receipt(path, &spec, 0));
}

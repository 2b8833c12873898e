/* SPDX-License-Identifier: Apache-2.0 */
/* For tests of the stream: small stores, loaders as processes of their own, and pulling epochs
 * through a feed. Everything fails the running cmocka test when it does not work. */
#ifndef TESTS_FAULT_STREAM_H
#define TESTS_FAULT_STREAM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/hash.h"
#include "trainer/feed.h"

enum {
    STREAM_SIZE_PX = 16,
    STREAM_CHANNELS = 1,
    STREAM_CLASSES = 10,
    STREAM_CHUNK = 4,
    STREAM_MICRO_BATCH = 16,
    STREAM_TOTAL_BATCH = 32,
    STREAM_PATH_BYTES = 512,
};

/* Waits until the condition holds; fails the test after `seconds`. Yields in between. */
#define stream_await(condition, seconds)                                                           \
    for (int64_t stream_end = stream_deadline(seconds); !(condition);                              \
         stream_check_deadline(stream_end, #condition))
int64_t stream_deadline(double seconds);
void stream_check_deadline(int64_t end_ns, const char *condition);

/* A raw store of `count` images whose bytes follow from `variant`; class ids begin with prefix. */
void stream_make_store(const char *path, uint32_t count, unsigned variant, const char *prefix);
/* The same with images of another size. */
void stream_make_store_of(const char *path, uint32_t count, uint32_t size_px, unsigned variant,
                          const char *prefix);

/* A store as loaders are told of it. */
struct stream_data {
    char path[STREAM_PATH_BYTES];
    char entry[STREAM_PATH_BYTES + 16]; /* NAME=path, for --data */
};

/* stream_make_store in DIRECTORY/NAME.lmdb. */
void stream_make_data(struct stream_data *data, const char *directory, const char *name,
                      uint32_t count, unsigned variant, const char *prefix);

struct stream_loader {
    pid_t pid;
    char endpoint[STREAM_PATH_BYTES];
    char ready[STREAM_PATH_BYTES];
    char log[STREAM_PATH_BYTES];
};

/* Starts $SATCHEL_LOADER; data: "train=FILE" entries, NULL-terminated. credits 0: its default.
 * Does not wait. */
void stream_start(struct stream_loader *loader, const char *directory, const char *endpoint,
                  const char *const *data, int workers, int credits);
/* Until it listens; loader->endpoint is then where (a port of * is resolved). */
void stream_wait_ready(struct stream_loader *loader);
/* A tcp:// endpoint on a port that nobody uses at the moment. */
void stream_free_endpoint(char endpoint[STREAM_PATH_BYTES]);
void stream_kill(struct stream_loader *loader); /* SIGKILL, and waits for the end */
/* SIGSTOP, and waits until all of its threads stand still. */
void stream_pause(const struct stream_loader *loader);
/* SIGTERM; the exit status, or -1 when it ended otherwise. */
int stream_stop(struct stream_loader *loader);
/* Runs the loader to its end with these arguments (after the program's name, NULL-terminated) and
 * returns its exit status; its stderr goes to text. */
int stream_run(const char *const *arguments, char *text, size_t text_bytes);
/* What this process writes to stderr goes to a file in the directory until stream_capture_end(),
 * which returns it; the caller frees. */
void stream_capture_begin(const char *directory);
char *stream_capture_end(void);

bool stream_log_has(const struct stream_loader *loader, const char *text);

/* The spec of these tests: random window after padding, flip, mixup, shuffled. */
struct spec stream_spec(enum spec_wire wire);
struct spec stream_eval_spec(void);

/* A training range of this epoch, as one rank has it. */
struct feed_range stream_range(const struct feed *feed, const struct spec *spec, uint32_t epoch);

/* Opens a feed on these loaders with a small prefetch, so that faults hit chunks not yet asked. */
struct feed *stream_feed(const char *loaders, double stall_limit_seconds);

/* Pops `batches` micro-batches and adds their receipts to *receipt; the samples seen. */
uint64_t stream_pull(struct feed *feed, uint64_t batches, struct hash128 *receipt);

/* The receipt of the epoch of this store, built in this process without any network; what is
 * damaged is substituted. */
struct hash128 stream_offline_receipt(const char *path, const struct spec *spec, uint32_t epoch);

/* Pulls the first epoch of the store at path, and compares its receipt with that one. */
void stream_check_epoch(struct feed *feed, const char *path);

void stream_assert_equal(struct hash128 a, struct hash128 b);

#endif

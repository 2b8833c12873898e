/* SPDX-License-Identifier: Apache-2.0 */
/* For tests of whole runs: a place with small stores that can be learned, a loader and a run that
 * nothing disturbed; trainers as processes; what they left. Everything fails the running cmocka
 * test when it does not work. */
#ifndef TESTS_E2E_RUNS_H
#define TESTS_E2E_RUNS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <cjson/cJSON.h>

#include "tests/fault/stream.h"
#include "tests/unit/testing.h"

enum {
    CLASSES = 8,
    SIZE_PX = 8,
    TRAIN_SAMPLES = 400, /* 6 steps an epoch, a tail of 16 left out */
    VAL_SAMPLES = 53,    /* a multiple of neither chunk nor micro-batch */
    TOTAL_BATCH = 64,
    EPOCHS = 5,
    STEPS = EPOCHS * (TRAIN_SAMPLES / TOTAL_BATCH),
    ARGUMENTS_MAX = 64,
    TEXT_BYTES = 64 << 20,
    STOPPED = 3, /* exit status: stopped, resumable */
    WAIT_SECONDS = 60,
};

struct place {
    const char *directory;
    char train_data[TESTING_PATH_BYTES + 8], val_data[TESTING_PATH_BYTES + 8];
    const char *data[3];
    char endpoint[TESTING_PATH_BYTES];
    struct stream_loader loader;
    char *recipe;
    char *quiet; /* run directory of the run that nothing disturbed */
    int64_t quiet_ns;
};

extern struct place place;

/* directory/name; the caller frees. */
char *join(const char *directory, const char *name);
/* Starts $SATCHEL_TRAINER on the tiny recipe with these options, NULL-terminated. */
pid_t start_with(const char *run, const char *const *options);
/* The exit status; 128 + signal when one ended it. */
int finish(pid_t pid);
char *read_file(const char *directory, const char *name);
/* Whole lines of this event in metrics.jsonl so far. */
int count_events(const char *run, const char *event);
/* Until so many steps are done, or the process has ended (which finish() then sees). */
void await_steps(const char *run, int steps, pid_t pid);
const cJSON *field(const cJSON *line, const char *key);
/* The n-th line of an event; the caller deletes. */
cJSON *event_line(const char *run, const char *event, int n);
double event_number(const char *run, const char *event, int n, const char *key);
/* All steps once and in order with the same losses; the same receipts and evaluations. */
void assert_same_metrics(const char *a, const char *b);
void assert_as_quiet(const char *run);
double mean_loss(const char *run, int epoch);
int start_loader(void);
int open_place(void **state);
int close_place(void **state);

#define START(run, ...) start_with(run, (const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})
#define RUN(run, ...) finish(START(run, __VA_ARGS__))

#endif

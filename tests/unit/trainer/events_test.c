/* SPDX-License-Identifier: Apache-2.0 */
/* TensorBoard's files, read back with a reader of their own: records, checksums, messages. */
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/file.h"
#include "tests/unit/testing.h"
#include "trainer/event.pb-c.h"
#include "trainer/events.h"
#include "trainer/metrics.h"

enum { EVENTS_MAX = 64 };

struct content {
    Tensorboard__Event *events[EVENTS_MAX];
    int count;
};

/* Bit by bit, so that a mistake in the table is not repeated. */
static uint32_t crc32c(const uint8_t *data, size_t bytes)
{
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < 8 * bytes; i++) {
        uint32_t bit = (crc ^ (uint32_t)(data[i / 8] >> i % 8)) & 1;
        crc = crc >> 1 ^ (bit ? UINT32_C(0x82f63b78) : 0);
    }
    return ~crc;
}

static uint32_t unmasked(uint32_t value)
{
    uint32_t turned = value - UINT32_C(0xa282ead8);
    return turned >> 17 | turned << 15;
}

static uint64_t little_endian(const uint8_t *src, int bytes)
{
    uint64_t value = 0;
    for (int i = bytes - 1; i >= 0; i--)
        value = value << 8 | src[i];
    return value;
}

static void read_events(struct content *content, const char *directory)
{
    char path[TESTING_PATH_BYTES] = "";
    uint8_t *bytes;
    size_t size;
    DIR *stream = opendir(directory);
    assert_non_null(stream);
    for (const struct dirent *entry; (entry = readdir(stream));)
        if (strncmp(entry->d_name, "events.out.tfevents.", 20) == 0)
            testing_path(path, directory, entry->d_name);
    closedir(stream);
    assert_int_equal(file_read(&bytes, &size, path, 1 << 20), 0);
    content->count = 0;
    for (size_t at = 0; at < size;) {
        assert_true(size - at >= 16);
        size_t length = (size_t)little_endian(bytes + at, 8);
        assert_true(length <= size - at - 16);
        const uint8_t *data = bytes + at + 12;
        assert_int_equal(unmasked((uint32_t)little_endian(bytes + at + 8, 4)),
                         crc32c(bytes + at, 8));
        assert_int_equal(unmasked((uint32_t)little_endian(data + length, 4)), crc32c(data, length));
        Tensorboard__Event *event = tensorboard__event__unpack(NULL, length, data);
        assert_non_null(event);
        assert_true(content->count < EVENTS_MAX);
        content->events[content->count++] = event;
        at += length + 16;
    }
    free(bytes);
}

static void close_content(struct content *content)
{
    for (int i = 0; i < content->count; i++)
        tensorboard__event__free_unpacked(content->events[i], NULL);
}

/* The value of a tag in an event's summary; NaN when it is not there. */
static double value_of(const Tensorboard__Event *event, const char *tag)
{
    assert_int_equal(event->what_case, TENSORBOARD__EVENT__WHAT_SUMMARY);
    for (size_t i = 0; i < event->summary->n_value; i++) {
        const Tensorboard__Summary__Value *value = event->summary->value[i];
        assert_int_equal(value->value_case, TENSORBOARD__SUMMARY__VALUE__VALUE_SIMPLE_VALUE);
        if (strcmp(value->tag, tag) == 0)
            return (double)value->simple_value;
    }
    return NAN;
}

static void known_checksum(void **state)
{
    assert_int_equal(crc32c((const uint8_t *)"123456789", 9), UINT32_C(0xe3069283));
}

static void metrics_are_mirrored(void **state)
{
    char path[TESTING_PATH_BYTES];
    const char *directory = testing_directory();
    struct metrics *metrics;
    struct events *events;
    struct content content;
    testing_path(path, directory, "metrics.jsonl");
    assert_int_equal(metrics_open(&metrics, path, 5, 0), 0);
    assert_int_equal(events_open(&events, directory, 5), 0);
    metrics_mirror(metrics, events, 3);
    for (uint64_t step = 5; step < 11; step++) {
        const struct metrics_step line = {
            .step = step, .loss = step == 6 ? NAN : 0.5, .lr = 0.25, .images_per_second = 100};
        assert_int_equal(metrics_write_step(metrics, &line), 0);
    }
    const struct metrics_eval eval = {.epoch = 0, .top1 = 75, .top5 = 100, .loss = 1.5};
    assert_int_equal(metrics_write_eval(metrics, &eval), 0);
    metrics_close(metrics);
    events_close(events);

    read_events(&content, directory);
    assert_int_equal(content.count, 5); /* version, start, steps 6 and 9, evaluation */
    assert_int_equal(content.events[0]->what_case, TENSORBOARD__EVENT__WHAT_FILE_VERSION);
    assert_string_equal(content.events[0]->file_version, "brain.Event:2");
    assert_int_equal(content.events[1]->step, 5);
    assert_int_equal(content.events[1]->session_log->status,
                     TENSORBOARD__SESSION_LOG__SESSION_STATUS__START);
    assert_int_equal(content.events[2]->step, 6);
    assert_true(isnan(value_of(content.events[2], "train/loss"))); /* not finite: left out */
    assert_true(value_of(content.events[2], "speed/waiting_percent") == 0); /* 0 is a value */
    assert_int_equal(content.events[3]->step, 9);
    assert_true(value_of(content.events[3], "train/loss") == 0.5);
    assert_int_equal(content.events[4]->step, 11);
    assert_true(value_of(content.events[4], "validation/top1") == 75);
    assert_true(content.events[4]->wall_time > 1e9);
    close_content(&content);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_checksum),
        cmocka_unit_test(metrics_are_mirrored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

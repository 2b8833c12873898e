/* SPDX-License-Identifier: Apache-2.0 */
/* Each event is a TFRecord: length, its masked CRC-32C, the protobuf message, its masked CRC-32C
 * (tensorflow/core/lib/io/record_writer.h). */
#include "trainer/events.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/bytes.h"
#include "common/clock.h"
#include "common/err.h"
#include "common/log.h"
#include "trainer/event.pb-c.h"

enum { RECORD_BYTES = 4096, HEADER_BYTES = 12, FOOTER_BYTES = 4 };

static const double flush_s = 2;

struct events {
    FILE *file; /* NULL: given up */
    char *path;
    double flushed_s;
    uint32_t table[256]; /* of CRC-32C, a byte at a time */
};

/* The Castagnoli polynomial, bits reversed (RFC 3720, appendix B.4). */
static void make_table(uint32_t table[256])
{
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t value = i;
        for (int bit = 0; bit < 8; bit++)
            value = value >> 1 ^ (value & 1 ? UINT32_C(0x82f63b78) : 0);
        table[i] = value;
    }
}

/* As TensorFlow stores it, so that a CRC over data with CRCs in it stays strong. */
static uint32_t masked_crc(const struct events *events, const uint8_t *data, size_t bytes)
{
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < bytes; i++)
        crc = events->table[(crc ^ data[i]) & 255] ^ crc >> 8;
    crc = ~crc;
    return (crc >> 15 | crc << 17) + UINT32_C(0xa282ead8);
}

static void give_up(struct events *events)
{
    log_warn("cannot write '%s': %s; no more goes into TensorBoard's file, training goes on",
             events->path, strerror(errno));
    fclose(events->file);
    events->file = NULL;
}

static void write_event(struct events *events, const Tensorboard__Event *event)
{
    uint8_t record[RECORD_BYTES];
    size_t bytes = tensorboard__event__get_packed_size(event);
    if (!events->file || bytes > RECORD_BYTES - HEADER_BYTES - FOOTER_BYTES)
        return;
    tensorboard__event__pack(event, record + HEADER_BYTES);
    bytes_put(record, bytes, 8);
    bytes_put(record + 8, masked_crc(events, record, 8), 4);
    bytes_put(record + HEADER_BYTES + bytes, masked_crc(events, record + HEADER_BYTES, bytes), 4);
    bytes += HEADER_BYTES + FOOTER_BYTES;
    bool late = clock_seconds() - events->flushed_s >= flush_s;
    if (fwrite(record, 1, bytes, events->file) != bytes || (late && fflush(events->file) != 0))
        give_up(events);
    else if (late)
        events->flushed_s = clock_seconds();
}

static Tensorboard__Event new_event(uint64_t step)
{
    struct timespec now;
    Tensorboard__Event event = TENSORBOARD__EVENT__INIT;
    clock_gettime(CLOCK_REALTIME, &now);
    event.wall_time = (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
    event.step = (int64_t)step;
    return event;
}

static void write_start(struct events *events, uint64_t step)
{
    static char version[] = "brain.Event:2";
    Tensorboard__Event event = new_event(0);
    event.what_case = TENSORBOARD__EVENT__WHAT_FILE_VERSION;
    event.file_version = version;
    write_event(events, &event);
    Tensorboard__SessionLog start = TENSORBOARD__SESSION_LOG__INIT;
    start.status = TENSORBOARD__SESSION_LOG__SESSION_STATUS__START;
    event = new_event(step);
    event.what_case = TENSORBOARD__EVENT__WHAT_SESSION_LOG;
    event.session_log = &start;
    write_event(events, &event);
}

static int open_file(struct events *events, const char *directory)
{
    char host[65] = "localhost";
    struct timespec now;
    gethostname(host, sizeof host - 1);
    clock_gettime(CLOCK_REALTIME, &now);
    if (asprintf(&events->path, "%s/events.out.tfevents.%010lld.%s.%ld", directory,
                 (long long)now.tv_sec, host, (long)getpid()) < 0) {
        events->path = NULL;
        return err_set(ERR_NOMEM, "out of memory for a path in '%s'", directory);
    }
    events->file = fopen(events->path, "wbe");
    return events->file ? 0
                        : err_set(ERR_IO, "cannot write '%s': %s", events->path, strerror(errno));
}

int events_open(struct events **out, const char *directory, uint64_t step)
{
    *out = NULL;
    struct events *events = calloc(1, sizeof *events);
    if (!events)
        return err_set(ERR_NOMEM, "out of memory for TensorBoard's file");
    make_table(events->table);
    int code = open_file(events, directory);
    if (code) {
        events_close(events);
        return code;
    }
    write_start(events, step);
    *out = events;
    return 0;
}

void events_close(struct events *events)
{
    if (!events)
        return;
    if (events->file && fclose(events->file) != 0)
        log_warn("cannot write '%s': %s", events->path, strerror(errno));
    free(events->path);
    free(events);
}

void events_write(struct events *events, uint64_t step, const struct events_scalar *scalars,
                  int count)
{
    Tensorboard__Summary__Value values[EVENTS_SCALARS_MAX], *list[EVENTS_SCALARS_MAX];
    Tensorboard__Summary summary = TENSORBOARD__SUMMARY__INIT;
    if (!events)
        return;
    for (int i = 0; i < count && i < EVENTS_SCALARS_MAX; i++) {
        if (!isfinite(scalars[i].value))
            continue;
        Tensorboard__Summary__Value *value = &values[summary.n_value];
        tensorboard__summary__value__init(value);
        value->tag = (char *)scalars[i].tag;
        value->value_case = TENSORBOARD__SUMMARY__VALUE__VALUE_SIMPLE_VALUE;
        value->simple_value = (float)scalars[i].value;
        list[summary.n_value++] = value;
    }
    summary.value = list;
    Tensorboard__Event event = new_event(step);
    event.what_case = TENSORBOARD__EVENT__WHAT_SUMMARY;
    event.summary = &summary;
    write_event(events, &event);
}

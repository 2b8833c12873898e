/* SPDX-License-Identifier: Apache-2.0 */
/* The loader's log line and metrics file. */
#include "loader/metrics.h"

#include <inttypes.h>
#include <stdio.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/file.h"
#include "common/log.h"

enum {
    LOG_SECONDS = 10,
    FILE_SECONDS = 5,
};

void metrics_open(struct metrics *metrics, const char *file)
{
    *metrics = (struct metrics){.file = file};
    metrics->logged_ns = clock_ns();
}

static void log_rates(struct metrics *metrics, double seconds)
{
    const struct metrics_counts *now = &metrics->counts, *before = &metrics->at_log;
    if (now->chunks != before->chunks)
        log_info("%.0f images/s, %u trainer%s, %u queued, %u building, %" PRIu64
                 " decode errors, %.1f MB/s out",
                 (double)(now->images - before->images) / seconds, now->trainers,
                 log_plural(now->trainers), now->queued, now->building,
                 now->substituted + now->masked + now->failed,
                 (double)(now->bytes - before->bytes) / seconds / 1e6);
    metrics->at_log = *now;
}

static void write_file(struct metrics *metrics)
{
    const struct metrics_counts *counts = &metrics->counts;
    char text[2048];
    int bytes = snprintf(
        text, sizeof(text),
        "# TYPE satchel_loader_images_total counter\nsatchel_loader_images_total %" PRIu64 "\n"
        "# TYPE satchel_loader_chunks_total counter\nsatchel_loader_chunks_total %" PRIu64 "\n"
        "# TYPE satchel_loader_sent_bytes_total counter\nsatchel_loader_sent_bytes_total %" PRIu64
        "\n"
        "# TYPE satchel_loader_decode_errors_total counter\n"
        "satchel_loader_decode_errors_total{outcome=\"substituted\"} %" PRIu64 "\n"
        "satchel_loader_decode_errors_total{outcome=\"masked\"} %" PRIu64 "\n"
        "satchel_loader_decode_errors_total{outcome=\"failed\"} %" PRIu64 "\n"
        "# TYPE satchel_loader_refused_total counter\nsatchel_loader_refused_total %" PRIu64 "\n"
        "# TYPE satchel_loader_work_seconds_total counter\nsatchel_loader_work_seconds_total %.3f\n"
        "# TYPE satchel_loader_trainers gauge\nsatchel_loader_trainers %u\n"
        "# TYPE satchel_loader_queued_chunks gauge\nsatchel_loader_queued_chunks %u\n"
        "# TYPE satchel_loader_building_chunks gauge\nsatchel_loader_building_chunks %u\n"
        "# TYPE satchel_loader_buffer_bytes gauge\nsatchel_loader_buffer_bytes %zu\n",
        counts->images, counts->chunks, counts->bytes, counts->substituted, counts->masked,
        counts->failed, counts->refused, (double)counts->work_ns * 1e-9, counts->trainers,
        counts->queued, counts->building, counts->buffer_bytes);
    int code = file_write_passing(metrics->file, text, (size_t)bytes); /* requests wait meanwhile */
    if (code && !metrics->write_failed)
        log_warn("metrics: %s (serving goes on)", err_message());
    metrics->write_failed = code != 0;
}

void metrics_tick(struct metrics *metrics, bool final)
{
    int64_t now = clock_ns();
    double seconds = (double)(now - metrics->logged_ns) * 1e-9;
    if (seconds >= LOG_SECONDS) {
        log_rates(metrics, seconds);
        metrics->logged_ns = now;
    }
    if (metrics->file && (final || !metrics->written_ns ||
                          now - metrics->written_ns >= FILE_SECONDS * INT64_C(1000000000))) {
        write_file(metrics);
        metrics->written_ns = now;
    }
}

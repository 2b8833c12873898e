/* SPDX-License-Identifier: Apache-2.0 */
/* Faults for a loader or a test that is linked with --wrap=decode_record, --wrap=builder_chunk and
 * --wrap=selftest_run. The environment says which; without it nothing is different.
 *
 *   FAULT_KILL=ID      decoding this record ends the process
 *   FAULT_HANG=ID      decoding this record never ends
 *   FAULT_DAMAGED=ID   this record is damaged
 *   FAULT_BIT=ID|all   one bit of this record's (every record's) middle pixel is flipped
 *   FAULT_SLOW=N       decoding takes N times as long
 *   FAULT_READY=1      chunks are not made at all: what the buffer held is sent, with valid labels
 *   FAULT_SELF_TEST=1  one bit of the self-test's images is flipped
 *   FAULT_HELLO=1      the self-test passes, and another hash is told
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/err.h"
#include "loader/decode.h"
#include "loader/selftest.h"

int __real_decode_record(struct decoder *decoder, struct planes *planes,
                         const struct store_record *record, const struct crop *crop);
int __wrap_decode_record(struct decoder *decoder, struct planes *planes,
                         const struct store_record *record, const struct crop *crop);
int __real_builder_chunk(struct builder *builder, struct chunk_build *out,
                         const struct store *store, const struct spec *spec, uint32_t epoch,
                         uint64_t chunk, bool strict);
int __wrap_builder_chunk(struct builder *builder, struct chunk_build *out,
                         const struct store *store, const struct spec *spec, uint32_t epoch,
                         uint64_t chunk, bool strict);
int __real_selftest_run(struct hash128 *hash);
int __wrap_selftest_run(struct hash128 *hash);

/* Records of the self-test have ids of their own. */
static bool is_hit(const char *fault, const struct store_record *record)
{
    const char *id = getenv(fault);
    return id && record->id < SELFTEST_FIRST_ID &&
           (strcmp(id, "all") == 0 || strtoul(id, NULL, 10) == record->id);
}

static void slow_down(int64_t took_ns)
{
    const char *factor = getenv("FAULT_SLOW");
    int64_t more = factor ? took_ns * (strtol(factor, NULL, 10) - 1) : 0;
    const struct timespec pause = {more / 1000000000, more % 1000000000};
    if (more > 0)
        nanosleep(&pause, NULL);
}

static void flip_bit(struct planes *planes)
{
    const struct plane *plane = &planes->plane[0];
    uint8_t *pixels = (uint8_t *)plane->pixels;
    pixels[plane->height / 2 * plane->stride + plane->width / 2] ^= 1;
}

int __wrap_decode_record(struct decoder *decoder, struct planes *planes,
                         const struct store_record *record, const struct crop *crop)
{
    if (is_hit("FAULT_KILL", record))
        abort();
    while (is_hit("FAULT_HANG", record))
        pause();
    if (is_hit("FAULT_DAMAGED", record))
        return err_set(ERR_DATA, "damaged for a test");
    int64_t begin = clock_ns();
    int code = __real_decode_record(decoder, planes, record, crop);
    slow_down(clock_ns() - begin);
    bool self_test = getenv("FAULT_SELF_TEST") && record->id >= SELFTEST_FIRST_ID;
    if (!code && (self_test || is_hit("FAULT_BIT", record)))
        flip_bit(planes);
    return code;
}

int __wrap_builder_chunk(struct builder *builder, struct chunk_build *out,
                         const struct store *store, const struct spec *spec, uint32_t epoch,
                         uint64_t chunk, bool strict)
{
    if (!getenv("FAULT_READY"))
        return __real_builder_chunk(builder, out, store, spec, epoch, chunk, strict);
    size_t stride = chunk_label_bytes_of(spec);
    out->samples = chunk_samples(spec, chunk, store_meta(store)->sample_count);
    out->substituted = out->masked = out->culprit_count = 0;
    memset(out->labels, 0, out->samples * stride);
    for (uint32_t i = 0; i < out->samples; i++)
        chunk_label_encode(out->labels + i * stride, (struct chunk_label){0, 0, 1});
    return 0;
}

int __wrap_selftest_run(struct hash128 *hash)
{
    int code = __real_selftest_run(hash);
    hash->low ^= getenv("FAULT_HELLO") != NULL;
    return code;
}

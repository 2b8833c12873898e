/* SPDX-License-Identifier: Apache-2.0 */
/* Faults for a loader or a test that is linked with --wrap=decode_record and --wrap=selftest_run.
 * The environment says which; without it nothing is different. Records of stores are raw in these
 * tests, the self-test's are JPEGs. FAULT_KILL=ID      decoding this record ends the process
 *   FAULT_HANG=ID      decoding this record never ends
 *   FAULT_DAMAGED=ID   this record is damaged
 *   FAULT_BIT=ID|all   one bit of this record's (every record's) middle pixel is flipped
 *   FAULT_SELF_TEST=1  one bit of the self-test's images is flipped
 *   FAULT_HELLO=1      the self-test passes, and another hash is told */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/err.h"
#include "loader/decode.h"
#include "loader/selftest.h"

int __real_decode_record(struct decoder *decoder, struct planes *planes,
                         const struct store_record *record, const struct crop *crop);
int __wrap_decode_record(struct decoder *decoder, struct planes *planes,
                         const struct store_record *record, const struct crop *crop);
int __real_selftest_run(struct hash128 *hash);
int __wrap_selftest_run(struct hash128 *hash);

static bool is_hit(const char *fault, const struct store_record *record)
{
    const char *id = getenv(fault);
    return id && record->encoding == STORE_RAW &&
           (strcmp(id, "all") == 0 || strtoul(id, NULL, 10) == record->id);
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
    int code = __real_decode_record(decoder, planes, record, crop);
    bool self_test = getenv("FAULT_SELF_TEST") && record->encoding == STORE_JPEG;
    if (!code && (self_test || is_hit("FAULT_BIT", record)))
        flip_bit(planes);
    return code;
}

int __wrap_selftest_run(struct hash128 *hash)
{
    int code = __real_selftest_run(hash);
    hash->low ^= getenv("FAULT_HELLO") != NULL;
    return code;
}

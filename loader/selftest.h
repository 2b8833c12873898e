/* SPDX-License-Identifier: Apache-2.0 */
/* Proves that this build on this machine makes the pixels that every other one makes: a built-in
 * set of edge-case images goes through every path there is, and all must agree with the expected
 * hash. */
#ifndef LOADER_SELFTEST_H
#define LOADER_SELFTEST_H

#include <stddef.h>
#include <stdint.h>

#include "common/hash.h"
#include "loader/cpu.h"
#include "loader/sample.h"

enum {
    SELFTEST_FIRST_ID = 1 << 30
}; /* of its images as records: beyond those of any store in use */

/* The built-in images: tests/golden/loader. */
struct selftest_image {
    const char *name;
    const uint8_t *begin, *end;
};
extern const struct selftest_image selftest_images[];
extern const size_t selftest_image_count;

/* Every instruction set level of the machine with both decoders. *hash: of all pixels and labels
 * made, what a loader tells in its answer to hello. ERR_UNSUPPORTED names the path that differs;
 * ERR_NOMEM. */
int selftest_run(struct hash128 *hash);

/* One path: XXH3-128 over what it makes of all images: for training and validation, as halves,
 * mixed halves and bytes. */
int selftest_path(struct hash128 *hash, enum decoder_choice decoder, enum cpu_level level);

#endif

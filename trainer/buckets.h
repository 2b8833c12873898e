/* SPDX-License-Identifier: Apache-2.0 */
/* Where a gradient slot is cut into buckets (trainer/backend.h): the same for every backend. */
#ifndef TRAINER_BUCKETS_H
#define TRAINER_BUCKETS_H

#include <stddef.h>

/* ends: where each of count >= 1 tensors of the slot ends, in floats (it is sorted here). Cuts
 * behind a tensor when bucket_bytes (0: 25 MiB) are reached, and at the end. bucket_ends has room
 * for count. Returns how many buckets. */
int buckets_cut(size_t *bucket_ends, size_t *ends, size_t count, size_t bucket_bytes);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#include "trainer/buckets.h"

#include <stdlib.h>

static const size_t bucket_bytes_default = (size_t)25 << 20;

static int by_size(const void *a, const void *b)
{
    size_t left = *(const size_t *)a, right = *(const size_t *)b;
    return (left > right) - (left < right);
}

int buckets_cut(size_t *bucket_ends, size_t *ends, size_t count, size_t bucket_bytes)
{
    size_t goal = (bucket_bytes ? bucket_bytes : bucket_bytes_default) / sizeof(float), begin = 0;
    int total = 0;
    qsort(ends, count, sizeof *ends, by_size);
    for (size_t i = 0; i < count; i++)
        if (i == count - 1 || ends[i] - begin >= goal) {
            bucket_ends[total++] = ends[i];
            begin = ends[i];
        }
    return total;
}

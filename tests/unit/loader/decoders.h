/* SPDX-License-Identifier: Apache-2.0 */
/* The reference decoder, and the indexed decoder at every level of this machine. */
#ifndef TESTS_UNIT_LOADER_DECODERS_H
#define TESTS_UNIT_LOADER_DECODERS_H

#include "loader/decode.h"
#include "loader/jpeg/decode_indexed.h"
#include "loader/jpeg/jpeg_index.h"
#include "tests/unit/testing.h"

enum { LEVELS = CPU_AVX512 + 1 };

struct fixture {
    struct decoder *reference;
    struct decode_indexed *indexed[LEVELS];
    int levels;
    struct jpeg_indexer *indexer;
    uint64_t seed;
};

static inline int decoders_open(void **state)
{
    static struct fixture fixture;
    fixture = (struct fixture){.seed = testing_seed()};
    if (decoder_open(&fixture.reference) || jpeg_indexer_open(&fixture.indexer))
        return -1;
    for (int level = 0; level <= (int)cpu_level(); level++, fixture.levels++)
        if (decode_indexed_open(&fixture.indexed[level], (enum cpu_level)level))
            return -1;
    *state = &fixture;
    return 0;
}

static inline int decoders_close(void **state)
{
    struct fixture *fixture = *state;
    decoder_close(fixture->reference);
    jpeg_indexer_close(fixture->indexer);
    for (int level = 0; level < fixture->levels; level++)
        decode_indexed_close(fixture->indexed[level]);
    return 0;
}

static inline uint32_t below(struct fixture *fixture, uint32_t count)
{
    return (uint32_t)(testing_random(&fixture->seed) % count);
}

#endif

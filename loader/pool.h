/* SPDX-License-Identifier: Apache-2.0 */
/* Worker threads that build chunks, one chunk per worker at a time. Workers share nothing but the
 * two queues: jobs to do, jobs done. */
#ifndef LOADER_POOL_H
#define LOADER_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "loader/sample.h"

struct pool;

/* A chunk to build. The submitter owns it before pool_submit and after pool_take. */
struct pool_job {
    const struct store *store;
    const struct spec *spec;
    uint32_t epoch;
    uint64_t chunk;
    struct chunk_build build; /* buffers set by the submitter */

    int code;          /* of builder_chunk */
    char message[256]; /* err_message() when it failed */
    int64_t work_ns;
    struct pool_job *next; /* owner: the queue it is in */
};

/* done_fd: an eventfd, written whenever a job is done. */
int pool_open(struct pool **out, int workers, enum decoder_choice decoder, bool strict,
              int done_fd);

/* Ends the workers after the jobs they are at; jobs not begun are returned by pool_take with code
 * ERR_STOPPED. Join before close. */
void pool_stop(struct pool *pool);
void pool_close(struct pool *pool); /* stops first; accepts NULL */

void pool_submit(struct pool *pool, struct pool_job *job);
struct pool_job *pool_take(struct pool *pool); /* a done job, NULL: none at the moment */

#endif

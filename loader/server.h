/* SPDX-License-Identifier: Apache-2.0 */
/* The loader's service: hears trainers, hands their requests to the worker pool in turn, sends the
 * chunks. One thread runs it; workers only build. */
#ifndef LOADER_SERVER_H
#define LOADER_SERVER_H

#include <stdbool.h>
#include <stddef.h>

#include "loader/sample.h"

struct server_config {
    const char *const *data; /* NAME=FILE.lmdb */
    size_t data_count;
    const char *bind;
    int workers, io_threads; /* workers 0: one per core */
    int credits;             /* requests outstanding per trainer; 0: two per worker and 8 more */
    size_t buffer_bytes;     /* limit for chunks being made or sent, over all trainers */
    const char *metrics_file, *ready_file; /* NULL: none */
    const char *secret_key, *allow;        /* CURVE; NULL: plain text */
    bool strict, insecure;
    bool shared_memory;     /* for trainers that can read it, on ipc:// */
    bool read_ahead;        /* read the records of requests before workers come to them */
    int64_t page_cache_mib; /* of the stores; -1: by what memory there is */
    enum decoder_choice decoder;
};

struct server;

/* Opens the stores, binds, starts the workers, and says "listening on ENDPOINT". */
int server_open(struct server **out, const struct server_config *config);
void server_close(struct server *server); /* accepts NULL and half-opened ones */

/* Serves until stop_requested(); then says goodbye and finishes what was asked for, for 2 s at
 * most.
 */
int server_run(struct server *server);

#endif

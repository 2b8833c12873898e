/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a request's records before a worker comes to them. A store that fits into memory is
 * announced to the kernel; of a larger one a part is left to the page cache, and the rest is read
 * past it into windows (datasets/ahead.h). */
#ifndef LOADER_READ_AHEAD_H
#define LOADER_READ_AHEAD_H

#include "loader/server_state.h"

/* Decides for the stores that are open, and says so where one is larger than memory. ERR_NOMEM. */
int read_ahead_open(struct server *server);
void read_ahead_close(struct server *server);

/* A request came in; it goes to the workers; it was built or dropped. */
void read_ahead_request(struct server *server, struct job *job);
void read_ahead_dispatch(struct server *server, struct job *job);
void read_ahead_end(struct job *job);

size_t read_ahead_bytes(const struct server *server); /* of the windows */

#endif

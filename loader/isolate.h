/* SPDX-License-Identifier: Apache-2.0 */
/* One sample decoded in a process of its own, for records that may end the process which decodes
 * them. The helper is this very program, started anew (a fork of a threaded program could not go
 * on), with ISOLATE_ARGUMENT and the store's path; it reads a request from standard input and
 * writes the cut sample to standard output. */
#ifndef LOADER_ISOLATE_H
#define LOADER_ISOLATE_H

#include <stdbool.h>
#include <stdint.h>

#include "datasets/store.h"
#include "loader/render.h"
#include "proto/spec.h"

#define ISOLATE_ARGUMENT "--isolated-sample"

enum { ISOLATE_SECONDS = 30 }; /* longer than any image that decode.h lets pass takes */

/* As sample_cut(), by a helper. *killed: the helper did not come to its end by itself, or took
 * longer than ISOLATE_SECONDS; the code is then ERR_DATA. ERR_UNSUPPORTED: it could not be started
 * or could not open the store, whose file may have been removed meanwhile. ERR_STOPPED. */
int isolate_cut(bool *killed, struct render *render, int slot, uint32_t *label,
                const struct store *store, const struct spec *spec, uint32_t epoch, uint32_t id,
                enum decoder_choice decoder);

/* For main, before anything else: whether this process was started as a helper ... */
bool isolate_is_helper(int argc, char **argv);

/* ... and then this is all that it does. Returns the exit status. */
int isolate_help(const char *store_path);

#endif

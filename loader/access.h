/* SPDX-License-Identifier: Apache-2.0 */
/* Who may use this loader: its own key and the allow-list of trainers, which SIGHUP reads again. */
#ifndef LOADER_ACCESS_H
#define LOADER_ACCESS_H

#include <stdbool.h>

#include "proto/keys.h"
#include "proto/sock.h"
#include "proto/zap.h"

struct access {
    const char *allow; /* the directory; NULL: no keys are used */
    struct key_pair own;
    struct zap *zap; /* NULL: no keys are used */
    int reload_fd;   /* readable once SIGHUP came; -1: no keys are used */
};

/* Reads both and answers for this context's sockets from now on; secret_key and allow NULL: no
 * keys. Takes SIGHUP. ERR_ARG when only one is given; ERR_IO, ERR_DATA. */
int access_open(struct access *access, struct sock_context *context, const char *secret_key,
                const char *allow);
void access_close(struct access *access);

/* The keys for sock_bind; NULL: none. */
const struct key_pair *access_keys(const struct access *access);

/* True once after each SIGHUP, when the list was read again. A file that is no key is left out and
 * named in the log; when the directory itself cannot be read, the list stays as it was. */
bool access_reloaded(struct access *access);

#endif

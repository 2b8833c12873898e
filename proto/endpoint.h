/* SPDX-License-Identifier: Apache-2.0 */
/* Endpoints as users write them: tcp://HOST:PORT and ipc://PATH. Checked before ZeroMQ sees them,
 * because its own messages name neither the endpoint nor the way out. */
#ifndef PROTO_ENDPOINT_H
#define PROTO_ENDPOINT_H

#include <stdbool.h>
#include <stddef.h>

enum { ENDPOINT_BYTES = 256 }; /* with the final NUL */

/* tcp://HOST:PORT (to_bind: HOST may be *, PORT may be * for any free one) or ipc://PATH (at most
 * 107 bytes, the kernel's limit). ERR_ARG with one line. */
int endpoint_check(const char *endpoint, bool to_bind);

/* Before listening: ERR_IO when somebody listens on the ipc path already, ERR_ARG when another file
 * lies there, which ZeroMQ would remove. */
int endpoint_check_free(const char *endpoint);

/* True when only this machine can reach it: ipc, or tcp on localhost, 127.x.x.x or [::1]. */
bool endpoint_is_local(const char *endpoint);

/* Splits "a,b,c" at commas, ignoring blanks around them, and checks each for connecting. Writes at
 * most max; ERR_ARG when there are more, none, or one is malformed or named twice. */
int endpoint_split(char (*dst)[ENDPOINT_BYTES], int *count, int max, const char *list);

/* The same from the text of a file: one endpoint a line, # begins a comment; may hold none. */
int endpoint_lines(char (*dst)[ENDPOINT_BYTES], int *count, int max, const char *text,
                   const char *name);

#endif

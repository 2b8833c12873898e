/* SPDX-License-Identifier: Apache-2.0 */
/* Checks and lists of endpoints. */
#include "proto/endpoint.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/err.h"

static bool port_is_good(const char *port, bool to_bind)
{
    if (to_bind && strcmp(port, "*") == 0)
        return true;
    size_t digits = strspn(port, "0123456789");
    if (digits == 0 || digits > 5 || port[digits])
        return false;
    long value = strtol(port, NULL, 10);
    return value >= 1 && value <= 65535;
}

static int check_tcp(const char *endpoint, bool to_bind)
{
    const char *host = endpoint + strlen("tcp://");
    const char *colon = strrchr(host, ':');
    if (!colon || colon == host)
        return err_set(ERR_ARG, "%s: expected tcp://HOST:PORT", endpoint);
    if (!port_is_good(colon + 1, to_bind))
        return err_set(ERR_ARG, "%s: the port must be 1 to 65535%s", endpoint,
                       to_bind ? " or * for any free one" : "");
    size_t host_bytes = (size_t)(colon - host);
    if (host_bytes == 1 && *host == '*' && !to_bind)
        return err_set(ERR_ARG, "%s: name the host to connect to", endpoint);
    if (*host == '[' ? host[host_bytes - 1] != ']' : memchr(host, ':', host_bytes) != NULL)
        return err_set(ERR_ARG, "%s: write an IPv6 address in brackets", endpoint);
    return ERR_OK;
}

static int check_ipc(const char *endpoint)
{
    size_t bytes = strlen(endpoint + strlen("ipc://"));
    size_t limit = sizeof(((struct sockaddr_un *)0)->sun_path) - 1;
    if (bytes == 0)
        return err_set(ERR_ARG, "%s: expected ipc://PATH", endpoint);
    if (bytes > limit)
        return err_set(ERR_ARG, "%s: the path has %zu bytes, the kernel allows %zu", endpoint,
                       bytes, limit);
    return ERR_OK;
}

int endpoint_check(const char *endpoint, bool to_bind)
{
    size_t length = strlen(endpoint);
    if (length >= ENDPOINT_BYTES)
        return err_set(ERR_ARG, "an endpoint of %zu characters, %d are possible", length,
                       ENDPOINT_BYTES - 1);
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)endpoint[i] <= ' ' || endpoint[i] == 0x7f || endpoint[i] == ';')
            return err_set(ERR_ARG, "%s: an endpoint has no blanks, ';' or control characters",
                           endpoint);
    if (strncmp(endpoint, "tcp://", 6) == 0)
        return check_tcp(endpoint, to_bind);
    if (strncmp(endpoint, "ipc://", 6) == 0)
        return check_ipc(endpoint);
    return err_set(ERR_ARG, "%s: an endpoint is tcp://HOST:PORT or ipc://PATH", endpoint);
}

bool endpoint_is_local(const char *endpoint)
{
    if (strncmp(endpoint, "ipc://", 6) == 0)
        return true;
    if (strncmp(endpoint, "tcp://", 6) != 0)
        return false;
    const char *host = endpoint + 6;
    const char *colon = strrchr(host, ':');
    size_t bytes = colon ? (size_t)(colon - host) : strlen(host);
    if (bytes == 9 && memcmp(host, "localhost", 9) == 0)
        return true;
    if (bytes == 5 && memcmp(host, "[::1]", 5) == 0)
        return true;
    int a, b, c, d, end = 0;
    return sscanf(host, "%3d.%3d.%3d.%3d%n", &a, &b, &c, &d, &end) == 4 && (size_t)end == bytes &&
           a == 127;
}

/* Adds the endpoint at text[0..bytes) unless it is empty. */
static int list_add(char (*dst)[ENDPOINT_BYTES], int *count, int max, const char *text,
                    size_t bytes)
{
    while (bytes && strchr(" \t\r", text[0]))
        text++, bytes--;
    while (bytes && strchr(" \t\r", text[bytes - 1]))
        bytes--;
    if (bytes == 0)
        return ERR_OK;
    if (bytes >= ENDPOINT_BYTES)
        return err_set(ERR_ARG, "an endpoint of %zu characters, %d are possible", bytes,
                       ENDPOINT_BYTES - 1);
    if (*count == max)
        return err_set(ERR_ARG, "more than %d endpoints", max);
    char *slot = dst[*count];
    memcpy(slot, text, bytes);
    slot[bytes] = 0;
    int code = endpoint_check(slot, false);
    if (code)
        return code;
    for (int i = 0; i < *count; i++)
        if (strcmp(dst[i], slot) == 0)
            return err_set(ERR_ARG, "%s is named twice", slot);
    *count += 1;
    return ERR_OK;
}

int endpoint_split(char (*dst)[ENDPOINT_BYTES], int *count, int max, const char *list)
{
    *count = 0;
    for (const char *at = list;; at++) {
        size_t bytes = strcspn(at, ",");
        int code = list_add(dst, count, max, at, bytes);
        if (code)
            return code;
        at += bytes;
        if (!*at)
            break;
    }
    if (*count == 0)
        return err_set(ERR_ARG, "no loader is named: ENDPOINT,ENDPOINT... or @FILE");
    return ERR_OK;
}

int endpoint_lines(char (*dst)[ENDPOINT_BYTES], int *count, int max, const char *text,
                   const char *name)
{
    *count = 0;
    int line = 1;
    for (const char *at = text;; at++, line++) {
        size_t bytes = strcspn(at, "\n");
        size_t comment = strcspn(at, "#\n");
        int code = list_add(dst, count, max, at, comment);
        if (code)
            return err_wrap(code, "%s, line %d", name, line);
        at += bytes;
        if (!*at)
            return ERR_OK;
    }
}

/* NULL: of another transport. */
static const char *ipc_path(const char *endpoint)
{
    static const char scheme[] = "ipc://";
    return strncmp(endpoint, scheme, sizeof(scheme) - 1) == 0 ? endpoint + sizeof(scheme) - 1
                                                              : NULL;
}

/* ZeroMQ takes an ipc path over from whoever listens there; two loaders on one path would be a
 * riddle for their trainers. */
static bool ipc_in_use(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t bytes = strlen(path) + 1;
    if (bytes > sizeof(address.sun_path))
        return false;
    memcpy(address.sun_path, path, bytes);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool used = fd >= 0 &&
                (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 || errno == EAGAIN);
    if (fd >= 0)
        close(fd);
    return used;
}

/* ZeroMQ removes what lies at an ipc path before it listens there, be it a store. */
static bool ipc_is_file(const char *path)
{
    struct stat status;
    return lstat(path, &status) == 0 && !S_ISSOCK(status.st_mode);
}

int endpoint_check_free(const char *endpoint)
{
    const char *path = ipc_path(endpoint);
    if (path && ipc_in_use(path))
        return err_set(ERR_IO, "cannot listen on %s: another program uses it; choose another",
                       endpoint);
    if (path && ipc_is_file(path))
        return err_set(ERR_ARG, "cannot listen on %s: a file of that name is there; choose another",
                       endpoint);
    return 0;
}

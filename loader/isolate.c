/* SPDX-License-Identifier: Apache-2.0 */
/* Both sides of the helper process. */
#include "loader/isolate.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/stop.h"
#include "datasets/fault.h"
#include "loader/sample.h"

extern char **environ;

/* One program writes and reads these: they need no byte order. */
struct request {
    uint8_t spec[SPEC_ENCODED_BYTES];
    uint32_t epoch, id, decoder;
};

struct reply { /* followed by the planes when code is 0 */
    int32_t code;
    uint32_t label;
    char message[512];
};

static size_t planes_bytes(const struct spec *spec)
{
    return (size_t)spec->channels * spec->size_px * spec->size_px * sizeof(int16_t);
}

/* ---- the helper ---- */

bool isolate_is_helper(int argc, char **argv)
{
    return argc == 3 && strcmp(argv[1], ISOLATE_ARGUMENT) == 0;
}

static bool read_all(void *dst, size_t bytes)
{
    uint8_t *at = dst;
    for (ssize_t got; bytes > 0; at += got, bytes -= (size_t)got) {
        got = read(STDIN_FILENO, at, bytes);
        if (got < 0 && errno == EINTR)
            got = 0;
        else if (got <= 0)
            return false;
    }
    return true;
}

static bool write_all(int fd, const void *src, size_t bytes)
{
    const uint8_t *at = src;
    for (ssize_t put; bytes > 0; at += put, bytes -= (size_t)put) {
        put = write(fd, at, bytes);
        if (put < 0 && errno == EINTR)
            put = 0;
        else if (put < 0)
            return false;
    }
    return true;
}

/* A record that takes all memory or time shall end this process, not the loader. */
static void offer_itself(void)
{
    const struct rlimit no_core = {0, 0}, seconds = {ISOLATE_SECONDS, ISOLATE_SECONDS};
    setrlimit(RLIMIT_CORE, &no_core);
    setrlimit(RLIMIT_CPU, &seconds);
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t ignored = write(fd, "1000", 4);
    (void)ignored; /* it is a help, not a need */
    close(fd);
}

int isolate_help(const char *store_path)
{
    struct request request;
    struct reply reply = {0};
    struct store *store = NULL;
    struct render *render = NULL;
    struct spec spec;
    offer_itself();
    fault_install(); /* a damaged page of the store is no record that kills */
    if (!read_all(&request, sizeof request))
        return 1;
    int code = spec_decode(&spec, request.spec, sizeof request.spec);
    if (!code)
        code = store_open(&store, store_path);
    if (!code)
        code = render_open(&render, (enum decoder_choice)request.decoder, cpu_level());
    if (!code)
        code = sample_cut(render, 0, &reply.label, store, NULL, &spec, request.epoch, request.id);
    reply.code = code;
    if (code)
        snprintf(reply.message, sizeof reply.message, "%.*s", (int)sizeof reply.message - 1,
                 err_message());
    bool sent = write_all(STDOUT_FILENO, &reply, sizeof reply);
    for (unsigned i = 0; i < spec.channels && sent && !code; i++)
        sent = write_all(STDOUT_FILENO, render_source(render, 0)->plane[i],
                         planes_bytes(&spec) / spec.channels);
    render_close(render);
    store_close(store);
    return sent ? 0 : 1;
}

/* ---- the loader ---- */

struct helper {
    pid_t pid; /* 0: none */
    int to, from;
};

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* The helper's signals are as if nobody had touched them. */
static int spawn(struct helper *helper, const char *path, int in, int out)
{
    char program[] = "/proc/self/exe", argument[] = ISOLATE_ARGUMENT;
    char *arguments[] = {program, argument, (char *)path, NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_adddup2(&actions, in, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    int failed = posix_spawn(&helper->pid, program, &actions, &attributes, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    if (!failed)
        return 0;
    helper->pid = 0;
    return err_set(ERR_UNSUPPORTED, "cannot start a process for a sample: %s", strerror(failed));
}

static int start(struct helper *helper, const char *path)
{
    int in[2] = {-1, -1}, out[2] = {-1, -1};
    int code = 0;
    if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0)
        code = err_set(ERR_UNSUPPORTED, "cannot make a pipe for a sample: %s", strerror(errno));
    if (!code)
        code = spawn(helper, path, in[0], out[1]);
    close_fd(&in[0]);
    close_fd(&out[1]);
    helper->to = in[1];
    helper->from = out[0];
    return code;
}

/* Reads exactly so many bytes. 0; ERR_DATA: it ended before, or is late; ERR_STOPPED. */
static int hear(const struct helper *helper, void *dst, size_t bytes, int64_t deadline_ns)
{
    uint8_t *at = dst;
    while (bytes > 0) {
        struct pollfd fds[] = {{helper->from, POLLIN, 0}, {stop_fd(), POLLIN, 0}};
        int64_t left_ms = (deadline_ns - clock_ns()) / 1000000;
        if (left_ms <= 0)
            return err_set(ERR_DATA, "it takes longer than %d s to decode", ISOLATE_SECONDS);
        if (poll(fds, 2, (int)left_ms) < 0 && errno != EINTR)
            return err_set(ERR_UNSUPPORTED, "waiting for a sample: %s", strerror(errno));
        if (stop_requested())
            return err_set(ERR_STOPPED, "stopped on request");
        if (!fds[0].revents)
            continue;
        ssize_t got = read(helper->from, at, bytes);
        if (got == 0)
            return err_set(ERR_DATA, "it ends the process that decodes it");
        if (got < 0 && errno != EINTR)
            return err_set(ERR_UNSUPPORTED, "reading a sample: %s", strerror(errno));
        if (got > 0) {
            at += got;
            bytes -= (size_t)got;
        }
    }
    return 0;
}

static int exchange(struct reply *reply, int16_t *planes, const struct helper *helper,
                    const struct request *request, const struct spec *spec)
{
    int64_t deadline = clock_ns() + ISOLATE_SECONDS * INT64_C(1000000000);
    /* Smaller than a pipe holds: it never waits. SIGPIPE is ignored (stop_install). */
    if (!write_all(helper->to, request, sizeof *request) && errno != EPIPE)
        return err_set(ERR_UNSUPPORTED, "asking for a sample: %s", strerror(errno));
    int code = hear(helper, reply, sizeof *reply, deadline);
    return code || reply->code ? code : hear(helper, planes, planes_bytes(spec), deadline);
}

/* Ends it when it has not ended, and says how it did. */
static void finish(struct helper *helper, int code)
{
    int status = 0;
    close_fd(&helper->to);
    close_fd(&helper->from);
    if (!helper->pid)
        return;
    if (code) /* one that has died already keeps the status that it died with */
        kill(helper->pid, SIGKILL);
    while (waitpid(helper->pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (code == ERR_DATA && WIFSIGNALED(status) && WTERMSIG(status) != SIGKILL)
        err_set(ERR_DATA, "it ends the process that decodes it (%s)", strsignal(WTERMSIG(status)));
}

int isolate_cut(bool *killed, struct render *render, int slot, uint32_t *label,
                const struct store *store, const struct spec *spec, uint32_t epoch, uint32_t id,
                enum decoder_choice decoder)
{
    struct helper helper = {0, -1, -1};
    struct request request = {.epoch = epoch, .id = id, .decoder = (uint32_t)decoder};
    struct reply reply;
    int16_t *planes = malloc(planes_bytes(spec));
    if (!planes)
        return err_set(ERR_NOMEM, "out of memory for a sample");
    spec_encode(request.spec, spec);
    int code = start(&helper, store_path(store));
    if (!code)
        code = exchange(&reply, planes, &helper, &request, spec);
    finish(&helper, code);
    *killed = code == ERR_DATA;
    if (code == ERR_DATA)
        err_wrap(code, "%s: sample %u (class %s)", store_path(store), id,
                 store_class_of(store, id));
    if (!code && reply.code) {
        reply.message[sizeof reply.message - 1] = 0;
        /* Not ERR_IO: that is a store which changes. The helper's may only have been removed. */
        code = err_set(reply.code == ERR_IO ? ERR_UNSUPPORTED : reply.code, "%s", reply.message);
    }
    if (!code && reply.label >= store_meta(store)->class_count)
        code = err_set(ERR_DATA, "%s: sample %u: impossible label", store_path(store), id);
    if (!code) {
        *label = reply.label;
        code = render_take(render, slot, planes, spec, epoch, id);
    }
    free(planes);
    return code;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Keys of the loader. */
#include "loader/access.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/err.h"
#include "common/log.h"

static atomic_int hangup_fd = -1;

/* Async-signal-safe. */
static void on_hangup(int number)
{
    (void)number;
    int saved = errno;
    uint64_t one = 1;
    ssize_t ignored = write(atomic_load(&hangup_fd), &one, sizeof(one));
    (void)ignored; /* a full counter means that it is pending anyway */
    errno = saved;
}

static int take_hangup(struct access *access)
{
    access->reload_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (access->reload_fd < 0)
        return err_set(ERR_IO, "eventfd: %s", strerror(errno));
    atomic_store(&hangup_fd, access->reload_fd);
    struct sigaction action = {.sa_handler = on_hangup, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGHUP, &action, NULL);
    return ERR_OK;
}

static void say_list(const char *directory, size_t count)
{
    if (count == 0)
        log_warn("--allow %s holds no key (*.pub): every trainer is refused until there is one "
                 "(then send SIGHUP)",
                 directory);
    else
        log_info("%zu trainer key%s allowed", count, count == 1 ? " is" : "s are");
}

int access_open(struct access *access, struct sock_context *context, const char *secret_key,
                const char *allow)
{
    struct key_list allowed;
    *access = (struct access){.reload_fd = -1};
    if (!secret_key && !allow)
        return ERR_OK;
    if (!secret_key || !allow)
        return err_set(ERR_ARG, "%s goes with %s: a connection has keys on both sides (see --help)",
                       secret_key ? "--secret-key FILE" : "--allow DIR",
                       secret_key ? "--allow DIR" : "--secret-key FILE");
    int code = key_pair_read(&access->own, secret_key);
    if (code)
        return err_wrap(code, "--secret-key");
    if ((code = key_list_read(&allowed, allow, NULL)))
        return err_wrap(code, "--allow");
    char text[KEY_TEXT_BYTES];
    key_to_text(text, &access->own.public_key);
    log_info("encrypted; public key %s", text);
    say_list(allow, allowed.count);
    access->allow = allow;
    code = zap_open(&access->zap, context, &allowed);
    key_list_free(&allowed);
    return code ? code : take_hangup(access);
}

void access_close(struct access *access)
{
    if (!access->allow)
        return;
    if (access->reload_fd >= 0) {
        signal(SIGHUP, SIG_IGN); /* the descriptor goes away */
        atomic_store(&hangup_fd, -1);
        close(access->reload_fd);
    }
    zap_close(access->zap);
    key_pair_wipe(&access->own);
    *access = (struct access){.reload_fd = -1};
}

const struct key_pair *access_keys(const struct access *access)
{
    return access->zap ? &access->own : NULL;
}

bool access_reloaded(struct access *access)
{
    uint64_t count;
    size_t bad;
    struct key_list allowed;
    if (access->reload_fd < 0 || read(access->reload_fd, &count, sizeof(count)) < 0)
        return false;
    if (key_list_read(&allowed, access->allow, &bad)) {
        log_error("SIGHUP: %s (the keys allowed stay as they were)", err_message());
        return false;
    }
    if (bad > 0)
        log_error("SIGHUP: %zu file%s in %s left out", bad, bad == 1 ? " was" : "s were",
                  access->allow);
    say_list(access->allow, allowed.count);
    zap_allow(access->zap, &allowed);
    return true;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* A flag and an eventfd, both set from the signal handler. */
#include "common/stop.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { STATUS_INTERRUPTED = 130 }; /* the shell's 128 + SIGINT */

static atomic_bool requested;
static atomic_int by_signal;
static atomic_int wakeup = -1;
static pthread_once_t wakeup_once = PTHREAD_ONCE_INIT;

/* Async-signal-safe. */
static void wake(void)
{
    int fd = atomic_load(&wakeup);
    uint64_t one = 1;
    if (fd >= 0 && write(fd, &one, sizeof one) < 0)
        return; /* the counter is full: it is readable all the same */
}

static void open_wakeup(void)
{
    atomic_store(&wakeup, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (atomic_load(&requested)) /* asked for before there was a descriptor */
        wake();
}

static void on_signal(int number)
{
    int saved = errno;
    if (number == SIGINT && atomic_load(&by_signal) == SIGINT)
        _exit(STATUS_INTERRUPTED);
    atomic_store(&by_signal, number);
    atomic_store(&requested, true);
    wake();
    errno = saved;
}

void stop_install(bool with_usr1)
{
    pthread_once(&wakeup_once, open_wakeup);
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    if (with_usr1)
        sigaction(SIGUSR1, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a limit on the size of files is told like a full disk */
}

bool stop_requested(void)
{
    return atomic_load_explicit(&requested, memory_order_relaxed);
}

void stop_request(void)
{
    atomic_store(&requested, true);
    wake();
}

int stop_fd(void)
{
    pthread_once(&wakeup_once, open_wakeup);
    return atomic_load(&wakeup);
}

int stop_signal(void)
{
    return atomic_load(&by_signal);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The handler uses only what is safe in a signal handler: atomics that are lock-free, write(2),
 * _exit(2). */
#include "datasets/fault.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

enum { PLACES = 64 };

/* A place is free while end is 0; end is written last and cleared first. */
struct place {
    _Atomic uintptr_t begin, end;
    const char *_Atomic path;
    atomic_flag taken;
};

static struct place places[PLACES];
static struct sigaction previous_bus, previous_segv;

_Thread_local sigjmp_buf *fault_landing;

static void say(const char *text)
{
    /* Nothing can be done about a failing stderr here. */
    if (write(STDERR_FILENO, text, strlen(text)) < 0)
        return;
}

static void handle(int signal, siginfo_t *info, void *context)
{
    uintptr_t address = (uintptr_t)info->si_addr;
    for (int i = 0; i < PLACES; i++) {
        uintptr_t end = atomic_load(&places[i].end);
        if (end == 0 || address < atomic_load(&places[i].begin) || address >= end)
            continue;
        say(program_invocation_short_name);
        say(": error: ");
        say(atomic_load(&places[i].path));
        say(": the store was cut or became unreadable while in use; restore it and start again\n");
        _exit(1);
    }
    sigjmp_buf *landing = fault_landing;
    fault_landing = NULL;
    if (landing)
        siglongjmp(*landing, 1);
    sigaction(signal, signal == SIGBUS ? &previous_bus : &previous_segv, NULL);
}

void fault_install(void)
{
    /* Not deferred: a landing leaves the handler without giving the signal free again. */
    struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_NODEFER};
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &previous_bus);
    sigaction(SIGSEGV, &action, &previous_segv);
}

void fault_register(const void *begin, size_t bytes, const char *path)
{
    for (int i = 0; i < PLACES; i++) {
        if (atomic_flag_test_and_set(&places[i].taken))
            continue;
        atomic_store(&places[i].begin, (uintptr_t)begin);
        atomic_store(&places[i].path, path);
        atomic_store(&places[i].end, (uintptr_t)begin + bytes);
        return;
    }
}

void fault_unregister(const void *begin)
{
    for (int i = 0; i < PLACES; i++) {
        if (atomic_load(&places[i].end) == 0 || atomic_load(&places[i].begin) != (uintptr_t)begin)
            continue;
        atomic_store(&places[i].end, 0);
        atomic_flag_clear(&places[i].taken);
        return;
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Faults at chosen system calls of a child process (ptrace on a seccomp filter; Linux on x86-64).
 */
#ifndef TESTS_FAULT_INJECT_H
#define TESTS_FAULT_INJECT_H

#include <stdbool.h>

enum inject_fault {
    INJECT_NOTHING, /* only count */
    INJECT_KILL,    /* SIGKILL before the call; every call counts */
    INJECT_ERROR,   /* the call fails; calls on files count */
    INJECT_SHORT,   /* a write takes half of its bytes; writes count */
};

struct inject_plan {
    enum inject_fault fault;
    int error;   /* ERROR: the errno */
    bool sticky; /* ERROR: all counted calls from at on, as on a disk that stays full */
    int at;      /* which counted call, from 0 */
};

struct inject_result {
    int calls;  /* counted */
    int status; /* as waitpid gives it */
};

/* Runs child(argument) in a forked process, whose exit status is what it returns. Calls count from
 * its first inject_arm() on, in all of its threads. Fails the running cmocka test when the process
 * cannot be traced; skips it where this is not Linux on x86-64. */
void inject_run(struct inject_result *result, const struct inject_plan *plan,
                int (*child)(void *argument), void *argument);

void inject_arm(void);

#endif

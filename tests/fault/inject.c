/* SPDX-License-Identifier: Apache-2.0 */
/* The parent is told before each system call of the child and its threads, and may change it. */
#include "tests/fault/inject.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#include <cmocka.h>

#if defined(__linux__) && defined(__x86_64__)

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>

enum {
    ARM_CALL = SYS_getpgid, /* with this argument it marks where counting begins */
    ARM_ARGUMENT = 0x5a7c,
    UNTRACED = 126,
};

void inject_arm(void)
{
    syscall(ARM_CALL, ARM_ARGUMENT);
}

/* Everything is traced but what threads wait with, which tells nothing. */
static int install_filter(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_futex, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return -1;
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

static bool on_files(const struct user_regs_struct *regs)
{
    switch (regs->orig_rax) {
    case SYS_write:
    case SYS_pwrite64:
    case SYS_fsync:
    case SYS_fdatasync:
    case SYS_ftruncate:
        return regs->rdi > STDERR_FILENO; /* the log goes on */
    case SYS_open:
    case SYS_openat:
    case SYS_rename:
    case SYS_renameat:
    case SYS_renameat2:
    case SYS_link:
    case SYS_linkat:
    case SYS_unlink:
    case SYS_unlinkat:
        return true;
    default:
        return false;
    }
}

static bool counts(const struct user_regs_struct *regs, enum inject_fault fault)
{
    bool writes = regs->orig_rax == SYS_write || regs->orig_rax == SYS_pwrite64;
    if (fault == INJECT_KILL)
        return true;
    return on_files(regs) && (fault != INJECT_SHORT || (writes && regs->rdx > 1));
}

/* One call is about to begin. */
static void on_call(struct inject_result *result, const struct inject_plan *plan, pid_t process,
                    pid_t thread)
{
    struct user_regs_struct regs;
    if (ptrace(PTRACE_GETREGS, thread, NULL, &regs) != 0)
        return; /* it was killed meanwhile */
    if (regs.orig_rax == ARM_CALL && regs.rdi == ARM_ARGUMENT && result->calls < 0) {
        result->calls = 0;
        return;
    }
    if (result->calls < 0 || !counts(&regs, plan->fault))
        return;
    int index = result->calls++;
    if (index != plan->at && !(plan->sticky && index > plan->at))
        return;
    if (plan->fault == INJECT_KILL) {
        kill(process, SIGKILL);
    } else if (plan->fault == INJECT_ERROR) {
        regs.orig_rax = (unsigned long long)-1;
        regs.rax = (unsigned long long)-plan->error;
        ptrace(PTRACE_SETREGS, thread, NULL, &regs);
    } else if (plan->fault == INJECT_SHORT) {
        regs.rdx /= 2;
        ptrace(PTRACE_SETREGS, thread, NULL, &regs);
    }
}

static void trace(struct inject_result *result, const struct inject_plan *plan, pid_t process)
{
    int status;
    for (;;) {
        pid_t thread = waitpid(-1, &status, __WALL);
        assert_true(thread > 0);
        if (WIFEXITED(status) || WIFSIGNALED(status)) {
            if (thread == process)
                break;
            continue;
        }
        int number = WSTOPSIG(status);
        if (status >> 8 == (SIGTRAP | PTRACE_EVENT_SECCOMP << 8))
            on_call(result, plan, process, thread);
        /* Stops that tracing itself makes are not for the child. */
        bool own = number == SIGTRAP || number == SIGSTOP;
        ptrace(PTRACE_CONT, thread, NULL, (void *)(intptr_t)(own ? 0 : number));
    }
    result->status = status;
}

static void become_child(int (*child)(void *argument), void *argument)
{
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
        _exit(UNTRACED);
    raise(SIGSTOP);
    if (install_filter() != 0)
        _exit(UNTRACED);
    _exit(child(argument));
}

void inject_run(struct inject_result *result, const struct inject_plan *plan,
                int (*child)(void *argument), void *argument)
{
    int status;
    *result = (struct inject_result){.calls = -1};
    fflush(NULL);
    pid_t process = fork();
    assert_true(process >= 0);
    if (process == 0)
        become_child(child, argument);
    assert_int_equal(waitpid(process, &status, 0), process);
    if (!WIFSTOPPED(status))
        fail_msg("the child cannot be traced");
    ptrace(PTRACE_SETOPTIONS, process, NULL,
           (void *)(intptr_t)(PTRACE_O_TRACESECCOMP | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL));
    ptrace(PTRACE_CONT, process, NULL, NULL);
    trace(result, plan, process);
    if (WIFEXITED(result->status) && WEXITSTATUS(result->status) == UNTRACED)
        fail_msg("the child cannot be traced");
}

#else

void inject_arm(void)
{
}

void inject_run(struct inject_result *result, const struct inject_plan *plan,
                int (*child)(void *argument), void *argument)
{
    skip(); /* registers are read and written, of x86-64 */
}

#endif

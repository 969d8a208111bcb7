/*
 * Process 1 beside the command (--init): forwards signals, reaps what the command leaves behind,
 * ends with its code.
 */
#include "init.h"

#include <asm/ioctls.h>
#include <errno.h>
#include <linux/prctl.h>
#include <linux/wait.h>

#define SIGNAL_CHILD 17
#define SIGNAL_TTOU 22
#define SIGNAL_TTIN 21
#define SET_MASK 2

struct signal_info {
    int number, error, code;
    int rest[29];
};

/* Exit as the command did: its code, or 128 and the signal that killed it. Process 1 cannot end by a
 * signal of its own, so its name says which it was, to whoever looks at it before reaping it. */
__attribute__((noreturn)) static void end_as(int status)
{
    int number = status & 0x7f;
    char name[16];
    size_t used = 0;

    if (number == 0)
        leave((status >> 8) & 0xff);
    text_append(name, sizeof(name), &used, KILLED_BY);
    text_append_number(name, sizeof(name), &used, (uint64_t)number);
    sys_call(__NR_prctl, PR_SET_NAME, name, 0, 0, 0);
    leave(128 + number);
}

static void reap(long command)
{
    int status;

    for (;;) {
        long pid = sys_call(__NR_wait4, -1, &status, WNOHANG, NULL);
        if (pid <= 0)
            return;
        if (pid == command)
            end_as(status);
    }
}

/* Nobody else's descriptor stays open in a process that lives as long as the container: a pipe that
 * the command closes must end for its reader. */
__attribute__((noreturn)) static void serve(long command)
{
    uint64_t all = ~0UL;
    struct signal_info info;

    sys_call(__NR_close_range, 0, ~0U, 0);
    sys_call(__NR_prctl, PR_SET_NAME, "pyrtc-init", 0, 0, 0);
    for (;;) {
        long number = sys_call(__NR_rt_sigtimedwait, &all, &info, NULL, sizeof(all));
        if (number == SIGNAL_CHILD)
            reap(command);
        else if (number > 0 && number != SIGNAL_TTIN && number != SIGNAL_TTOU)
            sys_call(__NR_kill, command, number);
    }
}

long become_reaper(struct state *state)
{
    uint64_t all = ~0UL;

    sys_call(__NR_rt_sigprocmask, SET_MASK, &all, NULL, sizeof(all));
    state->call = "fork";
#ifdef __aarch64__
    long child = sys_call(__NR_clone, SIGNAL_CHILD, 0, 0, 0, 0);
#else
    long child = sys_call(__NR_fork, 0);
#endif
    if (child > 0)
        serve(child);
    if (child < 0)
        return child;
    /* A process group of its own, in front of the terminal, as a shell gives it to a job. */
    state->call = "setpgid";
    long result = sys_call(__NR_setpgid, 0, 0);
    if (result >= 0 && state->terminal) {
        long group = sys_call(__NR_getpid, 0);
        int value = (int)group;
        state->call = "ioctl TIOCSPGRP";
        result = sys_call(__NR_ioctl, 0, TIOCSPGRP, &value);
    }
    return result < 0 ? result : 0;
}

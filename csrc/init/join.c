/*
 * Entering a container that runs: its namespaces, then a process of it.
 *
 * What runs in there is hostile and may hold CAP_SYS_PTRACE. Up to PLAN_FORK this process is in its
 * caller's pid namespace, where nobody in the container can name it; what appears inside has given
 * up every right and every descriptor that the command is not to have (CVE-2016-9962), and stays
 * closed to others until the command replaces its memory.
 */
#include "init.h"

#include <asm/ioctls.h>
#include <errno.h>
#include <linux/prctl.h>
#include <linux/sched.h>

#define SIGNAL_CHILD 17

/* The ids of a process that comes from outside mean nobody in the user namespace, and what such a
 * process makes belongs to nobody. */
static long become_root(struct state *state, uint64_t ids)
{
    uint32_t uid = (uint32_t)ids, gid = (uint32_t)(ids >> 32);

    state->call = "setresgid";
    long result = sys_call(__NR_setresgid, gid, gid, gid);
    if (result < 0)
        return result;
    state->call = "setresuid";
    result = sys_call(__NR_setresuid, uid, uid, uid);
    if (result < 0 || !state->death_signal)
        return result;
    state->call = "prctl PR_SET_PDEATHSIG"; /* a change of ids clears it */
    return sys_call(__NR_prctl, PR_SET_PDEATHSIG, SIGNAL_KILL, 0, 0, 0);
}

/* One setns(2) for all: the kernel enters the user namespace first, and either every one or none. */
long join_container(struct state *state, const struct plan_op *op)
{
    if (op->slot < 0)
        return -EINVAL;
    state->call = "prctl PR_SET_DUMPABLE";
    long result = sys_call(__NR_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0);
    if (result < 0)
        return result;
    state->call = "setns";
    result = sys_call(__NR_setns, state->plan.slots[op->slot], op->a);
    if (result < 0)
        return result;
    state->joined = true;
    if (op->a & CLONE_NEWUSER) {
        result = become_root(state, op->b);
        if (result < 0)
            return result;
    }
    /* With the mount namespace, / became the root of the container. */
    state->call = "open";
    state->detail = "/";
    long root = sys_call(__NR_openat, AT_FDCWD, "/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return root;
    state->root_fd = (int)root;
    return 0;
}

/* Not clone3, which the usual filters refuse, and the filter may be loaded by now. */
static long clone_process(uint64_t flags, int *pidfd)
{
#ifdef __aarch64__
    return sys_call(__NR_clone, flags | CLONE_PIDFD, 0, pidfd, 0, 0);
#else
    return sys_call(__NR_clone, flags | CLONE_PIDFD, 0, pidfd, NULL, 0);
#endif
}

/* A session of its own: whoever signals its process group reaches what the command starts. */
static long begin(struct state *state, bool detached)
{
    state->death_signal = false;
    if (!detached) {
        state->death_signal = true;
        state->call = "prctl PR_SET_PDEATHSIG";
        long result = sys_call(__NR_prctl, PR_SET_PDEATHSIG, SIGNAL_KILL, 0, 0, 0);
        if (caller_is_gone(state))
            leave(125);
        if (result < 0)
            return result;
    }
    if (state->master_fd >= 0) {
        path_close(state->master_fd);
        state->master_fd = -1;
    }
    state->call = "setsid";
    long result = sys_call(__NR_setsid, 0);
    if (result < 0)
        return result;
    return state->terminal ? take_terminal(state) : 0;
}

/* A terminal that nobody reads would stop the command when its buffer is full, and one that nobody
 * holds would hang up on it. */
static long leave_drain(struct state *state)
{
    int pidfd = -1;

    state->call = "clone";
    long pid = clone_process(SIGNAL_CHILD, &pidfd);
    if (pid == 0)
        drain_terminal(state->master_fd);
    if (pidfd >= 0)
        path_close(pidfd);
    return pid;
}

long fork_process(struct state *state, const struct plan_op *op)
{
    bool detached = op->flags & PLAN_DETACHED;
    int pidfd = -1;

    if (!state->joined)
        return -EINVAL;
    long result = keep_status(state);
    if (result < 0)
        return result;
    state->call = "clone";
    long pid = clone_process(detached ? SIGNAL_CHILD : CLONE_PARENT, &pidfd);
    if (pid < 0)
        return pid;
    if (pid == 0)
        return begin(state, detached);
    result = detached && state->master_fd >= 0 ? leave_drain(state) : 0;
    if (result >= 0)
        result = report_descriptor(state, REPORT_PROCESS, (int32_t)pid, pidfd);
    if (result < 0) { /* nobody knows of it */
        sys_call(__NR_pidfd_send_signal, pidfd, SIGNAL_KILL, NULL, 0);
        return result;
    }
    leave(0);
}

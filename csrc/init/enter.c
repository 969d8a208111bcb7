/*
 * Where the process is: cgroups, id maps, late namespaces, keyring.
 */
#include "init.h"

#include <errno.h>
#include <linux/keyctl.h>
#include <linux/sched.h>

/* A process that moves itself by writing 0 to `tasks` is three orders of magnitude cheaper than its
 * parent's write to cgroup.procs, which waits for a grace period of a lock that every fork takes.
 */
long enter_tasks(struct state *state, const struct plan_op *op)
{
    state->call = "write to the cgroup's tasks file";
    if (op->slot < 0)
        return -EINVAL;
    long result = sys_call(__NR_write, state->plan.slots[op->slot], "0", 1);
    return result < 0 ? result : 0;
}

/* Until the maps are written this process has no ids, and may not set any. */
long await_maps(struct state *state, const struct plan_op *op)
{
    state->call = "wait for the id maps";
    long result = await_caller(state);
    if (result < 0)
        return result;
    state->call = "setresgid";
    result = sys_call(__NR_setresgid, op->b, op->b, op->b);
    if (result < 0)
        return result;
    state->call = "setresuid";
    return sys_call(__NR_setresuid, op->a, op->a, op->a);
}

long enter_network(struct state *state, const struct plan_op *op)
{
    state->call = "setns";
    if (op->slot < 0)
        return -EINVAL;
    return sys_call(__NR_setns, state->plan.slots[op->slot], CLONE_NEWNET);
}

/* The cgroup namespace is rooted where the process is when it is made, so it comes after the
 * cgroup. */
long enter_namespaces(struct state *state, const struct plan_op *op)
{
    state->call = "unshare";
    return sys_call(__NR_unshare, op->a);
}

long new_keyring(struct state *state, const struct plan_op *op)
{
    (void)op;
    state->call = "keyctl JOIN_SESSION_KEYRING";
    long result = sys_call(__NR_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL);
    /* A kernel without keys has none to share. */
    return result < 0 && result != -ENOSYS ? result : 0;
}

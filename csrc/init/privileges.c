/*
 * What the command may do: ids, capabilities, limits, the system call filter. Only ever less than
 * before.
 */
#include "init.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/prctl.h>
#include <sys/resource.h>
#include <linux/seccomp.h>
#include <linux/stat.h>

static long control(struct state *state, const char *name, long option, long argument)
{
    state->call = name;
    long result = sys_call(__NR_prctl, option, argument, 0, 0, 0);
    return result < 0 ? result : 0;
}

long set_rlimit(struct state *state, const struct plan_op *op)
{
    struct rlimit64 limit = {op->a, op->b};

    state->call = "prlimit";
    state->detail = plan_string(op, 0);
    return sys_call(__NR_prlimit64, 0, op->mode, &limit, NULL);
}

long set_umask(struct state *state, const struct plan_op *op)
{
    (void)state;
    sys_call(__NR_umask, op->mode);
    return 0;
}

/* Resolved in the new root, then asked back: a directory outside the root reads as "(unreachable)"
 * (CVE-2024-21626). */
long set_workdir(struct state *state, const struct plan_op *op)
{
    char answer[4096];

    state->call = "chdir";
    state->detail = plan_string(op, 0);
    long result = sys_call(__NR_chdir, state->detail);
    if (result < 0)
        return result;
    state->call = "getcwd";
    result = sys_call(__NR_getcwd, answer, sizeof(answer));
    if (result < 0)
        return result;
    return answer[0] == '/' ? 0 : -ENOENT;
}

long set_no_new_privs(struct state *state, const struct plan_op *op)
{
    (void)op;
    return control(state, "prctl PR_SET_NO_NEW_PRIVS", PR_SET_NO_NEW_PRIVS, 1);
}

/* A pipe belongs to who made it, the caller, and opening it again by /dev/stdout asks for rights
 * like a file. */
static long give_pipes(struct state *state, uint64_t uid)
{
    struct statx about;

    for (int fd = 0; fd < 3; fd++) {
        state->call = "statx";
        long result = sys_call(__NR_statx, fd, "", AT_EMPTY_PATH, STATX_TYPE | STATX_UID, &about);
        if (result == -EBADF)
            continue;
        if (result < 0)
            return result;
        if ((about.stx_mode & 0170000) != 0010000 || about.stx_uid == uid)
            continue;
        state->call = "fchown a pipe";
        result = sys_call(__NR_fchown, fd, uid, -1);
        if (result < 0 &&
            result != -EPERM) /* made by somebody whom this user namespace does not know */
            return result;
    }
    return 0;
}

/* Groups before ids, while there is the right to change them. A change of ids clears the death
 * signal. */
long set_user(struct state *state, const struct plan_op *op)
{
    long result = 0;

    state->detail = NULL;
    if (state->terminal) {
        state->call = "fchown the terminal";
        result = sys_call(__NR_fchown, 0, op->a, -1);
    } else {
        result = give_pipes(state, op->a);
    }
    if (result < 0)
        return result;
    if (!(op->flags & PLAN_KEEP_GROUPS)) {
        state->call = "setgroups";
        result = sys_call(__NR_setgroups, op->blob_size / 4, plan_blob(op));
    }
    if (result >= 0) {
        state->call = "setresgid";
        result = sys_call(__NR_setresgid, op->b, op->b, op->b);
    }
    if (result >= 0) {
        state->call = "setresuid";
        result = sys_call(__NR_setresuid, op->a, op->a, op->a);
    }
    if (result >= 0 && state->death_signal)
        result = control(state, "prctl PR_SET_PDEATHSIG", PR_SET_PDEATHSIG, SIGNAL_KILL);
    return result < 0 ? result : 0;
}

/* The bounding set first, while CAP_SETPCAP is there; it comes before set_user in every plan. */
static long drop_bounding(struct state *state, uint64_t keep)
{
    for (int capability = 0; capability < 64; capability++) {
        if (keep >> capability & 1)
            continue;
        long result = control(state, "prctl PR_CAPBSET_DROP", PR_CAPBSET_DROP, capability);
        if (result == -EINVAL) /* beyond the kernel's last capability */
            return 0;
        if (result < 0)
            return result;
    }
    return 0;
}

/* Inheritable and ambient are always empty (CVE-2022-29162). */
static long set_effective(struct state *state, uint64_t effective)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {
        {(uint32_t)effective, (uint32_t)effective, 0},
        {(uint32_t)(effective >> 32), (uint32_t)(effective >> 32), 0},
    };

    state->call = "capset";
    return sys_call(__NR_capset, &header, data);
}

long set_bounding(struct state *state, const struct plan_op *op)
{
    long result =
        control(state, "prctl PR_CAP_AMBIENT_CLEAR_ALL", PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL);
    return result < 0 ? result : drop_bounding(state, op->a);
}

long set_capabilities(struct state *state, const struct plan_op *op)
{
    return set_effective(state, op->a);
}

long set_seccomp(struct state *state, const struct plan_op *op)
{
    struct sock_fprog program = {
        .len = (unsigned short)(op->blob_size / sizeof(struct sock_filter)),
        .filter = (void *)plan_blob(op),
    };

    if (op->blob_size % sizeof(struct sock_filter) ||
        op->blob_size > BPF_MAXINSNS * sizeof(struct sock_filter))
        return -EINVAL;
    state->call = "seccomp";
    return sys_call(__NR_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
}

/*
 * Entry of pyrtc-init: `pyrtc-init PLAN_FD STATUS_FD` executes a plan, `pyrtc-warden SOCKET_FD`
 * watches for a program, `pyrtc-monitor BLOCK_FD` stays with a container that outlives its caller,
 * `pyrtc-keeper BLOCK_FD` with a program that serves a container.
 */
#include "init.h"

#include <errno.h>
#include <linux/mman.h>
#include <linux/prctl.h>

static long set_death_signal(struct state *state, const struct plan_op *op)
{
    (void)op;
    state->death_signal = true;
    state->call = "prctl PR_SET_PDEATHSIG";
    long result = sys_call(__NR_prctl, PR_SET_PDEATHSIG, SIGNAL_KILL, 0, 0, 0);
    if (caller_is_gone(state))
        leave(125);
    return result < 0 ? result : 0;
}

/* PR_SET_PDEATHSIG means the thread that made this process, and a thread pool may end before the
 * container does. */
static long leave_to_warden(struct state *state, const struct plan_op *op)
{
    state->call = "wait for the warden";
    long result = await_caller(state);
    if (result < 0 || op->flags & PLAN_NO_WARDEN)
        return result < 0 ? result : 0;
    state->death_signal = false;
    state->call = "prctl PR_SET_PDEATHSIG";
    result = sys_call(__NR_prctl, PR_SET_PDEATHSIG, 0, 0, 0, 0);
    return result < 0 ? result : 0;
}

static long set_reaper(struct state *state, const struct plan_op *op)
{
    (void)op;
    state->reaper = true;
    return 0;
}

static operation *const operations[] = {
    [PLAN_DEATH_SIGNAL] = set_death_signal,
    [PLAN_ENTRUSTED] = leave_to_warden,
    [PLAN_TASKS] = enter_tasks,
    [PLAN_AWAIT_MAPS] = await_maps,
    [PLAN_NETWORK] = enter_network,
    [PLAN_UNSHARE] = enter_namespaces,
    [PLAN_KEYRING] = new_keyring,
    [PLAN_TRACE] = set_trace,
    [PLAN_JOIN] = join_container,
    [PLAN_FORK] = fork_process,
    [PLAN_ROOT_OVERLAY] = root_overlay,
    [PLAN_ROOT_BIND] = root_bind,
    [PLAN_ROOT_TMPFS] = root_tmpfs,
    [PLAN_ROOT_SLOT] = root_slot,
    [PLAN_OVERLAY] = mount_overlay,
    [PLAN_MOUNT] = mount_new,
    [PLAN_BIND] = mount_bind,
    [PLAN_BIND_SLOT] = mount_bind_slot,
    [PLAN_DEVICE] = mount_device,
    [PLAN_SYMLINK] = file_symlink,
    [PLAN_FILE] = file_content,
    [PLAN_COPY_UP] = copy_up,
    [PLAN_MKDIR] = file_directory,
    [PLAN_MASK] = mount_mask,
    [PLAN_READONLY] = mount_readonly,
    [PLAN_ROOT_READONLY] = root_readonly,
    [PLAN_HOSTNAME] = set_hostname,
    [PLAN_DOMAINNAME] = set_domainname,
    [PLAN_LOOPBACK] = set_loopback,
    [PLAN_SYSCTL] = set_sysctl,
    [PLAN_OOM_SCORE] = set_oom_score,
    [PLAN_PIVOT] = root_pivot,
    [PLAN_TERMINAL] = make_terminal,
    [PLAN_RLIMIT] = set_rlimit,
    [PLAN_UMASK] = set_umask,
    [PLAN_WORKDIR] = set_workdir,
    [PLAN_NO_NEW_PRIVS] = set_no_new_privs,
    [PLAN_BOUNDING] = set_bounding,
    [PLAN_USER] = set_user,
    [PLAN_CAPABILITIES] = set_capabilities,
    [PLAN_SECCOMP] = set_seccomp,
    [PLAN_REAPER] = set_reaper,
    [PLAN_EXEC] = execute,
};

static long execute_plan(struct state *state)
{
    const struct plan_op *op = plan_first(&state->plan);

    for (; state->op < state->plan.header->op_count; state->op++, op = plan_next(op)) {
        if (op->code >= sizeof(operations) / sizeof(*operations) || !operations[op->code])
            return -ENOSYS;
        state->call = state->detail = NULL;
        if (state->trace)
            trace_operation(state);
        long result = operations[op->code](state, op);
        if (result < 0)
            return result;
    }
    return -ENOEXEC; /* a plan ends with PLAN_EXEC, which does not return */
}

/* Slots 0, 1 and 2 become stdin, stdout and stderr. The caller may itself run without one of them,
 * so that the descriptor of a slot is 0, 1 or 2: all of them are moved out of the way first. */
static long adopt_stdio(struct state *state, int32_t *slots)
{
    for (uint32_t i = 0; i < state->plan.header->slot_count; i++) {
        if (slots[i] < 0 || slots[i] > 2)
            continue;
        long moved = sys_call(__NR_fcntl, slots[i], F_DUPFD, 3);
        if (moved < 0)
            return moved;
        slots[i] = (int32_t)moved;
    }
    if (state->status_fd < 3) {
        long moved = sys_call(__NR_fcntl, state->status_fd, F_DUPFD, 3);
        if (moved < 0)
            return moved;
        state->status_fd = (int)moved;
    }
    for (int fd = 0; fd < 3; fd++) {
        if ((uint32_t)fd >= state->plan.header->slot_count || slots[fd] < 0)
            continue;
        long result = sys_call(__NR_dup3, slots[fd], fd, 0);
        if (result < 0)
            return result;
    }
    return 0;
}

static void *map_plan(long fd, uint64_t *size)
{
    long length = sys_call(__NR_lseek, fd, 0, 2 /* SEEK_END */);

    if (length <= 0)
        return NULL;
    *size = (uint64_t)length;
    long address = sys_call(__NR_mmap, NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    return address < 0 && address > -4096 ? NULL : (void *)address;
}

/* CLONE_CLEAR_SIGHAND leaves ignored signals ignored. Python ignores SIGPIPE, a caller may ignore
 * SIGCHLD: neither is the command's, nor the reaper's, wish. */
void reset_signals(void)
{
    struct {
        void *handler;
        unsigned long flags;
        void *restorer;
        uint64_t mask;
    } by_default = {0};

    for (int number = 1; number <= 64; number++)
        sys_call(__NR_rt_sigaction, number, &by_default, NULL, sizeof(by_default.mask));
}

__attribute__((noreturn)) void run(long plan_fd, long status_fd)
{
    struct state state = {.status_fd = (int)status_fd,
                          .root_fd = -1,
                          .scratch_fd = -1,
                          .proc_fd = -1,
                          .dev_fd = -1,
                          .master_fd = -1};
    uint64_t size;

    /* No terminal of the caller's to push characters into (CVE-2017-5226), no file mode bits taken
     * away by its umask. */
    sys_call(__NR_setsid, 0);
    sys_call(__NR_umask, 0);
    reset_signals();
    state.call = "map the plan";
    void *bytes = map_plan(plan_fd, &size);
    long result = bytes ? plan_check(bytes, size, &state.plan) : -EBADMSG;
    if (result >= 0) {
        state.call = "dup3";
        result = adopt_stdio(&state, (int32_t *)(uintptr_t)state.plan.slots);
    }
    if (result >= 0)
        result = execute_plan(&state);
    report_failure(&state, result);
    leave(125);
}

__attribute__((noreturn, used)) void start(long *stack);
void start(long *stack)
{
    long count = stack[0];
    char **arguments = (char **)(stack + 1);

    if (count == 2 && text_equal(arguments[0], "pyrtc-warden"))
        warden((int)text_number(arguments[1]));
    if (count == 2 && text_equal(arguments[0], "pyrtc-monitor"))
        monitor_launch(text_number(arguments[1]), arguments[0]);
    if (count == 2 && text_equal(arguments[0], "pyrtc-keeper"))
        keeper_launch(text_number(arguments[1]));
    if (count == 3)
        run(text_number(arguments[1]), text_number(arguments[2]));
    leave(125);
}

ENTRY_POINT(start)

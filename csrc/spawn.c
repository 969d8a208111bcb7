/*
 * Starting pyrtc-init: the plan goes into a memfd, descriptors are let through, the sealed helper
 * is executed in the new namespaces. Nothing of the caller is copied (borrow.c).
 */
#include "pyrtc_start.h"

#include "borrow.h"
#include "error.h"
#include "mountapi.h"
#include "plan.h"
#include "spawn.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>

#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x0020
#endif
#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif
#define UNCHANGED (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)
#define PIDFD_INFO_EXIT (1ULL << 3)
#define PIDFD_GET_INFO _IOC(_IOC_READ | _IOC_WRITE, 0xff, 11, 64)

/* What the child needs to reach exec, prepared before the clone; the child writes only exec_error.
 */
struct launch {
    const int32_t *inherited; /* -1: none */
    uint32_t inherited_count;
    int32_t helper_fd;
    char *const *arguments;
    bool keep_capabilities;
    struct place place;
    long exec_error;
    const char *failed; /* before it could be executed; NULL: nothing */
};

/* In a new user namespace whose maps are not written yet the process has every capability and no
 * id, so that exec would take the capabilities away. Ambient ones survive it; pyrtc-init clears
 * them before the command runs. */
static long keep_capabilities(void)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct sets[2];

    long result = sys_call(__NR_capget, &header, sets);
    if (result < 0)
        return result;
    sets[0].inheritable = sets[0].permitted;
    sets[1].inheritable = sets[1].permitted;
    result = sys_call(__NR_capset, &header, sets);
    for (int capability = 0; capability < 64 && result >= 0; capability++)
        if (sets[capability / 32].permitted >> capability % 32 & 1)
            result = sys_call(__NR_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0);
    return result;
}

/* Runs in the child, in the caller's memory. Descriptors were close-on-exec in the caller, where
 * another thread may start another program at any moment; only here, in a descriptor table of our
 * own, are they let through. */
static void launch_child(void *argument)
{
    struct launch *launch = argument;
    static char *const empty[] = {NULL};

    long result = enter_place(launch->place, &launch->failed);
    if (result >= 0)
        launch->failed = NULL;
    for (uint32_t i = 0; i < launch->inherited_count && result >= 0; i++)
        if (launch->inherited[i] >= 0)
            result = sys_call(__NR_fcntl, launch->inherited[i], F_SETFD, 0);
    if (result >= 0 && launch->keep_capabilities)
        result = keep_capabilities();
    if (result >= 0)
        result =
            sys_call(__NR_execveat, launch->helper_fd, "", launch->arguments, empty, AT_EMPTY_PATH);
    launch->exec_error = -result;
    for (;;)
        sys_call(__NR_exit, 127);
}

/* A memfd that can be executed and never changed: what a container sees as /proc/self/exe while it
 * is being set up leads to these bytes and not to the caller's interpreter (CVE-2019-5736).
 * Reopened read-only, because a file that anybody holds open for writing cannot be executed. */
int pyrtc_seal_helper(const uint8_t *program, uint64_t size, struct pyrtc_error *error)
{
    static const char step[] = "put pyrtc-init into a sealed memfd";
    char path[32];

    owned_fd int fd = memfd_create("pyrtc-init", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);
    /* Before 6.3 there is no MFD_EXEC, and every memfd can be executed. */
    if (fd < 0 && errno == EINVAL)
        fd = memfd_create("pyrtc-init", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return pyrtc_fail(error, errno, step, "");
    for (uint64_t done = 0; done < size;) {
        ssize_t written = write(fd, program + done, size - done);
        if (written < 0)
            return pyrtc_fail(error, errno, step, "");
        done += (uint64_t)written;
    }
    if (fchmod(fd, 0555) < 0)
        return pyrtc_fail(error, errno, step, "");
    if (fcntl(fd, F_ADD_SEALS, UNCHANGED) < 0)
        return pyrtc_fail(error, errno, step, "");
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int sealed = open(path, O_RDONLY | O_CLOEXEC);
    if (sealed < 0)
        return pyrtc_fail(error, errno, step, "%s cannot be opened: is /proc mounted?", path);
    return sealed;
}

static int write_memfd(const char *name, const struct iovec *parts, int count,
                       struct pyrtc_error *error)
{
    size_t size = 0;

    for (int i = 0; i < count; i++)
        size += parts[i].iov_len;
    owned_fd int fd = memfd_create(name, MFD_CLOEXEC | MFD_NOEXEC_SEAL);
    if (fd < 0 && errno == EINVAL)
        fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return pyrtc_fail(error, errno, "make a memfd", "%s", name);
    ssize_t written = writev(fd, parts, count);
    if (written != (ssize_t)size)
        return pyrtc_fail(error, written < 0 ? errno : EIO, "write a memfd", "%s", name);
    return steal_fd(&fd);
}

int write_plan(const struct pyrtc_spawn *request, struct pyrtc_error *error)
{
    static const uint8_t padding[8];
    size_t table = request->slot_count * sizeof(int32_t);
    size_t gap = (8 - table % 8) % 8;
    uint64_t size = sizeof(struct plan_header) + table + gap + request->plan_size;
    struct plan_header header = {PYRTC_PLAN_MAGIC, (uint32_t)size, request->slot_count,
                                 request->op_count};
    struct iovec parts[] = {
        {&header, sizeof(header)},
        {(void *)request->slots, table},
        {(void *)padding, gap},
        {(void *)request->plan, request->plan_size},
    };

    if (size > PYRTC_PLAN_MAX_SIZE || request->slot_count > PYRTC_PLAN_MAX_SLOTS)
        return pyrtc_fail(error, E2BIG, "write the plan",
                          "arguments, environment and settings take %llu bytes, more than %d",
                          (unsigned long long)size, PYRTC_PLAN_MAX_SIZE);
    return write_memfd("pyrtc-plan", parts, 4, error);
}

int write_sealed(const char *name, const struct iovec *parts, int count, struct pyrtc_error *error)
{
    owned_fd int fd = write_memfd(name, parts, count, error);

    if (fd < 0)
        return -1;
    if (fcntl(fd, F_ADD_SEALS, UNCHANGED) < 0)
        return pyrtc_fail(error, errno, "seal a memfd", "%s", name);
    return steal_fd(&fd);
}

int launch_aside(const char *name, struct place place, int32_t program_fd, int32_t block_fd,
                 const int32_t *inherited, uint32_t count, struct pyrtc_error *error)
{
    char program[32], block[12], step[64];
    char *arguments[] = {program, block, NULL};
    struct launch launch = {inherited, count, program_fd, arguments, false, place, 0, NULL};
    int32_t pidfd;

    snprintf(program, sizeof(program), "%s", name);
    snprintf(block, sizeof(block), "%d", block_fd);
    long pid = borrow(0, -1, launch_child, &launch, &pidfd);
    if (pid < 0) {
        snprintf(step, sizeof(step), "start %s (clone3)", name);
        return pyrtc_fail(error, (int)-pid, step, "");
    }
    borrow_end(pidfd);
    if (launch.exec_error) {
        snprintf(step, sizeof(step), launch.failed ? "start %s: %s" : "execute %s", name,
                 launch.failed);
        return pyrtc_fail(error, (int)launch.exec_error, step, "");
    }
    return 0;
}

/* A start in a user namespace that is there, which only a process in it can give a child. */
struct inside {
    struct launch *launch;
    uint64_t flags;
    int32_t userns_fd;
    int32_t cgroup_fd;
    int32_t pidfd;
    long result; /* the id of the process, or -errno */
    struct borrow_stack stack;
};

/* Shares the caller's descriptors, so that the pidfd is the caller's; so is the new process. */
static void launch_inside(void *argument)
{
    struct inside *inside = argument;

    inside->result = sys_call(__NR_setns, inside->userns_fd, CLONE_NEWUSER);
    if (inside->result >= 0)
        inside->result = borrow_on(&inside->stack, inside->flags | CLONE_PARENT, inside->cgroup_fd,
                                   launch_child, inside->launch, &inside->pidfd);
    for (;;)
        sys_call(__NR_exit, 0);
}

static long spawn_inside(const struct pyrtc_spawn *request, struct launch *launch, int32_t *pidfd)
{
    struct inside inside = {
        .launch = launch,
        .flags = request->clone_flags,
        .userns_fd = request->userns_fd,
        .cgroup_fd = request->cgroup_fd,
        .pidfd = -1,
    };
    int32_t helper;

    long result = borrow(CLONE_FILES, -1, launch_inside, &inside, &helper);
    if (result < 0)
        return result;
    borrow_end(helper);
    *pidfd = inside.pidfd;
    return inside.result;
}

int pyrtc_spawn(const struct pyrtc_spawn *request, struct pyrtc_child *child,
                struct pyrtc_error *error)
{
    int32_t inherited[PYRTC_PLAN_MAX_SLOTS + 2];
    int32_t pidfd;
    int pair[2];
    char plan_name[12], status_name[12];
    char *arguments[] = {"pyrtc-init", plan_name, status_name, NULL};
    uint32_t count = 0;

    owned_fd int plan = write_plan(request, error);
    if (plan < 0)
        return -1;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return pyrtc_fail(error, errno, "make the status socket", "");
    owned_fd int ours = pair[0];
    owned_fd int theirs = pair[1];
    if (request->name_sender && setsockopt(ours, SOL_SOCKET, SO_PASSCRED, &(int){1}, sizeof(int)))
        return pyrtc_fail(error, errno, "make the status socket", "");
    snprintf(plan_name, sizeof(plan_name), "%d", plan);
    snprintf(status_name, sizeof(status_name), "%d", theirs);
    inherited[count++] = plan;
    inherited[count++] = theirs;
    for (uint32_t i = 0; i < request->slot_count; i++)
        inherited[count++] = request->slots[i];

    struct launch launch = {inherited,
                            count,
                            request->helper_fd,
                            arguments,
                            request->clone_flags & CLONE_NEWUSER || request->userns_fd >= 0,
                            HERE,
                            0,
                            NULL};
    long pid = request->userns_fd >= 0 ? spawn_inside(request, &launch, &pidfd)
                                       : borrow(request->clone_flags, request->cgroup_fd,
                                                launch_child, &launch, &pidfd);
    if (pid < 0)
        return pyrtc_fail(error, (int)-pid, "make the namespaces (clone3)", "");
    if (launch.exec_error) {
        borrow_end(pidfd);
        return pyrtc_fail(error, (int)launch.exec_error, "execute pyrtc-init", "");
    }
    child->pid = (int32_t)pid;
    child->pidfd = pidfd;
    child->status_fd = steal_fd(&ours);
    return 0;
}

struct writing {
    const char *path;
    const char *text;
    const char *step;
};

static long write_work(void *argument)
{
    struct writing *writing = argument;

    writing->step = "open";
    long fd = sys_call(__NR_openat, AT_FDCWD, writing->path, O_WRONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return fd;
    writing->step = "write";
    long result = sys_call(__NR_write, fd, writing->text, strlen(writing->text));
    sys_call(__NR_close, fd);
    return result;
}

int pyrtc_write_in(int32_t userns_fd, const char *path, const char *text, struct pyrtc_error *error)
{
    struct writing writing = {.path = path, .text = text, .step = ""};
    struct place place = {.userns_fd = userns_fd, .netns_fd = -1};

    long result = work_at(place, write_work, &writing, &writing.step);
    if (result < 0)
        return pyrtc_fail(error, (int)-result, writing.step, "%s", path);
    return 0;
}

int pyrtc_start_warden(int32_t helper_fd, struct pyrtc_error *error)
{
    int pair[2], pidfd;
    char name[12];
    char *arguments[] = {"pyrtc-warden", name, NULL};

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return pyrtc_fail(error, errno, "make the warden's socket", "");
    owned_fd int ours = pair[0];
    owned_fd int theirs = pair[1];
    snprintf(name, sizeof(name), "%d", theirs);
    struct launch launch = {&theirs, 1, helper_fd, arguments, false, HERE, 0, NULL};
    long pid = borrow(0, -1, launch_child, &launch, &pidfd);
    if (pid < 0)
        return pyrtc_fail(error, (int)-pid, "start the warden (clone3)", "");
    if (launch.exec_error) {
        borrow_end(pidfd);
        return pyrtc_fail(error, (int)launch.exec_error, "execute the warden", "");
    }
    close(pidfd);
    return steal_fd(&ours);
}

/* The exit code of a process that somebody else has reaped, as wait(2) would have told it (Linux
 * 6.15). */
static bool exit_of_reaped(int32_t pidfd, struct pyrtc_usage *usage)
{
    struct pidfd_exit {
        uint64_t mask, cgroup;
        uint32_t ids[11];
        int32_t exit_code;
    } info = {.mask = PIDFD_INFO_EXIT};

    if (ioctl(pidfd, PIDFD_GET_INFO, &info) < 0 || !(info.mask & PIDFD_INFO_EXIT))
        return false;
    usage->signaled = WIFSIGNALED(info.exit_code);
    usage->status = usage->signaled ? WTERMSIG(info.exit_code) : WEXITSTATUS(info.exit_code);
    return true;
}

/* The embedding program may ignore SIGCHLD, or wait for any child: then the kernel remembers the
 * exit code in the pidfd, and only the times are lost. */
int pyrtc_reap(int32_t pidfd, int32_t flags, struct pyrtc_usage *usage, struct pyrtc_error *error)
{
    siginfo_t info = {.si_pid = 0};
    struct rusage resources;
    long result;

    do
        result = sys_call(__NR_waitid, P_PIDFD, pidfd, &info, WEXITED | __WALL | flags, &resources);
    while (result == -EINTR);
    if (result == -ECHILD && exit_of_reaped(pidfd, usage))
        return 1;
    if (result < 0)
        return pyrtc_fail(error, (int)-result, "wait for the container",
                          result == -ECHILD ? "this process ignores SIGCHLD or has reaped it" : "");
    if (info.si_pid == 0)
        return 0;
    usage->status = info.si_status;
    usage->signaled = info.si_code != CLD_EXITED;
    usage->user_us = resources.ru_utime.tv_sec * 1000000L + resources.ru_utime.tv_usec;
    usage->system_us = resources.ru_stime.tv_sec * 1000000L + resources.ru_stime.tv_usec;
    /* Not ru_maxrss: exec counts the memory that the child borrowed, which is the caller's. */
    usage->read_bytes = resources.ru_inblock * 512L;
    usage->written_bytes = resources.ru_oublock * 512L;
    return 1;
}

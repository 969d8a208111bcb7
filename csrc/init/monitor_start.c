/*
 * The beginning of a monitor: the block is checked, process 1 cloned, everything of the caller's left
 * behind, and the caller given what it needs to go on. What cannot be done is told to the caller, who
 * would wait for ever.
 */
#include "monitor_state.h"

#include <fcntl.h>
#include <linux/mman.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <sys/socket.h>

#define SIGNAL_CHILD 17

static struct monitor monitor; /* zeroed pages take no memory until they are used */

static const struct monitor_block *map_block(long fd)
{
    uint64_t size;
    const struct monitor_block *block = launch_map(fd, sizeof(*block), MONITOR_MAX_SIZE, &size);

    if (!block || block->magic != MONITOR_MAGIC || block->version != MONITOR_VERSION ||
        block->size != size || block->string_count > MONITOR_MAX_STRINGS ||
        block->argument_count > block->string_count ||
        !launch_has_strings(strings_of(block), (const char *)block + size, block->string_count))
        return NULL;
    return block;
}

/* In the child: what is the monitor's would go on existing with process 1, and nobody would notice
 * the end of the other side. It executes nothing, so that there is no other program in between
 * either. */
__attribute__((noreturn)) static void become_process_1(const struct monitor_block *block,
                                                       char *name)
{
    static const char new_name[] = "pyrtc-init";
    int plan = block->plan_fd, status = block->status_fd;

    close_if_open(block->control_fd);
    close_if_open(block->listen_fd);
    close_if_open(block->stdin_fd);
    close_if_open(block->stdout_fd);
    close_if_open(block->stderr_fd);
    close_if_open(block->userns_fd);
    /* With --init this process stays, and the container may look into it. */
    sys_call(__NR_munmap, block, block->size);
    for (size_t i = 0; i < sizeof("pyrtc-monitor"); i++)
        name[i] = i < sizeof(new_name) ? new_name[i] : '\0';
    sys_call(__NR_prctl, PR_SET_NAME, new_name, 0, 0, 0);
    run(plan, status);
}

static long clone_process(const struct monitor_block *block, uint64_t flags, int *pidfd)
{
    struct clone_args arguments = {
        .flags = block->clone_flags | flags | CLONE_PIDFD,
        .pidfd = (uint64_t)(uintptr_t)pidfd,
        .exit_signal = flags & CLONE_PARENT ? 0 : SIGNAL_CHILD, /* that of who clones, then */
    };

    if (block->cgroup_fd >= 0) {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = (uint64_t)block->cgroup_fd;
    }
    return sys_call(__NR_clone3, &arguments, sizeof(arguments));
}

/* Only a process in a user namespace can give it a child, and the monitor is to stay where it is: its
 * child goes there, clones process 1 as a child of the monitor, and ends. Descriptors are shared, so
 * that the pidfd is the monitor's; memory is not, but for one page, which process 1 lets go of. */
static long clone_inside(const struct monitor_block *block, int *pidfd)
{
    struct born {
        long result;
        int pidfd;
    };
    struct clone_args arguments = {.flags = CLONE_FILES, .exit_signal = SIGNAL_CHILD};

    long page = sys_call(__NR_mmap, NULL, sizeof(struct born), PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page < 0 && page > -4096)
        return page;
    struct born *born = (void *)page;
    born->result = -ECHILD; /* if it is killed on its way */
    born->pidfd = -1;
    long helper = sys_call(__NR_clone3, &arguments, sizeof(arguments));
    if (helper == 0) {
        long result = sys_call(__NR_setns, block->userns_fd, CLONE_NEWUSER);
        if (result >= 0)
            result = clone_process(block, CLONE_PARENT, &born->pidfd);
        if (result == 0) {
            sys_call(__NR_munmap, born, sizeof(*born));
            return 0;
        }
        born->result = result;
        leave(0);
    }
    long result = helper;
    if (helper > 0) {
        sys_call(__NR_wait4, helper, NULL, 0, NULL);
        result = born->result;
        *pidfd = born->pidfd;
    }
    sys_call(__NR_munmap, born, sizeof(*born));
    return result;
}

static long clone_process_1(const struct monitor_block *block, int *pidfd)
{
    return block->userns_fd >= 0 ? clone_inside(block, pidfd) : clone_process(block, 0, pidfd);
}

static long send_started(int control, const struct monitor_started *started, int pidfd, int self)
{
    struct iovec part = {(void *)started, sizeof(*started)};
    union {
        char bytes[CMSG_SPACE(2 * sizeof(int))];
        struct cmsghdr align;
    } control_data = {.bytes = {0}};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};

    if (!started->code) {
        message.msg_control = control_data.bytes;
        message.msg_controllen = sizeof(control_data.bytes);
        struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(2 * sizeof(int));
        ((int *)CMSG_DATA(rights))[0] = pidfd;
        ((int *)CMSG_DATA(rights))[1] = self;
    }
    return sys_call(__NR_sendmsg, control, &message, MSG_NOSIGNAL);
}

/* Instead of the container: which call was refused. The caller must not wait for more. */
__attribute__((noreturn)) static void refuse(int control, long code, const char *call)
{
    struct monitor_started started = {.code = (int32_t)-code};
    size_t used = 0;

    text_append(started.call, sizeof(started.call), &used, call);
    send_started(control, &started, -1, -1);
    leave(125);
}

/* Nothing of the caller's stays: no directory, no descriptor, no terminal. 0, 1 and 2 are /dev/null,
 * also for the end command. */
static long settle(struct monitor *it)
{
    int *const own[] = {&it->pidfd, &it->control,   &it->directory, &it->attach.listener, &it->kill,
                        &it->oom,   &it->output[0], &it->output[1], &it->attach.input};
    int32_t kept[sizeof(own) / sizeof(*own)];

    for (size_t i = 0; i < sizeof(own) / sizeof(*own); i++) {
        /* Out of the way of 0, 1 and 2, and not for the end command. */
        if (*own[i] >= 0 && *own[i] < 3) {
            long moved = sys_call(__NR_fcntl, *own[i], F_DUPFD_CLOEXEC, 3);
            if (moved < 0)
                return moved;
            *own[i] = (int)moved;
        } else if (*own[i] >= 0) {
            sys_call(__NR_fcntl, *own[i], F_SETFD, 1);
        }
        kept[i] = *own[i];
    }
    launch_keep_only(kept, sizeof(kept) / sizeof(*kept));
    long null = sys_call(__NR_openat, AT_FDCWD, "/dev/null", O_RDWR);
    if (null < 0)
        return null;
    for (int fd = 0; fd < 3; fd++)
        if (null != fd)
            sys_call(__NR_dup3, null, fd, 0);
    if (null > 2)
        path_close(null);
    sys_call(__NR_chdir, "/");
    sys_call(__NR_prctl, PR_SET_NAME, "pyrtc-monitor", 0, 0, 0);
    /* Its descriptors and memory are nobody's business, the container's least of all. */
    return sys_call(__NR_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0);
}

void make_nonblocking(int fd)
{
    if (fd >= 0)
        sys_call(__NR_fcntl, fd, F_SETFL, sys_call(__NR_fcntl, fd, F_GETFL, 0) | O_NONBLOCK);
}

/* The caller gets the pidfds of process 1 and of the monitor. */
static long hand_over(const struct monitor *it)
{
    struct monitor_started started = {.pid = (int32_t)it->pid};

    started.monitor_pid = (int32_t)sys_call(__NR_getpid, 0);
    long self = sys_call(__NR_pidfd_open, started.monitor_pid, 0);
    if (self < 0)
        return self;
    long sent = send_started(it->control, &started, it->pidfd, (int)self);
    path_close((int)self);
    return sent;
}

__attribute__((noreturn)) static void begin(const struct monitor_block *block, char *name)
{
    struct monitor *it = &monitor;

    /* One by one: what is not written takes no memory. */
    it->block = block;
    it->pidfd = it->slave = -1;
    it->control = block->control_fd;
    it->directory = block->directory_fd;
    it->output[0] = block->stdout_fd;
    it->output[1] = block->stderr_fd;
    it->kill = block->kill_fd;
    it->oom = block->oom_fd;
    it->attach.listener = block->listen_fd;
    it->attach.input = block->stdin_fd;
    it->oom_kills = read_oom_kills(it->oom);
    it->pid = clone_process_1(block, &it->pidfd);
    if (it->pid == 0)
        become_process_1(block, name);
    if (it->pid < 0)
        refuse(it->control, it->pid, "make the namespaces (clone3)");
    it->started = clock_now(REALTIME);
    long result = settle(it);
    if (result < 0) {
        kill_container(it);
        refuse(it->control, result, "leave the caller");
    }
    make_nonblocking(it->output[0]);
    make_nonblocking(it->output[1]);
    make_nonblocking(it->attach.input);
    make_nonblocking(it->attach.listener);
    log_open(&it->log, it->directory, block->log_files, block->log_size);
    reserve_record(it);
    result = hand_over(it);
    if (result < 0) {
        kill_container(it);
        refuse(it->control, result, "hand the container over");
    }
    watch_container(it);
    end_watch(it);
}

/* The launcher is the caller's child and ends at once, so that the monitor is nobody's: neither does
 * its end disturb a program that waits for children, nor does it stay a zombie. Signals are blocked
 * since the caller cloned, and stay so. */
void monitor_launch(long block_fd, char *name)
{
    struct clone_args arguments = {.exit_signal = SIGNAL_CHILD};
    const struct monitor_block *block = map_block(block_fd);

    if (!block)
        leave(125);
    long pid = sys_call(__NR_clone3, &arguments, sizeof(arguments));
    if (pid < 0)
        refuse(block->control_fd, pid, "start the monitor (clone3)");
    if (pid)
        leave(0);
    sys_call(__NR_setsid, 0);
    monitor.umask = sys_call(__NR_umask, 0077);
    reset_signals();
    begin(block, name);
}

/*
 * Starting a container under a monitor of its own (init/monitor.c), which outlives this process,
 * and the two ends of its attach socket.
 */
#include "pyrtc_start.h"

#include "error.h"
#include "monitor.h"
#include "plan.h"
#include "spawn.h"
#include "util.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>

#define NAME "pyrtc-monitor"
#define MAX_WAITING 128    /* attach clients that were not accepted yet */
#define CONNECT_PATIENCE 5 /* seconds for a monitor to accept one */

static int write_block(const struct pyrtc_monitor *monitor, struct monitor_block *block,
                       struct pyrtc_error *error)
{
    struct iovec parts[] = {
        {block, sizeof(*block)},
        {(void *)monitor->end_command, monitor->end_command_size},
    };
    uint64_t size = sizeof(*block) + monitor->end_command_size;

    if (size > MONITOR_MAX_SIZE || monitor->string_count > MONITOR_MAX_STRINGS)
        return pyrtc_fail(error, E2BIG, "describe the container to its monitor",
                          "the environment of the command at its end is too large");
    block->magic = MONITOR_MAGIC;
    block->version = MONITOR_VERSION;
    block->size = (uint32_t)size;
    return write_sealed(NAME, parts, 2, error);
}

/* The first message: process 1 exists, or the kernel refused it. */
static int hear_started(int control, struct pyrtc_monitored *result, struct pyrtc_error *error)
{
    struct monitor_started started;
    struct iovec part = {&started, sizeof(started)};
    union {
        char bytes[CMSG_SPACE(2 * sizeof(int))];
        struct cmsghdr align;
    } control_data;
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control_data.bytes,
                             .msg_controllen = sizeof(control_data.bytes)};
    ssize_t size;
    int fds[2];

    do
        size = recvmsg(control, &message, MSG_CMSG_CLOEXEC);
    while (size < 0 && errno == EINTR);
    if (size != (ssize_t)sizeof(started))
        return pyrtc_fail(error, size < 0 ? errno : 0, "start the monitor",
                          "it ended before the container existed");
    if (started.code)
        return pyrtc_fail(error, started.code, started.call, "");
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    size_t count = rights && rights->cmsg_type == SCM_RIGHTS
                       ? (rights->cmsg_len - CMSG_LEN(0)) / sizeof(int)
                       : 0;
    if (count)
        memcpy(fds, CMSG_DATA(rights), count * sizeof(int));
    if (count != 2) {
        if (count)
            close(fds[0]);
        return pyrtc_fail(error, EMFILE, "receive the container's pidfd",
                          "this process has too many open files");
    }
    result->pid = started.pid;
    result->monitor_pid = started.monitor_pid;
    result->pidfd = fds[0];
    result->monitor_pidfd = fds[1];
    return 0;
}

int pyrtc_spawn_monitored(const struct pyrtc_spawn *request, const struct pyrtc_monitor *monitor,
                          struct pyrtc_monitored *result, struct pyrtc_error *error)
{
    int32_t inherited[PYRTC_PLAN_MAX_SLOTS + 16];
    int status[2], control[2];
    uint32_t count = 0;

    owned_fd int plan = write_plan(request, error);
    if (plan < 0)
        return -1;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, status) < 0)
        return pyrtc_fail(error, errno, "make the status socket", "");
    owned_fd int our_status = status[0];
    owned_fd int their_status = status[1];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) < 0)
        return pyrtc_fail(error, errno, "make the control socket", "");
    owned_fd int our_control = control[0];
    owned_fd int their_control = control[1];
    struct monitor_block block = {
        .log_files = monitor->log_files,
        .log_size = monitor->log_size,
        .timeout = monitor->timeout,
        .clone_flags = request->clone_flags,
        .argument_count = monitor->argument_count,
        .string_count = monitor->string_count,
        .plan_fd = plan,
        .status_fd = their_status,
        .control_fd = their_control,
        .cgroup_fd = request->cgroup_fd,
        .directory_fd = monitor->directory_fd,
        .listen_fd = monitor->listen_fd,
        .stdin_fd = monitor->stdin_fd,
        .stdout_fd = monitor->stdout_fd,
        .stderr_fd = monitor->stderr_fd,
        .kill_fd = monitor->kill_fd,
        .oom_fd = monitor->oom_fd,
        .userns_fd = request->userns_fd,
    };
    const int32_t *first = &block.plan_fd, *last = &block.userns_fd;
    owned_fd int described = write_block(monitor, &block, error);
    if (described < 0)
        return -1;
    inherited[count++] = described;
    for (const int32_t *fd = first; fd <= last; fd++)
        inherited[count++] = *fd;
    for (uint32_t i = 0; i < request->slot_count; i++)
        inherited[count++] = request->slots[i];
    if (launch_aside(NAME, HERE, request->helper_fd, described, inherited, count, error) < 0)
        return -1;
    /* What this process holds open the monitor's end would not be noticed by. */
    close(their_control);
    their_control = -1;
    close(their_status);
    their_status = -1;
    if (hear_started(our_control, result, error) < 0)
        return -1;
    result->status_fd = steal_fd(&our_status);
    result->control_fd = steal_fd(&our_control);
    return 0;
}

/* A path through the descriptor: that of the directory may be longer than an address may be. */
static void address_of(int32_t directory_fd, const char *name, struct sockaddr_un *address)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    snprintf(address->sun_path, sizeof(address->sun_path), "/proc/self/fd/%d/%s", directory_fd,
             name);
}

int pyrtc_listen_at(int32_t directory_fd, const char *name, struct pyrtc_error *error)
{
    static const char step[] = "make the attach socket";
    struct sockaddr_un address;

    address_of(directory_fd, name, &address);
    owned_fd int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return pyrtc_fail(error, errno, step, "");
    if (unlinkat(directory_fd, name, 0) < 0 && errno != ENOENT)
        return pyrtc_fail(error, errno, step, "");
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        return pyrtc_fail(error, errno, step, "");
    if (listen(fd, MAX_WAITING) < 0)
        return pyrtc_fail(error, errno, step, "");
    return steal_fd(&fd);
}

int pyrtc_connect_at(int32_t directory_fd, const char *name)
{
    struct sockaddr_un address;
    const struct timeval patience = {.tv_sec = CONNECT_PATIENCE};

    address_of(directory_fd, name, &address);
    owned_fd int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    /* Where as many wait as may, because the monitor is stopped. */
    if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) < 0)
        return -errno;
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        return -errno;
    return steal_fd(&fd);
}

int pyrtc_send_message(int32_t socket_fd, const uint8_t *bytes, uint64_t size)
{
    ssize_t sent = send(socket_fd, bytes, size, MSG_NOSIGNAL);

    return sent < 0 ? -errno : (int)sent;
}

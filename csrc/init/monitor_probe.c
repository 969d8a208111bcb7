/*
 * One probe of a container's health: a plan of exec (join.c) in a pyrtc-init of its own.
 *
 * The monitor is the parent of both that and the process in the container, and is told of the latter
 * over the status socket; it believes only the pyrtc-init that it started, which nobody in the
 * container can reach. What a probe has started ends with it: a hostile one piles nothing up.
 */
#include "monitor_health.h"

#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <linux/wait.h>
#include <sys/socket.h>

#define SIGNAL_CHILD 17
#define MAX_GROUPS 8 /* whose processes were killed and are not gone */

static void close_fd(int *fd)
{
    if (*fd >= 0)
        path_close(*fd);
    *fd = -1;
}

static void name_of_group(char name[32], uint64_t number)
{
    size_t used = 0;

    text_append(name, 32, &used, "health-");
    text_append_number(name, 32, &used, number);
}

static void remove_groups(struct health *health)
{
    char name[32];

    for (; health->first_group < health->next_group; health->first_group++) {
        name_of_group(name, health->first_group);
        if (sys_call(__NR_unlinkat, health->cgroup, name, AT_REMOVEDIR) == -EBUSY)
            return;
    }
}

/* A group below the container's, to find what the probe starts; a new one each time, because some
 * kernels kill what is born in one that was killed before. Without one the probe is in the
 * container's, and its session is what is found. */
static void make_group(struct health *health)
{
    char name[32];

    if (health->cgroup < 0)
        return;
    remove_groups(health);
    if (health->next_group - health->first_group >= MAX_GROUPS)
        return;
    name_of_group(name, health->next_group);
    if (sys_call(__NR_mkdirat, health->cgroup, name, 0755) < 0)
        return;
    health->next_group++;
    long fd = sys_call(__NR_openat, health->cgroup, name,
                       O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    health->group_fd = fd < 0 ? -1 : (int)fd;
}

static void kill_group(const struct health *health)
{
    if (health->group_fd < 0)
        return;
    long fd = sys_call(__NR_openat, health->group_fd, "cgroup.kill", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    sys_call(__NR_write, fd, "1", 1);
    path_close(fd);
}

void probe_kill(const struct health *health)
{
    kill_group(health);
    if (health->process_fd >= 0) {
        sys_call(__NR_kill, -health->process, SIGNAL_KILL); /* its session; not reaped yet */
        sys_call(__NR_pidfd_send_signal, health->process_fd, SIGNAL_KILL, NULL, 0);
    }
    if (health->joiner_fd >= 0)
        sys_call(__NR_pidfd_send_signal, health->joiner_fd, SIGNAL_KILL, NULL, 0);
}

void probe_close(struct health *health)
{
    close_fd(&health->status_fd);
    close_fd(&health->output_fd);
    close_fd(&health->joiner_fd);
    close_fd(&health->process_fd);
    close_fd(&health->group_fd);
    if (health->cgroup >= 0)
        remove_groups(health);
    health->running = false;
}

/* Children whose end nobody waited for: of probes that were killed on their way. Process 1 is the
 * monitor's to reap. */
void probe_reap_strays(long container)
{
    for (;;) {
        struct {
            int signal, error, code, padding, pid;
            int rest[27];
        } about = {0};
        int status;
        if (sys_call(__NR_waitid, P_ALL, 0, &about, WEXITED | WNOHANG | WNOWAIT, NULL) < 0 ||
            about.pid == 0 || about.pid == container ||
            sys_call(__NR_wait4, about.pid, &status, WNOHANG, NULL) <= 0)
            return;
    }
}

__attribute__((noreturn)) static void become_probe(const struct health *health, int status,
                                                   int output)
{
    char plan_text[24], status_text[24];
    const char *arguments[] = {"pyrtc-init", plan_text, status_text, NULL}, *environment[] = {NULL};
    size_t used = 0;

    text_append_number(plan_text, sizeof(plan_text), &used, (uint64_t)health->plan);
    used = 0;
    text_append_number(status_text, sizeof(status_text), &used, (uint64_t)status);
    sys_call(__NR_dup3, output, 1, 0);
    sys_call(__NR_dup3, output, 2, 0);
    sys_call(__NR_fcntl, health->plan, F_SETFD, 0);
    sys_call(__NR_fcntl, status, F_SETFD, 0);
    sys_call(__NR_fcntl, health->container_fd, F_SETFD, 0);
    for (uint32_t i = 0; i < health->wanted.tasks; i++)
        sys_call(__NR_fcntl, health->tasks[i], F_SETFD, 0);
    /* A program of its own: nothing of the monitor's memory comes near the container. */
    sys_call(__NR_execve, "/proc/self/exe", arguments, environment);
    leave(125);
}

static long clone_probe(struct health *health, int status, int output)
{
    int pidfd = -1;
    struct clone_args arguments = {
        .flags = CLONE_PIDFD,
        .pidfd = (uint64_t)(uintptr_t)&pidfd,
        .exit_signal = SIGNAL_CHILD,
    };
    int into = health->group_fd >= 0 ? health->group_fd : health->cgroup;

    if (into >= 0) {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = (uint64_t)into;
    }
    long pid = sys_call(__NR_clone3, &arguments, sizeof(arguments));
    if (pid == 0)
        become_probe(health, status, output);
    health->joiner = pid;
    health->joiner_fd = pid < 0 ? -1 : pidfd;
    return pid;
}

long probe_begin(struct health *health, const char **call)
{
    int status[2], output[2], yes = 1;

    *call = "socketpair";
    long result = sys_call(__NR_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, status);
    if (result < 0)
        return result;
    health->status_fd = status[0];
    sys_call(__NR_setsockopt, status[0], SOL_SOCKET, SO_PASSCRED, &yes, sizeof(yes));
    *call = "pipe2";
    result = sys_call(__NR_pipe2, output, O_CLOEXEC);
    if (result >= 0) {
        *call = "clone3";
        health->output_fd = output[0];
        sys_call(__NR_fcntl, output[0], F_SETFL, O_NONBLOCK);
        make_group(health);
        result = clone_probe(health, status[1], output[1]);
        path_close(output[1]);
    }
    path_close(status[1]);
    if (result < 0)
        probe_close(health);
    return result < 0 ? result : 0;
}

/* The first bytes are kept, as Docker keeps them; the rest is read, or the probe would wait. False:
 * there is no more now. */
bool probe_read(struct health *health)
{
    static const char more[] = "...";
    char dropped[1024];
    bool full = health->size >= HEALTH_OUTPUT;

    if (health->output_fd < 0)
        return false;
    long size = full ? sys_call(__NR_read, health->output_fd, dropped, sizeof(dropped))
                     : sys_call(__NR_read, health->output_fd, health->output + health->size,
                                HEALTH_OUTPUT - health->size);
    if (size == -EAGAIN || size == -EINTR)
        return false;
    if (size <= 0) {
        close_fd(&health->output_fd);
        return false;
    }
    if (!full) {
        health->size += (uint32_t)size;
    } else if (!health->truncated) {
        for (size_t i = 0; i < sizeof(more) - 1; i++)
            health->output[health->size++] = more[i];
        health->truncated = true;
    }
    return !full;
}

/* One report. False: there is none now. */
bool probe_hear(struct health *health)
{
    struct report report;
    struct iovec part = {&report, sizeof(report)};
    union {
        char bytes[CMSG_SPACE(3 * sizeof(int)) + CMSG_SPACE(4 * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    int fd = -1;
    long sender = -1;

    if (health->status_fd < 0)
        return false;
    long size =
        sys_call(__NR_recvmsg, health->status_fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (size == -EAGAIN || size == -EINTR)
        return false;
    if (size <= 0) { /* the command is executing, or its start has failed */
        close_fd(&health->status_fd);
        return false;
    }
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header;
         header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level != SOL_SOCKET)
            continue;
        if (header->cmsg_type == SCM_CREDENTIALS)
            sender = *(int *)CMSG_DATA(header);
        else if (header->cmsg_type == SCM_RIGHTS) {
            for (size_t at = CMSG_LEN(0); at + sizeof(int) <= header->cmsg_len; at += sizeof(int)) {
                if (fd >= 0)
                    path_close(fd);
                fd = *(int *)((char *)header + at);
            }
        }
    }
    bool whole = size == (long)sizeof(report);
    if (whole && report.kind == REPORT_PROCESS && fd >= 0 && health->process_fd < 0 &&
        sender == health->joiner) {
        health->process = report.code;
        health->process_fd = fd;
        return true;
    }
    if (fd >= 0)
        path_close(fd);
    if (whole && report.kind == REPORT_FAILED && !health->failed) {
        report.call[sizeof(report.call) - 1] = report.detail[sizeof(report.detail) - 1] = '\0';
        health->failed = true;
        note_error(health, report.call, report.detail, report.code);
    }
    return true;
}

/* The command begins when pyrtc-init is gone, which a limit of processes would count. */
void probe_let_go(struct health *health)
{
    int status;

    sys_call(__NR_wait4, health->joiner, &status, WNOHANG, NULL);
    close_fd(&health->joiner_fd);
    if (health->status_fd >= 0)
        sys_call(__NR_sendto, health->status_fd, "+", 1, MSG_NOSIGNAL, NULL, 0);
}

bool probe_reap(const struct health *health, int *status)
{
    long child = health->process_fd >= 0 ? health->process : health->joiner;

    return sys_call(__NR_wait4, child, status, WNOHANG, NULL) > 0;
}

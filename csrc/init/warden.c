/*
 * The warden: one small process beside a program that runs containers in the foreground, started
 * with the first of them.
 *
 * PR_SET_PDEATHSIG alone cannot promise that a container dies with its caller: it follows the
 * thread that made the container, and it is cleared by the first change of credentials, which an
 * entry point like gosu is. The warden holds a pidfd of each container; when its socket ends, the
 * program is gone, and it kills what is left. It knows no paths, no names and no options.
 */
#include "init.h"

#include <errno.h>
#include <sys/epoll.h>
#include <linux/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>

#define EVENTS 64
#define GROUP 4 /* PIDFD_SIGNAL_PROCESS_GROUP, Linux 6.9 */

struct pair {
    int pidfd;
    int kill_fd; /* the container's cgroup.kill, or -1 */
    bool stays;  /* a command in a container: when it ends, what it leaves behind lives on */
};

/* A pair in the 64 bits that epoll(7) keeps: no descriptor is as large as this. */
#define STAYS (1ULL << 62)

static void kill_group(int kill_fd)
{
    if (kill_fd >= 0)
        sys_call(__NR_write, kill_fd, "1", 1);
}

/* Taken out of the epoll by name: the program's own copy of the pidfd keeps the open file, and
 * with it the entry, alive. It would go on reporting the end, under numbers that mean other
 * containers by then. */
static void forget(int epoll, struct pair pair)
{
    sys_call(__NR_epoll_ctl, epoll, EPOLL_CTL_DEL, pair.pidfd, NULL);
    path_close(pair.pidfd);
    if (pair.kill_fd >= 0)
        path_close(pair.kill_fd);
}

static struct pair unpack(uint64_t data)
{
    int kill_fd = (int)(uint32_t)(data >> 32);

    if (kill_fd < 0)
        return (struct pair){(int)(uint32_t)data, -1, false};
    return (struct pair){(int)(uint32_t)data, (int)((data & ~STAYS) >> 32), (data & STAYS) != 0};
}

/* Every open descriptor is the socket, the epoll, a pidfd or a cgroup.kill: they are the only list
 * there is. */
__attribute__((noreturn)) static void kill_all(int highest)
{
    for (int fd = 0; fd <= highest; fd++) {
        /* A command in a container leads a process group, which may be all that ties to it what it
         * has started. */
        sys_call(__NR_pidfd_send_signal, fd, SIGNAL_KILL, NULL, GROUP);
        if (sys_call(__NR_pidfd_send_signal, fd, SIGNAL_KILL, NULL, 0) < 0)
            sys_call(__NR_write, fd, "1", 1);
    }
    leave(0);
}

/* One message, one container. Returns false at the end of the socket. */
static bool receive(int socket, int epoll, int *highest)
{
    char byte;
    struct iovec part = {&byte, 1};
    union {
        char bytes[CMSG_SPACE(2 * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};

    long size = sys_call(__NR_recvmsg, socket, &message, MSG_CMSG_CLOEXEC);
    if (size == -EINTR)
        return true;
    if (size <= 0)
        return false;
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    if (!rights || rights->cmsg_type != SCM_RIGHTS)
        return true;
    int *fds = (int *)CMSG_DATA(rights);
    struct pair pair = {fds[0], rights->cmsg_len >= CMSG_LEN(2 * sizeof(int)) ? fds[1] : -1,
                        byte == '='};
    struct epoll_event event = {.events = EPOLLIN,
                                .data.u64 = (uint64_t)(uint32_t)pair.kill_fd << 32 |
                                            (pair.stays ? STAYS : 0) | (uint32_t)pair.pidfd};
    /* One that cannot be watched (there is a limit for each user) is held all the same, so that it
     * dies with the program. */
    sys_call(__NR_epoll_ctl, epoll, EPOLL_CTL_ADD, pair.pidfd, &event);
    if (pair.pidfd > *highest)
        *highest = pair.pidfd;
    if (pair.kill_fd > *highest)
        *highest = pair.kill_fd;
    return true;
}

static void raise_descriptor_limit(void)
{
    struct rlimit64 limit;

    if (sys_call(__NR_prlimit64, 0, RLIMIT_NOFILE, NULL, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        sys_call(__NR_prlimit64, 0, RLIMIT_NOFILE, &limit, NULL);
    }
}

__attribute__((noreturn)) void warden(int socket)
{
    struct epoll_event events[EVENTS], own = {.events = EPOLLIN, .data.u64 = ~0UL};
    int highest = 1;

    /* Its own session: a ^C for the program is not for the warden, and signals stay blocked from
     * its start. */
    sys_call(__NR_setsid, 0);
    sys_call(__NR_prctl, PR_SET_NAME, "pyrtc-warden", 0, 0, 0);
    sys_call(__NR_chdir, "/");
    sys_call(__NR_dup3, socket, 0, O_CLOEXEC);
    sys_call(__NR_close_range, 1, ~0U, 0);
    raise_descriptor_limit();
    int epoll = (int)sys_call(__NR_epoll_create1, O_CLOEXEC);
    if (epoll < 0 || sys_call(__NR_epoll_ctl, epoll, EPOLL_CTL_ADD, 0, &own) < 0)
        leave(1);
    for (;;) {
        long count = sys_call(__NR_epoll_pwait, epoll, events, EVENTS, -1, NULL, 8);
        for (long i = 0; i < count; i++) {
            if (events[i].data.u64 == ~0UL) {
                if (!receive(0, epoll, &highest))
                    kill_all(highest);
                continue;
            }
            struct pair pair = unpack(events[i].data.u64);
            if (!pair.stays)
                kill_group(pair.kill_fd);
            forget(epoll, pair);
        }
        if (count < 0 && count != -EINTR)
            kill_all(highest);
    }
}

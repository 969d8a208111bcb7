/*
 * What pyrtc-init says to its caller, and what it hears from it, on the status socket.
 */
#include "init.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

/* Best effort: when even this fails the caller sees the end of the socket and the exit code. */
void report_failure(struct state *state, long code)
{
    struct report report = {.kind = REPORT_FAILED, .op = state->op, .code = (int32_t)-code};
    size_t used = 0;

    text_append(report.call, sizeof(report.call), &used, state->call ? state->call : "");
    used = 0;
    if (state->detail && !text_append(report.detail, sizeof(report.detail), &used, state->detail))
        text_append(report.detail, sizeof(report.detail), &used, "(a very long path)");
    sys_call(__NR_sendto, state->status_fd, &report, sizeof(report), MSG_NOSIGNAL, NULL, 0);
}

/* Hand a descriptor to the caller: a terminal's master, a new process. */
long report_descriptor(struct state *state, uint32_t kind, int32_t code, int fd)
{
    struct report report = {.kind = kind, .op = state->op, .code = code};
    struct iovec part = {&report, sizeof(report)};
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {.bytes = {0}};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);

    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    *(int *)CMSG_DATA(rights) = fd;
    state->call = "sendmsg";
    long result = sys_call(__NR_sendmsg, state->status_fd, &message, MSG_NOSIGNAL);
    return result < 0 ? result : 0;
}

/* Wait for the caller's go; the end of the socket means that the caller is gone. */
long await_caller(struct state *state)
{
    char byte;
    long result;

    do
        result = sys_call(__NR_read, state->status_fd, &byte, 1);
    while (result == -EINTR);
    if (result == 0)
        leave(125);
    return result < 0 ? result : 0;
}

/* PR_SET_PDEATHSIG is armed too late for a caller that died before; its end of the socket tells. */
bool caller_is_gone(struct state *state)
{
    struct pollfd entry = {.fd = state->status_fd};
    struct timespec {
        long seconds, nanoseconds;
    } none = {0, 0};

    long result = sys_call(__NR_ppoll, &entry, 1, &none, NULL, 0);
    return result > 0 && entry.revents & POLLHUP;
}

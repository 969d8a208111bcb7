/*
 * The caller's end of the sockets to pyrtc-init and to the warden.
 */
#include "pyrtc_start.h"

#include "error.h"
#include "plan.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int pyrtc_send_descriptors(int32_t socket_fd, const int32_t *fds, uint32_t count, uint32_t stays,
                           struct pyrtc_error *error)
{
    char byte = stays ? '=' : '+';
    struct iovec part = {&byte, 1};
    union {
        char bytes[CMSG_SPACE(2 * sizeof(int))];
        struct cmsghdr align;
    } control = {.bytes = {0}};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = CMSG_SPACE(count * sizeof(int))};
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);

    if (count < 1 || count > 2)
        return pyrtc_fail(error, EINVAL, "hand over descriptors", "one or two at a time");
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(rights), fds, count * sizeof(int));
    /* The caller may have given SIGPIPE its default action back. */
    if (sendmsg(socket_fd, &message, MSG_NOSIGNAL) < 0)
        return pyrtc_fail(error, errno, "hand over descriptors", "");
    return 0;
}

int pyrtc_go_on(int32_t status_fd, struct pyrtc_error *error)
{
    /* A pyrtc-init that has ended left a report, or its exit code says why. */
    if (send(status_fd, "+", 1, MSG_NOSIGNAL) < 0 && errno != EPIPE && errno != ECONNRESET)
        return pyrtc_fail(error, errno, "tell pyrtc-init to go on", "");
    return 0;
}

/* There is room for more than one descriptor; who sends more is not pyrtc-init, and they are not to
 * stay open here. */
static void read_rights(const struct cmsghdr *part, int32_t *attached_fd)
{
    size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    int fd;

    for (size_t i = 0; i < count; i++) {
        memcpy(&fd, CMSG_DATA(part) + i * sizeof(fd), sizeof(fd));
        if (*attached_fd < 0)
            *attached_fd = fd;
        else
            close(fd);
    }
}

static void read_control(const struct cmsghdr *part, int32_t *attached_fd, int32_t *sender)
{
    struct ucred from;

    if (part->cmsg_level != SOL_SOCKET)
        return;
    if (part->cmsg_type == SCM_RIGHTS)
        read_rights(part, attached_fd);
    if (part->cmsg_type == SCM_CREDENTIALS) {
        memcpy(&from, CMSG_DATA(part), sizeof(from));
        *sender = from.pid;
    }
}

int pyrtc_next_report(int32_t status_fd, struct report *report, int32_t *attached_fd,
                      int32_t *sender, struct pyrtc_error *error)
{
    struct iovec part = {report, sizeof(*report)};
    union {
        char bytes[CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))];
        struct cmsghdr align;
    } control;
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    ssize_t size;

    /* ECONNRESET is told once, and before the report, when pyrtc-init ended without reading what
     * it was sent. */
    do
        size = recvmsg(status_fd, &message, MSG_CMSG_CLOEXEC);
    while (size < 0 && errno == ECONNRESET);
    if (size < 0 && errno == EINTR)
        return PYRTC_INTERRUPTED;
    if (size < 0)
        return pyrtc_fail(error, errno, "hear from pyrtc-init", "");
    *attached_fd = *sender = -1;
    for (struct cmsghdr *part = CMSG_FIRSTHDR(&message); part; part = CMSG_NXTHDR(&message, part))
        read_control(part, attached_fd, sender);
    if (*attached_fd >= 0 &&
        (size < (ssize_t)sizeof(*report) || report->kind == REPORT_FAILED)) { /* nobody's */
        close(*attached_fd);
        *attached_fd = -1;
    }
    if (size < (ssize_t)sizeof(*report))
        return PYRTC_RUNNING;
    if (report->kind != REPORT_FAILED && *attached_fd < 0)
        return pyrtc_fail(error, EMFILE, "receive a descriptor from pyrtc-init",
                          "this process has too many open files");
    return PYRTC_REPORTED;
}

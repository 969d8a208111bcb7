/*
 * Starting the attendant of a container (attendant/): a process that is nobody's child and ends
 * with the container.
 */
#include "pyrtc_serve.h"

#include "attendant.h"
#include "error.h"
#include "spawn.h"
#include "util.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define NAME "pyrtc-attendant"

_Static_assert(sizeof(struct pyrtc_proxy) == sizeof(struct attendant_proxy), "the same struct");

static int write_block(const struct pyrtc_attend *request, int control, struct pyrtc_error *error)
{
    struct attendant_block block = {
        .magic = ATTENDANT_MAGIC,
        .version = ATTENDANT_VERSION,
        .proxy_count = request->proxy_count,
        .held_count = request->held_count,
        .control_fd = control,
        .container_fd = request->container_fd,
        .datagram_fd = request->datagram_fd,
        .listen_fd = request->listen_fd,
        .directory_fd = request->directory_fd,
        .names_fd = request->names_fd,
        .door_fds = {request->door4_fd, request->door6_fd},
    };
    struct iovec parts[] = {
        {&block, sizeof(block)},
        {(void *)request->proxies, request->proxy_count * sizeof(*request->proxies)},
        {(void *)request->held, request->held_count * sizeof(*request->held)},
    };

    return write_sealed(NAME, parts, 3, error);
}

/* Everything that the attendant is to have, and the number of it. */
static int32_t *gather(const struct pyrtc_attend *request, int control, int block, uint32_t *count)
{
    const int32_t single[] = {control,
                              block,
                              request->container_fd,
                              request->datagram_fd,
                              request->listen_fd,
                              request->directory_fd,
                              request->names_fd,
                              request->door4_fd,
                              request->door6_fd};
    const uint32_t singles = sizeof(single) / sizeof(*single);
    int32_t *all = calloc(singles + request->proxy_count + request->held_count, sizeof(*all));

    *count = 0;
    if (!all)
        return NULL;
    for (uint32_t i = 0; i < singles; i++)
        all[(*count)++] = single[i];
    for (uint32_t i = 0; i < request->proxy_count; i++)
        all[(*count)++] = request->proxies[i].listen_fd;
    for (uint32_t i = 0; i < request->held_count; i++)
        all[(*count)++] = request->held[i];
    return all;
}

/* The attendant serves, or what the kernel has refused. */
static int hear_started(int control, int32_t *pid, struct pyrtc_error *error)
{
    struct attendant_started started;
    struct iovec part = {&started, sizeof(started)};
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control_data;
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control_data.bytes,
                             .msg_controllen = sizeof(control_data.bytes)};
    ssize_t size;
    int pidfd;

    do
        size = recvmsg(control, &message, MSG_CMSG_CLOEXEC);
    while (size < 0 && errno == EINTR);
    if (size != (ssize_t)sizeof(started))
        return pyrtc_fail(error, size < 0 ? errno : 0, "start the attendant",
                          "it ended before it could serve the container");
    if (started.code)
        return pyrtc_fail(error, started.code, started.call, "");
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    if (!rights || rights->cmsg_type != SCM_RIGHTS)
        return pyrtc_fail(error, EMFILE, "receive the attendant's pidfd",
                          "this process has too many open files");
    memcpy(&pidfd, CMSG_DATA(rights), sizeof(pidfd));
    *pid = started.pid;
    return pidfd;
}

int pyrtc_start_attendant(const struct pyrtc_attend *request, int32_t *pid,
                          struct pyrtc_error *error)
{
    struct place place = {.userns_fd = request->userns_fd, .netns_fd = request->netns_fd};
    int control[2];
    uint32_t count;

    if (request->proxy_count > ATTENDANT_MAX_PROXIES || request->held_count > ATTENDANT_MAX_HELD)
        return pyrtc_fail(error, E2BIG, "start the attendant",
                          "more ports are published than one process can hold");
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) < 0)
        return pyrtc_fail(error, errno, "make the attendant's control socket", "");
    owned_fd int ours = control[0];
    owned_fd int theirs = control[1];
    owned_fd int block = write_block(request, theirs, error);
    if (block < 0)
        return -1;
    owned int32_t *inherited = gather(request, theirs, block, &count);
    if (!inherited)
        return pyrtc_fail(error, ENOMEM, "start the attendant", "");
    if (launch_aside(NAME, place, request->program_fd, block, inherited, count, error) < 0)
        return -1;
    /* What this process holds open the attendant's end would not be noticed by. */
    close(theirs);
    theirs = -1;
    return hear_started(ours, pid, error);
}

/*
 * A network namespace made ahead of its container: half a millisecond of the kernel's work that
 * need not be waited for.
 *
 * A child that borrows this memory and shares the descriptor table is born in the new namespace,
 * brings its loopback device up, leaves a descriptor of the namespace behind, and is gone. The
 * calling thread's own namespace is never changed.
 */
#include "pyrtc.h"

#include "borrow.h"
#include "error.h"
#include "mountapi.h"

#include <errno.h>
#include <linux/sched.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

struct namespace
{
    const char *call;
    long result;
};

static long bring_up(struct namespace *namespace)
{
    struct ifreq request = {.ifr_name = "lo"};

    namespace->call = "open a socket in the network namespace";
    long socket = sys_call(__NR_socket, AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (socket < 0)
        return socket;
    namespace->call = "bring lo up (SIOCSIFFLAGS)";
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    long result = sys_call(__NR_ioctl, socket, SIOCSIFFLAGS, &request);
    sys_call(__NR_close, socket);
    return result;
}

static void netns_child(void *argument)
{
    struct namespace *namespace = argument;

    namespace->result = bring_up(namespace);
    if (namespace->result >= 0) {
        namespace->call = "open /proc/self/ns/net";
        namespace->result =
            sys_call(__NR_openat, AT_FDCWD, "/proc/self/ns/net", O_RDONLY | O_CLOEXEC, 0);
    }
    for (;;)
        sys_call(__NR_exit, 0);
}

int pyrtc_make_netns(struct pyrtc_error *error)
{
    struct namespace namespace = {.call = "", .result = -EIO};
    int32_t pidfd;

    long pid = borrow(CLONE_NEWNET | CLONE_FILES, -1, netns_child, &namespace, &pidfd);
    if (pid < 0)
        return pyrtc_fail(error, (int)-pid, "make a network namespace (clone3)", "");
    borrow_end(pidfd);
    if (namespace.result < 0)
        return pyrtc_fail(error, (int)-namespace.result, namespace.call, "");
    return (int)namespace.result;
}

/*
 * A network namespace made ahead of its container: half a millisecond of the kernel's work that
 * need not be waited for.
 *
 * A child that borrows this memory and shares the descriptor table goes into the new namespace,
 * brings its loopback device up, leaves a descriptor of the namespace behind, and is gone. The
 * calling thread's own namespace is never changed.
 */
#include "pyrtc_network.h"

#include "error.h"
#include "mountapi.h"
#include "place.h"

#include <linux/sched.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

struct namespace
{
    const char *step;
};

static long bring_up(struct namespace *namespace)
{
    struct ifreq request = {.ifr_name = "lo"};

    namespace->step = "open a socket in the network namespace";
    long socket = sys_call(__NR_socket, AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (socket < 0)
        return socket;
    namespace->step = "bring lo up (SIOCSIFFLAGS)";
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    long result = sys_call(__NR_ioctl, socket, SIOCSIFFLAGS, &request);
    sys_call(__NR_close, socket);
    return result;
}

static long make_namespace(void *argument)
{
    struct namespace *namespace = argument;

    namespace->step = "make a network namespace (unshare)";
    long result = sys_call(__NR_unshare, CLONE_NEWNET);
    if (result >= 0)
        result = bring_up(namespace);
    if (result < 0)
        return result;
    namespace->step = "open /proc/self/ns/net";
    return sys_call(__NR_openat, AT_FDCWD, "/proc/self/ns/net", O_RDONLY | O_CLOEXEC, 0);
}

int pyrtc_make_netns(int32_t userns_fd, struct pyrtc_error *error)
{
    struct namespace namespace = {.step = ""};
    struct place place = {.userns_fd = userns_fd, .netns_fd = -1};

    long result = work_at(place, make_namespace, &namespace, &namespace.step);
    if (result < 0)
        return pyrtc_fail(error, (int)-result, namespace.step, "");
    return (int)result;
}

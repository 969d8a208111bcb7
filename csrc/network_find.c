/*
 * Finding a network device: its index by its name, here or in another namespace.
 */
#include "network.h"

#include "error.h"
#include "place.h"
#include "sys.h"

#include <errno.h>
#include <linux/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

long network_index(long socket, const char *name)
{
    struct ifreq request = {0};

    memcpy(request.ifr_name, name, strlen(name));
    long result = sys_call(__NR_ioctl, socket, SIOCGIFINDEX, &request);
    return result < 0 ? result : request.ifr_ifindex;
}

struct search {
    const char *name;
    const char *step;
};

static long index_work(void *argument)
{
    struct search *search = argument;

    search->step = "open a socket";
    long socket = sys_call(__NR_socket, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (socket < 0)
        return socket;
    search->step = "find a network device";
    long index = network_index(socket, search->name);
    sys_call(__NR_close, socket);
    return index == -ENODEV ? 0 : index;
}

int pyrtc_device_index(int32_t netns_fd, int32_t userns_fd, const char *name,
                       struct pyrtc_error *error)
{
    struct search search = {.name = name, .step = ""};
    struct place place = {.userns_fd = userns_fd, .netns_fd = netns_fd};

    if (network_device_name(name, error) < 0)
        return -1;
    long index =
        netns_fd < 0 ? index_work(&search) : work_at(place, index_work, &search, &search.step);
    if (index < 0)
        return pyrtc_fail(error, (int)-index, search.step, "%s", name);
    return (int)index;
}

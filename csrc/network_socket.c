/*
 * Sockets that belong to another network namespace, held by this process.
 */
#include "pyrtc_network.h"

#include "error.h"
#include "mountapi.h"
#include "network.h"
#include "place.h"

#include <linux/in.h>
#include <linux/in6.h>
#include <string.h>
#include <sys/socket.h>

struct opening {
    const struct pyrtc_socket *wanted;
    const char *step;
    uint32_t address_size;
    uint8_t address[sizeof(struct sockaddr_in6)] __attribute__((aligned(8)));
};

static long set_option(long socket, int level, int option)
{
    int on = 1;
    return sys_call(__NR_setsockopt, socket, level, option, &on, sizeof(on));
}

static long set_mark(long socket, uint32_t mark)
{
    return sys_call(__NR_setsockopt, socket, SOL_SOCKET, SO_MARK, &mark, sizeof(mark));
}

/* An IPv6 socket takes no IPv4: who wants both holds two, and sees whose port is taken. */
static long prepare_socket(long socket, struct opening *opening)
{
    const struct pyrtc_socket *wanted = opening->wanted;
    long result = 0;

    opening->step = "set the options of a socket";
    if (wanted->family == AF_INET6)
        result = set_option(socket, IPPROTO_IPV6, IPV6_V6ONLY);
    if (result >= 0 && wanted->mark)
        result = set_mark(socket, wanted->mark);
    if (result >= 0 && wanted->flags & PYRTC_SOCKET_FREE)
        result = wanted->family == AF_INET6 ? set_option(socket, IPPROTO_IPV6, IPV6_FREEBIND)
                                            : set_option(socket, IPPROTO_IP, IP_FREEBIND);
    if (result < 0 || !wanted->address)
        return result;
    opening->step = "bind a socket";
    result = sys_call(__NR_bind, socket, opening->address, opening->address_size);
    if (result < 0 || !(wanted->flags & PYRTC_SOCKET_LISTEN))
        return result;
    opening->step = "listen on a socket";
    return sys_call(__NR_listen, socket, wanted->backlog);
}

static long open_work(void *argument)
{
    struct opening *opening = argument;
    long type = opening->wanted->type | SOCK_CLOEXEC;

    if (opening->wanted->flags & PYRTC_SOCKET_NONBLOCK)
        type |= SOCK_NONBLOCK;
    opening->step = "open a socket";
    long socket = sys_call(__NR_socket, opening->wanted->family, type, opening->wanted->protocol);
    if (socket < 0)
        return socket;
    long result = prepare_socket(socket, opening);
    if (result < 0) {
        sys_call(__NR_close, socket);
        return result;
    }
    return socket;
}

static int name_address(struct opening *opening, struct pyrtc_error *error)
{
    const struct pyrtc_socket *wanted = opening->wanted;
    struct network_address address;

    if (!wanted->address)
        return 0;
    if (network_address(wanted->address, 0, &address, error) < 0)
        return -1;
    if ((wanted->family == AF_INET) != (address.size == 4))
        return pyrtc_fail(error, EINVAL, "bind a socket", "%s is of another family",
                          wanted->address);
    if (address.size == 4) {
        struct sockaddr_in *name = (struct sockaddr_in *)(void *)opening->address;
        name->sin_family = AF_INET;
        name->sin_port = __builtin_bswap16(wanted->port);
        memcpy(&name->sin_addr, address.bytes, 4);
        opening->address_size = sizeof(*name);
    } else {
        struct sockaddr_in6 *name = (struct sockaddr_in6 *)(void *)opening->address;
        name->sin6_family = AF_INET6;
        name->sin6_port = __builtin_bswap16(wanted->port);
        memcpy(&name->sin6_addr, address.bytes, 16);
        opening->address_size = sizeof(*name);
    }
    return 0;
}

int pyrtc_open_socket(int32_t netns_fd, int32_t userns_fd, const struct pyrtc_socket *wanted,
                      struct pyrtc_error *error)
{
    struct opening opening = {.wanted = wanted, .step = ""};
    struct place place = {.userns_fd = userns_fd, .netns_fd = netns_fd};

    if (name_address(&opening, error) < 0)
        return -1;
    long result = work_at(place, open_work, &opening, &opening.step);
    if (result >= 0)
        return (int)result;
    if (!wanted->address)
        return pyrtc_fail(error, (int)-result, opening.step, "");
    return pyrtc_fail(error, (int)-result, opening.step, "%s port %u", wanted->address,
                      wanted->port);
}

/*
 * Networks: netns.c, network.c, network_socket.c, nft.c, conntrack.c.
 *
 * What is done in another namespace is done by a borrowing child; userns_fd and netns_fd: where,
 * -1: the caller's.
 */
#ifndef PYRTC_INTERFACE_NETWORK_H
#define PYRTC_INTERFACE_NETWORK_H

#include "pyrtc.h"

struct pyrtc_nft;

/* Make a network namespace with lo up, ahead of the container that will be born into it; userns_fd:
 * the user namespace that it shall belong to. Returns its descriptor. */
int pyrtc_make_netns(int32_t userns_fd, struct pyrtc_error *error);

struct pyrtc_link {
    const char *device;           /* its name in the container */
    const char *host_device;      /* of the other end; not for macvlan */
    const char *mac;              /* "02:42:..."; NULL or "": the kernel's choice */
    uint32_t parent_index;        /* the bridge; 0: none. macvlan: the device that it is on */
    uint32_t macvlan_mode;        /* MACVLAN_MODE_*; 0: a veth pair */
    uint32_t mtu;                 /* 0: the kernel's choice */
    uint32_t hairpin;             /* 1: the bridge sends frames back to where they came from */
    uint32_t isolated;            /* 1: no traffic with other isolated ports of the bridge */
    uint32_t announce;            /* 1: tell the neighbours whose addresses these are */
    const char *const *addresses; /* "ADDRESS/BITS", IPv4 and IPv6 */
    uint32_t address_count;
    const char *const *gateways; /* of default routes, one a family */
    uint32_t gateway_count;
};

/* Make a device in the namespace at netns_fd, with its other end at userns_fd and host_netns_fd,
 * and configure it. When this returns it forwards; at most 20 ms are waited for that. On failure
 * nothing of it is left. */
int pyrtc_attach_link(int32_t netns_fd, int32_t userns_fd, int32_t host_netns_fd,
                      const struct pyrtc_link *link, struct pyrtc_error *error);

/* Remove a device. Takes tens of milliseconds: a namespace that dies does it for nothing. */
int pyrtc_detach_link(int32_t netns_fd, int32_t userns_fd, const char *device,
                      struct pyrtc_error *error);

/* Return the index of a device in a namespace, 0 if there is none. */
int pyrtc_device_index(int32_t netns_fd, int32_t userns_fd, const char *name,
                       struct pyrtc_error *error);

enum {
    PYRTC_SOCKET_FREE = 1, /* an address that the host does not have yet */
    PYRTC_SOCKET_LISTEN = 2,
    PYRTC_SOCKET_NONBLOCK = 4,
};

struct pyrtc_socket {
    int32_t family;
    int32_t type;
    int32_t protocol;
    const char *address; /* NULL: not bound */
    uint16_t port;
    uint16_t backlog;
    uint32_t mark;  /* of the packets that it sends; 0: none */
    uint32_t flags; /* PYRTC_SOCKET_* */
};

/* Open a socket in another namespace, bound as asked. */
int pyrtc_open_socket(int32_t netns_fd, int32_t userns_fd, const struct pyrtc_socket *wanted,
                      struct pyrtc_error *error);

/* Forget the tracked connections of this protocol (IPPROTO_*) to these ports that are not merely
 * going out. One walk through the kernel's table, which takes milliseconds. */
int pyrtc_forget_flows(int32_t netns_fd, int32_t userns_fd, uint32_t protocol,
                       const uint16_t *ports, uint32_t port_count, uint64_t *forgotten,
                       struct pyrtc_error *error);

/* libnftables, for the network namespace of the thread that opens it, or that of socket_fd, which
 * is a nonblocking one of NETLINK_NETFILTER, and stays the caller's; -1: none. One thread at a
 * time, in the whole process. Returns NULL after filling *error; ENOENT: the library is missing. */
struct pyrtc_nft *pyrtc_nft_open(int32_t socket_fd, struct pyrtc_error *error);

/* Run commands, all or none of them. What they print and what the library complains of stays until
 * the next call. Returns < 0 when they failed. */
int pyrtc_nft_run(struct pyrtc_nft *nft, const char *commands, uint32_t json, const char **output,
                  const char **complaint);

void pyrtc_nft_close(struct pyrtc_nft *nft);

#endif

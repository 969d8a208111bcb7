/*
 * What is known of one network device while it is attached: the caller's words, read and checked
 * (network_prepare.c), and the buffers of the exchanges with the kernel (network.c).
 */
#ifndef PYRTC_NETWORK_H
#define PYRTC_NETWORK_H

#include "netlink.h"
#include "pyrtc_network.h"

enum { NETWORK_ADDRESSES = 16, NETWORK_GATEWAYS = 2, NETWORK_SETTING = 80 };

struct network_address {
    uint8_t bytes[16];
    uint8_t size; /* 4 or 16 */
    uint8_t prefix;
};

struct network_job {
    const struct pyrtc_link *link;
    int32_t netns_fd;
    const char *step; /* what was being done last */
    uint32_t made;    /* 1: the device exists, and is this job's */
    uint32_t has_mac;
    uint32_t has_ipv6;
    uint32_t address_count;
    uint32_t gateway_count;
    uint8_t mac[6];
    struct network_address addresses[NETWORK_ADDRESSES];
    struct network_address gateways[NETWORK_GATEWAYS];
    char disable_ipv6[NETWORK_SETTING]; /* files below /proc/sys/net */
    char accept_ra[NETWORK_SETTING];
    char ndisc_notify[NETWORK_SETTING];
    struct netlink_answer answer;
    struct netlink_batch batch;
    uint8_t buffer[NETLINK_ANSWER] __attribute__((aligned(8)));
};

/* Check a device's name. */
int network_device_name(const char *name, struct pyrtc_error *error);

/* Read an address, IPv4 or IPv6; with_prefix: "ADDRESS/BITS". */
int network_address(const char *text, uint32_t with_prefix, struct network_address *address,
                    struct pyrtc_error *error);

/* The index of a device that a socket sees, or -errno; the name has been checked. */
long network_index(long socket, const char *name);

/* Read job->link, so that the child finds nothing to object to. */
int network_prepare(struct network_job *job, struct pyrtc_error *error);

#endif

/*
 * A container's network devices: made, configured and taken away by netlink, in the batches that
 * the start of a container waits for.
 *
 * A borrowing child does all of it (place.h): on a socket of the host's namespace it makes the
 * device, whose other end is born in the container's namespace; then it enters that one, gives the
 * device its addresses and routes, waits for the bridge to forward, and lets the neighbours know.
 */
#include "network.h"

#include "error.h"
#include "mountapi.h"
#include "place.h"

#include <linux/if.h>
#include <linux/if_addr.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/ip.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <string.h>

/* ---- the host's side */

static void put_link(struct netlink_batch *batch, uint32_t index, uint32_t flags)
{
    struct ifinfomsg info = {
        .ifi_family = AF_UNSPEC,
        .ifi_index = (int)index,
        .ifi_flags = flags,
        .ifi_change = flags,
    };
    netlink_put(batch, &info, sizeof(info));
}

/* What both kinds of devices get as they are born in the container's namespace. */
static void put_inner(struct netlink_batch *batch, const struct network_job *job)
{
    netlink_text(batch, IFLA_IFNAME, job->link->device);
    netlink_u32(batch, IFLA_NET_NS_FD, (uint32_t)job->netns_fd);
    if (job->link->mtu)
        netlink_u32(batch, IFLA_MTU, job->link->mtu);
    if (job->has_mac)
        netlink_attribute(batch, IFLA_ADDRESS, job->mac, sizeof(job->mac));
}

/* The peer cannot be born up: its other end does not exist yet. */
static void put_veth(struct netlink_batch *batch, const struct network_job *job)
{
    netlink_message(batch, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, "make the veth pair");
    put_link(batch, 0, IFF_UP);
    netlink_text(batch, IFLA_IFNAME, job->link->host_device);
    if (job->link->mtu)
        netlink_u32(batch, IFLA_MTU, job->link->mtu);
    if (job->link->parent_index)
        netlink_u32(batch, IFLA_MASTER, job->link->parent_index);
    uint32_t info = netlink_nest(batch, IFLA_LINKINFO);
    netlink_text(batch, IFLA_INFO_KIND, "veth");
    uint32_t data = netlink_nest(batch, IFLA_INFO_DATA);
    uint32_t peer = netlink_nest(batch, VETH_INFO_PEER);
    put_link(batch, 0, 0);
    put_inner(batch, job);
    netlink_end(batch, peer);
    netlink_end(batch, data);
    netlink_end(batch, info);
}

/* With hairpin, a container reaches its own published port by the host's address although the
 * bridge hands its frames to the firewall (bridge-nf-call-iptables). */
static void put_port(struct netlink_batch *batch, const struct pyrtc_link *link)
{
    uint8_t hairpin = link->hairpin != 0, isolated = link->isolated != 0;

    netlink_message(batch, RTM_NEWLINK, 0, "configure the bridge port");
    put_link(batch, 0, 0);
    netlink_text(batch, IFLA_IFNAME, link->host_device);
    uint32_t info = netlink_nest(batch, IFLA_LINKINFO);
    netlink_text(batch, IFLA_INFO_SLAVE_KIND, "bridge");
    uint32_t data = netlink_nest(batch, IFLA_INFO_SLAVE_DATA);
    netlink_attribute(batch, IFLA_BRPORT_MODE, &hairpin, sizeof(hairpin));
    netlink_attribute(batch, IFLA_BRPORT_ISOLATED, &isolated, sizeof(isolated));
    netlink_end(batch, data);
    netlink_end(batch, info);
}

static void put_macvlan(struct netlink_batch *batch, const struct network_job *job)
{
    netlink_message(batch, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, "make the macvlan device");
    put_link(batch, 0, 0);
    put_inner(batch, job);
    netlink_u32(batch, IFLA_LINK, job->link->parent_index);
    uint32_t info = netlink_nest(batch, IFLA_LINKINFO);
    netlink_text(batch, IFLA_INFO_KIND, "macvlan");
    uint32_t data = netlink_nest(batch, IFLA_INFO_DATA);
    netlink_u32(batch, IFLA_MACVLAN_MODE, job->link->macvlan_mode);
    netlink_end(batch, data);
    netlink_end(batch, info);
}

static long send_batch(long socket, struct network_job *job, netlink_visit *visit, void *context)
{
    return netlink_exchange(socket, &job->batch, &job->answer, job->buffer, visit, context,
                            &job->step);
}

static long make_device(long host, struct network_job *job)
{
    netlink_begin(&job->batch);
    if (job->link->macvlan_mode)
        put_macvlan(&job->batch, job);
    else
        put_veth(&job->batch, job);
    long result = send_batch(host, job, NULL, NULL);
    job->made = result >= 0;
    if (result < 0 || job->link->macvlan_mode || !job->link->parent_index)
        return result;
    netlink_begin(&job->batch);
    put_port(&job->batch, job->link);
    return send_batch(host, job, NULL, NULL);
}

static void take_state(void *context, uint16_t type, const uint8_t *payload, size_t size)
{
    size_t found;
    uint8_t *state = context;

    if (type != RTM_NEWLINK || size < NLMSG_ALIGN(sizeof(struct ifinfomsg)))
        return;
    const uint8_t *value =
        netlink_find(payload + NLMSG_ALIGN(sizeof(struct ifinfomsg)),
                     size - NLMSG_ALIGN(sizeof(struct ifinfomsg)), IFLA_OPERSTATE, &found);
    if (value && found >= 1)
        *state = *value;
}

/* A bridge's port drops frames until the kernel's worker has seen that both ends are up. Asking
 * for the device makes a newer kernel (6.13) see to it at once; with an older one it is a matter
 * of a millisecond, for which at most twenty are waited. */
static long wait_forwarding(long host, struct network_job *job)
{
    struct timespec_64 {
        int64_t seconds, nanoseconds;
    } pause = {.nanoseconds = 500000};

    for (int attempt = 0; attempt < 40; attempt++) {
        uint8_t state = IF_OPER_UNKNOWN;
        netlink_begin(&job->batch);
        netlink_message(&job->batch, RTM_GETLINK, 0, "ask for the state of the device");
        put_link(&job->batch, 0, 0);
        netlink_text(&job->batch, IFLA_IFNAME, job->link->host_device);
        netlink_u32(&job->batch, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        long result = send_batch(host, job, take_state, &state);
        if (result < 0 || state == IF_OPER_UP)
            return result;
        sys_call(__NR_nanosleep, &pause, NULL);
    }
    return 0;
}

/* ---- the container's side */

static long write_setting(const char *path, const char *step, const char **failed)
{
    long fd = sys_call(__NR_openat, AT_FDCWD, path, O_WRONLY | O_CLOEXEC, 0);
    if (fd == -ENOENT)
        return 0; /* the kernel has no IPv6: there is nothing to turn off */
    long result = fd < 0 ? fd : sys_call(__NR_write, fd, "1", 1);
    if (fd >= 0)
        sys_call(__NR_close, fd);
    if (result < 0)
        *failed = step;
    return result;
}

/* Without an address of its own the device has no IPv6 at all; with one it believes no router that
 * announces itself: that may be another container (CVE-2020-13401). /proc/sys/net shows the
 * namespace of who looks. */
static long configure_ipv6(struct network_job *job)
{
    if (!job->has_ipv6)
        return write_setting(job->disable_ipv6, "turn IPv6 off (disable_ipv6)", &job->step);
    long fd = sys_call(__NR_openat, AT_FDCWD, job->accept_ra, O_WRONLY | O_CLOEXEC, 0);
    if (fd >= 0) {
        long written = sys_call(__NR_write, fd, "0", 1);
        sys_call(__NR_close, fd);
        fd = written;
    }
    job->step = "ignore router advertisements (accept_ra)";
    if (fd < 0 || !job->link->announce)
        return fd;
    return write_setting(job->ndisc_notify, "announce by IPv6 (ndisc_notify)", &job->step);
}

/* The kernel announces addresses when the hardware address changes, if arp_notify says so. */
static void put_up(struct netlink_batch *batch, uint32_t index, uint32_t announce)
{
    netlink_message(batch, RTM_NEWLINK, 0, "bring the device up");
    put_link(batch, index, IFF_UP);
    if (!announce)
        return;
    uint32_t families = netlink_nest(batch, IFLA_AF_SPEC);
    uint32_t family = netlink_nest(batch, AF_INET);
    uint32_t settings = netlink_nest(batch, IFLA_INET_CONF);
    netlink_u32(batch, IPV4_DEVCONF_ARP_NOTIFY, 1);
    netlink_end(batch, settings);
    netlink_end(batch, family);
    netlink_end(batch, families);
}

/* Duplicate detection would keep an IPv6 address out of use for two seconds. */
static void put_address(struct netlink_batch *batch, uint32_t index,
                        const struct network_address *address)
{
    struct ifaddrmsg info = {
        .ifa_family = address->size == 4 ? AF_INET : AF_INET6,
        .ifa_prefixlen = address->prefix,
        .ifa_flags = address->size == 4 ? 0 : IFA_F_NODAD,
        .ifa_index = index,
    };
    uint8_t broadcast[4];

    netlink_message(batch, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, "add an address");
    netlink_put(batch, &info, sizeof(info));
    netlink_attribute(batch, IFA_LOCAL, address->bytes, address->size);
    netlink_attribute(batch, IFA_ADDRESS, address->bytes, address->size);
    if (address->size != 4 || address->prefix > 30)
        return;
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t fixed = address->prefix > 8 * i ? address->prefix - 8 * i : 0;
        broadcast[i] = (uint8_t)(address->bytes[i] | (fixed >= 8 ? 0 : 0xff >> fixed));
    }
    netlink_attribute(batch, IFA_BROADCAST, broadcast, sizeof(broadcast));
}

static void put_default_route(struct netlink_batch *batch, uint32_t index,
                              const struct network_address *gateway)
{
    struct rtmsg route = {
        .rtm_family = gateway->size == 4 ? AF_INET : AF_INET6,
        .rtm_table = RT_TABLE_MAIN,
        .rtm_protocol = RTPROT_STATIC,
        .rtm_scope = RT_SCOPE_UNIVERSE,
        .rtm_type = RTN_UNICAST,
    };

    netlink_message(batch, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, "add the default route");
    netlink_put(batch, &route, sizeof(route));
    netlink_attribute(batch, RTA_GATEWAY, gateway->bytes, gateway->size);
    netlink_u32(batch, RTA_OIF, index);
}

static long configure_device(long inner, struct network_job *job, uint32_t index)
{
    struct netlink_batch *batch = &job->batch;

    netlink_begin(batch);
    netlink_message(batch, RTM_NEWLINK, 0, "bring lo up");
    put_link(batch, 1, IFF_UP);
    put_up(batch, index, job->link->announce);
    for (uint32_t i = 0; i < job->address_count; i++)
        put_address(batch, index, &job->addresses[i]);
    for (uint32_t i = 0; i < job->gateway_count; i++)
        put_default_route(batch, index, &job->gateways[i]);
    return send_batch(inner, job, NULL, NULL);
}

static void take_mac(void *context, uint16_t type, const uint8_t *payload, size_t size)
{
    struct network_job *job = context;
    size_t found;

    if (type != RTM_NEWLINK || size < NLMSG_ALIGN(sizeof(struct ifinfomsg)))
        return;
    const uint8_t *value =
        netlink_find(payload + NLMSG_ALIGN(sizeof(struct ifinfomsg)),
                     size - NLMSG_ALIGN(sizeof(struct ifinfomsg)), IFLA_ADDRESS, &found);
    if (value && found == sizeof(job->mac)) {
        memcpy(job->mac, value, sizeof(job->mac));
        job->has_mac = 1;
    }
}

/* Gratuitous ARP and unsolicited neighbour advertisements, sent by the kernel because the hardware
 * address is set, be it to what it was. A packet socket would cost its closing: a grace period. */
static long announce(long inner, struct network_job *job, uint32_t index)
{
    netlink_begin(&job->batch);
    netlink_message(&job->batch, RTM_GETLINK, 0, "ask for the device");
    put_link(&job->batch, index, 0);
    netlink_u32(&job->batch, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    long result = send_batch(inner, job, take_mac, job);
    if (result < 0 || !job->has_mac)
        return result;
    netlink_begin(&job->batch);
    netlink_message(&job->batch, RTM_NEWLINK, 0, "announce the addresses");
    put_link(&job->batch, index, 0);
    netlink_attribute(&job->batch, IFLA_ADDRESS, job->mac, sizeof(job->mac));
    return send_batch(inner, job, NULL, NULL);
}

static long configure(long host, long inner, struct network_job *job)
{
    job->step = "find the device in the network namespace";
    long index = network_index(inner, job->link->device);
    if (index < 0)
        return index;
    long result = configure_ipv6(job);
    if (result >= 0)
        result = configure_device(inner, job, (uint32_t)index);
    if (result >= 0 && !job->link->macvlan_mode)
        result = wait_forwarding(host, job);
    if (result >= 0 && job->link->announce)
        result = announce(inner, job, (uint32_t)index);
    return result;
}

/* Nothing half-made is left: the veth pair goes with its host's end. */
static void unmake(long host, long inner, struct network_job *job)
{
    struct netlink_answer answer = job->answer;
    const char *step = job->step;

    netlink_begin(&job->batch);
    netlink_message(&job->batch, RTM_DELLINK, 0, "remove the device");
    put_link(&job->batch, 0, 0);
    netlink_text(&job->batch, IFLA_IFNAME,
                 job->link->macvlan_mode ? job->link->device : job->link->host_device);
    send_batch(job->link->macvlan_mode ? inner : host, job, NULL, NULL);
    job->answer = answer;
    job->step = step;
}

static long attach(long host, struct network_job *job)
{
    struct place container = {.userns_fd = -1, .netns_fd = job->netns_fd};

    long result = make_device(host, job);
    long inner = -1;
    if (job->made) {
        const char *step = job->step;
        long entered = enter_place(container, &step);
        if (entered >= 0) {
            step = "open a netlink socket in the network namespace";
            entered = inner = netlink_open(NETLINK_ROUTE);
        }
        if (result >= 0 && entered < 0) {
            result = entered;
            job->step = step;
        }
    }
    if (result >= 0)
        result = configure(host, inner, job);
    if (result < 0 && job->made)
        unmake(host, inner, job);
    if (inner >= 0)
        sys_call(__NR_close, inner);
    return result;
}

static long attach_work(void *argument)
{
    struct network_job *job = argument;

    job->step = "open a netlink socket";
    long host = netlink_open(NETLINK_ROUTE);
    if (host < 0)
        return host;
    long result = attach(host, job);
    sys_call(__NR_close, host);
    return result;
}

static int fail_job(struct network_job *job, long result, const char *device,
                    struct pyrtc_error *error)
{
    return pyrtc_fail(error, (int)-result, job->step, "%s%s%s", device,
                      job->answer.text[0] ? ": " : "", job->answer.text);
}

int pyrtc_attach_link(int32_t netns_fd, int32_t userns_fd, int32_t host_netns_fd,
                      const struct pyrtc_link *link, struct pyrtc_error *error)
{
    struct network_job job = {.link = link, .netns_fd = netns_fd, .step = ""};
    struct place host = {.userns_fd = userns_fd, .netns_fd = host_netns_fd};

    if (network_prepare(&job, error) < 0)
        return -1;
    long result = work_at(host, attach_work, &job, &job.step);
    return result < 0 ? fail_job(&job, result, link->device, error) : 0;
}

static long detach_work(void *argument)
{
    struct network_job *job = argument;

    job->step = "open a netlink socket in the network namespace";
    long inner = netlink_open(NETLINK_ROUTE);
    if (inner < 0)
        return inner;
    netlink_begin(&job->batch);
    netlink_message(&job->batch, RTM_DELLINK, 0, "remove the device");
    put_link(&job->batch, 0, 0);
    netlink_text(&job->batch, IFLA_IFNAME, job->link->device);
    long result = send_batch(inner, job, NULL, NULL);
    sys_call(__NR_close, inner);
    return result;
}

int pyrtc_detach_link(int32_t netns_fd, int32_t userns_fd, const char *device,
                      struct pyrtc_error *error)
{
    struct pyrtc_link link = {.device = device};
    struct network_job job = {.link = &link, .step = ""};
    struct place place = {.userns_fd = userns_fd, .netns_fd = netns_fd};

    if (network_device_name(device, error) < 0)
        return -1;
    long result = work_at(place, detach_work, &job, &job.step);
    return result < 0 ? fail_job(&job, result, device, error) : 0;
}

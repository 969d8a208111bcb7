/*
 * The connections that the kernel tracks, as far as they must be forgotten: while a UDP client
 * keeps sending, it stays with the container that had the port before.
 */
#include "pyrtc_network.h"

#include "error.h"
#include "mountapi.h"
#include "netlink.h"
#include "place.h"
#include "util.h"

#include <arpa/inet.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>
#include <string.h>

enum {
    FLOWS = 1024, /* forgotten after one walk; there may be more of them */
    FEW = 10000,  /* this many are told in the time of another walk through the empty table */
    TUPLE = 128,
    TYPE_GET = (NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_GET,
    TYPE_NEW = (NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_NEW,
    TYPE_STATS = (NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_GET_STATS,
    TYPE_DELETE = (NFNL_SUBSYS_CTNETLINK << 8) | IPCTNL_MSG_CT_DELETE,
};

/* What CTA_FILTER_ORIG_FLAGS (5.8) says that a listing is restricted by. */
enum { FILTER_PROTOCOL = 1 << 3 };

struct flow {
    uint8_t family;
    uint8_t tuple[TUPLE]; /* the attributes in CTA_TUPLE_ORIG */
    size_t tuple_size;
    uint8_t id[4];
    uint32_t has_id;
    uint8_t zone[2];
    uint32_t has_zone;
};

struct flows {
    uint8_t protocol;
    const uint16_t *ports;
    uint32_t port_count;
    const char *step;
    uint32_t count;
    uint32_t more;  /* 1: there were more than fit */
    uint32_t total; /* how many the kernel tracks */
    uint64_t forgotten;
    struct flow found[FLOWS];
    struct netlink_answer answer;
    struct netlink_batch batch;
    uint8_t buffer[NETLINK_ANSWER] __attribute__((aligned(8)));
};

static void put_family(struct netlink_batch *batch, uint8_t family)
{
    struct nfgenmsg info = {.nfgen_family = family, .version = NFNETLINK_V0};
    netlink_put(batch, &info, sizeof(info));
}

static int is_ours(const struct flows *flows, const uint8_t *tuple, size_t size)
{
    size_t protocol_size, number_size, port_size;
    uint16_t port;

    const uint8_t *protocol = netlink_find(tuple, size, CTA_TUPLE_PROTO, &protocol_size);
    if (!protocol)
        return 0;
    const uint8_t *number = netlink_find(protocol, protocol_size, CTA_PROTO_NUM, &number_size);
    const uint8_t *destination =
        netlink_find(protocol, protocol_size, CTA_PROTO_DST_PORT, &port_size);
    if (!number || number_size < 1 || *number != flows->protocol || !destination ||
        port_size < sizeof(port))
        return 0;
    memcpy(&port, destination, sizeof(port));
    for (uint32_t i = 0; i < flows->port_count; i++)
        if (ntohs(port) == flows->ports[i])
            return 1;
    return 0;
}

/* What only goes out through masquerading has nothing to do with a port of this host, and would be
 * broken off. */
static int goes_out(const uint8_t *attributes, size_t size)
{
    size_t found;
    uint32_t status;

    const uint8_t *value = netlink_find(attributes, size, CTA_STATUS, &found);
    if (!value || found < sizeof(status))
        return 0;
    memcpy(&status, value, sizeof(status));
    status = ntohl(status);
    return (status & IPS_SRC_NAT) && !(status & IPS_DST_NAT);
}

static void take_flow(void *context, uint16_t type, const uint8_t *payload, size_t size)
{
    struct flows *flows = context;
    size_t tuple_size, found;

    if (type != TYPE_NEW || size < NLMSG_ALIGN(sizeof(struct nfgenmsg)))
        return;
    uint8_t family = payload[offsetof(struct nfgenmsg, nfgen_family)];
    payload += NLMSG_ALIGN(sizeof(struct nfgenmsg));
    size -= NLMSG_ALIGN(sizeof(struct nfgenmsg));
    const uint8_t *tuple = netlink_find(payload, size, CTA_TUPLE_ORIG, &tuple_size);
    if (!tuple || tuple_size > TUPLE || !is_ours(flows, tuple, tuple_size) ||
        goes_out(payload, size))
        return;
    if (flows->count == FLOWS) {
        flows->more = 1;
        return;
    }
    struct flow *flow = &flows->found[flows->count++];
    memset(flow, 0, sizeof(*flow));
    flow->family = family;
    memcpy(flow->tuple, tuple, tuple_size);
    flow->tuple_size = tuple_size;
    const uint8_t *id = netlink_find(payload, size, CTA_ID, &found);
    if (id && found == sizeof(flow->id)) {
        memcpy(flow->id, id, sizeof(flow->id));
        flow->has_id = 1;
    }
    const uint8_t *zone = netlink_find(payload, size, CTA_ZONE, &found);
    if (zone && found == sizeof(flow->zone)) {
        memcpy(flow->zone, zone, sizeof(flow->zone));
        flow->has_zone = 1;
    }
}

static long exchange(long socket, struct flows *flows, netlink_visit *visit)
{
    return netlink_exchange(socket, &flows->batch, &flows->answer, flows->buffer, visit, flows,
                            &flows->step);
}

static void take_total(void *context, uint16_t type, const uint8_t *payload, size_t size)
{
    struct flows *flows = context;
    size_t found;

    (void)type;
    if (size < NLMSG_ALIGN(sizeof(struct nfgenmsg)))
        return;
    const uint8_t *value =
        netlink_find(payload + NLMSG_ALIGN(sizeof(struct nfgenmsg)),
                     size - NLMSG_ALIGN(sizeof(struct nfgenmsg)), CTA_STATS_GLOBAL_ENTRIES, &found);
    if (value && found == sizeof(flows->total)) {
        memcpy(&flows->total, value, sizeof(flows->total));
        flows->total = ntohl(flows->total);
    }
}

static long count_flows(long socket, struct flows *flows)
{
    netlink_begin(&flows->batch);
    flows->total = UINT32_MAX;
    netlink_message(&flows->batch, TYPE_STATS, 0, "count tracked connections");
    put_family(&flows->batch, AF_UNSPEC);
    return exchange(socket, flows, take_total);
}

/* family: AF_UNSPEC: everything is told; else only what is of this family and the protocol. */
static long list_flows(long socket, struct flows *flows, uint8_t family)
{
    struct netlink_batch *batch = &flows->batch;

    netlink_begin(&flows->batch);
    flows->count = flows->more = 0;
    netlink_message(batch, TYPE_GET, NLM_F_DUMP, "list tracked connections");
    put_family(batch, family);
    if (family != AF_UNSPEC) {
        uint32_t tuple = netlink_nest(batch, CTA_TUPLE_ORIG);
        uint32_t protocol = netlink_nest(batch, CTA_TUPLE_PROTO);
        netlink_attribute(batch, CTA_PROTO_NUM, &flows->protocol, sizeof(flows->protocol));
        netlink_end(batch, protocol);
        netlink_end(batch, tuple);
        uint32_t filter = netlink_nest(batch, CTA_FILTER);
        netlink_u32(batch, CTA_FILTER_ORIG_FLAGS, FILTER_PROTOCOL);
        netlink_u32(batch, CTA_FILTER_REPLY_FLAGS, 0);
        netlink_end(batch, filter);
    }
    return exchange(socket, flows, take_flow);
}

/* One at a time: that one is gone meanwhile (ENOENT) must not hide another error. */
static long forget(long socket, struct flows *flows, const struct flow *flow)
{
    struct netlink_batch *batch = &flows->batch;

    netlink_begin(&flows->batch);
    netlink_message(batch, TYPE_DELETE, 0, "forget a tracked connection");
    put_family(batch, flow->family);
    netlink_attribute(batch, CTA_TUPLE_ORIG | NLA_F_NESTED, flow->tuple, flow->tuple_size);
    if (flow->has_id)
        netlink_attribute(batch, CTA_ID, flow->id, sizeof(flow->id));
    if (flow->has_zone)
        netlink_attribute(batch, CTA_ZONE, flow->zone, sizeof(flow->zone));
    long result = exchange(socket, flows, NULL);
    flows->forgotten += result >= 0;
    return result == -ENOENT ? 0 : result;
}

/* Not without end: who makes connections faster than they are forgotten is not waited for. */
static long forget_family(long socket, struct flows *flows, uint8_t family)
{
    long result = 0;

    flows->more = 1;
    for (int round = 0; round < 1000 && result >= 0 && flows->more; round++) {
        result = list_flows(socket, flows, family);
        for (uint32_t i = 0; i < flows->count && result >= 0; i++)
            result = forget(socket, flows, &flows->found[i]);
    }
    return result;
}

/* A walk takes some milliseconds whether or not there is anything to find. */
static long forget_all(long socket, struct flows *flows)
{
    long result = count_flows(socket, flows);
    if (result < 0 || !flows->total)
        return result;
    if (flows->total <= FEW)
        return forget_family(socket, flows, AF_UNSPEC);
    result = forget_family(socket, flows, AF_INET);
    return result < 0 ? result : forget_family(socket, flows, AF_INET6);
}

static long forget_work(void *argument)
{
    struct flows *flows = argument;

    flows->step = "open a netlink socket";
    long socket = netlink_open(NETLINK_NETFILTER);
    if (socket < 0)
        return socket;
    long result = forget_all(socket, flows);
    sys_call(__NR_close, socket);
    return result;
}

int pyrtc_forget_flows(int32_t netns_fd, int32_t userns_fd, uint32_t protocol,
                       const uint16_t *ports, uint32_t port_count, uint64_t *forgotten,
                       struct pyrtc_error *error)
{
    owned struct flows *flows = calloc(1, sizeof(*flows));
    struct place place = {.userns_fd = userns_fd, .netns_fd = netns_fd};

    *forgotten = 0;
    if (!flows)
        return pyrtc_fail(error, ENOMEM, "list tracked connections", "");
    flows->protocol = (uint8_t)protocol;
    flows->ports = ports;
    flows->port_count = port_count;
    flows->step = "";
    long result = work_at(place, forget_work, flows, &flows->step);
    *forgotten = flows->forgotten;
    if (result < 0)
        return pyrtc_fail(error, (int)-result, flows->step, "%s", flows->answer.text);
    return 0;
}

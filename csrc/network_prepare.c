#include "network.h"

#include "error.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if.h>
#include <stdio.h>
#include <string.h>

/* A name that the kernel takes and that is one component of a path. */
int network_device_name(const char *name, struct pyrtc_error *error)
{
    size_t length = strlen(name);

    if (!length || length >= IFNAMSIZ || name[0] == '.' || strpbrk(name, "/:% \t\n\v\f\r"))
        return pyrtc_fail(error, EINVAL, "use the name of a network device",
                          "it has 1 to 15 characters without '/', ':', '%%' and blanks");
    return 0;
}

/* The digits behind the slash: one to three, no sign, nothing after them. */
static int read_prefix(const char *text, uint32_t most, uint8_t *prefix)
{
    uint32_t value = 0;

    if (!*text || strlen(text) > 3)
        return -1;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return -1;
        value = value * 10 + (uint32_t)(*text - '0');
    }
    *prefix = (uint8_t)value;
    return value <= most ? 0 : -1;
}

int network_address(const char *text, uint32_t with_prefix, struct network_address *address,
                    struct pyrtc_error *error)
{
    char host[INET6_ADDRSTRLEN];
    size_t length = strcspn(text, "/");
    int family = memchr(text, ':', length) ? AF_INET6 : AF_INET;
    const char *kind = with_prefix ? "an address with its prefix length" : "an address";

    memset(address, 0, sizeof(*address));
    address->size = family == AF_INET ? 4 : 16;
    address->prefix = (uint8_t)(8 * address->size);
    int wrong = length >= sizeof(host) || !text[length] == (with_prefix != 0);
    if (!wrong) {
        memcpy(host, text, length);
        host[length] = '\0';
        wrong = inet_pton(family, host, address->bytes) != 1;
    }
    if (!wrong && with_prefix)
        wrong = read_prefix(text + length + 1, 8 * address->size, &address->prefix) < 0;
    if (wrong)
        return pyrtc_fail(error, EINVAL, "read an address", "this is not %s: %.64s", kind, text);
    return 0;
}

static int read_mac(struct network_job *job, struct pyrtc_error *error)
{
    unsigned bytes[6];
    int end = 0;

    if (!job->link->mac || !*job->link->mac)
        return 0;
    int count = sscanf(job->link->mac, "%2x:%2x:%2x:%2x:%2x:%2x%n", &bytes[0], &bytes[1], &bytes[2],
                       &bytes[3], &bytes[4], &bytes[5], &end);
    if (count != 6 || end != 17 || job->link->mac[end] || strpbrk(job->link->mac, " -+xX"))
        return pyrtc_fail(error, EINVAL, "read a hardware address", "this is none: %.64s",
                          job->link->mac);
    for (int i = 0; i < 6; i++)
        job->mac[i] = (uint8_t)bytes[i];
    if (job->mac[0] & 1)
        return pyrtc_fail(error, EINVAL, "read a hardware address", "%s is a group's",
                          job->link->mac);
    job->has_mac = 1;
    return 0;
}

static int read_addresses(struct network_job *job, struct pyrtc_error *error)
{
    const struct pyrtc_link *link = job->link;

    if (link->address_count > NETWORK_ADDRESSES)
        return pyrtc_fail(error, E2BIG, "read the addresses of a device", "more than %d",
                          NETWORK_ADDRESSES);
    for (uint32_t i = 0; i < link->address_count; i++) {
        if (network_address(link->addresses[i], 1, &job->addresses[i], error) < 0)
            return -1;
        job->has_ipv6 |= job->addresses[i].size == 16;
    }
    job->address_count = link->address_count;
    if (link->gateway_count > NETWORK_GATEWAYS)
        return pyrtc_fail(error, E2BIG, "read the gateways of a device", "more than %d",
                          NETWORK_GATEWAYS);
    for (uint32_t i = 0; i < link->gateway_count; i++)
        if (network_address(link->gateways[i], 0, &job->gateways[i], error) < 0)
            return -1;
    job->gateway_count = link->gateway_count;
    return 0;
}

static void name_setting(char path[NETWORK_SETTING], const char *device, const char *setting)
{
    snprintf(path, NETWORK_SETTING, "/proc/sys/net/ipv6/conf/%s/%s", device, setting);
}

int network_prepare(struct network_job *job, struct pyrtc_error *error)
{
    const char *device = job->link->device;

    if (network_device_name(device, error) < 0 ||
        (!job->link->macvlan_mode && network_device_name(job->link->host_device, error) < 0) ||
        read_mac(job, error) < 0 || read_addresses(job, error) < 0)
        return -1;
    name_setting(job->disable_ipv6, device, "disable_ipv6");
    name_setting(job->accept_ra, device, "accept_ra");
    name_setting(job->ndisc_notify, device, "ndisc_notify");
    return 0;
}

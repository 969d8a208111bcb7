#include "netlink.h"

#include "sys.h"

#include <errno.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>

/* Room for size bytes at the end, zeroed, with padding behind them; NULL when there is none. */
static void *reserve(struct netlink_batch *batch, size_t size)
{
    size_t aligned = NLMSG_ALIGN(size);

    if (batch->full || size > NETLINK_ROOM || aligned > NETLINK_ROOM - batch->size) {
        batch->full = 1;
        return NULL;
    }
    uint8_t *room = batch->bytes + batch->size;
    memset(room, 0, aligned);
    batch->size += (uint32_t)aligned;
    return room;
}

/* Room that belongs to the last message. */
static void *extend(struct netlink_batch *batch, size_t size)
{
    void *room = reserve(batch, size);

    if (room) {
        struct nlmsghdr *header = (struct nlmsghdr *)(void *)(batch->bytes + batch->message);
        header->nlmsg_len = batch->size - batch->message;
    }
    return room;
}

void netlink_begin(struct netlink_batch *batch)
{
    batch->size = batch->count = batch->full = batch->message = 0;
}

/* Numbers begin with 1: 0 is what the kernel sends by itself. */
void netlink_message(struct netlink_batch *batch, uint16_t type, uint16_t flags, const char *step)
{
    if (batch->count >= NETLINK_MESSAGES)
        batch->full = 1;
    uint32_t at = batch->size;
    struct nlmsghdr *header = reserve(batch, sizeof(*header));
    if (!header)
        return;
    batch->message = at;
    batch->steps[batch->count++] = step;
    header->nlmsg_len = sizeof(*header);
    header->nlmsg_type = type;
    header->nlmsg_flags = NLM_F_REQUEST | flags;
    header->nlmsg_seq = batch->count;
}

void netlink_put(struct netlink_batch *batch, const void *bytes, size_t size)
{
    void *room = extend(batch, size);
    if (room)
        memcpy(room, bytes, size);
}

void netlink_attribute(struct netlink_batch *batch, uint16_t type, const void *bytes, size_t size)
{
    struct nlattr *attribute = extend(batch, NLA_HDRLEN + size);
    if (!attribute)
        return;
    attribute->nla_len = (uint16_t)(NLA_HDRLEN + size);
    attribute->nla_type = type;
    if (size)
        memcpy((uint8_t *)attribute + NLA_HDRLEN, bytes, size);
}

void netlink_text(struct netlink_batch *batch, uint16_t type, const char *text)
{
    netlink_attribute(batch, type, text, strlen(text) + 1);
}

void netlink_u32(struct netlink_batch *batch, uint16_t type, uint32_t value)
{
    netlink_attribute(batch, type, &value, sizeof(value));
}

uint32_t netlink_nest(struct netlink_batch *batch, uint16_t type)
{
    uint32_t at = batch->size;
    netlink_attribute(batch, type | NLA_F_NESTED, NULL, 0);
    return at;
}

void netlink_end(struct netlink_batch *batch, uint32_t nest)
{
    if (batch->full)
        return;
    struct nlattr *attribute = (struct nlattr *)(void *)(batch->bytes + nest);
    attribute->nla_len = (uint16_t)(batch->size - nest);
}

long netlink_open(int protocol)
{
    int on = 1;
    long socket = sys_call(__NR_socket, AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);

    if (socket < 0)
        return socket;
    /* Sentences for errors, and errors that do not repeat the message. Both are a convenience. */
    sys_call(__NR_setsockopt, socket, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof(on));
    sys_call(__NR_setsockopt, socket, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof(on));
    return socket;
}

const uint8_t *netlink_find(const uint8_t *attributes, size_t size, uint16_t type,
                            size_t *found_size)
{
    struct nlattr attribute;

    while (size >= NLA_HDRLEN) {
        memcpy(&attribute, attributes, sizeof(attribute));
        if (attribute.nla_len < NLA_HDRLEN || attribute.nla_len > size)
            return NULL;
        if ((attribute.nla_type & NLA_TYPE_MASK) == type) {
            *found_size = attribute.nla_len - (size_t)NLA_HDRLEN;
            return attributes + NLA_HDRLEN;
        }
        size_t step = NLA_ALIGN((size_t)attribute.nla_len);
        if (step > size)
            return NULL;
        attributes += step;
        size -= step;
    }
    return NULL;
}

static void take_text(struct netlink_answer *answer, const uint8_t *text, size_t size)
{
    size_t length = 0;

    while (length < size && length + 1 < sizeof(answer->text) && text[length] >= ' ' &&
           text[length] < 0x7f) {
        answer->text[length] = (char)text[length];
        length++;
    }
    answer->text[length] = '\0';
}

/* payload: struct nlmsgerr, and with NLM_F_ACK_TLVS attributes that explain it. An acknowledgement
 * of another's number is none of ours. */
static void take_acknowledgement(const struct nlmsghdr *header, const uint8_t *payload, size_t size,
                                 uint32_t count, struct netlink_answer *answer)
{
    struct nlmsgerr result;
    size_t at = sizeof(result), text_size;

    memcpy(&result, payload, sizeof(result));
    if (header->nlmsg_seq < 1 || header->nlmsg_seq > count)
        return;
    if (header->nlmsg_seq == count)
        answer->settled = 1;
    if (result.error >= 0 || answer->error)
        return;
    answer->error = result.error < -4095 ? -EIO : result.error;
    answer->failed = header->nlmsg_seq - 1;
    if (!(header->nlmsg_flags & NLM_F_CAPPED) && result.msg.nlmsg_len > sizeof(result.msg))
        at += NLMSG_ALIGN((size_t)result.msg.nlmsg_len) - sizeof(result.msg);
    if (!(header->nlmsg_flags & NLM_F_ACK_TLVS) || at > size)
        return;
    const uint8_t *text = netlink_find(payload + at, size - at, NLMSGERR_ATTR_MSG, &text_size);
    if (text)
        take_text(answer, text, text_size);
}

/* The end of a listing, which may tell that it is not whole. */
static void take_end(const struct nlmsghdr *header, const uint8_t *payload, size_t size,
                     uint32_t count, struct netlink_answer *answer)
{
    int32_t result = 0;

    if (header->nlmsg_seq != count)
        return;
    answer->settled = 1;
    if (size >= sizeof(result))
        memcpy(&result, payload, sizeof(result));
    if (result >= 0 || answer->error)
        return;
    answer->error = result < -4095 ? -EIO : result;
    answer->failed = count - 1;
}

int netlink_read_answers(const uint8_t *bytes, size_t size, uint32_t count,
                         struct netlink_answer *answer, netlink_visit *visit, void *context)
{
    struct nlmsghdr header;

    while (size >= sizeof(header)) {
        memcpy(&header, bytes, sizeof(header));
        if (header.nlmsg_len < sizeof(header) || header.nlmsg_len > size)
            return -EBADMSG;
        const uint8_t *payload = bytes + sizeof(header);
        size_t payload_size = header.nlmsg_len - sizeof(header);
        if (header.nlmsg_type == NLMSG_ERROR) {
            if (payload_size < sizeof(struct nlmsgerr))
                return -EBADMSG;
            take_acknowledgement(&header, payload, payload_size, count, answer);
        } else if (header.nlmsg_type == NLMSG_DONE) {
            take_end(&header, payload, payload_size, count, answer);
        } else if (header.nlmsg_type >= NLMSG_MIN_TYPE && visit) {
            visit(context, header.nlmsg_type, payload, payload_size);
        }
        size_t step = NLMSG_ALIGN((size_t)header.nlmsg_len);
        if (step > size)
            return size == header.nlmsg_len ? 0 : -EBADMSG;
        bytes += step;
        size -= step;
    }
    return size ? -EBADMSG : 0;
}

/* MSG_TRUNC makes the kernel say how long a datagram was that did not fit. */
static long read_datagram(long socket, uint8_t *buffer)
{
    long size;

    do
        size = sys_call(__NR_recvfrom, socket, buffer, NETLINK_ANSWER, MSG_TRUNC | MSG_DONTWAIT,
                        NULL, NULL);
    while (size == -EINTR);
    return size > NETLINK_ANSWER ? -EMSGSIZE : size;
}

static long converse(long socket, const struct netlink_batch *batch, struct netlink_answer *answer,
                     uint8_t *buffer, netlink_visit *visit, void *context)
{
    long result;

    do
        result = sys_call(__NR_sendto, socket, batch->bytes, batch->size, 0, NULL, 0);
    while (result == -EINTR);
    while (result >= 0 && !answer->settled) {
        long size = read_datagram(socket, buffer);
        if (size < 0)
            return size;
        result = netlink_read_answers(buffer, (size_t)size, batch->count, answer, visit, context);
    }
    return result < 0 ? result : answer->error;
}

long netlink_exchange(long socket, struct netlink_batch *batch, struct netlink_answer *answer,
                      uint8_t *buffer, netlink_visit *visit, void *context, const char **step)
{
    answer->error = 0;
    answer->failed = 0;
    answer->settled = 0;
    answer->text[0] = '\0';
    if (batch->full || !batch->count) {
        *step = "compose the netlink messages";
        return -EMSGSIZE;
    }
    struct nlmsghdr *last = (struct nlmsghdr *)(void *)(batch->bytes + batch->message);
    /* Both bits: NLM_F_EXCL is one of them. */
    if ((last->nlmsg_flags & NLM_F_DUMP) != NLM_F_DUMP)
        last->nlmsg_flags |= NLM_F_ACK;
    long result = converse(socket, batch, answer, buffer, visit, context);
    *step = batch->steps[answer->failed];
    return result;
}

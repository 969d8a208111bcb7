/*
 * Feed arbitrary bytes to the reader of netlink answers, and compose batches of arbitrary messages.
 * No system calls are made; what is checked is that nothing is read or written out of bounds and
 * that what a batch holds is well-formed.
 */
#include "netlink.h"

#include <assert.h>
#include <errno.h>
#include <linux/netlink.h>
#include <stdlib.h>
#include <string.h>

static void look(void *context, uint16_t type, const uint8_t *payload, size_t size)
{
    unsigned *sum = context;
    size_t found, inner;

    for (uint16_t wanted = 0; wanted < 32; wanted++) {
        const uint8_t *value = netlink_find(payload, size, wanted, &found);
        if (!value)
            continue;
        assert(value >= payload && found <= size && (size_t)(value - payload) <= size - found);
        for (size_t i = 0; i < found; i++)
            *sum += value[i];
        if (netlink_find(value, found, 1, &inner))
            assert(inner <= found);
    }
    *sum += type;
}

static void feed_answers(const uint8_t *data, size_t size, uint32_t count)
{
    struct netlink_answer answer = {0};
    unsigned sum = 0;

    int result = netlink_read_answers(data, size, count, &answer, look, &sum);
    assert(result == 0 || result == -EBADMSG);
    assert(answer.error <= 0 && answer.error >= -4095);
    assert(answer.failed < count);
    assert(strlen(answer.text) < sizeof(answer.text));
}

static void check_batch(const struct netlink_batch *batch)
{
    uint32_t at = 0;

    assert(batch->size <= NETLINK_ROOM && batch->count <= NETLINK_MESSAGES);
    for (uint32_t i = 0; i < batch->count; i++) {
        struct nlmsghdr header;
        assert(at + sizeof(header) <= batch->size);
        memcpy(&header, batch->bytes + at, sizeof(header));
        assert(header.nlmsg_seq == i + 1 && header.nlmsg_len >= sizeof(header));
        at += NLMSG_ALIGN(header.nlmsg_len);
    }
    assert(at == batch->size);
}

/* Each byte is a step. */
static void compose(const uint8_t *data, size_t size)
{
    struct netlink_batch batch = {0};
    uint32_t nests[8], depth = 0;
    static const uint8_t bytes[256];

    netlink_message(&batch, 16, 0, "");
    for (size_t i = 0; i < size && !batch.full; i++) {
        switch (data[i] % 5) {
        case 0:
            netlink_message(&batch, 16, 0, "");
            depth = 0;
            break;
        case 1:
            netlink_attribute(&batch, data[i], bytes, data[i]);
            break;
        case 2:
            netlink_text(&batch, data[i], "name");
            break;
        case 3:
            if (depth < 8)
                nests[depth++] = netlink_nest(&batch, data[i]);
            break;
        default:
            if (depth)
                netlink_end(&batch, nests[--depth]);
        }
    }
    check_batch(&batch);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size)
        return 0;
    /* A copy, so that reading past the end is seen. */
    uint8_t *copy = malloc(size);
    if (!copy)
        return 0;
    memcpy(copy, data, size);
    feed_answers(copy + 1, size - 1, 1 + copy[0] % NETLINK_MESSAGES);
    compose(copy, size);
    free(copy);
    return 0;
}

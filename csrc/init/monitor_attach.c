/*
 * The clients of a container that has a monitor: they see its output as it comes, give it input and
 * a window size, and hear how it ended.
 *
 * Memory is bounded whatever they do. There is one message that is owed to clients that could not
 * take it; while there is one, nothing more is read from the container, and who has not taken it
 * after five seconds is dropped. There is one piece of input that the container has not taken;
 * while there is one, no further input is read from clients.
 */
#include "monitor.h"

#include "init.h"

#include <errno.h>
#include <asm/ioctls.h>
#include <sys/socket.h>

#define SMALL 8 /* the longest message besides input */

static void close_input(struct attach *attach)
{
    if (attach->input >= 0 && !attach->terminal) {
        path_close(attach->input);
        attach->input = -1;
    }
    attach->close_input = false;
}

static void end_input(struct attach *attach)
{
    if (attach->input_at < attach->input_end)
        attach->close_input = true;
    else
        close_input(attach);
}

static void drop(struct attach *attach, struct client *client)
{
    if (client->fd < 0)
        return;
    path_close(client->fd);
    client->fd = -1;
    attach->owed -= client->owed;
    client->owed = false;
    if (client->once)
        end_input(attach);
}

/* Who was dropped leaves the list; never while entries of poll(2) are looked at. */
static void compact(struct attach *attach)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < attach->count; i++)
        if (attach->clients[i].fd >= 0)
            attach->clients[kept++] = attach->clients[i];
    attach->count = kept;
}

void attach_flush_input(struct attach *attach)
{
    while (attach->input_at < attach->input_end && attach->input >= 0) {
        long written = sys_call(__NR_write, attach->input, attach->buffer + attach->input_at,
                                attach->input_end - attach->input_at);
        if (written == -EAGAIN)
            return;
        if (written < 0) { /* the container has closed it */
            close_input(attach);
            break;
        }
        attach->input_at += (size_t)written;
    }
    attach->input_at = attach->input_end = 0;
    if (attach->close_input)
        close_input(attach);
    for (uint32_t i = 0; i < attach->count; i++)
        attach->clients[i].waiting = false;
}

static void resize(struct attach *attach, const uint8_t *size)
{
    struct {
        uint16_t rows, columns, x, y;
    } window = {(uint16_t)(size[0] | size[1] << 8), (uint16_t)(size[2] | size[3] << 8), 0, 0};

    if (attach->terminal && attach->input >= 0)
        sys_call(__NR_ioctl, attach->input, TIOCSWINSZ, &window);
}

/* False: this is no message of the protocol, or comes where it must not. */
static bool obey(struct attach *attach, struct client *client, const char *message, size_t size)
{
    uint8_t flags;

    if (!client->known) {
        if (size != 2 || message[0] != ATTACH_HELLO)
            return false;
        flags = (uint8_t)message[1];
        client->known = true;
        client->output = flags & ATTACH_OUTPUT_WANTED;
        client->input = flags & ATTACH_INPUT_ALLOWED;
        client->once = client->input && flags & ATTACH_INPUT_ONCE;
        return flags < 2 * ATTACH_INPUT_ONCE;
    }
    switch (message[0]) {
    case ATTACH_INPUT: /* is in the buffer already */
        if (!client->input)
            return false;
        attach->input_at = 1;
        attach->input_end = size;
        attach_flush_input(attach);
        return true;
    case ATTACH_CLOSE:
        if (!client->input || size != 1)
            return false;
        end_input(attach);
        return true;
    case ATTACH_RESIZE:
        if (size != 5)
            return false;
        resize(attach, (const uint8_t *)message + 1);
        return true;
    case ATTACH_CLAIM:
        attach->claimed = true;
        return size == 1;
    default:
        return false;
    }
}

/* One message. While input is pending the buffer is taken: then only what is small is read, and
 * more input waits in the socket. */
static void hear(struct attach *attach, struct client *client)
{
    char small[SMALL], *into = attach->buffer;
    size_t room = sizeof(attach->buffer);

    if (attach->input_at < attach->input_end) {
        into = small;
        room = sizeof(small);
        long peeked =
            sys_call(__NR_recvfrom, client->fd, small, 1, MSG_DONTWAIT | MSG_PEEK, NULL, NULL);
        if (peeked > 0 && small[0] == ATTACH_INPUT) {
            client->waiting = true;
            return;
        }
    }
    long size =
        sys_call(__NR_recvfrom, client->fd, into, room, MSG_DONTWAIT | MSG_TRUNC, NULL, NULL);
    if (size == -EAGAIN)
        return;
    if (size <= 0 || (size_t)size > room || !obey(attach, client, into, (size_t)size))
        drop(attach, client);
}

/* Without a descriptor or memory to accept with, the socket stays readable: try again in a second. */
void attach_accept(struct attach *attach, uint64_t now)
{
    while (attach->count < MAX_CLIENTS) {
        long fd =
            sys_call(__NR_accept4, attach->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd == -ECONNABORTED)
            continue;
        if (fd == -EAGAIN)
            return;
        if (fd < 0) {
            attach->listen_after = now + SECOND;
            return;
        }
        struct client *client = &attach->clients[attach->count++];
        *client = (struct client){.fd = (int)fd};
        /* Its hello came before what is read from the container after this. */
        hear(attach, client);
        compact(attach);
    }
}

uint32_t attach_gather(const struct attach *attach, struct pollfd *entries)
{
    for (uint32_t i = 0; i < attach->count; i++) {
        const struct client *client = &attach->clients[i];
        short events = (client->waiting ? 0 : POLLIN) | (client->owed ? POLLOUT : 0);
        /* One that waits and has gone would be reported without end. */
        entries[i] = (struct pollfd){events ? client->fd : -1, events, 0};
    }
    return attach->count;
}

static void send_owed(struct attach *attach, struct client *client)
{
    long sent = sys_call(__NR_sendto, client->fd, attach->message, attach->message_size,
                         MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0);

    if (sent == -EAGAIN || sent == -ENOBUFS || sent == -ENOMEM)
        return;
    if (sent < 0) /* it has gone; what it sent before is still to be heard */
        client->output = false;
    client->owed = false;
    attach->owed--;
}

void attach_serve(struct attach *attach, const struct pollfd *entries, uint32_t count, uint64_t now)
{
    for (uint32_t i = 0; i < count && i < attach->count; i++) {
        struct client *client = &attach->clients[i];
        if (client->owed && entries[i].revents)
            send_owed(attach, client);
        if (!client->waiting && entries[i].revents & ~POLLOUT)
            hear(attach, client);
    }
    attach_expire(attach, now);
}

void attach_expire(struct attach *attach, uint64_t now)
{
    for (uint32_t i = 0; i < attach->count && attach->owed && now >= attach->deadline; i++)
        if (attach->clients[i].owed)
            drop(attach, &attach->clients[i]);
    compact(attach);
}

void attach_send(struct attach *attach, const char *message, size_t size, bool all, uint64_t now)
{
    attach->message = message;
    attach->message_size = size;
    attach->deadline = now + CLIENT_STALL;
    for (uint32_t i = 0; i < attach->count; i++) {
        struct client *client = &attach->clients[i];
        if (client->fd < 0 || !(all || client->output))
            continue;
        client->owed = true;
        attach->owed++;
        send_owed(attach, client);
    }
    compact(attach);
}

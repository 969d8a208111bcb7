/*
 * TCP connections that network address translation cannot carry, as those to [::1]: accepted here,
 * and made a second time, to the container.
 *
 * Bytes are looked at, sent on and only then taken: what the other side does not accept stays with
 * the kernel, so that a connection needs no memory here, and the sender is slowed down by nothing
 * but a window that is full. Each direction ends by itself.
 */
#include "parts.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define EVENTS (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET)
#define ROUNDS 16 /* chunks that one connection moves before the others have their turn */

enum moved {
    MOVED_BROKEN, /* the connection is of no use any more */
    MOVED_ALL,    /* what there was */
    MOVED_SOME,   /* there may be more */
};

uint32_t proxy_target(const struct attendant_proxy *proxy, struct sockaddr_in6 *address)
{
    uint16_t port = (uint16_t)(proxy->port >> 8 | proxy->port << 8);

    memset(address, 0, sizeof(*address));
    if (proxy->family == 4) {
        struct sockaddr_in *four = (struct sockaddr_in *)address;
        four->sin_family = AF_INET;
        four->sin_port = port;
        memcpy(&four->sin_addr, proxy->address, 4);
        return sizeof(*four);
    }
    address->sin6_family = AF_INET6;
    address->sin6_port = port;
    memcpy(&address->sin6_addr, proxy->address, 16);
    return sizeof(*address);
}

static void set_option(int fd, int level, int name, int value)
{
    sys_call(__NR_setsockopt, fd, level, name, &value, sizeof(value));
}

/* While no more is accepted, whoever comes waits with the kernel. */
static void accept_more(struct proxies *proxies, bool more)
{
    if (proxies->full != more)
        return;
    proxies->full = !more;
    for (uint32_t i = 0; i < proxies->count; i++)
        if (!proxies->all[i].datagrams)
            rewatch(proxies->epoll, proxies->all[i].listen_fd, more ? EPOLLIN : 0,
                    event_of(PART_PROXY, i, 0));
}

static void await_descriptors(struct proxies *proxies, uint64_t now)
{
    accept_more(proxies, false);
    if (now + SCARCITY < proxies->pairs_due)
        proxies->pairs_due = now + SCARCITY;
}

/* broken: the other side is to see a connection that was reset, not one that ended. */
static void end_pair(struct proxies *proxies, struct pair *pair, bool broken)
{
    struct {
        int on, seconds;
    } at_once = {1, 0};

    for (int i = 0; i < 2; i++) {
        if (broken && pair->fds[i] >= 0)
            sys_call(__NR_setsockopt, pair->fds[i], SOL_SOCKET, SO_LINGER, &at_once,
                     sizeof(at_once));
        close_fd(&pair->fds[i]);
    }
    pair->used = false;
    proxies->pair_count--;
    accept_more(proxies, true);
}

static bool connect_pair(struct proxies *proxies, struct pair *pair,
                         const struct sockaddr_in6 *address, uint32_t size)
{
    uint32_t place = (uint32_t)(pair - proxies->pairs);

    for (int i = 0; i < 2; i++) {
        set_option(pair->fds[i], IPPROTO_TCP, TCP_NODELAY, 1);
        set_option(pair->fds[i], SOL_SOCKET, SO_KEEPALIVE, 1);
    }
    long result = sys_call(__NR_connect, pair->fds[1], address, size);
    if (result < 0 && result != -EINPROGRESS)
        return false;
    return watch(proxies->epoll, pair->fds[0], EVENTS, event_of(PART_PAIR, place, 0)) == 0 &&
           watch(proxies->epoll, pair->fds[1], EVENTS, event_of(PART_PAIR, place, 1)) == 0;
}

/* The socket to the container is made first: who is accepted can be carried. */
void proxy_accept(struct proxies *proxies, uint32_t proxy, uint64_t now)
{
    struct sockaddr_in6 address;
    uint32_t size = proxy_target(&proxies->all[proxy], &address);
    struct pair *pair = proxies->pairs;

    if (proxies->pair_count == PAIRS) {
        accept_more(proxies, false);
        return;
    }
    int target = (int)sys_call(__NR_socket, address.sin6_family,
                               SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (target < 0) {
        await_descriptors(proxies, now);
        return;
    }
    long client = sys_call(__NR_accept4, proxies->all[proxy].listen_fd, NULL, NULL,
                           SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (is_scarce(client))
        await_descriptors(proxies, now);
    if (client < 0) {
        close_fd(&target);
        return;
    }
    while (pair->used)
        pair++;
    *pair = (struct pair){.fds = {(int)client, target}, .used = true, .connecting = true};
    proxies->pair_count++;
    pair->due = now + CONNECT_PATIENCE;
    if (pair->due < proxies->pairs_due)
        proxies->pairs_due = pair->due;
    if (!connect_pair(proxies, pair, &address, size))
        end_pair(proxies, pair, true);
}

/* From one side to the other, as much as there is and fits. */
static enum moved move(struct proxies *proxies, struct pair *pair, uint32_t from)
{
    int in = pair->fds[from], out = pair->fds[1 - from];

    if (pair->ended[from])
        return MOVED_ALL;
    for (int round = 0; round < ROUNDS; round++) {
        long size =
            sys_call(__NR_recvfrom, in, proxies->chunk, CHUNK, MSG_PEEK | MSG_DONTWAIT, NULL, NULL);
        if (size == -EAGAIN || size == -EINTR)
            return MOVED_ALL;
        if (size < 0)
            return MOVED_BROKEN;
        if (size == 0) {
            pair->ended[from] = true;
            sys_call(__NR_shutdown, out, SHUT_WR);
            return MOVED_ALL;
        }
        long sent =
            sys_call(__NR_sendto, out, proxies->chunk, size, MSG_NOSIGNAL | MSG_DONTWAIT, NULL, 0);
        if (sent == -EAGAIN)
            return MOVED_ALL; /* until there is room, which is told */
        if (sent < 0)
            return MOVED_BROKEN;
        /* TCP takes bytes away without copying them anywhere (tcp(7), MSG_TRUNC). */
        if (sys_call(__NR_recvfrom, in, NULL, sent, MSG_TRUNC | MSG_DONTWAIT, NULL, NULL) != sent)
            return MOVED_BROKEN;
    }
    return MOVED_SOME;
}

static bool is_connected(const struct pair *pair)
{
    int error = 0;
    uint32_t size = sizeof(error);

    return sys_call(__NR_getsockopt, pair->fds[1], SOL_SOCKET, SO_ERROR, &error, &size) == 0 &&
           !error;
}

void proxy_move(struct proxies *proxies, uint32_t place, uint32_t side, uint32_t events)
{
    struct pair *pair = &proxies->pairs[place];

    if (pair->connecting) {
        if (side == 0) {
            if (events & EPOLLERR)
                end_pair(proxies, pair, true);
            return;
        }
        if (!(events & (EPOLLOUT | EPOLLERR | EPOLLHUP)))
            return;
        if (events & EPOLLERR || !is_connected(pair)) {
            end_pair(proxies, pair, true);
            return;
        }
        pair->connecting = false;
    }
    for (uint32_t from = 0; from < 2; from++) {
        enum moved moved = move(proxies, pair, from);
        if (moved == MOVED_BROKEN) {
            end_pair(proxies, pair, true);
            return;
        }
        /* An event is told once: ask for it again. */
        if (moved == MOVED_SOME)
            rewatch(proxies->epoll, pair->fds[from], EVENTS, event_of(PART_PAIR, place, from));
    }
    if (pair->ended[0] && pair->ended[1])
        end_pair(proxies, pair, false);
    else if (events & EPOLLERR && pair->ended[side]) /* nobody is there who would read */
        end_pair(proxies, pair, true);
}

void proxy_expire(struct proxies *proxies, uint64_t now)
{
    if (now < proxies->pairs_due)
        return;
    proxies->pairs_due = NEVER;
    if (proxies->pair_count < PAIRS)
        accept_more(proxies, true);
    for (struct pair *pair = proxies->pairs; pair < proxies->pairs + PAIRS; pair++) {
        if (!pair->used || !pair->connecting)
            continue;
        if (now >= pair->due)
            end_pair(proxies, pair, true);
        else if (pair->due < proxies->pairs_due)
            proxies->pairs_due = pair->due;
    }
}

/*
 * UDP that network address translation cannot carry. Each client has a socket to the container of
 * its own, so that answers find their way back, and they come from the address that the client has
 * written to, whichever of the host's that was. Who has said nothing for a while, and heard nothing,
 * is forgotten.
 */
#include "parts.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define AT_ONCE 16 /* datagrams of one socket before the others have their turn */

static void end_session(struct session *session)
{
    close_fd(&session->fd);
    session->fd = 0;
}

union control {
    char bytes[CMSG_SPACE(sizeof(struct in6_pktinfo))];
    struct cmsghdr align;
};

struct arrived {
    long size; /* of the datagram, or -errno */
    uint32_t client_size;
    struct sockaddr_in6 client;
    struct in6_pktinfo local;
};

void session_prepare(int fd)
{
    int on = 1;

    /* Of the two, the one of the socket's family succeeds. */
    sys_call(__NR_setsockopt, fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof(on));
    sys_call(__NR_setsockopt, fd, IPPROTO_IP, IP_PKTINFO, &on, sizeof(on));
}

/* What an answer from the same address has to say. */
static void read_local(struct msghdr *message, struct in6_pktinfo *local)
{
    struct cmsghdr *part = CMSG_FIRSTHDR(message);

    if (part && part->cmsg_level == IPPROTO_IPV6 && part->cmsg_type == IPV6_PKTINFO) {
        memcpy(local, CMSG_DATA(part), sizeof(*local));
        if (IN6_IS_ADDR_MULTICAST(&local->ipi6_addr))
            memset(local, 0, sizeof(*local));
        /* Addresses of one link mean nothing without their device; others find their way. */
        if (!IN6_IS_ADDR_LINKLOCAL(&local->ipi6_addr))
            local->ipi6_ifindex = 0;
    } else if (part && part->cmsg_level == IPPROTO_IP && part->cmsg_type == IP_PKTINFO) {
        struct in_pktinfo *four = (struct in_pktinfo *)local;
        memcpy(four, CMSG_DATA(part), sizeof(*four));
        four->ipi_ifindex = 0;
        four->ipi_addr.s_addr = 0;
    }
}

static struct arrived receive(struct proxies *proxies, int fd)
{
    struct arrived arrived;
    union control control;
    struct iovec part = {proxies->chunk, CHUNK};
    struct msghdr message = {.msg_name = &arrived.client,
                             .msg_namelen = sizeof(arrived.client),
                             .msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};

    memset(&arrived, 0, sizeof(arrived));
    arrived.size = sys_call(__NR_recvmsg, fd, &message, MSG_DONTWAIT);
    if (arrived.size < 0)
        return arrived;
    arrived.client_size = message.msg_namelen;
    read_local(&message, &arrived.local);
    return arrived;
}

static void send_back(struct proxies *proxies, const struct session *session, long size)
{
    bool six = session->client.sin6_family == AF_INET6;
    size_t info = six ? sizeof(struct in6_pktinfo) : sizeof(struct in_pktinfo);
    union control control;
    struct iovec part = {proxies->chunk, (size_t)size};
    struct msghdr message = {.msg_name = (void *)&session->client,
                             .msg_namelen = session->size,
                             .msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = CMSG_SPACE(info)};

    memset(&control, 0, sizeof(control));
    struct cmsghdr *local = CMSG_FIRSTHDR(&message);
    local->cmsg_level = six ? IPPROTO_IPV6 : IPPROTO_IP;
    local->cmsg_type = six ? IPV6_PKTINFO : IP_PKTINFO;
    local->cmsg_len = CMSG_LEN(info);
    memcpy(CMSG_DATA(local), &session->local, info);
    sys_call(__NR_sendmsg, proxies->all[session->proxy].listen_fd, &message,
             MSG_NOSIGNAL | MSG_DONTWAIT);
}

static struct session *find(struct proxies *proxies, uint32_t proxy, const struct arrived *arrived)
{
    for (struct session *session = proxies->sessions; session < proxies->sessions + SESSIONS;
         session++)
        if (session->fd && session->proxy == proxy && session->size == arrived->client_size &&
            memcmp(&session->client, &arrived->client, session->size) == 0 &&
            memcmp(&session->local, &arrived->local, sizeof(session->local)) == 0)
            return session;
    return NULL;
}

/* A free place, or that of who was quiet for the longest time. */
static struct session *find_place(struct proxies *proxies)
{
    struct session *oldest = proxies->sessions;

    for (struct session *session = proxies->sessions; session < proxies->sessions + SESSIONS;
         session++) {
        if (!session->fd)
            return session;
        if (session->due < oldest->due)
            oldest = session;
    }
    end_session(oldest);
    return oldest;
}

static void keep(struct proxies *proxies, struct session *session, uint64_t now)
{
    session->due = now + SESSION_IDLE;
    if (session->due < proxies->sessions_due)
        proxies->sessions_due = session->due;
}

static struct session *begin(struct proxies *proxies, uint32_t proxy, const struct arrived *arrived)
{
    struct sockaddr_in6 address;
    uint32_t size = proxy_target(&proxies->all[proxy], &address);
    struct session *session = find_place(proxies);
    uint32_t place = (uint32_t)(session - proxies->sessions);

    long made =
        sys_call(__NR_socket, address.sin6_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (made < 0)
        return NULL;
    session->fd = (int)made;
    session->proxy = proxy;
    session->size = arrived->client_size;
    session->client = arrived->client;
    session->local = arrived->local;
    if (sys_call(__NR_connect, session->fd, &address, size) < 0 ||
        watch(proxies->epoll, session->fd, EPOLLIN, event_of(PART_SESSION, place, 0)) < 0) {
        end_session(session);
        return NULL;
    }
    return session;
}

void session_receive(struct proxies *proxies, uint32_t proxy, uint64_t now)
{
    for (int i = 0; i < AT_ONCE; i++) {
        struct arrived arrived = receive(proxies, proxies->all[proxy].listen_fd);
        if (arrived.size < 0)
            return;
        struct session *session = find(proxies, proxy, &arrived);
        if (!session)
            session = begin(proxies, proxy, &arrived);
        if (!session)
            continue; /* datagrams may be lost, and so is one that nobody can carry */
        keep(proxies, session, now);
        sys_call(__NR_sendto, session->fd, proxies->chunk, arrived.size, MSG_NOSIGNAL, NULL, 0);
    }
}

void session_return(struct proxies *proxies, uint32_t place, uint64_t now)
{
    struct session *session = &proxies->sessions[place];

    for (int i = 0; i < AT_ONCE; i++) {
        long got =
            sys_call(__NR_recvfrom, session->fd, proxies->chunk, CHUNK, MSG_DONTWAIT, NULL, NULL);
        /* Also when nobody listens there: the next datagram may find somebody. */
        if (got < 0)
            return;
        keep(proxies, session, now);
        send_back(proxies, session, got);
    }
}

void session_expire(struct proxies *proxies, uint64_t now)
{
    if (now < proxies->sessions_due)
        return;
    proxies->sessions_due = NEVER;
    for (struct session *session = proxies->sessions; session < proxies->sessions + SESSIONS;
         session++) {
        if (!session->fd)
            continue;
        if (now >= session->due)
            end_session(session);
        else if (session->due < proxies->sessions_due)
            proxies->sessions_due = session->due;
    }
}

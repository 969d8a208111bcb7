/*
 * UDP that network address translation cannot carry. Each client has a socket to the container of
 * its own, so that answers find their way back; who has said nothing for a while, and heard
 * nothing, is forgotten.
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

static struct session *find(struct proxies *proxies, uint32_t proxy,
                            const struct sockaddr_in6 *client, uint32_t size)
{
    for (struct session *session = proxies->sessions; session < proxies->sessions + SESSIONS;
         session++)
        if (session->fd && session->proxy == proxy && session->size == size &&
            memcmp(&session->client, client, size) == 0)
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

static struct session *begin(struct proxies *proxies, uint32_t proxy,
                             const struct sockaddr_in6 *client, uint32_t client_size)
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
    session->size = client_size;
    session->client = *client;
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
        struct sockaddr_in6 client;
        uint32_t size = sizeof(client);

        memset(&client, 0, sizeof(client));
        long got = sys_call(__NR_recvfrom, proxies->all[proxy].listen_fd, proxies->chunk, CHUNK,
                            MSG_DONTWAIT, &client, &size);
        if (got < 0)
            return;
        struct session *session = find(proxies, proxy, &client, size);
        if (!session)
            session = begin(proxies, proxy, &client, size);
        if (!session)
            continue; /* datagrams may be lost, and so is one that nobody can carry */
        keep(proxies, session, now);
        sys_call(__NR_sendto, session->fd, proxies->chunk, got, MSG_NOSIGNAL, NULL, 0);
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
        sys_call(__NR_sendto, proxies->all[session->proxy].listen_fd, proxies->chunk, got,
                 MSG_NOSIGNAL | MSG_DONTWAIT, &session->client, session->size);
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

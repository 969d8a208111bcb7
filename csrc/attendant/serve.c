/*
 * The attendant of a container: what its network needs and the kernel does not do. It is the name
 * server at 127.0.0.11 inside, it holds the ports that the container has reserved on the host, and
 * carries connections into the container where network address translation cannot.
 *
 * It lives where the host's network is; only the sockets of the name server are the container's. So
 * a resolver of the host that listens at 127.0.0.53 can be asked. When the container's process 1 has
 * ended, so does it, and everything it held is free.
 *
 * One event at a time: after one of them, another may mean a descriptor that is not there any more.
 */
#include "state.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define DATAGRAMS 32 /* questions that are answered before anything else has its turn */
#define MONOTONIC 1
#define GRND_NONBLOCK 1

uint64_t now_ns(void)
{
    struct {
        int64_t seconds, nanoseconds;
    } now = {0, 0};

    sys_call(__NR_clock_gettime, MONOTONIC, &now);
    return (uint64_t)now.seconds * 1000000000 + (uint64_t)now.nanoseconds;
}

long watch(int epoll, int fd, uint32_t events, uint64_t data)
{
    struct epoll_event event = {.events = events, .data.u64 = data};

    return sys_call(__NR_epoll_ctl, epoll, EPOLL_CTL_ADD, fd, &event);
}

long rewatch(int epoll, int fd, uint32_t events, uint64_t data)
{
    struct epoll_event event = {.events = events, .data.u64 = data};

    return sys_call(__NR_epoll_ctl, epoll, EPOLL_CTL_MOD, fd, &event);
}

void close_fd(int *fd)
{
    if (*fd >= 0)
        sys_call(__NR_close, *fd);
    *fd = -1;
}

/* What is left of a connection that ended while it waited is no reason to stop. */
bool is_scarce(long error)
{
    return error < 0 && error != -EAGAIN && error != -EINTR && error != -ECONNABORTED;
}

bool random_number(uint16_t *number)
{
    return sys_call(__NR_getrandom, number, sizeof(*number), GRND_NONBLOCK) ==
           (long)sizeof(*number);
}

/* A question that came as a datagram. */
static void serve(struct attendant *it, uint32_t size, const struct sockaddr_in *client,
                  uint64_t now)
{
    struct question question;
    uint32_t answer;

    int rcode = message_read(it->query, size, false, &question);
    if (rcode < 0)
        return;
    if (rcode)
        answer = message_refuse(it->query, &question, (enum rcode)rcode, it->answer);
    else
        answer = message_answer(&it->names, it->query, &question, it->answer);
    if (answer)
        sys_call(__NR_sendto, it->datagram, it->answer, answer, MSG_NOSIGNAL | MSG_DONTWAIT, client,
                 sizeof(*client));
    else
        forward_ask(&it->forward, it->query, size, &question, client, it->answer, now);
}

static void receive(struct attendant *it, uint64_t now)
{
    for (int i = 0; i < DATAGRAMS; i++) {
        struct sockaddr_in client;
        uint32_t client_size = sizeof(client);
        long size = sys_call(__NR_recvfrom, it->datagram, it->query, sizeof(it->query),
                             MSG_DONTWAIT | MSG_TRUNC, &client, &client_size);
        if (size < 0)
            return;
        if (i == 0)
            names_refresh(&it->names);
        if (size <= (long)sizeof(it->query))
            serve(it, (uint32_t)size, &client, now);
    }
}

static void turn(struct attendant *it, const struct epoll_event *event)
{
    uint32_t place = (uint32_t)event->data.u64, side = (uint32_t)(event->data.u64 >> 32) & 0xffffff;
    uint64_t now = now_ns();

    switch ((enum part)(event->data.u64 >> 56)) {
    case PART_CONTAINER:
        leave(0);
    case PART_DATAGRAM:
        receive(it, now);
        break;
    case PART_LISTENER:
        stream_accept(&it->streams, now);
        break;
    case PART_FLIGHT:
        forward_hear(&it->forward, place, side, it->answer, now);
        break;
    case PART_STREAM:
        stream_serve(&it->streams, place, side, event->events, now);
        break;
    case PART_PROXY:
        if (it->proxies.all[place].datagrams)
            session_receive(&it->proxies, place, now);
        else
            proxy_accept(&it->proxies, place, now);
        break;
    case PART_PAIR:
        proxy_move(&it->proxies, place, side, event->events);
        break;
    case PART_SESSION:
        session_return(&it->proxies, place, now);
        break;
    }
    it->used = true;
}

/* Milliseconds to whatever comes first; -1: nothing will. */
static int patience(const struct attendant *it, uint64_t now)
{
    uint64_t until = NEVER;
    const uint64_t all[] = {it->forward.due, it->streams.due, it->proxies.pairs_due,
                            it->proxies.sessions_due, it->used ? now + QUIET : NEVER};

    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        if (all[i] < until)
            until = all[i];
    if (until == NEVER)
        return -1;
    if (until <= now)
        return 0;
    return until - now > 3600000 * MILLISECOND ? 3600000 : (int)((until - now) / MILLISECOND + 1);
}

/* Buffers of one turn are not needed between turns, and a container that is quiet needs none. */
static void give_back(struct attendant *it)
{
    bool flying = false;

    sys_call(__NR_madvise, it->query, sizeof(it->query), MADV_DONTNEED);
    sys_call(__NR_madvise, it->answer, sizeof(it->answer) & ~(PAGE - 1UL), MADV_DONTNEED);
    sys_call(__NR_madvise, it->proxies.chunk, sizeof(it->proxies.chunk), MADV_DONTNEED);
    for (size_t i = 0; i < FLIGHTS / 64; i++)
        flying |= it->forward.used[i] != 0;
    if (!flying)
        sys_call(__NR_madvise, it->forward.flights, sizeof(it->forward.flights), MADV_DONTNEED);
    it->used = false;
}

void attend(struct attendant *it)
{
    for (;;) {
        struct epoll_event event;
        uint64_t now = now_ns();
        int wait = patience(it, now);

        long count = sys_call(__NR_epoll_pwait, it->epoll, &event, 1, wait, NULL, 8);
        if (count > 0)
            turn(it, &event);
        else if (count == 0 && it->used)
            give_back(it);
        now = now_ns();
        forward_expire(&it->forward, it->answer, now);
        stream_expire(&it->streams, now);
        proxy_expire(&it->proxies, now);
        session_expire(&it->proxies, now);
    }
}

/*
 * Questions that somebody else has to answer, over UDP. Each has sockets of its own, whose port the
 * kernel chooses, connected to one server each, and an id that nobody can foretell: what arrives is
 * from that server, and from nobody who merely guesses (RFC 5452). The message goes on as it came,
 * EDNS included, and so does its answer, shortened or not; whoever gets a shortened one asks again
 * over TCP.
 *
 * A server that does not answer in time is not given up: its socket stays open while the next one
 * is asked, and the first good answer counts.
 */
#include "parts.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

static struct question question_of(const struct flight *flight)
{
    struct question question;

    message_read(flight->query, flight->size, false, &question);
    return question;
}

static void send_answer(const struct forward *forward, const struct sockaddr_in *client,
                        const uint8_t *answer, uint32_t size)
{
    /* Where there is no room for it the client asks again. */
    sys_call(__NR_sendto, forward->datagram, answer, size, MSG_NOSIGNAL | MSG_DONTWAIT, client,
             sizeof(*client));
}

static void end_flight(struct forward *forward, uint32_t place)
{
    struct flight *flight = &forward->flights[place];

    for (uint32_t i = 0; i < MAX_SERVERS; i++)
        close_fd(&flight->fds[i]);
    forward->used[place / 64] &= ~(1ULL << place % 64);
}

static void fail(struct forward *forward, uint32_t place, uint8_t *answer)
{
    struct flight *flight = &forward->flights[place];
    struct question question = question_of(flight);

    put16(flight->query, flight->client_id);
    send_answer(forward, &flight->client, answer,
                message_refuse(flight->query, &question, RCODE_FAILED, answer));
    end_flight(forward, place);
}

static bool ask_server(struct forward *forward, uint32_t place, uint32_t side)
{
    struct flight *flight = &forward->flights[place];
    const struct server *server = &forward->names->servers[side];
    int *fd = &flight->fds[side];

    if (*fd < 0) {
        long made = sys_call(__NR_socket, server->address.sin6_family,
                             SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (made < 0)
            return false;
        *fd = (int)made;
        if (sys_call(__NR_connect, *fd, &server->address, server->size) < 0 ||
            watch(forward->epoll, *fd, EPOLLIN, event_of(PART_FLIGHT, place, side)) < 0) {
            close_fd(fd);
            return false;
        }
    }
    return sys_call(__NR_sendto, *fd, flight->query, flight->size, MSG_NOSIGNAL, NULL, 0) ==
           (long)flight->size;
}

/* Ask the next server that can be; when there is none any more, and nobody is left who may answer,
 * say so. */
static void ask_next(struct forward *forward, uint32_t place, uint8_t *answer, uint64_t now)
{
    struct flight *flight = &forward->flights[place];
    uint32_t count = forward->names->server_count;

    while (flight->asked < FLIGHT_ATTEMPTS && count)
        if (ask_server(forward, place, flight->asked++ % count)) {
            flight->due = now + FLIGHT_PATIENCE;
            if (flight->due < forward->due)
                forward->due = flight->due;
            return;
        }
    fail(forward, place, answer);
}

static bool take_place(struct forward *forward, uint32_t *place)
{
    for (uint32_t i = 0; i < FLIGHTS / 64; i++)
        if (~forward->used[i]) {
            *place = i * 64 + (uint32_t)__builtin_ctzll(~forward->used[i]);
            forward->used[i] |= 1ULL << *place % 64;
            return true;
        }
    return false;
}

void forward_ask(struct forward *forward, const uint8_t *query, uint32_t size,
                 const struct question *question, const struct sockaddr_in *client,
                 uint8_t answer[MAX_MESSAGE], uint64_t now)
{
    uint32_t place, refused;
    uint16_t id;

    if (!names_may_ask(forward->names, question)) {
        refused = message_refuse(query, question, RCODE_NO_NAME, answer);
    } else if (size > FLIGHT_QUERY) {
        refused = message_refuse(query, question, RCODE_NONE, answer);
        answer[2] |= 2; /* truncated: ask again over TCP */
    } else if (!random_number(&id) || !take_place(forward, &place)) {
        refused = message_refuse(query, question, RCODE_FAILED, answer);
    } else {
        struct flight *flight = &forward->flights[place];
        flight->client = *client;
        flight->fds[0] = flight->fds[1] = flight->fds[2] = -1;
        flight->asked = 0;
        flight->size = size;
        flight->client_id = (uint16_t)get16(query);
        flight->id = id;
        memcpy(flight->query, query, size);
        put16(flight->query, id);
        ask_next(forward, place, answer, now);
        return;
    }
    send_answer(forward, client, answer, refused);
}

/* A server that cannot answer, or does not want to; another one may. */
static bool disappoints(const uint8_t *answer)
{
    uint8_t rcode = answer[3] & 15;

    return rcode == RCODE_FAILED || rcode == RCODE_UNKNOWN || rcode == RCODE_REFUSED;
}

static bool is_last(const struct flight *flight, uint32_t side)
{
    if (flight->asked < FLIGHT_ATTEMPTS)
        return false;
    for (uint32_t i = 0; i < MAX_SERVERS; i++)
        if (i != side && flight->fds[i] >= 0)
            return false;
    return true;
}

void forward_hear(struct forward *forward, uint32_t place, uint32_t side,
                  uint8_t answer[MAX_MESSAGE], uint64_t now)
{
    struct flight *flight = &forward->flights[place];

    long size =
        sys_call(__NR_recvfrom, flight->fds[side], answer, MAX_MESSAGE, MSG_DONTWAIT, NULL, NULL);
    if (size == -EAGAIN || size == -EINTR)
        return;
    if (size >= 0) {
        struct question question = question_of(flight);
        if (!message_answers(answer, (uint32_t)size, flight->query, &question, flight->id))
            return;
        if (!disappoints(answer) || is_last(flight, side)) {
            let_through(forward->doors, answer, (uint32_t)size, &question);
            put16(answer, flight->client_id);
            send_answer(forward, &flight->client, answer, (uint32_t)size);
            end_flight(forward, place);
            return;
        }
    }
    /* Nobody is there (ECONNREFUSED and the like), or it has not helped. */
    close_fd(&flight->fds[side]);
    if (flight->asked < FLIGHT_ATTEMPTS || is_last(flight, side))
        ask_next(forward, place, answer, now);
}

void forward_expire(struct forward *forward, uint8_t answer[MAX_MESSAGE], uint64_t now)
{
    if (now < forward->due)
        return;
    forward->due = NEVER;
    for (uint32_t i = 0; i < FLIGHTS / 64; i++)
        for (uint64_t left = forward->used[i]; left; left &= left - 1) {
            uint32_t place = i * 64 + (uint32_t)__builtin_ctzll(left);
            struct flight *flight = &forward->flights[place];
            if (now >= flight->due)
                ask_next(forward, place, answer, now);
            else if (flight->due < forward->due)
                forward->due = flight->due;
        }
}

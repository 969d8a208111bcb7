/*
 * The name server over TCP (RFC 7766): a length of two bytes before each message. Of one client one
 * question after the other is answered; what it sends ahead waits in the kernel.
 *
 * Clients are the container's, and there may be many of them that say nothing. Who has asked nothing
 * for the longest time makes room for who comes, and so does who has closed its side.
 */
#include "parts.h"

#include <errno.h>
#include <linux/mman.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define CLIENT 0 /* sides, for epoll */
#define SERVER 1

static void set_due(struct streams *streams, struct stream *stream, uint64_t due)
{
    stream->due = due;
    if (due < streams->due)
        streams->due = due;
}

static uint64_t client_event(const struct streams *streams, const struct stream *stream)
{
    return event_of(PART_STREAM, (uint32_t)(stream - streams->all), CLIENT);
}

static void accept_nobody(struct streams *streams)
{
    streams->full = true;
    rewatch(streams->epoll, streams->listener, 0, event_of(PART_LISTENER, 0, 0));
}

static void accept_again(struct streams *streams)
{
    if (!streams->full)
        return;
    streams->full = false;
    rewatch(streams->epoll, streams->listener, EPOLLIN, event_of(PART_LISTENER, 0, 0));
}

static void end_stream(struct streams *streams, struct stream *stream)
{
    close_fd(&stream->client);
    close_fd(&stream->server);
    stream->state = STREAM_FREE;
    sys_call(__NR_madvise, stream->answer, sizeof(stream->answer) & ~(PAGE - 1UL), MADV_DONTNEED);
    accept_again(streams);
}

static void expect_question(struct streams *streams, struct stream *stream, uint64_t now)
{
    stream->state = STREAM_READING;
    stream->leaving = false;
    stream->at = stream->size = 0;
    set_due(streams, stream, now + STREAM_IDLE);
    rewatch(streams->epoll, stream->client, EPOLLIN, client_event(streams, stream));
}

/* The place of a new client; that of the most idle one, where none is free. */
static struct stream *find_place(struct streams *streams)
{
    struct stream *idle = NULL;

    for (struct stream *stream = streams->all; stream < streams->all + STREAMS; stream++) {
        if (stream->state == STREAM_FREE)
            return stream;
        bool spare = stream->state == STREAM_READING || stream->leaving;
        if (spare && (!idle || stream->due < idle->due))
            idle = stream;
    }
    if (idle)
        end_stream(streams, idle);
    return idle;
}

void stream_accept(struct streams *streams, uint64_t now)
{
    struct stream *stream = find_place(streams);

    if (!stream) {
        accept_nobody(streams);
        return;
    }
    long client =
        sys_call(__NR_accept4, streams->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (is_scarce(client)) {
        accept_nobody(streams);
        if (now + SCARCITY < streams->due)
            streams->due = now + SCARCITY;
    }
    if (client < 0)
        return;
    stream->client = (int)client;
    stream->server = -1;
    stream->leaving = false;
    stream->state = STREAM_READING;
    stream->at = stream->size = 0;
    set_due(streams, stream, now + STREAM_IDLE);
    if (watch(streams->epoll, stream->client, EPOLLIN, client_event(streams, stream)) < 0)
        end_stream(streams, stream);
}

static void write_answer(struct streams *streams, struct stream *stream, uint64_t now)
{
    uint32_t size = 2 + get16(stream->answer);

    while (stream->at < size) {
        long sent = sys_call(__NR_sendto, stream->client, stream->answer + stream->at,
                             size - stream->at, MSG_NOSIGNAL | MSG_DONTWAIT, NULL, 0);
        if (sent == -EAGAIN) {
            rewatch(streams->epoll, stream->client, EPOLLOUT, client_event(streams, stream));
            return;
        }
        if (sent < 0) {
            end_stream(streams, stream);
            return;
        }
        stream->at += (uint32_t)sent;
    }
    expect_question(streams, stream, now);
}

static void answer_client(struct streams *streams, struct stream *stream, uint32_t size,
                          uint64_t now)
{
    close_fd(&stream->server);
    put16(stream->answer, size);
    stream->state = STREAM_WRITING;
    stream->at = 0;
    set_due(streams, stream, now + STREAM_IDLE);
    write_answer(streams, stream, now);
}

static void refuse(struct streams *streams, struct stream *stream, enum rcode rcode, uint64_t now)
{
    answer_client(streams, stream,
                  message_refuse(stream->query + 2, &stream->question, rcode, stream->answer + 2),
                  now);
}

static void ask_next(struct streams *streams, struct stream *stream, uint64_t now)
{
    const struct names *names = streams->names;

    close_fd(&stream->server);
    while (stream->asked < FLIGHT_ATTEMPTS && names->server_count) {
        const struct server *server = &names->servers[stream->asked++ % names->server_count];
        long made = sys_call(__NR_socket, server->address.sin6_family,
                             SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (made < 0)
            break;
        stream->server = (int)made;
        long result = sys_call(__NR_connect, stream->server, &server->address, server->size);
        uint64_t event = event_of(PART_STREAM, (uint32_t)(stream - streams->all), SERVER);
        if ((result == 0 || result == -EINPROGRESS) && random_number(&stream->id) &&
            watch(streams->epoll, stream->server, EPOLLOUT, event) == 0) {
            stream->state = STREAM_ASKING;
            stream->at = 0;
            put16(stream->query + 2, stream->id);
            set_due(streams, stream, now + STREAM_PATIENCE);
            return;
        }
        close_fd(&stream->server);
    }
    put16(stream->query + 2, stream->client_id);
    refuse(streams, stream, RCODE_FAILED, now);
}

/* The whole question is there. */
static void take_question(struct streams *streams, struct stream *stream, uint64_t now)
{
    const uint8_t *query = stream->query + 2;
    int rcode = message_read(query, stream->size - 2, true, &stream->question);

    /* Until it is answered the client is not read; that it is gone is told all the same. */
    rewatch(streams->epoll, stream->client, EPOLLRDHUP, client_event(streams, stream));
    if (rcode < 0) {
        end_stream(streams, stream);
        return;
    }
    if (rcode) {
        refuse(streams, stream, (enum rcode)rcode, now);
        return;
    }
    names_refresh(streams->names);
    uint32_t size = message_answer(streams->names, query, &stream->question, stream->answer + 2);
    if (size) {
        answer_client(streams, stream, size, now);
    } else if (!names_may_ask(streams->names, &stream->question)) {
        refuse(streams, stream, RCODE_NO_NAME, now);
    } else {
        stream->client_id = (uint16_t)get16(query);
        stream->asked = 0;
        ask_next(streams, stream, now);
    }
}

static void read_question(struct streams *streams, struct stream *stream, uint64_t now)
{
    uint32_t size = stream->size ? stream->size : 2;

    long got = sys_call(__NR_recvfrom, stream->client, stream->query + stream->at,
                        size - stream->at, MSG_DONTWAIT, NULL, NULL);
    if (got == -EAGAIN || got == -EINTR)
        return;
    if (got <= 0) {
        end_stream(streams, stream);
        return;
    }
    stream->at += (uint32_t)got;
    if (stream->at < size)
        return;
    if (stream->size) {
        take_question(streams, stream, now);
        return;
    }
    stream->size = 2 + get16(stream->query);
    if (stream->size > sizeof(stream->query) || stream->size == 2)
        end_stream(streams, stream);
}

/* ---- the server's side */

static void send_question(struct streams *streams, struct stream *stream, uint64_t now)
{
    long sent = sys_call(__NR_sendto, stream->server, stream->query + stream->at,
                         stream->size - stream->at, MSG_NOSIGNAL | MSG_DONTWAIT, NULL, 0);
    if (sent == -EAGAIN || sent == -EINTR)
        return;
    if (sent < 0) {
        ask_next(streams, stream, now);
        return;
    }
    stream->at += (uint32_t)sent;
    if (stream->at < stream->size)
        return;
    stream->state = STREAM_HEARING;
    stream->at = 0;
    rewatch(streams->epoll, stream->server, EPOLLIN,
            event_of(PART_STREAM, (uint32_t)(stream - streams->all), SERVER));
}

static void read_answer(struct streams *streams, struct stream *stream, uint64_t now)
{
    uint32_t size = stream->at < 2 ? 2 : 2 + get16(stream->answer);

    long got = sys_call(__NR_recvfrom, stream->server, stream->answer + stream->at,
                        size - stream->at, MSG_DONTWAIT, NULL, NULL);
    if (got == -EAGAIN || got == -EINTR)
        return;
    if (got <= 0) {
        ask_next(streams, stream, now);
        return;
    }
    stream->at += (uint32_t)got;
    if (stream->at < 2 || stream->at < 2 + get16(stream->answer))
        return;
    size = get16(stream->answer);
    if (!message_answers(stream->answer + 2, size, stream->query + 2, &stream->question,
                         stream->id)) {
        ask_next(streams, stream, now);
        return;
    }
    let_through(streams->doors, stream->answer + 2, size, &stream->question);
    put16(stream->answer + 2, stream->client_id);
    answer_client(streams, stream, size, now);
}

/* A client that waits for its answer and sends nothing any more may have gone, or may not. */
static void watch_waiting(struct streams *streams, struct stream *stream, uint32_t events)
{
    if (events & (EPOLLERR | EPOLLHUP) || streams->full) {
        end_stream(streams, stream);
        return;
    }
    stream->leaving = true;
    rewatch(streams->epoll, stream->client, 0, client_event(streams, stream));
}

void stream_serve(struct streams *streams, uint32_t place, uint32_t side, uint32_t events,
                  uint64_t now)
{
    struct stream *stream = &streams->all[place];
    enum stream_state state = stream->state;

    if (side == CLIENT && state == STREAM_READING)
        read_question(streams, stream, now);
    else if (side == CLIENT && state == STREAM_WRITING && !(events & (EPOLLERR | EPOLLHUP)))
        write_answer(streams, stream, now);
    else if (side == CLIENT && state != STREAM_FREE)
        watch_waiting(streams, stream, events);
    else if (side == SERVER && state == STREAM_ASKING)
        send_question(streams, stream, now);
    else if (side == SERVER && state == STREAM_HEARING)
        read_answer(streams, stream, now);
}

void stream_expire(struct streams *streams, uint64_t now)
{
    if (now < streams->due)
        return;
    streams->due = NEVER;
    accept_again(streams);
    for (struct stream *stream = streams->all; stream < streams->all + STREAMS; stream++) {
        if (stream->state == STREAM_FREE)
            continue;
        if (now < stream->due)
            set_due(streams, stream, stream->due);
        else if (stream->state == STREAM_ASKING || stream->state == STREAM_HEARING)
            ask_next(streams, stream, now);
        else
            end_stream(streams, stream);
    }
}

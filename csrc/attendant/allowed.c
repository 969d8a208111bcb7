/*
 * Where only some names lead outside: which of them may be asked for, and how their addresses are let
 * through.
 *
 * The attendant has no right over the rules of the container's network. It has a socket there for
 * each family, of a mark that the container can give to none of its own. What is sent from there
 * goes nowhere: the rules put the address that it is for into a set, and drop it, before sendto(2)
 * returns. So the way is open before the container hears of it. The port says for how long; which
 * addresses are never let in, say the rules (pyrtc/network/egress.py).
 */
#include "parts.h"

#include <errno.h>
#include <sys/socket.h>

/* Seconds that an address can be connected to; the port of each is its place, and one more. */
static const uint32_t lives[] = {60, 300, 1800, 7200, 86400};
#define LIVES (sizeof(lives) / sizeof(*lives))
#define SLACK 30 /* seconds between the answer and a connection that still relies on it */

/* ---- names */

static bool says(struct found lines, const char *word)
{
    for (const char *line = lines.line; line < lines.end; line = names_line_end(line, lines.end)) {
        const char *at = line, *expected = word;
        while (at < lines.end && *at != ' ' && *at != '\n')
            at++;
        for (at++; at < lines.end && *expected && *at == *expected; at++)
            expected++;
        if (!*expected && (at == lines.end || *at == '\n'))
            return true;
    }
    return false;
}

bool names_may_ask(const struct names *names, const struct question *question)
{
    if (!names->forward)
        return false;
    if (!names->limited)
        return true;
    /* A label with a dot in it reads like two, and is not the name that is meant. */
    if (!question->plain || question->class != CLASS_IN)
        return false;
    const char *name = question->name;
    uint32_t left = (uint32_t)text_length(name);
    if (says(names_search(names->allowed, name, left), "exact"))
        return true;
    while (left) {
        bool dot = *name == '.';
        name++, left--;
        if (dot && says(names_search(names->allowed, name, left), "below"))
            return true;
    }
    return false;
}

/* ---- addresses */

static uint32_t port_of(uint32_t life)
{
    uint32_t place = 0;

    while (place + 1 < LIVES && lives[place] < life + SLACK)
        place++;
    return place + 1;
}

static uint32_t socket_address(const struct address *address, uint32_t port,
                               struct sockaddr_in6 *name)
{
    memset(name, 0, sizeof(*name));
    if (address->size == 4) {
        struct sockaddr_in four = {.sin_family = AF_INET};
        put16((uint8_t *)&four.sin_port, port);
        memcpy(&four.sin_addr, address->bytes, 4);
        memcpy(name, &four, sizeof(four));
        return sizeof(four);
    }
    name->sin6_family = AF_INET6;
    put16((uint8_t *)&name->sin6_port, port);
    memcpy(&name->sin6_addr, address->bytes, 16);
    return sizeof(*name);
}

/* Whether an address is this host's own, of which no name of others may make a door: packets for it
 * would leave with itself as their source. Nothing is sent. */
static bool is_host(const struct address *address)
{
    struct sockaddr_in6 name, source;
    uint32_t size = socket_address(address, 9, &name), source_size = sizeof(source);
    bool same = false;

    int fd = (int)sys_call(__NR_socket, address->size == 4 ? AF_INET : AF_INET6,
                           SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return fd != -EAFNOSUPPORT; /* then it has none of this family; else nobody knows */
    if (sys_call(__NR_connect, fd, &name, size) == 0) {
        size_t at = address->size == 4 ? offsetof(struct sockaddr_in, sin_addr)
                                       : offsetof(struct sockaddr_in6, sin6_addr);
        same = sys_call(__NR_getsockname, fd, &source, &source_size) < 0 ||
               memcmp((uint8_t *)&source + at, address->bytes, address->size) == 0;
    }
    close_fd(&fd);
    return same;
}

void let_through(const struct doors *doors, const uint8_t *answer, uint32_t size,
                 const struct question *question)
{
    struct addresses addresses;
    struct address address;

    if (doors->fds[0] < 0 && doors->fds[1] < 0)
        return;
    addresses_begin(&addresses, answer, size, question);
    while (addresses_next(&addresses, &address)) {
        struct sockaddr_in6 name;
        int fd = doors->fds[address.size == 16];
        if (fd < 0 || is_host(&address))
            continue;
        uint32_t name_size = socket_address(&address, port_of(address.life), &name);
        /* It is refused, as all that is dropped on its way out; where no route leads, no rule is
         * asked, and the container cannot get there either. */
        sys_call(__NR_sendto, fd, NULL, 0, MSG_DONTWAIT | MSG_NOSIGNAL, &name, name_size);
    }
}

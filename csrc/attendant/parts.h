/*
 * The attendant's parts: what it knows (names.c), the messages of DNS
 * (message.c), whom it asks (forward.c over UDP, stream.c over TCP),
 * and what it carries into the container (proxy.c, datagrams.c). They are plain
 * functions over descriptors and bounded tables, so that they can be tested outside.
 */
#ifndef PYRTC_ATTENDANT_PARTS_H
#define PYRTC_ATTENDANT_PARTS_H

#include "../attendant.h"
#include "../freestanding.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <string.h>

#define PAGE 4096
#define NEVER (~0ULL)
#define MILLISECOND 1000000ULL
#define SCARCITY (100 * MILLISECOND) /* until descriptors may be free again */
#define MAX_MESSAGE 65535            /* of DNS */
#define MAX_QUERY 4096               /* that is read; no program sends a longer one */
#define MAX_SERVERS 3                /* as the C library and Docker */
#define MAX_NETWORKS 64
#define MAX_NAME 256 /* text of a name in DNS, with its NUL */

/* What epoll(7) tells: which part an entry belongs to, and which of its places it is. */
enum part {
    PART_CONTAINER,
    PART_DATAGRAM,
    PART_LISTENER,
    PART_FLIGHT,
    PART_STREAM,
    PART_PROXY,
    PART_PAIR,
    PART_SESSION,
};

static inline uint64_t event_of(enum part part, uint32_t place, uint32_t side)
{
    return (uint64_t)part << 56 | (uint64_t)side << 32 | place;
}

/* ---- serve.c */

uint64_t now_ns(void);
/* Watch a descriptor, for EPOLL* events. */
long watch(int epoll, int fd, uint32_t events, uint64_t data);
long rewatch(int epoll, int fd, uint32_t events, uint64_t data);
void close_fd(int *fd);
/* Whether accept4(2) cannot for now, and is to be asked again after SCARCITY. */
bool is_scarce(long error);
/* A number that nobody can foretell; false when the kernel has none yet. */
bool random_number(uint16_t *number);

/* ---- names.c */

struct server {
    struct sockaddr_in6 address; /* or sockaddr_in */
    uint32_t size;
};

struct mapped {
    uint64_t device, inode, size; /* of the file that was read */
    int64_t seconds, nanoseconds;
    const char *text; /* NULL: there is none */
    uint64_t length;
};

struct network {
    char path[72]; /* "<id>/names" */
    struct mapped file;
};

struct found {
    const char *line; /* the first of those with this name, or NULL */
    const char *end;
};

struct names {
    int directory; /* of the container; -1: no name is known, and nobody asked */
    int networks_directory;
    struct mapped file; /* "dns" */
    bool forward;       /* other names may be asked for */
    bool limited;       /* but only those in allowed, a part of the file */
    struct found allowed;
    uint32_t server_count;
    uint32_t network_count;
    uint32_t turn; /* of the first of several addresses */
    struct server servers[MAX_SERVERS];
    struct network networks[MAX_NETWORKS];
};

/* Read again what has changed. */
void names_refresh(struct names *names);

/* The lines of one name among lines in the order of their bytes. */
struct found names_search(struct found lines, const char *name, uint32_t length);
/* The end of a line, beyond its newline where it has one. */
const char *names_line_end(const char *line, const char *end);

/* The lines of one name in one network; name in small letters, without a dot at its end. */
struct found names_find(const struct network *network, const char *name);

struct entry {
    char type; /* '4', '6': bytes is an address; 'p': text is a name; 0: a line that says nothing */
    uint8_t bytes[16];
    const char *text;
    uint32_t length;
};

/* The entry in a line; *line is moved to the next one. */
struct entry names_entry(const char **line, const char *end);

/* ---- message.c */

#define HEADER 12
#define TYPE_A 1
#define TYPE_PTR 12
#define TYPE_AAAA 28
#define TYPE_OPT 41
#define TYPE_ANY 255
#define CLASS_IN 1

enum rcode {
    RCODE_NONE = 0,
    RCODE_FORMAT = 1,
    RCODE_FAILED = 2,
    RCODE_NO_NAME = 3,
    RCODE_UNKNOWN = 4,
    RCODE_REFUSED = 5,
    RCODE_VERSION = 16, /* in the OPT record */
};

struct question {
    char name[MAX_NAME]; /* in small letters; "" for the root */
    bool plain;          /* it could be the name of a container: letters, digits, "-", "_" */
    bool extended;       /* it came with EDNS */
    bool wants_dnssec;
    uint8_t version; /* of EDNS */
    uint16_t type;
    uint16_t class;
    uint32_t end;  /* of the question in the message */
    uint32_t room; /* that an answer may take */
};

/* A message that is asked: 0, the rcode that it has to be answered with, or -1 when it is not to be
 * answered at all. Where it is not 0 the question may be without one: end is HEADER then. */
int message_read(const uint8_t *bytes, uint32_t size, bool stream, struct question *question);
/* An answer without records, or with those that are known. Returns its size. */
uint32_t message_refuse(const uint8_t *query, const struct question *question, enum rcode rcode,
                        uint8_t *answer);
/* What is to be said about a name without asking anybody; 0: somebody has to be asked. */
uint32_t message_answer(struct names *names, const uint8_t *query, const struct question *question,
                        uint8_t *answer);
/* The end of a name, wherever its rest may be; 0: it is broken. */
uint32_t message_skip_name(const uint8_t *bytes, uint32_t size, uint32_t at);
/* Whether bytes answer the query, which was sent with this id. */
bool message_answers(const uint8_t *bytes, uint32_t size, const uint8_t *query,
                     const struct question *question, uint16_t id);

static inline uint32_t get16(const uint8_t *at)
{
    return (uint32_t)at[0] << 8 | at[1];
}

static inline void put16(uint8_t *at, uint32_t number)
{
    at[0] = (uint8_t)(number >> 8);
    at[1] = (uint8_t)number;
}

/* ---- addresses.c */

#define MAX_CHAIN 16 /* names, each an alias of the next one */

struct addresses {
    const uint8_t *bytes; /* the answer */
    uint32_t size;
    uint32_t at;   /* of the next record */
    uint32_t left; /* records that follow */
    uint32_t chain_count;
    uint32_t chain[MAX_CHAIN]; /* where the names are whose addresses count */
};

struct address {
    uint32_t size; /* 4 or 16 */
    uint8_t bytes[16];
    uint32_t life; /* seconds that the answer may be kept */
};

/* Begin with the addresses in an answer to a question, as `message_answers` has found it to be. */
void addresses_begin(struct addresses *addresses, const uint8_t *bytes, uint32_t size,
                     const struct question *question);
bool addresses_next(struct addresses *addresses, struct address *address);

/* ---- allowed.c */

struct doors {
    int fds[2]; /* marked sockets in the container's network, of IPv4 and IPv6; -1: none */
};

/* Whether others may be asked for a name. */
bool names_may_ask(const struct names *names, const struct question *question);
/* Have the container connect to the addresses that an answer gives it; before it is given. */
void let_through(const struct doors *doors, const uint8_t *answer, uint32_t size,
                 const struct question *question);

/* ---- forward.c */

#define FLIGHTS 1024     /* questions that wait for an answer */
#define FLIGHT_QUERY 512 /* a longer one has to come over TCP */
#define FLIGHT_ATTEMPTS 3
#define FLIGHT_PATIENCE (1500 * MILLISECOND) /* then the next server is asked */

struct flight {
    uint64_t due;
    struct sockaddr_in client;
    int fds[MAX_SERVERS]; /* to each server that was asked */
    uint32_t asked;       /* attempts so far */
    uint32_t size;
    uint16_t client_id;
    uint16_t id;
    uint8_t query[FLIGHT_QUERY];
};

struct forward {
    int epoll;
    int datagram; /* of the name server */
    const struct names *names;
    const struct doors *doors;
    uint64_t due; /* of the first of them, at the earliest */
    uint64_t used[FLIGHTS / 64];
    struct flight flights[FLIGHTS] __attribute__((aligned(PAGE)));
};

/* Ask for what cannot be answered here; the answer, of whatever kind, goes to the client. */
void forward_ask(struct forward *forward, const uint8_t *query, uint32_t size,
                 const struct question *question, const struct sockaddr_in *client,
                 uint8_t answer[MAX_MESSAGE], uint64_t now);
/* A server has answered, or cannot be reached. */
void forward_hear(struct forward *forward, uint32_t place, uint32_t side,
                  uint8_t answer[MAX_MESSAGE], uint64_t now);
/* Go on with those that nobody has answered. */
void forward_expire(struct forward *forward, uint8_t answer[MAX_MESSAGE], uint64_t now);

/* ---- stream.c */

#define STREAMS 24
#define STREAM_IDLE                                                                                \
    (10000 * MILLISECOND) /* without a question, or with a client that does not read */
#define STREAM_PATIENCE (3000 * MILLISECOND) /* for one server */

enum stream_state {
    STREAM_FREE,
    STREAM_READING,
    STREAM_ASKING,  /* connecting, or sending the question */
    STREAM_HEARING, /* reading the answer */
    STREAM_WRITING,
};

struct stream {
    enum stream_state state;
    bool leaving; /* the client sends nothing any more, and has perhaps gone */
    int client;
    int server;
    uint32_t asked;
    uint32_t at;   /* bytes of what is being read or written that are through, length included */
    uint32_t size; /* of the query, its length included; 0: not known yet */
    uint64_t due;
    uint16_t client_id;
    uint16_t id;
    struct question question;
    uint8_t query[2 + MAX_QUERY];
    uint8_t answer[2 + MAX_MESSAGE] __attribute__((aligned(PAGE)));
};

struct streams {
    int epoll;
    int listener;
    bool full; /* nobody is accepted for now */
    struct names *names;
    const struct doors *doors;
    uint64_t due;
    struct stream all[STREAMS];
};

void stream_accept(struct streams *streams, uint64_t now);
void stream_serve(struct streams *streams, uint32_t place, uint32_t side, uint32_t events,
                  uint64_t now);
void stream_expire(struct streams *streams, uint64_t now);

/* ---- proxy.c, datagrams.c */

#define PAIRS 2048 /* TCP connections into the container */
#define CHUNK 65536
#define CONNECT_PATIENCE (10000 * MILLISECOND)

struct pair {
    int fds[2]; /* from outside, to the container */
    bool used;
    bool connecting;
    bool ended[2]; /* nothing more comes from there, and the other side knows */
    uint64_t due;  /* while connecting */
};

#define SESSIONS 256
#define SESSION_IDLE (90000 * MILLISECOND) /* as Docker's proxy */

struct session {
    int fd; /* to the container; 0: free */
    uint32_t proxy;
    uint32_t size;
    struct sockaddr_in6 client; /* or sockaddr_in */
    struct in6_pktinfo local;   /* which of the host's addresses it has written to; or in_pktinfo */
    uint64_t due;
};

struct proxies {
    int epoll;
    uint32_t count;
    const struct attendant_proxy *all;
    uint32_t pair_count;
    bool full; /* no more is accepted for now */
    uint64_t pairs_due;
    uint64_t sessions_due;
    struct pair pairs[PAIRS];
    struct session sessions[SESSIONS];
    uint8_t chunk[CHUNK] __attribute__((aligned(PAGE)));
};

/* The address in the container that a proxy leads to; its size. */
uint32_t proxy_target(const struct attendant_proxy *proxy, struct sockaddr_in6 *address);
void proxy_accept(struct proxies *proxies, uint32_t proxy, uint64_t now);
void proxy_move(struct proxies *proxies, uint32_t place, uint32_t side, uint32_t events);
void proxy_expire(struct proxies *proxies, uint64_t now);
/* Have the kernel tell which address a datagram was for. */
void session_prepare(int fd);
/* A datagram from outside; one from the container. */
void session_receive(struct proxies *proxies, uint32_t proxy, uint64_t now);
void session_return(struct proxies *proxies, uint32_t place, uint64_t now);
void session_expire(struct proxies *proxies, uint64_t now);

/* ---- filter.c */

/* From here on the process can do what an attendant does, and nothing else. */
long restrict_calls(void);

#endif

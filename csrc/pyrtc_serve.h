/*
 * Programs that serve a container while it runs.
 */
#ifndef PYRTC_INTERFACE_SERVE_H
#define PYRTC_INTERFACE_SERVE_H

#include "pyrtc.h"

/* ---- its network: attendant.c */

/* What arrives at listen_fd, the attendant carries to a port of the container: a TCP socket that
 * listens, or a bound UDP socket. */
struct pyrtc_proxy {
    int32_t listen_fd;
    uint16_t datagrams; /* 1: UDP */
    uint16_t port;
    uint32_t family;     /* 4 or 6 */
    uint8_t address[16]; /* of the container; the first four bytes of it */
};

/* Descriptors are -1 where there is none. */
struct pyrtc_attend {
    int32_t program_fd;   /* pyrtc-attendant */
    int32_t container_fd; /* pidfd: the attendant ends with the container */
    int32_t datagram_fd;  /* UDP and TCP socket of the name server, in the container's network */
    int32_t listen_fd;
    int32_t directory_fd; /* of the container, for the file "dns"; see attendant/names.c */
    int32_t names_fd;     /* directory of the networks' names */
    int32_t door4_fd;     /* marked UDP sockets in the container's network, whose rules let it */
    int32_t door6_fd;     /* connect to where they send; see attendant/allowed.c */
    int32_t userns_fd;    /* where it is: what it connects to and asks, it does from there */
    int32_t netns_fd;
    const struct pyrtc_proxy *proxies;
    uint32_t proxy_count;
    uint32_t held_count;
    const int32_t *held; /* bound sockets, which keep their ports */
};

/* Start the attendant of a container; returns its pidfd when it serves. */
int pyrtc_start_attendant(const struct pyrtc_attend *request, int32_t *pid,
                          struct pyrtc_error *error);

/* ---- by programs of others: keeper.c */

struct pyrtc_keep {
    int32_t helper_fd;
    int32_t watched_fd;   /* the container's pidfd: the program ends with it */
    int32_t ready_number; /* the descriptor on which the program says that it is ready: 1 or 3 */
    const int32_t *held;  /* four at most: open as long as the program may live, such as a lock */
    uint32_t held_count;
    uint32_t argument_count;
    uint32_t string_count;  /* arguments and environment */
    const uint8_t *strings; /* each ended by NUL; the first is the path of the program */
    uint64_t strings_size;
};

struct pyrtc_kept {
    int32_t
        control_fd; /* pyrtc_go_on(): nobody reads the errors any more; its end: the program is gone */
    int32_t ready_fd; /* read end: what the program says when it is ready */
    int32_t error_fd; /* read end of its standard error */
};

/* Start a program under a keeper that is nobody's child. */
int pyrtc_keep(const struct pyrtc_keep *request, struct pyrtc_kept *result,
               struct pyrtc_error *error);

#endif

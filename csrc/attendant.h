/*
 * The block: what the attendant of a container (attendant/) has to know. The caller writes it
 * into a sealed memfd (csrc/attendant.c), attendant/main.c checks it.
 *
 *   struct attendant_block | struct attendant_proxy[proxy_count] | int32_t held[held_count]
 *
 * Whose names it knows and whom it asks for others is not in it, for that can change while the
 * container runs: it is in the file "dns" of the container's directory, which
 * attendant/names.c describes.
 */
#ifndef PYRTC_ATTENDANT_H
#define PYRTC_ATTENDANT_H

#include <stdint.h>

#define ATTENDANT_MAGIC 0x70727461
#define ATTENDANT_VERSION 2
#define ATTENDANT_MAX_PROXIES 131072 /* each port of this host, for two families */
#define ATTENDANT_MAX_HELD 131072

/* Every descriptor is one of the launcher's; -1 where there is none. */
struct attendant_block {
    uint32_t magic;
    uint32_t version;
    uint32_t proxy_count;
    uint32_t held_count;
    int32_t control_fd;   /* its end of the socket to the caller */
    int32_t container_fd; /* pidfd: the attendant ends when the container does */
    int32_t datagram_fd;  /* UDP socket of the name server, in the container's network */
    int32_t listen_fd;    /* TCP socket of the name server; both or none */
    int32_t directory_fd; /* of the container: the file "dns" */
    int32_t names_fd;     /* directory with a directory for each network, and a file "names" in
                                each */
    int32_t door_fds[2];  /* marked UDP sockets in the container's network, of IPv4 and IPv6;
                             attendant/allowed.c says what for */
};

/* What arrives at listen_fd goes to the container. */
struct attendant_proxy {
    int32_t listen_fd; /* a TCP socket that listens, or a bound UDP socket */
    uint16_t datagrams;
    uint16_t port;   /* in the container, host order as all of this */
    uint32_t family; /* 4 or 6 */
    uint8_t address[16];
};

/* The only message of the attendant on the control socket. With code 0 it serves, and its pidfd is
 * attached; otherwise code is the errno of the refused call. */
struct attendant_started {
    int32_t pid;
    int32_t code;
    char call[40];
};

#endif

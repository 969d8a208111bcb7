/*
 * One attendant, and what its beginning (main.c) and its life (serve.c) have of each
 * other.
 */
#ifndef PYRTC_ATTENDANT_STATE_H
#define PYRTC_ATTENDANT_STATE_H

#include "parts.h"

#include <linux/mman.h>

#define QUIET (1000 * MILLISECOND) /* then buffers are given back */

struct attendant {
    int epoll;
    int container; /* pidfd */
    int datagram;  /* of the name server */
    bool used;     /* the buffers have been */
    struct names names;
    struct doors doors;
    struct forward forward;
    struct streams streams;
    struct proxies proxies;
    uint8_t query[MAX_QUERY] __attribute__((aligned(PAGE)));
    uint8_t answer[MAX_MESSAGE + 1] __attribute__((aligned(PAGE)));
};

/* Serve until the container has ended. */
__attribute__((noreturn)) void attend(struct attendant *it);

#endif

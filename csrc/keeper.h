/*
 * The block: what the keeper of a program that serves a container has to know. The caller writes it
 * into a sealed memfd (csrc/keeper.c), init/keeper.c checks it.
 *
 *   struct keeper_block | string_count strings, each ended by NUL
 */
#ifndef PYRTC_KEEPER_H
#define PYRTC_KEEPER_H

#include <stdint.h>

#define KEEPER_MAGIC 0x7072746b
#define KEEPER_VERSION 1
#define KEEPER_MAX_SIZE 262144
#define KEEPER_MAX_STRINGS 1024
#define KEEPER_MAX_HELD 4

/* Every descriptor is one of the launcher's; -1 where there is none. */
struct keeper_block {
    uint32_t magic;
    uint32_t version;
    uint32_t size;           /* of the whole block, strings included */
    uint32_t argument_count; /* the first strings: argv, the first of which is a path */
    uint32_t string_count;   /* arguments, then the environment */
    int32_t ready_number;    /* the descriptor that ready_fd is to the program: 1 or 3 */
    int32_t watched_fd;      /* when it can be read, or has no writer any more, the program ends */
    int32_t control_fd; /* to the caller: its end is the keeper's, and means no more than that */
    int32_t ready_fd;   /* write end: what the program says when it is ready */
    int32_t error_fd;   /* write end: its standard error */
    int32_t drain_fd;   /* read end of the same, read by the keeper once the caller is done */
    int32_t held[KEEPER_MAX_HELD]; /* open as long as the program may live: locks */
};

#endif

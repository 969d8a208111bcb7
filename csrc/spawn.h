/*
 * What the starts of programs share: a container's (spawn.c, monitor.c), and those that stay with
 * one and are nobody's children (monitor.c, attendant.c, keeper.c).
 */
#ifndef PYRTC_SPAWN_H
#define PYRTC_SPAWN_H

#include "place.h"
#include "pyrtc_start.h"

/* Return a memfd with the plan: header, slot table with the real descriptor numbers, operations. */
int write_plan(const struct pyrtc_spawn *request, struct pyrtc_error *error);

/* Return a sealed memfd with these bytes: the block of a program that stays with a container. */
struct iovec;
int write_sealed(const char *name, const struct iovec *parts, int count, struct pyrtc_error *error);

/* Execute `NAME BLOCK_FD` at a place, with these descriptors (-1: none), of which the block is one,
 * in a launcher that this waits for: it ends as soon as the program is nobody's child. */
int launch_aside(const char *name, struct place place, int32_t program_fd, int32_t block_fd,
                 const int32_t *inherited, uint32_t count, struct pyrtc_error *error);

#endif

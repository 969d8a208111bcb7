/*
 * Work inside other namespaces, without moving the caller's threads there.
 */
#ifndef PYRTC_PLACE_H
#define PYRTC_PLACE_H

#include <stdint.h>

/* Where something is done: a user namespace and a network namespace; -1: the caller's. */
struct place {
    int32_t userns_fd;
    int32_t netns_fd;
};

#define HERE ((struct place){-1, -1})

/* Call work(argument) at a place, in a process that borrows this memory and shares the descriptor
 * table. Returns what it returns, or -errno with *step saying what failed. work follows the rules
 * of borrow.h; what it opens stays open. */
long work_at(struct place place, long (*work)(void *argument), void *argument, const char **step);

/* Enter the namespaces of place: only for a borrowing child. */
long enter_place(struct place place, const char **step);

#endif

/*
 * The vocabulary of the extension's C: owned descriptors and buffers that release themselves, and
 * nothing else.
 */
#ifndef PYRTC_UTIL_H
#define PYRTC_UTIL_H

#include <stdlib.h>
#include <unistd.h>

static inline void close_owned(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

static inline void free_owned(void *pointer)
{
    free(*(void **)pointer);
}

/* `owned_fd int fd = openat2(...)`: closed at the end of the scope unless steal_fd() took it. */
#define owned_fd __attribute__((cleanup(close_owned)))
#define owned __attribute__((cleanup(free_owned)))

static inline int steal_fd(int *fd)
{
    int taken = *fd;
    *fd = -1;
    return taken;
}

#endif

/*
 * One monitor, and what its beginning (monitor_start.c), its life (monitor.c) and its end
 * (monitor_end.c) have of each other.
 */
#ifndef PYRTC_INIT_MONITOR_STATE_H
#define PYRTC_INIT_MONITOR_STATE_H

#include "monitor.h"

#include "init.h"

#include <sys/resource.h>

struct monitor {
    const struct monitor_block *block;
    long pid;
    int pidfd;
    int control;
    int directory;
    int output[2]; /* stdout or the terminal, stderr; -1: ended */
    int slave; /* of the terminal: while it is open, others may close theirs and open it again */
    int kill;
    int oom;
    bool steady;
    bool abandoned; /* the caller is gone, or has given up */
    bool ended;
    bool timed_out;     /* and was killed for it */
    uint64_t deadline;  /* when the command must have ended; 0: never */
    uint64_t oom_kills; /* before */
    uint64_t started;
    uint64_t finished;
    uint64_t drained_by; /* when what comes out no longer matters */
    uint64_t drained_by_most;
    int status; /* as wait4(2) tells it */
    long umask; /* the caller's */
    struct rusage usage;
    struct log log;
    struct attach attach;
    bool used;                                                    /* the buffers have been */
    char chunk[1 + MONITOR_CHUNK] __attribute__((aligned(PAGE))); /* kind, bytes */
    struct health health; /* the last: it takes no memory where nothing is checked */
};

/* Of the end command, one after the other. */
static inline const char *strings_of(const struct monitor_block *block)
{
    return (const char *)(block + 1);
}

static inline void close_if_open(int fd)
{
    if (fd >= 0)
        path_close(fd);
}

/* ---- monitor_start.c */

void make_nonblocking(int fd);

/* ---- monitor.c */

void kill_container(const struct monitor *it);
/* From the moment when process 1 exists until the container has ended and its output is in the log. */
void watch_container(struct monitor *it);

/* ---- monitor_end.c */

/* How many processes of the container the kernel has killed for want of memory. */
uint64_t read_oom_kills(int fd);
/* The place of the record is taken at the start: the disk may be full at the end. */
void reserve_record(const struct monitor *it);
/* Record how the container ended, tell the clients, and become the command that cleans up. */
__attribute__((noreturn)) void end_watch(struct monitor *it);

#endif

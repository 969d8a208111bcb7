/*
 * The monitor's parts: what it writes (monitor_log.c), whom it talks to (monitor_attach.c). Both are
 * plain functions over descriptors and bounded buffers, so that they can be tested outside.
 */
#ifndef PYRTC_INIT_MONITOR_H
#define PYRTC_INIT_MONITOR_H

#include "../monitor.h"
#include "../sys.h"

#include <poll.h>
#include <stdbool.h>

#define PAGE 4096
#define MONITOR_CHUNK 16383 /* bytes of output that are read at once; with their kind four pages */
#define MAX_CLIENTS 256
#define SECOND 1000000000ULL
#define REALTIME 0
#define MONOTONIC 1
#define CLIENT_STALL (5 * SECOND) /* how long a client may hold back the container's output */

enum stream {
    STREAM_STDOUT,
    STREAM_STDERR,
};

/* ---- monitor_log.c */

struct log {
    int directory;
    int fd;            /* -1: it could not be opened, or there is none */
    uint32_t files;    /* 0: nothing is logged */
    uint64_t limit;    /* bytes of one file, 0: none */
    uint64_t size;     /* of the file that is being written */
    uint64_t lost;     /* bytes of output that could not be written */
    long error;        /* why */
    uint64_t retry_at; /* when writing is tried again */
};

uint64_t clock_now(int clock);
void log_open(struct log *log, int directory, uint32_t files, uint64_t limit);
/* Write what was read from a stream: each line complete, the rest as a partial one. */
void log_write(struct log *log, enum stream stream, const char *bytes, size_t size);
/* Tell what is missing at the end. */
void log_close(struct log *log);
/* "2026-11-24T09:33:54.123456789Z", of nanoseconds since the epoch. */
void log_time(char text[31], uint64_t time);

/* ---- monitor_attach.c */

struct client {
    int fd;
    bool known;   /* has said hello */
    bool output;  /* wants it */
    bool input;   /* may send it */
    bool once;    /* stdin ends with it */
    bool owed;    /* has not got the current message yet */
    bool waiting; /* has sent input that there is no room for */
};

struct attach {
    int listener;
    uint64_t listen_after; /* there were no descriptors to accept with; not before */
    struct client clients[MAX_CLIENTS];
    uint32_t count;
    const char *message; /* what is owed */
    size_t message_size;
    uint32_t owed;     /* how many clients have not got it */
    uint64_t deadline; /* when they are dropped */
    int input;         /* write end of stdin or the terminal's master; -1: closed */
    bool terminal;
    bool close_input; /* when what is pending is written */
    bool claimed;
    size_t input_at, input_end; /* pending, in buffer */
    char buffer[ATTACH_MAX_MESSAGE] __attribute__((aligned(PAGE)));
};

/* Accept who is waiting, and hear what they have sent. */
void attach_accept(struct attach *attach, uint64_t now);
/* Add an entry for each client; returns how many. */
uint32_t attach_gather(const struct attach *attach, struct pollfd *entries);
/* Hear clients, and send what is owed; entries as gathered. */
void attach_serve(struct attach *attach, const struct pollfd *entries, uint32_t count,
                  uint64_t now);
/* Send a message to the clients that want output, or to all. It must stay as it is while somebody
 * is owed it. */
void attach_send(struct attach *attach, const char *message, size_t size, bool all, uint64_t now);
/* Drop clients that have held back the output for too long. */
void attach_expire(struct attach *attach, uint64_t now);
/* Write pending input. */
void attach_flush_input(struct attach *attach);

#endif

/*
 * The monitor's parts: what it writes (monitor_log.c), whom it talks to (monitor_attach.c), how the
 * container is (monitor_health.c). They are plain functions over descriptors and bounded buffers, so
 * that they can be tested outside.
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
#define NEVER (~0ULL)
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

/* ---- monitor_health.c */

#define HEALTH_ENTRIES 3   /* of poll(2) */
#define HEALTH_RESULTS 5   /* that are kept */
#define HEALTH_OUTPUT 4096 /* bytes of a probe's output that are kept */
#define HEALTH_NOTE 320

enum health_status {
    HEALTH_STARTING,
    HEALTH_HEALTHY,
    HEALTH_UNHEALTHY,
};

struct health_result {
    uint64_t start; /* since the epoch */
    uint64_t end;
    int32_t code;           /* -1: it did not come to an exit code */
    uint32_t size;          /* of output */
    char note[HEALTH_NOTE]; /* before the output: why there is no exit code */
    char output[HEALTH_OUTPUT + 3];
};

struct health {
    struct monitor_health wanted;
    bool known;      /* there is a check */
    bool running;    /* a probe */
    uint64_t due;    /* of the next probe, or when this one must have ended */
    uint64_t next;   /* probe; before it there may be something left to do */
    uint64_t steady; /* when the container's command executed; monotonic as due and began */
    int directory;   /* of the container */
    int container_fd;
    int plan;
    int frozen; /* cgroup.freeze or freezer.state */
    int cgroup; /* version 2 directory of the container */
    int tasks[HEALTH_MAX_TASKS];
    /* the probe */
    uint64_t began;
    uint64_t started; /* since the epoch */
    uint64_t ended;
    bool pending;    /* it has ended, and does not count yet */
    uint32_t sweeps; /* for children of a probe that came to nothing */
    long joiner;     /* pyrtc-init */
    long process;    /* the command, which it made */
    int joiner_fd;   /* pidfds */
    int process_fd;
    int status_fd;
    int output_fd;
    int group_fd;
    uint64_t first_group; /* that is not removed */
    uint64_t next_group;
    bool failed;
    bool timed_out;
    bool truncated;
    uint32_t size; /* of output */
    size_t noted;
    char note[HEALTH_NOTE];
    char output[HEALTH_OUTPUT + 3];
    /* what is known */
    enum health_status status;
    uint32_t streak; /* of failures */
    uint32_t first;  /* result */
    uint32_t count;
    struct health_result results[HEALTH_RESULTS];
};

/* Take what the caller sent; the descriptors are closed or kept. Nothing else may be asked unless
 * `known` is set then. */
void health_hear(struct health *health, const struct monitor_health *wanted, const int *fds,
                 uint32_t count, int container_fd, int directory);
/* The container's command executes. */
void health_begin(struct health *health, uint64_t now);
void health_gather(const struct health *health, struct pollfd entries[HEALTH_ENTRIES]);
/* Go on with the probe, or begin one. container: process 1. */
void health_serve(struct health *health, const struct pollfd entries[HEALTH_ENTRIES], uint64_t now,
                  long container);
/* The container has ended. */
void health_end(struct health *health);

#endif

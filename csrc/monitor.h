/*
 * The block: what the monitor of a container that outlives its caller has to know. The caller
 * writes it into a sealed memfd (csrc/monitor.c), init/monitor_start.c checks it.
 *
 *   struct monitor_block | string_count strings, each ended by NUL
 */
#ifndef PYRTC_MONITOR_H
#define PYRTC_MONITOR_H

#include <stdint.h>

#define MONITOR_MAGIC 0x7072746d
#define MONITOR_VERSION 2
#define MONITOR_MAX_SIZE 4194304
#define MONITOR_MAX_STRINGS 8192

/* Every descriptor is one of the launcher's; -1 where there is none. */
struct monitor_block {
    uint32_t magic;
    uint32_t version;
    uint32_t size;        /* of the whole block, strings included */
    uint32_t log_files;   /* how many log files there may be, the one being written included; 0: no
                           log */
    uint64_t log_size;    /* bytes of one log file at most; 0: it grows without end */
    uint64_t timeout;     /* nanoseconds that the command may execute, then it is killed; 0: any */
    uint64_t clone_flags; /* the namespaces of process 1 */
    uint32_t argument_count; /* the first strings: what to execute when the container has ended; 0:
                                nothing */
    uint32_t string_count;   /* arguments, then the environment */
    int32_t plan_fd;         /* process 1's: the plan, and its end of the status socket */
    int32_t status_fd;
    int32_t control_fd;   /* the monitor's end of the socket to the caller */
    int32_t cgroup_fd;    /* version 2 directory that process 1 is born in */
    int32_t directory_fd; /* of the container: log, exit */
    int32_t listen_fd;    /* attach socket */
    int32_t stdin_fd;     /* write end; stdout_fd, stderr_fd: read ends */
    int32_t stdout_fd;
    int32_t stderr_fd;
    int32_t kill_fd;   /* cgroup.kill, where there is no pid namespace */
    int32_t oom_fd;    /* a file with a line "oom_kill N": memory.events, or memory.oom_control */
    int32_t userns_fd; /* that process 1 is born in, or its new one is a child of */
};

/* The first message of the monitor on the control socket. With code 0 the pidfds of process 1 and
 * of the monitor are attached; otherwise code is the errno of the refused call. */
struct monitor_started {
    int32_t pid;
    int32_t monitor_pid;
    int32_t code;
    char call[36];
};

/* What the caller sends on the control socket: a message of one byte with the master of the
 * container's terminal attached; a message of one byte without, once the command executes
 * ("steady"). If the socket ends before that, the monitor kills what it started. */

/* A third kind, before "steady": how to find out whether the container is well. Attached are, in
 * this order: a memfd with a plan of exec, whose slot 3 and, after it, those of the tasks files are
 * filled in by the monitor; with HEALTH_FROZEN_FILE cgroup.freeze or freezer.state; with
 * HEALTH_CGROUP the version 2 directory; the tasks files. Times are nanoseconds, and not 0 but for
 * start_period. */
struct monitor_health {
    uint64_t interval;
    uint64_t timeout;
    uint64_t start_period;
    uint64_t start_interval;
    uint32_t retries;
    uint32_t flags;
    uint32_t tasks;
    uint32_t reserved;
};

#define HEALTH_MAX_TASKS 32
#define HEALTH_LONGEST 1000000000000000000ULL

enum health_flags {
    HEALTH_FROZEN_FILE = 1,
    HEALTH_CGROUP = 2,
};

/* ---- attach: SOCK_SEQPACKET, a message is one byte of kind and what belongs to it */

#define ATTACH_MAX_MESSAGE 32768

enum attach_kind {
    ATTACH_HELLO = 'A',  /* the first of a client; uint8_t: ATTACH_* flags */
    ATTACH_INPUT = 'I',  /* bytes for stdin */
    ATTACH_CLOSE = 'C',  /* no more stdin; a terminal has no such end */
    ATTACH_RESIZE = 'W', /* uint16_t rows, columns, little endian */
    ATTACH_CLAIM = 'Q',  /* the client does what the end command would have done */
    ATTACH_STDOUT = 'O', /* to the client: bytes */
    ATTACH_STDERR = 'E',
    ATTACH_EXIT = 'X', /* to the client, the last: int32_t code, signal, little endian */
};

enum attach_flags {
    ATTACH_OUTPUT_WANTED = 1,
    ATTACH_INPUT_ALLOWED = 2,
    ATTACH_INPUT_ONCE = 4, /* stdin ends with this client */
};

#endif

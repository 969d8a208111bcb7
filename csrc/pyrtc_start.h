/*
 * Containers: starting them, hearing of them, those that outlive this process.
 */
#ifndef PYRTC_INTERFACE_START_H
#define PYRTC_INTERFACE_START_H

#include "pyrtc.h"

struct report; /* plan.h */

/* ---- starting processes: spawn.c */

struct pyrtc_spawn {
    uint64_t clone_flags; /* the namespaces to make: CLONE_NEW* */
    const uint8_t *plan;  /* operations for pyrtc-init, see plan.h */
    uint64_t plan_size;
    const int32_t *slots; /* descriptors that the plan names by index; 0, 1 and 2 become stdin,
                             stdout, stderr */
    uint32_t slot_count;
    int32_t helper_fd; /* sealed memfd that holds pyrtc-init */
    int32_t cgroup_fd; /* cgroup v2 directory to be born in, or -1 */
    int32_t
        userns_fd; /* user namespace to be born in, with CLONE_NEWUSER in a new one that is a child
                          of it; -1: the caller's */
    uint32_t op_count;
    uint32_t name_sender; /* 1: reports tell which process sent them */
};

struct pyrtc_child {
    int32_t pid;
    int32_t pidfd;
    int32_t
        status_fd; /* SOCK_SEQPACKET: reports from pyrtc-init; end of file once the command runs */
};

/* Put the bytes of pyrtc-init into a sealed memfd that can be executed and never changed again. */
int pyrtc_seal_helper(const uint8_t *program, uint64_t size, struct pyrtc_error *error);

/* Start pyrtc-init in new namespaces without copying the caller's memory. */
int pyrtc_spawn(const struct pyrtc_spawn *request, struct pyrtc_child *child,
                struct pyrtc_error *error);

/* Write to a file as a process of a user namespace does: the id maps of one that is a child of it.
 */
int pyrtc_write_in(int32_t userns_fd, const char *path, const char *text,
                   struct pyrtc_error *error);

/* Start the warden: pyrtc-init in the mode that kills what this process leaves behind. Returns its
 * socket. */
int pyrtc_start_warden(int32_t helper_fd, struct pyrtc_error *error);

struct pyrtc_usage {
    int32_t status;   /* as waitid(2) tells it: exit code or signal */
    int32_t signaled; /* 1: status is a signal */
    int64_t user_us;  /* CPU time of the process and the descendants it waited for */
    int64_t system_us;

    int64_t read_bytes; /* block input and output charged to it */
    int64_t written_bytes;
};

/* Reap the process behind pidfd. Returns 1 when it was reaped, 0 when it still runs (flags has
 * WNOHANG). */
int pyrtc_reap(int32_t pidfd, int32_t flags, struct pyrtc_usage *usage, struct pyrtc_error *error);

/* ---- what pyrtc-init says, and is told: status.c */

/* Send one or two descriptors with a byte: a container's pidfd and cgroup.kill for the warden.
 * stays: 1: when the process ends, the group is left alone. */
int pyrtc_send_descriptors(int32_t socket_fd, const int32_t *fds, uint32_t count, uint32_t stays,
                           struct pyrtc_error *error);

/* Let a waiting pyrtc-init go on. */
int pyrtc_go_on(int32_t status_fd, struct pyrtc_error *error);

enum {
    PYRTC_RUNNING = 0,     /* the socket ended: the command executes, or pyrtc-init is gone */
    PYRTC_REPORTED = 1,    /* *report is filled, *attached_fd is the caller's or -1 */
    PYRTC_INTERRUPTED = 2, /* a signal arrived: ask again */
};

/* Wait for the next report of pyrtc-init (struct report of plan.h). *sender: the process it is of,
 * which the kernel vouches for, or -1 unless name_sender was asked for. */
int pyrtc_next_report(int32_t status_fd, struct report *report, int32_t *attached_fd,
                      int32_t *sender, struct pyrtc_error *error);

/* ---- containers that outlive this process: monitor.c */

/* What the monitor needs besides the plan. Descriptors are -1 where there is none. */
struct pyrtc_monitor {
    int32_t directory_fd; /* of the container: the monitor writes log and exit there */
    int32_t listen_fd;    /* of pyrtc_listen_at() */
    int32_t stdin_fd;     /* write end */
    int32_t stdout_fd;    /* read ends */
    int32_t stderr_fd;
    int32_t kill_fd;         /* cgroup.kill, for a container without a pid namespace of its own */
    int32_t oom_fd;          /* a file with a line "oom_kill N" */
    uint32_t log_files;      /* at most; 0: no log */
    uint64_t log_size;       /* bytes of each at most; 0: no limit */
    uint64_t timeout;        /* nanoseconds until the container is killed; 0: never */
    uint32_t argument_count; /* of the command at the end; 0: none */
    uint32_t string_count;   /* arguments and environment */
    const uint8_t *end_command; /* the strings, each ended by NUL */
    uint64_t end_command_size;
};

struct pyrtc_monitored {
    int32_t pid; /* process 1: a child of the monitor */
    int32_t pidfd;
    int32_t monitor_pid;
    int32_t monitor_pidfd;
    int32_t status_fd;  /* as of struct pyrtc_child */
    int32_t control_fd; /* pyrtc_send_descriptors(): the terminal's master; then pyrtc_go_on(): the
                           command executes. If it is closed before, the container is killed */
};

/* Start a monitor, and pyrtc-init as its child. */
int pyrtc_spawn_monitored(const struct pyrtc_spawn *request, const struct pyrtc_monitor *monitor,
                          struct pyrtc_monitored *result, struct pyrtc_error *error);

/* Make a listening SOCK_SEQPACKET socket with this name, which replaces what has it. */
int pyrtc_listen_at(int32_t directory_fd, const char *name, struct pyrtc_error *error);

/* Connect to it; returns a descriptor, or -errno without filling an error: that nobody listens is
 * an answer. */
int pyrtc_connect_at(int32_t directory_fd, const char *name);

/* Send one message, without a signal when nobody is there any more; returns its size or -errno. */
int pyrtc_send_message(int32_t socket_fd, const uint8_t *bytes, uint64_t size);

/* ---- device rules of a container: bpf.c */

/* Attach a BPF_PROG_TYPE_CGROUP_DEVICE program to the version 2 cgroup. instructions: struct
 * bpf_insn[count]. */
int pyrtc_attach_device_filter(int32_t cgroup_fd, const uint64_t *instructions, uint32_t count,
                               struct pyrtc_error *error);

#endif

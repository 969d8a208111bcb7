/*
 * pyrtc-init: what every one of its files shares.
 *
 * The program is freestanding: no C library, no allocation; it executes a
 * plan (plan.h) that was decided by the caller, and either becomes the command or reports the
 * operation that failed.
 */
#ifndef PYRTC_INIT_H
#define PYRTC_INIT_H

#include "../freestanding.h"
#include "../mountapi.h"
#include "../plan.h"

#include <stdbool.h>

struct plan {
    const struct plan_header *header;
    const int32_t *slots;
};

struct state {
    struct plan plan;
    int status_fd;
    int root_fd;    /* the container's root directory */
    int scratch_fd; /* a private tmpfs outside the root: mount points, files that are bound into the
                       root */
    int proc_fd;    /* a procfs that nobody else can have mounted something in */
    int dev_fd;     /* the tmpfs on /dev, while it is being filled */
    uint32_t op;    /* index of the operation being executed, for reports */
    uint32_t files; /* made in scratch so far */
    bool root_covered; /* scratch is mounted over the old root itself */
    bool in_chroot;    /* the caller's root is not that of the mount namespace */
    int master_fd;     /* of a terminal that no caller reads, or -1 */
    bool joined;       /* in somebody else's namespaces */
    bool death_signal;
    bool terminal;
    bool reaper;
    uint64_t *trace;    /* of PLAN_TRACE, or NULL */
    const char *call;   /* the last system call that may fail, for reports */
    const char *detail; /* its path, or NULL */
};

/* struct statfs as the kernel writes it. */
struct file_system {
    long type;
    long rest[14];
};

#define PROC_SUPER_MAGIC 0x9fa0
#define SIGNAL_KILL 9
#define DETACH 2 /* MNT_DETACH */
#define PATH_SIZE 4096

/* Every operation returns 0 or -errno, having named the refused system call in state->call. */
typedef long operation(struct state *state, const struct plan_op *op);

/* plan.c */
long plan_check(const void *bytes, uint64_t size, struct plan *plan);
const struct plan_op *plan_first(const struct plan *plan);
const struct plan_op *plan_next(const struct plan_op *op);
const char *plan_string(const struct plan_op *op, uint32_t index);
const void *plan_blob(const struct plan_op *op);
const char *plan_text(const struct plan_op *op);

/* path.c: resolution inside the container's root */
long path_open(struct state *state, const char *path, uint64_t how_flags, uint64_t extra_resolve);
/* An O_PATH descriptor of the mount target; made, with its parents, when it is missing. */
long path_target(struct state *state, const char *path, bool directory, uint64_t extra_resolve);

/* root.c: a private tmpfs over a directory that is not needed, "" for the old root; a detached
 * mount as the new root */
long root_prepare(struct state *state, const char *size, const char *cover);
long root_adopt(struct state *state, long mount);

/* mounts.c: attach the mount to target, which is made where it is missing */
long mount_to(struct state *state, long mount, const char *target, bool directory,
              uint64_t resolve);

/* report.c */
void report_failure(struct state *state, long code);
/* kind with a descriptor attached */
long report_descriptor(struct state *state, uint32_t kind, int32_t code, int fd);
long await_caller(struct state *state);
bool caller_is_gone(struct state *state);

/* one file a topic: the operations */
operation root_bind, root_tmpfs, root_slot, root_readonly, root_pivot; /* root.c */
operation root_overlay, mount_overlay;                                 /* overlays.c */
operation mount_new, mount_bind, mount_bind_slot, mount_device, mount_mask,
    mount_readonly;                                                              /* mounts.c */
operation file_content, file_symlink, file_directory;                            /* files.c */
operation set_hostname, set_domainname, set_loopback, set_sysctl, set_oom_score; /* settings.c */
/* copy_up.c */
operation copy_up;

/* trace.c */
operation set_trace;
void trace_operation(struct state *state);

operation enter_tasks, await_maps, enter_network, enter_namespaces, new_keyring; /* enter.c */
operation set_rlimit, set_umask, set_workdir, set_no_new_privs, set_user;
operation set_bounding, set_capabilities, set_seccomp; /* privileges.c */
operation make_terminal;                               /* terminal.c */
operation join_container, fork_process;                /* join.c */
operation execute;                                     /* execute.c */

/* terminal.c: make the terminal on stdin the controlling one of this session */
long take_terminal(struct state *state);
/* Discard what is written to a terminal until nobody holds it any more. */
__attribute__((noreturn)) void drain_terminal(int master);

/* execute.c: move the status socket to 3 and a terminal's master that stays to 4; close what is above */
long keep_status(struct state *state);

#define KILLED_BY "killed by " /* its name at the end, with the number of the command's signal */

/* reaper.c: process 1 beside the command. Returns in the child; the parent never returns. */
long become_reaper(struct state *state);

/* main.c: every signal has its default action */
void reset_signals(void);
/* main.c: execute the plan, in this process */
__attribute__((noreturn)) void run(long plan_fd, long status_fd);

/* monitor_start.c: starts the monitor, which goes on in a process of its own. name: argv[0], which
 * process 1 takes over. */
__attribute__((noreturn)) void monitor_launch(long block_fd, char *name);

/* launch.c: map a memfd of this many bytes; NULL: it is of another size, or cannot be */
const void *launch_map(long fd, uint64_t least, uint64_t most, uint64_t *size);
/* Whether count strings, each ended by NUL, begin at `at`. */
bool launch_has_strings(const char *at, const char *end, uint32_t count);
/* Close every descriptor but those in the list; -1 in it is none. */
void launch_keep_only(const int32_t *kept, size_t count);

/* keeper.c: starts the keeper, which goes on in a process of its own. */
__attribute__((noreturn)) void keeper_launch(long block_fd);

/* warden.c: kills the containers of a caller that is gone. */
__attribute__((noreturn)) void warden(int socket);

#endif

/*
 * The plan: what pyrtc-init does, as a flat list of operations. Python writes it (runtime/plan.py),
 * init/plan.c checks it.
 *
 * A plan is decided completely before the container exists. pyrtc-init executes it from the first
 * operation to the last and stops at the first that fails; nothing in it is a default, a name to
 * look up outside the container, or a choice.
 *
 *   struct plan_header | int32_t slots[slot_count], padded to 8 | operations
 *   operation: struct plan_op | string_count strings, each ended by NUL | blob_size bytes | padding
 * to 8
 */
#ifndef PYRTC_PLAN_H
#define PYRTC_PLAN_H

#include <stdint.h>

#define PYRTC_PLAN_MAGIC 0x70727463
#define PYRTC_PLAN_MAX_SIZE 16777216
#define PYRTC_PLAN_MAX_SLOTS 1024

struct plan_header {
    uint32_t magic;
    uint32_t size; /* of the whole plan, header included */
    uint32_t slot_count;
    uint32_t op_count;
};

struct plan_op {
    uint16_t code;  /* enum plan_code */
    uint16_t flags; /* PLAN_* below, by code */
    uint32_t size;  /* of the operation with strings, blob and padding: a multiple of 8 */
    int32_t slot;   /* index of a descriptor, or -1 */
    uint32_t mode;  /* permission bits, or MOUNT_ATTR_* for mounts */
    uint64_t a;
    uint64_t b;
    uint32_t string_count;
    uint32_t blob_size;
};

/* The comment names the operands: [s0 s1 ...] strings, slot, mode, a, b, flags. */
enum plan_code {
    /* who and where */
    PLAN_DEATH_SIGNAL = 1, /* die with the caller's thread, until PLAN_ENTRUSTED */
    PLAN_TASKS, /* write 0 to the cgroup v1 tasks file in slot: be there before anything else is
                   charged */
    PLAN_AWAIT_MAPS, /* wait until the caller has written the id maps, then become id 0 of the user
                        namespace */
    PLAN_NETWORK,    /* slot: a network namespace to enter */
    PLAN_UNSHARE,    /* a: CLONE_NEW* that are right only after the cgroup was entered */
    PLAN_KEYRING,    /* a new, empty session keyring */
    PLAN_TRACE, /* slot: a memfd of one uint64_t for each operation of the plan, which gets the time at which it
                        begins, in nanoseconds of CLOCK_MONOTONIC; for this one and those before it 0 */
    PLAN_JOIN, /* slot: pidfd of a container's process 1; a: its CLONE_NEW* to enter; b: with a user
                  namespace, the uid to be in it and above it, << 32, the gid. Nobody may look into
                  this process from then on */
    PLAN_FORK, /* the process that goes on is a new one, in the pid namespace that was joined, and
                  holds no descriptor but 0, 1, 2 and the status socket; REPORT_PROCESS tells the
                  caller, who is its parent; PLAN_DETACHED: nobody is */

    /* the root file system: exactly one of these, before any mount */
    PLAN_ROOT_OVERLAY, /* [upper work lower...] lower top first; PLAN_VOLATILE PLAN_USERXATTR
                        * PLAN_DEVICES; PLAN_UPPER_TMPFS: upper is memory (mode, a: uid, b: gid of
                        * /; blob: its size, a string) */
    PLAN_ROOT_BIND,    /* [directory, another that may be covered, "" for none] PLAN_DEVICES */
    PLAN_ROOT_TMPFS,   /* an empty directory in memory; mode, blob as above; PLAN_DEVICES */
    PLAN_ROOT_SLOT,    /* slot: a detached mount */

    /* mounts, all targets inside the root */
    PLAN_OVERLAY, /* [target upper work lower...] as PLAN_ROOT_OVERLAY; with PLAN_UPPER_TMPFS upper and work are names
                     in the memory that also holds the root of PLAN_ROOT_TMPFS, as "upper" */
    PLAN_MOUNT, /* [fstype target option=value...] mode: MOUNT_ATTR_* */
    PLAN_BIND,  /* [source target] mode: attributes; a, b: device and inode that source must have;
                   PLAN_RECURSIVE */
    PLAN_BIND_SLOT, /* [target] slot: a detached mount; mode: attributes; PLAN_RECURSIVE */
    PLAN_DEVICE,  /* [source target] a: device number (major << 32, minor), b: S_IFCHR or S_IFBLK */
    PLAN_SYMLINK, /* [value target] target's directory exists and is reached without links */
    PLAN_FILE,    /* [target] blob: the content of a file that is private to this container; mode */
    PLAN_COPY_UP, /* [path] a file, or every file below a directory, is copied to the R/W layer */
    PLAN_MKDIR,   /* [target] a: uid, b: gid, mode (0: 0755) of what had to be made */
    PLAN_MASK,    /* [target] hide it, if it exists */
    PLAN_READONLY,      /* [target] make it read-only, if it exists */
    PLAN_ROOT_READONLY, /* [mount point] a mount that is part of the root; none: the root mount itself */

    PLAN_ENTRUSTED, /* wait until the caller has given the container to the warden; from then on that kills it, and the
                       caller's thread may end; PLAN_NO_WARDEN: there is none, it dies with the thread */

    /* settings of the new namespaces */
    PLAN_HOSTNAME,   /* [name] */
    PLAN_DOMAINNAME, /* [name] */
    PLAN_LOOPBACK,   /* bring lo up */
    PLAN_SYSCTL,     /* [path below /proc/sys, value] */
    PLAN_OOM_SCORE,  /* [value] */

    /* the process */
    PLAN_PIVOT,    /* leave the old root for good */
    PLAN_TERMINAL, /* a new terminal as stdin, stdout and stderr; its master goes to the caller; a:
                      rows, b: columns; after PLAN_JOIN it becomes the controlling one with
                      PLAN_FORK; PLAN_DETACHED: a process beside the command reads it */
    PLAN_RLIMIT,   /* [name] mode: resource, a: soft, b: hard */
    PLAN_UMASK,    /* mode */
    PLAN_WORKDIR,  /* [directory] */
    PLAN_NO_NEW_PRIVS,
    PLAN_USER,         /* a: uid, b: gid; blob: uint32_t supplementary groups */
    PLAN_BOUNDING,     /* a: the capabilities that stay within reach; before PLAN_USER */
    PLAN_CAPABILITIES, /* a: permitted and effective; inheritable and ambient are empty */
    PLAN_SECCOMP,      /* blob: struct sock_filter[] */
    PLAN_REAPER,       /* stay as process 1, reap orphans, forward signals, end with the command */
    PLAN_EXEC,         /* [argv... env...] a: how many are argv; the last operation */
};

enum plan_flags {
    PLAN_RECURSIVE = 1,
    PLAN_VOLATILE = 1,
    PLAN_USERXATTR = 2,
    PLAN_UPPER_TMPFS = 4,
    PLAN_DEVICES = 16, /* device nodes in the root file system work: privileged containers only */
    PLAN_NO_LINKS = 8, /* target must be reached without any symbolic link */
    PLAN_KEEP_GROUPS = 1, /* PLAN_USER: setgroups is denied in this user namespace */
    PLAN_NO_WARDEN = 1,   /* PLAN_ENTRUSTED: the death signal stays */
    PLAN_DETACHED = 1,    /* PLAN_FORK, PLAN_TERMINAL: the caller does not stay */
};

/* One message of pyrtc-init to its caller, on the status socket. */
enum report_kind {
    REPORT_FAILED = 1, /* op: index of the operation; code: errno; call: the system call */
    REPORT_TERMINAL,   /* with the master's descriptor attached */
    REPORT_PROCESS,    /* of PLAN_FORK: code: process id, with its pidfd attached */
};

struct report {
    uint32_t kind;
    uint32_t op;
    int32_t code;
    char call[36];
    char detail[208]; /* a path or sentence; may be empty */
};

/* What the caller sends to go on after PLAN_AWAIT_MAPS and after PLAN_ENTRUSTED: a message of one
 * byte each. */

#endif

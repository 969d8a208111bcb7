/*
 * The interface between the C core and Python. cffi reads the declarations below (preprocessor
 * lines are dropped), so this file holds plain C declarations only.
 *
 * Conventions: a function returns < 0 after filling *error; descriptors passed in stay the
 * caller's, descriptors handed out become the caller's and are close-on-exec; paths are bytes,
 * relative to a directory descriptor, and are resolved beneath it without following links out.
 */
#ifndef PYRTC_H
#define PYRTC_H

#include <stddef.h>
#include <stdint.h>

struct report; /* plan.h */
struct pyrtc_nft;

struct pyrtc_error {
    int32_t code;      /* errno, or 0 where no system call is to blame */
    char step[64];     /* what was being done, in a few words: "open the layer directory" */
    char message[512]; /* what is wrong, a sentence without a full stop; may be empty */
};

/* ---- starting processes: spawn.c
 * ------------------------------------------------------------------------------- */

struct pyrtc_spawn {
    uint64_t clone_flags; /* the namespaces to make: CLONE_NEW* */
    const uint8_t *plan;  /* operations for pyrtc-init, see plan.h */
    uint64_t plan_size;
    const int32_t *slots; /* descriptors that the plan names by index; 0, 1 and 2 become stdin,
                             stdout, stderr */
    uint32_t slot_count;
    int32_t helper_fd; /* sealed memfd that holds pyrtc-init */
    int32_t cgroup_fd; /* cgroup v2 directory to be born in, or -1 */
    int32_t userns_fd; /* user namespace to be born in, or -1: a new one with CLONE_NEWUSER, or the
                          caller's */
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

/* Start the warden: pyrtc-init in the mode that kills what this process leaves behind. Returns its
 * socket. */
int pyrtc_start_warden(int32_t helper_fd, struct pyrtc_error *error);

/* ---- containers that outlive this process: monitor.c
 * ------------------------------------------------------------ */

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

/* ---- what serves a container's network: attendant.c
 * ------------------------------------------------------------- */

/* What arrives at listen_fd, the attendant carries to a port of the container: a TCP socket that
 * listens, or a bound UDP socket. */
struct pyrtc_proxy {
    int32_t listen_fd;
    uint16_t datagrams; /* 1: UDP */
    uint16_t port;
    uint32_t family;     /* 4 or 6 */
    uint8_t address[16]; /* of the container; the first four bytes of it */
};

/* Descriptors are -1 where there is none. */
struct pyrtc_attend {
    int32_t program_fd;   /* pyrtc-attendant */
    int32_t container_fd; /* pidfd: the attendant ends with the container */
    int32_t datagram_fd;  /* UDP and TCP socket of the name server, in the container's network */
    int32_t listen_fd;
    int32_t directory_fd; /* of the container, for the file "dns"; see attendant/names.c */
    int32_t names_fd;     /* directory of the networks' names */
    const struct pyrtc_proxy *proxies;
    uint32_t proxy_count;
    uint32_t held_count;
    const int32_t *held; /* bound sockets, which keep their ports */
};

/* Start the attendant of a container; returns its pidfd when it serves. */
int pyrtc_start_attendant(const struct pyrtc_attend *request, int32_t *pid,
                          struct pyrtc_error *error);

/* ---- programs that serve a container: keeper.c
 * ------------------------------------------------------------------- */

struct pyrtc_keep {
    int32_t helper_fd;
    int32_t watched_fd;   /* the container's pidfd: the program ends with it */
    int32_t ready_number; /* the descriptor on which the program says that it is ready: 1 or 3 */
    const int32_t *held;  /* four at most: open as long as the program may live, such as a lock */
    uint32_t held_count;
    uint32_t argument_count;
    uint32_t string_count;  /* arguments and environment */
    const uint8_t *strings; /* each ended by NUL; the first is the path of the program */
    uint64_t strings_size;
};

struct pyrtc_kept {
    int32_t
        control_fd; /* pyrtc_go_on(): nobody reads the errors any more; its end: the program is gone */
    int32_t ready_fd; /* read end: what the program says when it is ready */
    int32_t error_fd; /* read end of its standard error */
};

/* Start a program under a keeper that is nobody's child. */
int pyrtc_keep(const struct pyrtc_keep *request, struct pyrtc_kept *result,
               struct pyrtc_error *error);

/* Make a listening SOCK_SEQPACKET socket with this name, which replaces what has it. */
int pyrtc_listen_at(int32_t directory_fd, const char *name, struct pyrtc_error *error);

/* Connect to it; returns a descriptor, or -errno without filling an error: that nobody listens is
 * an answer. */
int pyrtc_connect_at(int32_t directory_fd, const char *name);

/* Send one message, without a signal when nobody is there any more; returns its size or -errno. */
int pyrtc_send_message(int32_t socket_fd, const uint8_t *bytes, uint64_t size);

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

enum {
    PYRTC_VIEW_USERXATTR = 1, /* the layers are an ordinary user's: user.overlay.* */
    PYRTC_VIEW_OWN_USER = 2,  /* mount in a user namespace in which the caller is root */
};

/* Mount layers (paths, top first, at least two) read-only and return the detached mount. flags:
 * PYRTC_VIEW_*. */
int pyrtc_mount_view(const char *const *layers, uint32_t count, uint32_t flags,
                     struct pyrtc_error *error);

/* ---- networks: netns.c, network.c, network_socket.c, nft.c, conntrack.c
 *
 * What is done in another namespace is done by a borrowing child; userns_fd and netns_fd: where,
 * -1: the caller's. ------------------------------------------------------------------------- */

/* Make a network namespace with lo up, ahead of the container that will be born into it; userns_fd:
 * the user namespace that it shall belong to. Returns its descriptor. */
int pyrtc_make_netns(int32_t userns_fd, struct pyrtc_error *error);

struct pyrtc_link {
    const char *device;           /* its name in the container */
    const char *host_device;      /* of the other end; not for macvlan */
    const char *mac;              /* "02:42:..."; NULL or "": the kernel's choice */
    uint32_t parent_index;        /* the bridge; 0: none. macvlan: the device that it is on */
    uint32_t macvlan_mode;        /* MACVLAN_MODE_*; 0: a veth pair */
    uint32_t mtu;                 /* 0: the kernel's choice */
    uint32_t hairpin;             /* 1: the bridge sends frames back to where they came from */
    uint32_t isolated;            /* 1: no traffic with other isolated ports of the bridge */
    uint32_t announce;            /* 1: tell the neighbours whose addresses these are */
    const char *const *addresses; /* "ADDRESS/BITS", IPv4 and IPv6 */
    uint32_t address_count;
    const char *const *gateways; /* of default routes, one a family */
    uint32_t gateway_count;
};

/* Make a device in the namespace at netns_fd, with its other end at userns_fd and host_netns_fd,
 * and configure it. When this returns it forwards. On failure nothing of it is left. */
int pyrtc_attach_link(int32_t netns_fd, int32_t userns_fd, int32_t host_netns_fd,
                      const struct pyrtc_link *link, struct pyrtc_error *error);

/* Remove a device. Takes tens of milliseconds: a namespace that dies does it for nothing. */
int pyrtc_detach_link(int32_t netns_fd, int32_t userns_fd, const char *device,
                      struct pyrtc_error *error);

/* Return the index of a device in the caller's namespace, 0 if there is none. */
int pyrtc_device_index(const char *name, struct pyrtc_error *error);

enum {
    PYRTC_SOCKET_REUSE = 1, /* SO_REUSEADDR */
    PYRTC_SOCKET_FREE = 2,  /* an address that the host does not have yet */
    PYRTC_SOCKET_LISTEN = 4,
    PYRTC_SOCKET_NONBLOCK = 8,
};

struct pyrtc_socket {
    int32_t family;
    int32_t type;
    int32_t protocol;
    const char *address; /* NULL: not bound */
    uint16_t port;
    uint16_t backlog;
    uint32_t flags; /* PYRTC_SOCKET_* */
};

/* Open a socket in another namespace, bound as asked. */
int pyrtc_open_socket(int32_t netns_fd, int32_t userns_fd, const struct pyrtc_socket *wanted,
                      struct pyrtc_error *error);

/* Forget the tracked connections of this protocol (IPPROTO_*) to these ports that are not merely
 * going out. One walk through the kernel's table, which takes milliseconds. */
int pyrtc_forget_flows(int32_t netns_fd, int32_t userns_fd, uint32_t protocol,
                       const uint16_t *ports, uint32_t port_count, uint64_t *forgotten,
                       struct pyrtc_error *error);

/* libnftables, for the network namespace of the thread that opens it. One thread at a time, in the
 * whole process. Returns NULL after filling *error; ENOENT: the library is missing. */
struct pyrtc_nft *pyrtc_nft_open(struct pyrtc_error *error);

/* Run commands, all or none of them. What they print and what the library complains of stays until
 * the next call. Returns < 0 when they failed. */
int pyrtc_nft_run(struct pyrtc_nft *nft, const char *commands, uint32_t json, const char **output,
                  const char **complaint);

void pyrtc_nft_close(struct pyrtc_nft *nft);

/* Move this process, which has one thread, into new namespaces: CLONE_NEW*. */
int pyrtc_unshare(uint64_t flags, struct pyrtc_error *error);

/* openat2(2): RESOLVE_* in resolve. Returns a descriptor, or -errno without filling an error: a
 * missing file is an answer. */
int pyrtc_openat2(int32_t directory_fd, const char *path, uint64_t flags, uint64_t resolve);

/* ---- layer tar -> directory tree: untar.c
 * ----------------------------------------------------------------------- */

struct pyrtc_untar_options {
    int32_t stream_fd; /* the uncompressed tar stream: pipe, socket or file; read to its end */
    int32_t root_fd;   /* empty directory that becomes the layer */
    const int32_t
        *lower_fds; /* layers below, top first: implied parents take their attributes from there */
    uint32_t lower_count;
    uint32_t rootless; /* 1: no chown, no devices, user.overlay.* instead of trusted.overlay.* */
    uint32_t
        keep_owners; /* 1: chown all the same: the caller is root of a user namespace that maps the ids */
    uint32_t plain; /* 1: a plain tree, names like .wh.x are ordinary files */
    uint32_t
        alone; /* 1: give up, and return 1, at the first decision that depends on layers below */
    uint64_t max_entries;
    uint64_t max_bytes;     /* of file data, holes not counted */
    uint64_t max_file_size; /* apparent size of one file */
    uint32_t max_depth;     /* components of one path */
    uint32_t max_pax_bytes; /* extended headers of one entry */
};

struct pyrtc_untar_result {
    uint64_t entries;
    uint64_t bytes;        /* file data written */
    uint64_t stream_bytes; /* consumed from the stream, padding and trailer included */
    uint64_t skipped;      /* entries left out with a reason: vendor types, devices when rootless */
    uint64_t depends; /* decisions taken from the layers below: implied parents, links into them;
                       * with no lower_fds: that would have been, so 0 means that the tree is right
                       * above any layers */
    uint64_t attributes_skipped; /* extended attributes and ACLs left out: overlayfs's own, the
                                  * host's labels, what this kind of file or user cannot have */
};

/* Returns 0, or 1 where it gave up as `alone` asks; then neither the tree nor the stream is
 * finished. */
int pyrtc_untar(const struct pyrtc_untar_options *options, struct pyrtc_untar_result *result,
                struct pyrtc_error *error);

/* ---- directory tree -> layer tar: tardiff.c
 * --------------------------------------------------------------------- */

struct pyrtc_tardiff_options {
    int32_t root_fd;   /* the tree, with whiteouts and opaque directories as overlayfs has them */
    int32_t stream_fd; /* where the uncompressed tar goes. A pipe's reader must read to the end of
                          the file: writing without a reader is a signal, which may be deadly */
    int64_t latest;    /* with clamp: seconds since the epoch; later times are written as this */
    uint32_t clamp;
    uint32_t
        rootless; /* 1: opaque directories are marked with user.overlay.* instead of trusted.* */
    uint32_t no_owners; /* 1: everything is written as id 0's */
    uint32_t
        headers_only; /* 1: no data and no end: something to hash, to see whether a tree is still
                              what it was */
    uint32_t plain;   /* 1: a plain tree: no whiteouts, and names like .wh.x are ordinary files */
    const char *const *left_out; /* paths relative to the root that are not the layer's */
    uint32_t left_out_count;
    uint64_t max_entries;
    uint64_t max_bytes; /* of file data, holes counted */
};

struct pyrtc_tardiff_result {
    uint64_t entries;            /* headers written */
    uint64_t bytes;              /* file data */
    uint64_t stream_bytes;       /* written to the stream */
    uint64_t skipped;            /* sockets */
    uint64_t attributes_skipped; /* extended attributes that an image has no business with */
    uint64_t opaque;             /* directories that let nothing below show */
    uint64_t whiteouts;
};

int pyrtc_tardiff(const struct pyrtc_tardiff_options *options, struct pyrtc_tardiff_result *result,
                  struct pyrtc_error *error);

/* ---- trees: copyup.c, remove.c
 * ---------------------------------------------------------------------------------- */

struct pyrtc_copy_result {
    uint64_t entries;
    uint64_t bytes;     /* data copied, reflinked data and holes not counted */
    uint64_t reflinked; /* files that share their blocks with the source */
    uint64_t skipped;   /* left out: sockets, devices, what the kernel only shows as files */
};

/* Copy the contents of the directory source_fd into the empty directory target_fd: reflink where
 * the file system can, copy_file_range otherwise, holes kept, and every attribute: type, mode,
 * owner, times, xattrs, hard links. flags: see PYRTC_COPY_*. */
int pyrtc_copy_tree(int32_t source_fd, int32_t target_fd, uint32_t flags,
                    struct pyrtc_copy_result *result, struct pyrtc_error *error);

struct pyrtc_measure_result {
    uint64_t entries;
    uint64_t
        allocated; /* bytes on the disk, directories included; a file with several names once */
};

/* Say what the directory parent_fd/name and everything below it takes on the disk. */
int pyrtc_measure_tree(int32_t parent_fd, const char *name, struct pyrtc_measure_result *result,
                       struct pyrtc_error *error);

/* Remove parent_fd/name and everything below it, without following links and without crossing into
 * other mounts. */
int pyrtc_remove_tree(int32_t parent_fd, const char *name, struct pyrtc_error *error);

enum {
    PYRTC_COPY_NO_OWNER = 1, /* leave the owner alone: an ordinary user cannot give files away */
    /* what hides is copied, too, so that the copy can take the source's place in a stack */
    PYRTC_COPY_LAYER = 32,
    /* of pyrtc_copy_entry() */
    PYRTC_COPY_OWNERS = 2,       /* keep the owners, by uids and gids */
    PYRTC_COPY_DEVICES = 4,      /* make device nodes */
    PYRTC_COPY_CAPABILITIES = 8, /* keep security.capability, where that is allowed */
    PYRTC_COPY_DIRECTORIES = 16, /* directories that exist get the attributes of the source's */
};

struct pyrtc_id_range {
    uint32_t first; /* as the caller sees it in the source */
    uint32_t other; /* what the caller calls it in the target */
    uint32_t count;
};

struct pyrtc_copy_options {
    int32_t source_fd;
    int32_t target_fd;
    const char *source_name; /* in source_fd, not followed; NULL: what is in source_fd */
    const char *target_name; /* in target_fd, not followed; NULL: into target_fd itself */
    uint32_t flags;          /* PYRTC_COPY_* */
    uint32_t uid;            /* whose the copy is, without PYRTC_COPY_OWNERS */
    uint32_t gid;
    uint32_t uid_count;
    uint32_t gid_count;
    const struct pyrtc_id_range *uids;
    const struct pyrtc_id_range *gids;
    uint64_t max_entries;
    uint64_t max_bytes; /* of file data, holes not counted */
};

/* Copy a file or tree, across mounts, to where there may be something already: directories are
 * merged, anything else is replaced. Both sides may be changed by others meanwhile. */
int pyrtc_copy_entry(const struct pyrtc_copy_options *options, struct pyrtc_copy_result *result,
                     struct pyrtc_error *error);

/* Whether what is open at fd is an interface of the kernel, as in /proc and /sys. */
int pyrtc_kernel_interface(int32_t fd);

/* Make files as another user from now on, with all rights kept: for a process of its own. */
int pyrtc_file_ids(uint32_t uid, uint32_t gid, struct pyrtc_error *error);

/* Move this process, which has one thread, into the namespace of fd. */
int pyrtc_join_namespace(int32_t fd, struct pyrtc_error *error);

/* Give this process mounts of its own, of which nobody else sees anything. */
int pyrtc_own_mounts(struct pyrtc_error *error);

/* Attach a detached mount to the directory or file at target_fd. */
int pyrtc_attach_mount(int32_t mount_fd, int32_t target_fd, struct pyrtc_error *error);

/* Write everything that the file system of fd holds in memory to its disk. */
int pyrtc_sync_filesystem(int32_t fd, struct pyrtc_error *error);

/* watch.c: a descriptor that tells what happens to the entries of a directory */
int pyrtc_watch_directory(int32_t directory_fd, uint32_t mask, struct pyrtc_error *error);

/* ---- mounts made before the container exists: mounts.c
 * ----------------------------------------------------------- */

/* Clone the mount at fd as a detached tree. attributes: MOUNT_ATTR_* to set; userns_fd >= 0 maps
 * its owners. */
int pyrtc_clone_mount(int32_t fd, uint32_t recursive, uint64_t attributes, int32_t userns_fd,
                      struct pyrtc_error *error);

/* Mount overlayfs over the given layers (top first) and return the detached mount; without an
 * upper directory (-1) read-only, which takes two layers at least. */
int pyrtc_mount_overlay(const int32_t *lower_fds, uint32_t lower_count, int32_t upper_fd,
                        int32_t work_fd, uint32_t flags, struct pyrtc_error *error);

/* ---- device rules of a container: bpf.c
 * -------------------------------------------------------------------------- */

/* Attach a BPF_PROG_TYPE_CGROUP_DEVICE program to the version 2 cgroup. instructions: struct
 * bpf_insn[count]. */
int pyrtc_attach_device_filter(int32_t cgroup_fd, const uint64_t *instructions, uint32_t count,
                               struct pyrtc_error *error);

#endif

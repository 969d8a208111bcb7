/*
 * Files and trees of them.
 */
#ifndef PYRTC_INTERFACE_TREE_H
#define PYRTC_INTERFACE_TREE_H

#include "pyrtc.h"

/* ---- whole trees: copyup.c, measure.c, remove.c */

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

/* ---- between a container and others: copy_entry.c, file_server.c */

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

/* ---- of one descriptor: mounts.c, sync.c, watch.c */

/* openat2(2): RESOLVE_* in resolve. Returns a descriptor, or -errno without filling an error: a
 * missing file is an answer. */
int pyrtc_openat2(int32_t directory_fd, const char *path, uint64_t flags, uint64_t resolve);

/* Write everything that the file system of fd holds in memory to its disk. */
int pyrtc_sync_filesystem(int32_t fd, struct pyrtc_error *error);

/* Return a descriptor that tells what happens to the entries of a directory. */
int pyrtc_watch_directory(int32_t directory_fd, uint32_t mask, struct pyrtc_error *error);

#endif

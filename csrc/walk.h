/*
 * A walk over a directory tree of any depth and width with few descriptors, no recursion and, for
 * large trees, more than one thread.
 *
 * The calling thread goes through the directories depth first. What is in them and is no directory
 * is done in batches that other threads take from a short queue. Directories are named by
 * descriptors only; of a deep path the last levels are kept open, and the way back up is "..",
 * checked to be the directory that was left.
 */
#ifndef PYRTC_WALK_H
#define PYRTC_WALK_H

#include "error.h"
#include "listing.h"

#include <linux/openat2.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

struct walk;

struct walk_fds {
    atomic_uint references;
    int source;
    int target; /* -1 in a walk over one tree */
};

/* Which directory it was, to know it again. */
struct walk_identity {
    dev_t device;
    ino_t inode;
};

/* What a walk that copies must still give the directory when everything is in it. */
struct walk_attributes {
    mode_t mode;
    uid_t uid;
    gid_t gid;
    struct timespec times[2]; /* access, modification */
};

/* One directory. It outlives its place in the walk for as long as somebody needs to name it. */
struct walk_dir {
    struct walk_dir *parent; /* NULL: the root */
    atomic_uint references;
    atomic_uint unfinished; /* the walk itself and the batches; finish() runs when it falls to 0 */
    struct walk_attributes attributes;

    /* of the walking thread only */
    struct walk_fds *fds; /* NULL while too many levels below are open */
    struct walk_identity source_identity;
    struct walk_identity target_identity;
    struct listing *listing;
    size_t next; /* the next directory in it */

    int existed; /* the target had it before the walk: what it is stays, only what is in it is new */

    char name[];
};

/* One thread's part of the walk. */
struct walk_worker {
    struct walk *walk;
    char *scratch; /* the operation's; released with free() */
    uint64_t entries;
    uint64_t bytes;
    uint64_t reflinked;
    struct pyrtc_error error;
};

enum {
    WALK_GO_ON = 0,
    WALK_LEAVE_OUT = 1, /* from enter(): nothing to see in this directory */
    WALK_STOP = 2,      /* from file(): end the walk early, without an error */
};

/* Each returns WALK_* or < 0 with worker->error filled. */
struct walk_operations {
    /* Open (and make) dir in its parent. In the walking thread. */
    int (*enter)(struct walk_worker *worker, struct walk_dir *dir, const struct walk_fds *parent,
                 struct walk_fds *fds);
    /* Something that is no directory. In any thread. */
    int (*file)(struct walk_worker *worker, struct walk_dir *dir, const struct walk_fds *fds,
                const char *name, unsigned char type);
    /* All names in dir were made. In any thread; may be NULL. */
    int (*finish)(struct walk_worker *worker, struct walk_dir *dir, const struct walk_fds *fds);
    /* Without other threads: everything below dir was done. In the walking thread; may be NULL. */
    int (*leave)(struct walk_worker *worker, struct walk_dir *dir, const struct walk_fds *parent);
    int across; /* 1: enter() goes into other mounts */
};

/* Walk over the tree at source (and target, or -1), which stay the caller's. threads: how many may
 * work besides the calling one. Adds the counts of all threads to *totals. Returns WALK_GO_ON,
 * WALK_STOP or < 0. */
int walk_tree(const struct walk_operations *operations, void *context, int source, int target,
              unsigned threads, struct walk_worker *totals, struct pyrtc_error *error);

/* Have file() done for one name of source as if a walk had met it there, under the name that the
 * operation gives it in target. */
int walk_one(const struct walk_operations *operations, void *context, int source, int target,
             const char *name, unsigned char type, struct walk_worker *totals,
             struct pyrtc_error *error);

void *walk_context(const struct walk_worker *worker);

/* How many threads may be of use besides the calling one. */
unsigned walk_spare_threads(void);

/* Fill worker->error with the step and the path of name in dir (NULL: dir itself), shortened at its
 * start. */
int walk_fail(struct walk_worker *worker, int code, const char *step, const struct walk_dir *dir,
              const char *name);

/* The path of dir below the root of the walk, to be freed; "." for the root. NULL when memory is
 * short. */
char *walk_path(const struct walk_dir *dir);

void walk_hold(struct walk_dir *dir);
void walk_release(struct walk_dir *dir);

/* openat2 of one name, which must not be a symbolic link or lie on another mount (EXDEV). */
int walk_open(int fd, const char *name, uint64_t flags);

/* The same for a name that may lie on another mount. */
int walk_open_across(int fd, const char *name, uint64_t flags);

#endif

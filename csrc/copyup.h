/*
 * What the parts of the copy share: copyup.c walks, copy_file.c moves data, copy_attributes.c
 * everything else a file has, copy_links.c keeps hard links together.
 */
#ifndef PYRTC_COPYUP_H
#define PYRTC_COPYUP_H

#include "pyrtc_tree.h"
#include "walk.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

struct copy_links;

/* One copy of a tree, seen by all its threads. */
struct copy {
    uint32_t flags; /* PYRTC_COPY_* */
    int target;     /* the root of the copy */
    uid_t uid;      /* what the kernel gives a new file */
    gid_t gid;
    uint64_t mount;              /* of the source's root */
    struct walk_attributes root; /* what the root of the target gets at the end */
    struct walk_identity target_root;
    struct copy_links *links;
    atomic_bool no_reflink; /* the file system cannot: asked once, not for each file */
    atomic_bool no_copy_range;
    atomic_bool no_xattrs; /* the source has none */

    /* of a copy to where there may be something already, copy_entry.c; else NULL and nothing */
    const struct pyrtc_copy_options *into;
    const char *renamed; /* the target's name where one file is copied */
    int root_existed;
    atomic_uint_fast64_t entries;
    atomic_uint_fast64_t bytes;
    atomic_uint_fast64_t skipped;
};

enum {
    XATTR_LIST_SIZE = 65536, /* the kernel's own limits: XATTR_LIST_MAX and XATTR_SIZE_MAX */
    XATTR_VALUE_SIZE = 65536,
    DATA_SIZE = 262144,
};

/* The working memory of one thread. */
struct copy_scratch {
    char list[XATTR_LIST_SIZE];
    char value[XATTR_VALUE_SIZE];
    char data[DATA_SIZE];
};

/* Where something is copied from or to, for all calls that take a descriptor (name NULL) or a name
 * in a directory. */
struct copy_place {
    int fd;
    const char *name;
};

/* What is copied, for messages. */
struct copy_subject {
    struct walk_worker *worker;
    const struct walk_dir *dir;
    const char *name; /* NULL: dir itself */
};

int copy_fail(const struct copy_subject *subject, const char *step);
struct copy_scratch *copy_scratch(struct walk_worker *worker);

/* ---- copyup.c ---- */

/* For struct walk_operations: copy something that is no directory; give a copied directory its
 * attributes. */
int copy_entry(struct walk_worker *worker, struct walk_dir *dir, const struct walk_fds *fds,
               const char *name, unsigned char type);
int copy_finish_dir(struct walk_worker *worker, struct walk_dir *dir, const struct walk_fds *fds);

/* ---- copy_entry.c ---- */

const char *copy_target_name(const struct copy_subject *subject);

/* Count against the caller's limits. */
int copy_count(const struct copy_subject *subject, uint64_t entries, uint64_t bytes);

/* Remove what has a name, unless it is a directory (EISDIR). */
int copy_make_way(int target, const char *name);

/* What a name is now: DT_REG, another DT_*, 0 when it is gone, < 0 with the error filled. A directory's
 * listing does not know what is mounted on a name, and may be outdated. */
int copy_kind(const struct copy_subject *subject, const struct walk_fds *fds);

/* Make a file in the place of whatever is no directory there. */
int copy_create_into(int target, const char *name);

/* Open a regular file (else ESTALE) for reading. */
int copy_open_examined(int dir, const char *name, struct statx *status);

/* chmod what has a name if it is still of this kind, which is no link. */
int copy_chmod_special(int dir, const char *name, mode_t kind, mode_t mode);

/* Decide whose a copy is, and take bits out of *mode that would grant something else then. < 0:
 * EOVERFLOW, the owner has no number on the other side. */
int copy_owner(const struct copy *copy, const struct walk_attributes *attributes, uid_t *uid,
               gid_t *gid, mode_t *mode);

/* Whether it is a socket or an unwanted device, which is counted then. */
int copy_leaves_out(const struct copy_subject *subject, const struct statx *status);

/* ---- copy_file.c ---- */

/* Copy the regular file name: data, holes and attributes. */
int copy_file(const struct copy_subject *subject, const struct walk_fds *fds);

/* ---- copy_attributes.c ---- */

struct walk_attributes copy_attributes_of(const struct statx *status);

/* List the extended attributes into scratch->list: their size, or < 0. */
ssize_t copy_list_xattrs(const struct copy_subject *subject, struct copy_place source);

/* Give target the owner, extended attributes (listed in scratch->list, list_size bytes), mode and
 * times of source. */
int copy_attributes(const struct copy_subject *subject, const struct walk_attributes *attributes,
                    struct copy_place source, struct copy_place target, ssize_t list_size);

/* ---- copy_links.c ---- */

struct copy_links *copy_links_new(void);
void copy_links_free(struct copy_links *links);

enum {
    LINK_MADE,  /* name is a further link to a file that was copied before */
    LINK_FIRST, /* the caller makes the file, then calls copy_links_settle() */
    LINK_ALONE, /* the first is on another mount, so this becomes a file of its own */
};

/* Decide about name, one of status->stx_nlink links to a file. */
int copy_links_claim(const struct copy_subject *subject, const struct walk_fds *fds,
                     const struct statx *status);

/* After LINK_FIRST: made tells whether name exists now, so that it can be linked to. */
int copy_links_settle(const struct copy_subject *subject, const struct statx *status, int made);

#endif

/*
 * The tree of one layer while it is being unpacked: what exists is created beneath one directory
 * descriptor, and the directories, symbolic links and whiteouts of this layer are also held in
 * memory, so that a path is resolved without asking the kernel and never by asking it to follow a
 * link.
 *
 * Memory and disk say the same because nobody else writes here: the directory is the caller's, new
 * and private. Should somebody do, the descriptors still confine everything: a directory is opened
 * with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS, and things are made by a single name beneath such
 * a descriptor, exclusively.
 */
#ifndef PYRTC_LAYER_TREE_H
#define PYRTC_LAYER_TREE_H

#include "pyrtc_layer.h"
#include "tar_header.h"

#include <limits.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <time.h>

enum node_kind {
    NODE_DIRECTORY,
    NODE_LINK,       /* a symbolic link of this layer */
    NODE_LOWER_LINK, /* remembered: a layer below has a symbolic link here and this layer nothing */
    NODE_WHITEOUT,
};

/* Directories get these last, when nothing more is put into them. */
struct directory_attributes {
    uint32_t mode;
    uint32_t uid;
    uint32_t gid;
    struct timespec mtime;
    uint8_t *acl_access;
    uint8_t *acl_default;
    size_t acl_access_size;
    size_t acl_default_size;
};

struct node {
    struct node *parent;
    struct node *first_child;
    struct node *next, *previous; /* siblings */
    enum node_kind kind;
    uint32_t depth;
    const char *name;
    /* of directories */
    bool implied;      /* no entry of its own so far */
    bool opaque;       /* nothing of the layers below shows through */
    bool not_in_lower; /* no layer below has this directory */
    bool has_xattrs;
    uint32_t whiteouts;   /* children of this kind */
    uint32_t lower_links; /* children of this kind */
    struct directory_attributes attributes;
    /* of links */
    char *target;
};

enum { DIRECTORY_SLOTS = 8 };

struct directory_slot {
    struct node *node;
    int fd;
    uint64_t used;
};

struct layer_tree {
    const struct pyrtc_untar_options *options;
    struct pyrtc_untar_result *result;
    struct node *root;
    void *index; /* tsearch(3): nodes by parent and name */
    struct directory_slot slots[DIRECTORY_SLOTS];
    uint64_t clock;
    uint64_t nodes;
    uint64_t acl_bytes;
    uint64_t removals; /* grows when a node goes away: what was resolved before may be stale */
    struct timespec default_mtime; /* of implied directories that no lower layer has: the entry's */
    char *path;                    /* scratch for tree_path() */
    size_t path_capacity;
    char *cached_path; /* the parent that was resolved last, and what it led to */
    size_t cached_size, cached_capacity;
    struct node *cached_node;
    uint64_t cached_removals;
};

/* layer_tree.c: nodes and descriptors */
int tree_open(struct layer_tree *tree, struct pyrtc_error *error);
void tree_close(struct layer_tree *tree);
struct node *tree_lookup(struct layer_tree *tree, struct node *parent, const char *name);
struct node *tree_add(struct layer_tree *tree, struct node *parent, const char *name,
                      enum node_kind kind, struct pyrtc_error *error);
void tree_drop(struct layer_tree *tree, struct node *node);
int tree_fd(struct layer_tree *tree, struct node *directory, struct pyrtc_error *error);
int tree_path(struct layer_tree *tree, const struct node *node, const char *name,
              struct pyrtc_error *error);
bool tree_is_beneath(const struct node *node, const struct node *ancestor);
bool tree_is_hidden(const struct node *node);
int tree_is_whiteout(const struct stat *status);

/* layer_change.c: making, replacing and finishing what the tree holds */
int tree_clear_name(struct layer_tree *tree, struct node *parent, const char *name, bool *existed,
                    struct pyrtc_error *error);
int tree_make_directory(struct layer_tree *tree, struct node *parent, const char *name,
                        bool replace, struct node **made, struct pyrtc_error *error);
void tree_forget_lower_link(struct layer_tree *tree, struct node *parent, const char *name);
int tree_make_opaque(struct layer_tree *tree, struct node *directory, struct pyrtc_error *error);
int tree_make_whiteout(struct layer_tree *tree, struct node *parent, const char *name,
                       struct pyrtc_error *error);
int tree_reset_attributes(struct layer_tree *tree, struct node *directory,
                          struct pyrtc_error *error);
int tree_finish(struct layer_tree *tree, struct pyrtc_error *error);

/* layer_path.c: from a name in the archive to a directory of the tree */
int path_clean(char *path, uint32_t max_depth, size_t *components, struct pyrtc_error *error);
enum path_result { PATH_FOUND = 0, PATH_HIDDEN = 1 };
int path_resolve_parent(struct layer_tree *tree, const char *path, bool keep_whiteouts,
                        struct node **parent, const char **name, struct pyrtc_error *error);

/* layer_lower.c: what the layers below show */
struct lower_entry {
    int directory_fd; /* the caller's to close */
    char name[NAME_MAX + 1];
    struct stat status;
};
int lower_find(struct layer_tree *tree, const char *path, struct lower_entry *entry,
               struct pyrtc_error *error);
int lower_inherit_directory(struct layer_tree *tree, const struct lower_entry *entry,
                            struct node *directory, struct pyrtc_error *error);
int lower_read_link(const struct lower_entry *entry, char **target, struct pyrtc_error *error);
int lower_copy_up(struct layer_tree *tree, const struct lower_entry *entry, struct node *parent,
                  const char *name, struct pyrtc_error *error);

/* layer_xattr.c: extended attributes of the archive and of lower layers */
struct xattr_place {
    int fd;           /* of the file, or of its directory when name is set */
    const char *name; /* what has no descriptor of its own: links, devices */
};
const char *xattr_overlay_name(const struct layer_tree *tree, const char *what);
int xattr_set(struct layer_tree *tree, const struct xattr_place *place, const char *name,
              const void *value, size_t size, struct pyrtc_error *error);
int xattr_apply(struct layer_tree *tree, const struct tar_extensions *extensions,
                const struct xattr_place *place, struct pyrtc_error *error);
int xattr_set_acl(struct layer_tree *tree, struct node *directory, bool is_default,
                  const void *value, size_t size, struct pyrtc_error *error);
int xattr_apply_directory(struct layer_tree *tree, const struct tar_extensions *extensions,
                          struct node *directory, int fd, struct pyrtc_error *error);
int xattr_copy(struct layer_tree *tree, int from, int to, struct node *directory,
               struct pyrtc_error *error);
int xattr_clear(struct layer_tree *tree, int fd, struct pyrtc_error *error);

/* layer_entry.c: making one entry of the archive */
struct tar_stream;
int entry_make_file(struct layer_tree *tree, struct tar_stream *stream,
                    const struct tar_entry *entry, const struct tar_extensions *extensions,
                    struct tar_map *map, struct node *parent, const char *name, uint64_t *left,
                    struct pyrtc_error *error);
int entry_make_special(struct layer_tree *tree, const struct tar_entry *entry,
                       const struct tar_extensions *extensions, struct node *parent,
                       const char *name, struct pyrtc_error *error);
int entry_make_directory(struct layer_tree *tree, const struct tar_entry *entry,
                         const struct tar_extensions *extensions, struct node *parent,
                         const char *name, struct pyrtc_error *error);
int entry_count_data(struct layer_tree *tree, uint64_t size, struct pyrtc_error *error);

/* layer_link.c: hard links, whose target may come later or lie in a layer below */
struct pending_link {
    char *path;
    char *target;
};
struct pending_links {
    struct pending_link *links;
    size_t count, capacity;
    size_t bytes;
};
int link_make(struct layer_tree *tree, struct pending_links *pending, const char *path,
              const char *target, struct pyrtc_error *error);
int link_make_pending(struct layer_tree *tree, struct pending_links *pending,
                      struct pyrtc_error *error);
void link_free_pending(struct pending_links *pending);

/* A failed system call whose errno and step say everything. */
#define FAIL(error, step) pyrtc_fail(error, errno, step, "%s", "")

/* Whether what is unpacked belongs to whom the layer says, and not all of it to the caller. */
static inline bool tree_keeps_owners(const struct layer_tree *tree)
{
    return !tree->options->rootless || tree->options->keep_owners;
}

#endif

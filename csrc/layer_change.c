#include "layer_tree.h"

#include "error.h"
#include "pyrtc_tree.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/xattr.h>

/* Remove what this layer has made under the name, whatever it is, with everything below it. */
int tree_clear_name(struct layer_tree *tree, struct node *parent, const char *name, bool *existed,
                    struct pyrtc_error *error)
{
    struct node *node = tree_lookup(tree, parent, name);
    int fd = tree_fd(tree, parent, error);

    if (fd < 0)
        return -1;
    *existed = true;
    if (node && node->kind == NODE_DIRECTORY) {
        if (pyrtc_remove_tree(fd, name, error) < 0)
            return -1;
    } else if (unlinkat(fd, name, 0) < 0) {
        if (errno != ENOENT)
            return FAIL(error, "replace an earlier entry");
        *existed = false;
    }
    if (node)
        tree_drop(tree, node);
    return 0;
}

/* Something of this layer takes the place of what was remembered of a lower one. */
void tree_forget_lower_link(struct layer_tree *tree, struct node *parent, const char *name)
{
    struct node *node = parent->lower_links ? tree_lookup(tree, parent, name) : NULL;

    if (node && node->kind == NODE_LOWER_LINK)
        tree_drop(tree, node);
}

/* Make a directory that only the owner may enter; its attributes come in tree_finish(). What this
 * layer had under the name is replaced when `replace` says so; as the new directory is not the old
 * one, it shows nothing of the layers below then. */
int tree_make_directory(struct layer_tree *tree, struct node *parent, const char *name,
                        bool replace, struct node **made, struct pyrtc_error *error)
{
    bool existed = false;

    tree_forget_lower_link(tree, parent, name);
    int fd = tree_fd(tree, parent, error);
    if (fd < 0)
        return -1;
    int result = mkdirat(fd, name, 0700);
    if (result < 0 && errno == EEXIST) {
        if (!replace)
            return pyrtc_fail(error, ENOTDIR, "resolve a path", "%s", "");
        if (tree_clear_name(tree, parent, name, &existed, error) < 0)
            return -1;
        result = mkdirat(fd, name, 0700);
    }
    if (result < 0)
        return FAIL(error, "make a directory");
    *made = tree_add(tree, parent, name, NODE_DIRECTORY, error);
    if (!*made)
        return -1;
    (*made)->opaque = existed && !tree->options->plain;
    return 0;
}

/* Give an implied directory what one has that no layer below knows: 0755, root, the time of the
 * entry it is for. */
int tree_reset_attributes(struct layer_tree *tree, struct node *directory,
                          struct pyrtc_error *error)
{
    struct directory_attributes *attributes = &directory->attributes;

    attributes->mode = 0755;
    attributes->uid = attributes->gid = 0;
    attributes->mtime = tree->default_mtime;
    if (xattr_set_acl(tree, directory, false, NULL, 0, error) < 0 ||
        xattr_set_acl(tree, directory, true, NULL, 0, error) < 0)
        return -1;
    if (!directory->has_xattrs)
        return 0;
    directory->has_xattrs = false;
    int fd = tree_fd(tree, directory, error);
    return fd < 0 ? -1 : xattr_clear(tree, fd, error);
}

static struct node *next_below(struct node *at, const struct node *top)
{
    if (at->first_child)
        return at->first_child;
    while (at != top && !at->next)
        at = at->parent;
    return at == top ? NULL : at->next;
}

static int unlink_whiteout(struct layer_tree *tree, struct node *whiteout,
                           struct pyrtc_error *error)
{
    int fd = tree_fd(tree, whiteout->parent, error);

    if (fd < 0)
        return -1;
    if (unlinkat(fd, whiteout->name, 0) < 0)
        return FAIL(error, "remove a whiteout");
    tree_drop(tree, whiteout);
    return 0;
}

/* Let nothing of the layers below show in this directory. Whiteouts in it have nothing left to
 * hide and would turn up in listings ("An opaque directory should not contain any whiteouts",
 * overlayfs.rst); implied directories below it were made to look like ones that are gone now. What
 * is done does not depend on the order of the entries. */
int tree_make_opaque(struct layer_tree *tree, struct node *directory, struct pyrtc_error *error)
{
    if (tree_is_hidden(directory))
        return 0;
    directory->opaque = true;
    struct node *next;
    for (struct node *at = next_below(directory, directory); at; at = next) {
        next = next_below(at, directory);
        if (at->kind == NODE_LOWER_LINK) {
            tree_drop(tree, at);
        } else if (at->kind == NODE_WHITEOUT) {
            if (unlink_whiteout(tree, at, error) < 0)
                return -1;
        } else if (at->kind == NODE_DIRECTORY && at->implied) {
            if (tree_reset_attributes(tree, at, error) < 0)
                return -1;
        }
    }
    return 0;
}

/* Remove a directory that exists only because whiteouts were put into it. As deep as max_depth
 * allows. */
static int remove_hollow(struct layer_tree *tree, struct node *directory, bool *removed,
                         struct pyrtc_error *error)
{
    struct node *next;

    for (struct node *child = directory->first_child; child; child = next) {
        next = child->next;
        int result = 0;
        if (child->kind == NODE_LOWER_LINK)
            tree_drop(tree, child);
        else if (child->kind == NODE_WHITEOUT)
            result = unlink_whiteout(tree, child, error);
        else if (child->kind == NODE_DIRECTORY && child->implied)
            result = remove_hollow(tree, child, removed, error);
        if (result < 0)
            return -1;
    }
    *removed = false;
    if (!directory->implied || directory->first_child)
        return 0;
    int fd = tree_fd(tree, directory->parent, error);
    if (fd < 0)
        return -1;
    if (unlinkat(fd, directory->name, AT_REMOVEDIR) == 0) {
        *removed = true;
        tree_drop(tree, directory);
        return 0;
    }
    return errno == ENOTEMPTY || errno == EEXIST ? 0 : FAIL(error, "remove a directory");
}

/* Hide a name of the layers below; what this layer has under it stays, before or after
 * (image-spec, layer.md): a file hides what is below by itself, a directory becomes opaque. A
 * device 0:0 may be made by anybody since Linux 5.8. */
int tree_make_whiteout(struct layer_tree *tree, struct node *parent, const char *name,
                       struct pyrtc_error *error)
{
    if (tree_is_hidden(parent))
        return 0;
    struct node *node = tree_lookup(tree, parent, name);
    if (node && node->kind == NODE_LOWER_LINK) {
        tree_drop(tree, node);
    } else if (node && node->kind == NODE_DIRECTORY) {
        bool removed = false;
        if (node->implied && remove_hollow(tree, node, &removed, error) < 0)
            return -1;
        if (!removed) {
            if (tree_make_opaque(tree, node, error) < 0)
                return -1;
            return node->implied ? tree_reset_attributes(tree, node, error) : 0;
        }
    } else if (node) {
        return 0;
    }
    int fd = tree_fd(tree, parent, error);
    if (fd < 0)
        return -1;
    if (mknodat(fd, name, S_IFCHR, 0) < 0) {
        if (errno == EEXIST)
            return 0;
        if (errno == EPERM)
            return pyrtc_fail(error, EPERM, "make a whiteout",
                              "this file system or kernel (before 5.8) lets only root make a "
                              "character device 0:0");
        return FAIL(error, "make a whiteout");
    }
    return tree_add(tree, parent, name, NODE_WHITEOUT, error) ? 0 : -1;
}

/* Order matters: overlay's attributes while the owner may still write; the owner before the mode,
 * because chown(2) takes setuid and setgid away; the mode after the ACL, because the recorded mode
 * decides; the times last. */
static int finish_directory(struct layer_tree *tree, struct node *directory,
                            struct pyrtc_error *error)
{
    const struct directory_attributes *attributes = &directory->attributes;
    int fd = tree_fd(tree, directory, error);
    struct xattr_place place = {.fd = fd};
    struct stat status;

    if (fd < 0)
        return -1;
    if (directory->opaque) {
        if (fsetxattr(fd, xattr_overlay_name(tree, "opaque"), "y", 1, 0) < 0)
            return FAIL(error, "mark a directory as opaque");
    } else if (directory->whiteouts) {
        /* overlayfs lists a directory that only one layer has as it is, whiteouts included, unless
         * this tells it to look (kernel commit b79e05aaa166). Which layers will lie below is not
         * known here. */
        if (fsetxattr(fd, xattr_overlay_name(tree, "origin"), "", 0, 0) < 0)
            return FAIL(error, "mark a directory that holds whiteouts");
    }
    if (fstat(fd, &status) < 0)
        return FAIL(error, "read the state of a directory");
    bool chown = tree_keeps_owners(tree) &&
                 (status.st_uid != attributes->uid || status.st_gid != attributes->gid);
    if (chown && fchown(fd, attributes->uid, attributes->gid) < 0)
        return FAIL(error, "set the owner of a directory");
    if ((attributes->acl_access &&
         xattr_set(tree, &place, "system.posix_acl_access", attributes->acl_access,
                   attributes->acl_access_size, error) < 0) ||
        (attributes->acl_default &&
         xattr_set(tree, &place, "system.posix_acl_default", attributes->acl_default,
                   attributes->acl_default_size, error) < 0))
        return -1;
    if (((status.st_mode & 07777) != attributes->mode || attributes->acl_access || chown) &&
        fchmod(fd, attributes->mode) < 0)
        return FAIL(error, "set the mode of a directory");
    const struct timespec times[2] = {attributes->mtime, attributes->mtime};
    return futimens(fd, times) < 0 ? FAIL(error, "set the time of a directory") : 0;
}

static struct node *first_below(struct node *at)
{
    while (at->first_child)
        at = at->first_child;
    return at;
}

/* Give every directory its attributes, children first: their making changed the parent's time, and
 * a parent that may not be entered would be in the way of an ordinary user. */
int tree_finish(struct layer_tree *tree, struct pyrtc_error *error)
{
    struct node *at = first_below(tree->root);

    for (;;) {
        if (at->kind == NODE_DIRECTORY && finish_directory(tree, at, error) < 0)
            return -1;
        if (at == tree->root)
            return 0;
        at = at->next ? first_below(at->next) : at->parent;
    }
}

#include "layer_tree.h"

#include "error.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#define STEP "make a hard link"

/* Links that wait for their target; an archive with more of them was made to eat memory. */
enum { MAX_PENDING_BYTES = 64 << 20, MAX_ROUNDS = 40 };

static int remember(struct pending_links *pending, const char *path, const char *target,
                    struct pyrtc_error *error)
{
    size_t bytes = strlen(path) + strlen(target) + sizeof(struct pending_link);

    if (pending->bytes + bytes > MAX_PENDING_BYTES)
        return pyrtc_fail(error, 0, STEP, "too many links stand in front of their targets");
    if (pending->count == pending->capacity) {
        size_t capacity = pending->capacity ? pending->capacity * 2 : 16;
        void *grown = realloc(pending->links, capacity * sizeof(*pending->links));
        if (!grown)
            return pyrtc_fail(error, ENOMEM, STEP, "%s", "");
        pending->links = grown;
        pending->capacity = capacity;
    }
    struct pending_link link = {.path = strdup(path), .target = strdup(target)};
    if (!link.path || !link.target) {
        free(link.path);
        free(link.target);
        return pyrtc_fail(error, ENOMEM, STEP, "%s", "");
    }
    pending->links[pending->count++] = link;
    pending->bytes += bytes;
    return 0;
}

void link_free_pending(struct pending_links *pending)
{
    for (size_t i = 0; i < pending->count; i++) {
        free(pending->links[i].path);
        free(pending->links[i].target);
    }
    free(pending->links);
}

struct place {
    struct node *parent;
    const char *name;
};

/* linkat() with no flags links a symbolic link itself. The new name of one is a link in the tree's
 * memory, too. Returns 1, or 0 where this layer has no such file. */
static int link_within(struct layer_tree *tree, const struct place *target,
                       const struct place *place, bool replace, struct pyrtc_error *error)
{
    struct node *node = tree_lookup(tree, target->parent, target->name);
    struct node *old = tree_lookup(tree, place->parent, place->name);
    struct stat here, there;

    if (node && node->kind == NODE_DIRECTORY)
        return pyrtc_fail(error, EISDIR, STEP, "%s", "");
    if (node && (node->kind == NODE_WHITEOUT || node->kind == NODE_LOWER_LINK))
        return 0;
    int from = tree_fd(tree, target->parent, error);
    int to = from < 0 ? -1 : tree_fd(tree, place->parent, error);
    if (to < 0)
        return -1;
    int result = linkat(from, target->name, to, place->name, 0);
    if (result < 0 && errno == ENOENT)
        return 0;
    if (result < 0 && errno == EEXIST) {
        if (fstatat(from, target->name, &there, AT_SYMLINK_NOFOLLOW) < 0 ||
            fstatat(to, place->name, &here, AT_SYMLINK_NOFOLLOW) < 0)
            return FAIL(error, STEP);
        if (here.st_dev == there.st_dev && here.st_ino == there.st_ino)
            return 1; /* to itself, or a second time */
        if (!replace && !(old && old->kind == NODE_WHITEOUT))
            return 1; /* a later entry took the name while this one waited */
        if (old && tree_is_beneath(target->parent, old))
            return pyrtc_fail(error, 0, STEP, "it would replace the directory of its own target");
        bool existed;
        if (tree_clear_name(tree, place->parent, place->name, &existed, error) < 0)
            return -1;
        result = linkat(from, target->name, to, place->name, 0);
    }
    if (result < 0)
        return FAIL(error, STEP);
    tree_forget_lower_link(tree, place->parent, place->name);
    if (!node)
        return 1;
    struct node *made = tree_add(tree, place->parent, place->name, NODE_LINK, error);
    if (!made)
        return -1;
    made->target = strdup(node->target);
    return made->target ? 1 : pyrtc_fail(error, ENOMEM, STEP, "%s", "");
}

/* The target is only in a layer below. The file is copied up under its own name, and linked: so
 * both names are one file, as they would be in the merged tree. Where this layer deletes the
 * target, only the link's name gets the copy. Returns 1, or 0 where no layer has it. */
static int link_from_below(struct layer_tree *tree, const char *target, const struct place *at,
                           const struct place *place, struct pyrtc_error *error)
{
    struct lower_entry lower = {.directory_fd = -1};
    struct node *node = at ? tree_lookup(tree, at->parent, at->name) : NULL;
    bool deleted = !at || tree_is_hidden(at->parent) || (node && node->kind == NODE_WHITEOUT);

    tree->result->depends++;
    if (at && tree_path(tree, at->parent, at->name, error) < 0)
        return -1;
    int found = lower_find(tree, at ? tree->path : target, &lower, error);
    if (found <= 0)
        return found;
    owned_fd int fd = lower.directory_fd;
    (void)fd;
    if (S_ISDIR(lower.status.st_mode))
        return pyrtc_fail(error, EISDIR, STEP, "%s", "");
    if (!deleted) {
        if (lower_copy_up(tree, &lower, at->parent, at->name, error) < 0)
            return -1;
        return link_within(tree, at, place, true, error);
    }
    bool existed;
    if (tree_clear_name(tree, place->parent, place->name, &existed, error) < 0 ||
        lower_copy_up(tree, &lower, place->parent, place->name, error) < 0)
        return -1;
    return 1;
}

static int try_link(struct layer_tree *tree, const char *path, const char *target, bool replace,
                    struct place *place, struct pyrtc_error *error)
{
    struct place at;

    if (path_resolve_parent(tree, path, false, &place->parent, &place->name, error) < 0)
        return -1;
    int hidden = path_resolve_parent(tree, target, true, &at.parent, &at.name, error);
    if (hidden < 0)
        return -1;
    int result = hidden ? 0 : link_within(tree, &at, place, replace, error);
    if (result == 0 && replace)
        result = link_from_below(tree, target, hidden ? NULL : &at, place, error);
    return result;
}

/* Make a hard link; both names are cleaned. Its attributes are its target's, the entry's are not
 * looked at. Neither name's last component is followed (CVE-2014-6407), and both are resolved in
 * the root. A target that is nowhere yet is waited for. */
int link_make(struct layer_tree *tree, struct pending_links *pending, const char *path,
              const char *target, struct pyrtc_error *error)
{
    struct place place;
    bool existed;

    if (!*target)
        return pyrtc_fail(error, EISDIR, STEP, "%s", "");
    int result = try_link(tree, path, target, true, &place, error);
    if (result != 0)
        return result < 0 ? -1 : 0;
    /* The link would have replaced what has its name. Below, nothing is replaced: that came later,
     * and wins. */
    if (tree_clear_name(tree, place.parent, place.name, &existed, error) < 0)
        return -1;
    return remember(pending, path, target, error);
}

/* At the end of the archive: make the links that waited, round by round, as they may wait for each
 * other. */
int link_make_pending(struct layer_tree *tree, struct pending_links *pending,
                      struct pyrtc_error *error)
{
    for (int round = 0; pending->count; round++) {
        size_t kept = 0, count = pending->count;
        for (size_t i = 0; i < count; i++) {
            struct pending_link link = pending->links[i];
            struct place place;
            int result = try_link(tree, link.path, link.target, false, &place, error);
            if (result == 0) {
                pending->links[i] = pending->links[kept];
                pending->links[kept++] = link;
                continue;
            }
            if (result < 0)
                return -1;
            free(link.path);
            free(link.target);
            pending->links[i] = (struct pending_link){0};
        }
        pending->count = kept;
        if (kept == count || (kept && round == MAX_ROUNDS))
            return pyrtc_fail(error, ENOENT, STEP, "%.150s, linked to as %.150s",
                              pending->links[0].target, pending->links[0].path);
    }
    return 0;
}

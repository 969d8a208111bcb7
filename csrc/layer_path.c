#include "layer_tree.h"

#include "error.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>

#define STEP "resolve a path"

/* As many links as the kernel follows; and a bound on the steps, or forty links of four thousand
 * bytes each would make every entry cost a hundred thousand of them. */
enum { MAX_LINKS = 40, MAX_STEPS = 1024 };

/* Bring a name of the archive into the form "a/b/c", in place: separators collapsed, "." and inner
 * ".." taken out as text, a leading "/" dropped. A name that climbs above the root is refused:
 * only an attack has one. */
int path_clean(char *path, uint32_t max_depth, size_t *components, struct pyrtc_error *error)
{
    char *from = path, *to = path;

    *components = 0;
    while (*from) {
        size_t length = strcspn(from, "/");
        char *next = from + length + (from[length] == '/');
        if (length == 2 && from[0] == '.' && from[1] == '.') {
            if (*components == 0)
                return pyrtc_fail(error, 0, STEP, "it leads out of the layer");
            --*components;
            while (to > path && *--to != '/')
                ;
        } else if (length > 1 || (length == 1 && from[0] != '.')) {
            /* A whiteout's own name is never on the disk, only the one behind its prefix. */
            size_t limit = strncmp(from, ".wh.", 4) == 0 ? NAME_MAX + 4 : NAME_MAX;
            if (length > limit)
                return pyrtc_fail(error, ENAMETOOLONG, STEP, "a name of %zu bytes", length);
            if (++*components > max_depth)
                return pyrtc_fail(error, 0, STEP, "more than %u components", max_depth);
            if (to > path)
                *to++ = '/';
            memmove(to, from, length);
            to += length;
        }
        from = next;
    }
    *to = 0;
    return 0;
}

/* What is left of a path while links are being followed. */
struct rest {
    char *owned_text;
    const char *at;
    uint32_t links;
    uint32_t steps;
};

static int follow(struct rest *rest, const char *target, struct pyrtc_error *error)
{
    size_t target_size = strlen(target), rest_size = strlen(rest->at);

    if (++rest->links > MAX_LINKS)
        return pyrtc_fail(error, ELOOP, STEP, "%s", "");
    char *text = malloc(target_size + rest_size + 2);
    if (!text)
        return pyrtc_fail(error, ENOMEM, STEP, "%zu bytes", target_size + rest_size);
    memcpy(text, target, target_size);
    text[target_size] = '/';
    memcpy(text + target_size + 1, rest->at, rest_size + 1);
    free(rest->owned_text);
    rest->at = rest->owned_text = text;
    return 0;
}

/* The layer has nothing here that could be followed: see what shows through from below. Returns
 * the node of a directory that was made to match, or of a link to follow. */
static int step_down(struct layer_tree *tree, struct node *parent, const char *name,
                     struct node **found, struct pyrtc_error *error)
{
    struct lower_entry lower = {.directory_fd = -1};
    int exists = 0;

    if (tree->options->lower_count && !parent->not_in_lower && !tree_is_hidden(parent)) {
        if (tree_path(tree, parent, name, error) < 0)
            return -1;
        exists = lower_find(tree, tree->path, &lower, error);
        if (exists < 0)
            return -1;
    }
    owned_fd int fd = lower.directory_fd;
    (void)fd;
    /* A file of this layer in the way is caught below, by mkdir; it hides what is beneath it. */
    if (exists && S_ISLNK(lower.status.st_mode)) {
        int parent_fd = tree_fd(tree, parent, error);
        struct stat status;
        if (parent_fd < 0)
            return -1;
        if (fstatat(parent_fd, name, &status, AT_SYMLINK_NOFOLLOW) == 0)
            return pyrtc_fail(error, ENOTDIR, STEP, "%s", "");
        owned char *target = NULL;
        if (lower_read_link(&lower, &target, error) < 0)
            return -1;
        *found = tree_add(tree, parent, name, NODE_LOWER_LINK, error);
        if (!*found)
            return -1;
        (*found)->target = target;
        target = NULL;
        tree->result->depends++;
        return 0;
    }
    if (!tree_is_hidden(parent))
        tree->result->depends++; /* above other layers it might look different, or be a link */
    struct node *directory;
    if (tree_make_directory(tree, parent, name, false, &directory, error) < 0)
        return -1;
    directory->implied = true;
    *found = directory;
    if (exists && S_ISDIR(lower.status.st_mode))
        return lower_inherit_directory(tree, &lower, directory, error);
    directory->not_in_lower = true;
    return tree_reset_attributes(tree, directory, error);
}

/* One name of a path: go to the directory it names, or take the link apart. */
static int step(struct layer_tree *tree, struct rest *rest, const char *name, bool keep_whiteouts,
                struct node **at, struct pyrtc_error *error)
{
    struct node *node = tree_lookup(tree, *at, name);

    if (node && node->kind == NODE_WHITEOUT) {
        if (keep_whiteouts)
            return PATH_HIDDEN;
        if (tree_make_directory(tree, *at, name, true, &node, error) < 0)
            return -1;
        node->implied = true;
        if (tree_reset_attributes(tree, node, error) < 0)
            return -1;
    }
    if (!node && step_down(tree, *at, name, &node, error) < 0)
        return -1;
    if (node->kind == NODE_DIRECTORY) {
        *at = node;
        return PATH_FOUND;
    }
    if (node->target[0] == '/')
        *at = tree->root;
    return follow(rest, node->target, error);
}

static int resolve(struct layer_tree *tree, const char *path, size_t size, bool keep_whiteouts,
                   struct node **parent, struct pyrtc_error *error)
{
    owned char *text = strndup(path, size);
    struct rest rest = {.owned_text = text, .at = text};
    struct node *at = tree->root;
    int result = 0;

    if (!text)
        return pyrtc_fail(error, ENOMEM, STEP, "%zu bytes", size);
    text = NULL;
    while (*rest.at && result == 0) {
        char name[NAME_MAX + 1];
        size_t length = strcspn(rest.at, "/");
        const char *start = rest.at;
        rest.at += length + (rest.at[length] == '/');
        if (length > NAME_MAX) {
            result = pyrtc_fail(error, ENAMETOOLONG, STEP, "a name of %zu bytes", length);
            break;
        }
        memcpy(name, start, length);
        name[length] = 0;
        if (++rest.steps > MAX_STEPS)
            result = pyrtc_fail(error, ELOOP, STEP, "more than %d steps", MAX_STEPS);
        else if (strcmp(name, "..") == 0)
            at = at->parent ? at->parent : at; /* as in a root of its own */
        else if (length && strcmp(name, ".") != 0)
            result = step(tree, &rest, name, keep_whiteouts, &at, error);
    }
    free(rest.owned_text);
    *parent = at;
    return result;
}

/* Find the directory that a cleaned path's last name lies in, following links of this layer and of
 * the layers below as a process with its root here would (so Docker and containerd do in the
 * merged tree), and making directories that are missing in this layer. The last name is never
 * followed; it is not looked at.
 *
 * Returns PATH_FOUND, or with keep_whiteouts PATH_HIDDEN where a whiteout of this layer stands for
 * a directory on the way. */
int path_resolve_parent(struct layer_tree *tree, const char *path, bool keep_whiteouts,
                        struct node **parent, const char **name, struct pyrtc_error *error)
{
    const char *slash = strrchr(path, '/');
    size_t size = slash ? (size_t)(slash - path) : 0;

    *name = slash ? slash + 1 : path;
    if (tree->cached_node && tree->cached_removals == tree->removals && size == tree->cached_size &&
        memcmp(path, tree->cached_path, size) == 0) {
        *parent = tree->cached_node;
        return PATH_FOUND;
    }
    int result = resolve(tree, path, size, keep_whiteouts, parent, error);
    if (result != PATH_FOUND)
        return result;
    if (size + 1 > tree->cached_capacity) {
        char *grown = realloc(tree->cached_path, size + 1);
        if (!grown)
            return pyrtc_fail(error, ENOMEM, STEP, "%zu bytes", size);
        tree->cached_path = grown;
        tree->cached_capacity = size + 1;
    }
    memcpy(tree->cached_path, path, size);
    tree->cached_size = size;
    tree->cached_node = *parent;
    tree->cached_removals = tree->removals;
    return PATH_FOUND;
}

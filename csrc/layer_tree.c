#include "layer_tree.h"

#include "error.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <search.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

/* Children of one directory lie together in the index; the tree is balanced, so that no choice of
 * names makes it slow. */
static int compare_nodes(const void *left, const void *right)
{
    const struct node *a = left, *b = right;

    if (a->parent != b->parent)
        return (uintptr_t)a->parent < (uintptr_t)b->parent ? -1 : 1;
    return strcmp(a->name, b->name);
}

struct node *tree_lookup(struct layer_tree *tree, struct node *parent, const char *name)
{
    struct node key = {.parent = parent, .name = name};

    if (!parent->first_child)
        return NULL;
    struct node **found = tfind(&key, &tree->index, compare_nodes);
    return found ? *found : NULL;
}

/* Nodes count as entries: a path of many missing directories costs what it makes. */
struct node *tree_add(struct layer_tree *tree, struct node *parent, const char *name,
                      enum node_kind kind, struct pyrtc_error *error)
{
    static const char step[] = "keep track of the layer's directories";

    if (tree->nodes >= tree->options->max_entries) {
        pyrtc_fail(error, 0, step, "more than %llu directories, links and whiteouts",
                   (unsigned long long)tree->options->max_entries);
        return NULL;
    }
    if (parent && parent->depth >= tree->options->max_depth) {
        pyrtc_fail(error, 0, step, "a path of more than %u components", tree->options->max_depth);
        return NULL;
    }
    size_t size = strlen(name) + 1;
    struct node *node = calloc(1, sizeof(*node) + size);
    if (!node) {
        pyrtc_fail(error, ENOMEM, step, "%llu of them", (unsigned long long)tree->nodes);
        return NULL;
    }
    node->name = memcpy(node + 1, name, size);
    node->parent = parent;
    node->kind = kind;
    if (parent && !tsearch(node, &tree->index, compare_nodes)) {
        free(node);
        pyrtc_fail(error, ENOMEM, step, "%llu of them", (unsigned long long)tree->nodes);
        return NULL;
    }
    tree->nodes++;
    if (parent) {
        node->depth = parent->depth + 1;
        node->next = parent->first_child;
        if (node->next)
            node->next->previous = node;
        parent->first_child = node;
        parent->whiteouts += kind == NODE_WHITEOUT;
        parent->lower_links += kind == NODE_LOWER_LINK;
    }
    return node;
}

static void free_node(struct layer_tree *tree, struct node *node)
{
    for (int i = 0; i < DIRECTORY_SLOTS; i++) {
        if (tree->slots[i].node == node) {
            close(tree->slots[i].fd);
            tree->slots[i] = (struct directory_slot){.fd = -1};
        }
    }
    tree->nodes--;
    tree->acl_bytes -= node->attributes.acl_access_size + node->attributes.acl_default_size;
    free(node->attributes.acl_access);
    free(node->attributes.acl_default);
    free(node->target);
    free(node);
}

/* Forget a node and everything below it. Iterative: the depth is the archive's choice. */
void tree_drop(struct layer_tree *tree, struct node *node)
{
    struct node *parent = node->parent, *at = node;

    tree->removals++;
    parent->whiteouts -= node->kind == NODE_WHITEOUT;
    parent->lower_links -= node->kind == NODE_LOWER_LINK;
    if (node->previous)
        node->previous->next = node->next;
    else
        parent->first_child = node->next;
    if (node->next)
        node->next->previous = node->previous;
    for (;;) {
        while (at->first_child)
            at = at->first_child;
        struct node *above = at->parent;
        bool last = at == node;
        if (!last)
            above->first_child = at->next;
        tdelete(at, &tree->index, compare_nodes);
        free_node(tree, at);
        if (last)
            return;
        at = above;
    }
}

bool tree_is_beneath(const struct node *node, const struct node *ancestor)
{
    while (node && node != ancestor)
        node = node->parent;
    return node != NULL;
}

/* Whether this directory shows nothing of what the layers below have in it. */
bool tree_is_hidden(const struct node *node)
{
    while (node && !node->opaque)
        node = node->parent;
    return node != NULL;
}

int tree_is_whiteout(const struct stat *status)
{
    return S_ISCHR(status->st_mode) && status->st_rdev == makedev(0, 0);
}

/* Write the path from the root to node/name into tree->path; name may be NULL. The root's own path
 * is "". */
int tree_path(struct layer_tree *tree, const struct node *node, const char *name,
              struct pyrtc_error *error)
{
    size_t size = name ? strlen(name) + 1 : 0;

    for (const struct node *at = node; at->parent; at = at->parent)
        size += strlen(at->name) + 1;
    if (size + 1 > tree->path_capacity) {
        char *grown = realloc(tree->path, size + 1);
        if (!grown)
            return pyrtc_fail(error, ENOMEM, "write a path", "%zu bytes", size);
        tree->path = grown;
        tree->path_capacity = size + 1;
    }
    char *end = tree->path + size;
    *end = 0;
    for (const struct node *at = node; name || at->parent;) {
        const char *part = name ? name : at->name;
        size_t length = strlen(part);
        if (end != tree->path + size)
            *--end = '/';
        end -= length;
        memcpy(end, part, length);
        if (name)
            name = NULL;
        else
            at = at->parent;
    }
    if (end != tree->path) /* one separator fewer than components */
        memmove(tree->path, end, strlen(end) + 1);
    return 0;
}

static int find_slot(const struct layer_tree *tree, const struct node *node)
{
    for (int i = 0; i < DIRECTORY_SLOTS; i++) {
        if (tree->slots[i].node == node)
            return i;
    }
    return -1;
}

static int open_beneath(int base, const char *path)
{
    struct open_how how = {
        .flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV,
    };

    return (int)syscall(SYS_openat2, base, path, &how, sizeof(how));
}

/* A directory made under a umask that takes the owner's rights away cannot be opened by an
 * ordinary user. */
static int open_own(struct layer_tree *tree, struct node *directory, struct pyrtc_error *error)
{
    int parent = tree_fd(tree, directory->parent, error);
    if (parent < 0)
        return -1;
    if (fchmodat(parent, directory->name, 0700, AT_SYMLINK_NOFOLLOW) < 0)
        return FAIL(error, "open a directory of the layer");
    int fd = open_beneath(parent, directory->name);
    return fd < 0 ? FAIL(error, "open a directory of the layer") : fd;
}

/* Return a descriptor of the directory. It stays the tree's, and stays open until DIRECTORY_SLOTS
 * others were asked for. Entries of an archive come directory by directory, so that few calls open
 * one. */
int tree_fd(struct layer_tree *tree, struct node *directory, struct pyrtc_error *error)
{
    enum { LONGEST = 4000 }; /* below PATH_MAX */
    struct node *base = directory;
    size_t length = 0;
    int slot;

    while ((slot = find_slot(tree, base)) < 0 && base->parent) {
        size_t added = strlen(base->name) + 1;
        if (length + added > LONGEST)
            break;
        length += added;
        base = base->parent;
    }
    if (base == directory && slot >= 0) {
        tree->slots[slot].used = ++tree->clock;
        return tree->slots[slot].fd;
    }

    int base_fd = slot >= 0 ? tree->slots[slot].fd : base->parent ? tree_fd(tree, base, error) : -1;
    if (slot < 0 && !base->parent)
        base_fd = tree->options->root_fd;
    if (base_fd < 0)
        return -1;
    char path[LONGEST + 1];
    char *end = path + length;
    for (struct node *at = directory; at != base; at = at->parent) {
        size_t size = strlen(at->name);
        *--end = at == directory ? 0 : '/';
        end -= size;
        memcpy(end, at->name, size);
    }
    int fd = open_beneath(base_fd, directory == base ? "." : path);
    if (fd < 0 && errno == EACCES && directory->parent) {
        fd = open_own(tree, directory, error);
        if (fd < 0)
            return -1;
    }
    struct stat status;
    if (fd < 0 ||
        (tree->options->rootless &&
         (fstat(fd, &status) < 0 || ((status.st_mode & 0700) != 0700 && fchmod(fd, 0700) < 0)))) {
        FAIL(error, "open a directory of the layer");
        if (fd >= 0)
            close(fd);
        return -1;
    }

    slot = 0;
    for (int i = 1; i < DIRECTORY_SLOTS; i++) {
        if (tree->slots[i].used < tree->slots[slot].used)
            slot = i;
    }
    if (tree->slots[slot].fd >= 0)
        close(tree->slots[slot].fd);
    tree->slots[slot] = (struct directory_slot){.node = directory, .fd = fd, .used = ++tree->clock};
    return fd;
}

/* The root begins as an implied directory that only its owner may enter. Bits and defaults that
 * the directory brought along would be handed on to everything made in it. */
int tree_open(struct layer_tree *tree, struct pyrtc_error *error)
{
    for (int i = 0; i < DIRECTORY_SLOTS; i++)
        tree->slots[i].fd = -1;
    tree->root = tree_add(tree, NULL, "", NODE_DIRECTORY, error);
    if (!tree->root)
        return -1;
    tree->root->implied = true;
    struct stat status;
    if (fstat(tree->options->root_fd, &status) < 0)
        return FAIL(error, "prepare the layer's directory");
    if (!S_ISDIR(status.st_mode))
        return pyrtc_fail(error, ENOTDIR, "prepare the layer's directory", "%s", "");
    /* Its own owner may have no right to enter it yet; a descriptor opened with O_PATH can change
     * nothing. */
    if (fchmod(tree->options->root_fd, 0700) < 0 && errno != EBADF)
        return FAIL(error, "prepare the layer's directory");
    int fd = tree_fd(tree, tree->root, error);
    if (fd < 0)
        return -1;
    if (fchmod(fd, 0700) < 0)
        return FAIL(error, "prepare the layer's directory");
    return xattr_clear(tree, fd, error);
}

void tree_close(struct layer_tree *tree)
{
    if (tree->root) {
        while (tree->root->first_child)
            tree_drop(tree, tree->root->first_child);
        free_node(tree, tree->root);
    }
    free(tree->path);
    free(tree->cached_path);
}

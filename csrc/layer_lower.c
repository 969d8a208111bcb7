#include "layer_tree.h"

#include "error.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

#define STEP "look into the layers below"

static int open_directory(int base, const char *name)
{
    struct open_how how = {
        .flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV,
    };

    return (int)syscall(SYS_openat2, base, name, &how, sizeof(how));
}

enum { LAYER_MISSING, LAYER_FOUND, LAYER_BLOCKS };

/* Walk a path through one layer. LAYER_BLOCKS: it has nothing there, and nothing below it shows
 * either. */
static int find_in_layer(struct layer_tree *tree, int layer_fd, const char *path,
                         struct lower_entry *entry, struct pyrtc_error *error)
{
    owned_fd int at = fcntl(layer_fd, F_DUPFD_CLOEXEC, 0);
    int missing = LAYER_MISSING;

    if (at < 0)
        return FAIL(error, STEP);
    for (;;) {
        size_t length = strcspn(path, "/");
        if (length > NAME_MAX)
            return pyrtc_fail(error, ENAMETOOLONG, STEP, "%s", "");
        memcpy(entry->name, path, length);
        entry->name[length] = 0;
        if (!path[length])
            break;
        path += length + 1;
        int next = open_directory(at, entry->name);
        if (next < 0)
            return errno == ENOENT                      ? missing
                   : errno == ENOTDIR || errno == ELOOP ? LAYER_BLOCKS
                                                        : FAIL(error, STEP);
        close(at);
        at = next;
        char value;
        if (fgetxattr(at, xattr_overlay_name(tree, "opaque"), &value, 1) == 1 && value == 'y')
            missing = LAYER_BLOCKS;
    }
    if (fstatat(at, entry->name, &entry->status, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? missing : FAIL(error, STEP);
    if (tree_is_whiteout(&entry->status))
        return LAYER_BLOCKS;
    entry->directory_fd = steal_fd(&at);
    return LAYER_FOUND;
}

/* Find what the layers below, stacked as overlayfs stacks them, show at a path; no link is
 * followed. Returns 1 and fills *entry, or 0. */
int lower_find(struct layer_tree *tree, const char *path, struct lower_entry *entry,
               struct pyrtc_error *error)
{
    for (uint32_t i = 0; i < tree->options->lower_count; i++) {
        int result = find_in_layer(tree, tree->options->lower_fds[i], path, entry, error);
        if (result < 0)
            return -1;
        if (result != LAYER_MISSING)
            return result == LAYER_FOUND;
    }
    return 0;
}

/* Make an implied directory look like the one below that it stands for: overlayfs shows the
 * attributes of the topmost, and the archive has none to show. Without an entry: the root, from
 * the topmost layer. */
int lower_inherit_directory(struct layer_tree *tree, const struct lower_entry *entry,
                            struct node *directory, struct pyrtc_error *error)
{
    struct directory_attributes *attributes = &directory->attributes;
    struct stat status;
    owned_fd int fd = entry ? open_directory(entry->directory_fd, entry->name)
                            : open_directory(tree->options->lower_fds[0], ".");

    if (fd < 0 || fstat(fd, &status) < 0)
        return FAIL(error, STEP);
    attributes->mode = status.st_mode & 07777;
    attributes->uid = status.st_uid;
    attributes->gid = status.st_gid;
    attributes->mtime = status.st_mtim;
    int own = tree_fd(tree, directory, error);
    if (own < 0 || xattr_copy(tree, fd, own, directory, error) < 0)
        return -1;
    return 0;
}

int lower_read_link(const struct lower_entry *entry, char **target, struct pyrtc_error *error)
{
    owned char *text = malloc(PATH_MAX);

    if (!text)
        return pyrtc_fail(error, ENOMEM, STEP, "%s", "");
    ssize_t size = readlinkat(entry->directory_fd, entry->name, text, PATH_MAX - 1);
    if (size < 0)
        return FAIL(error, STEP);
    text[size] = 0;
    *target = text;
    text = NULL;
    return 0;
}

/* Copy the data of a file, holes kept as holes. */
static int copy_data(struct layer_tree *tree, int from, int to, off_t size,
                     struct pyrtc_error *error)
{
    static const char step[] = "copy a file up from a lower layer";
    off_t at = 0;

    if ((uint64_t)size > tree->options->max_file_size)
        return pyrtc_fail(error, EFBIG, step, "%s", "");
    while (at < size) {
        off_t data = lseek(from, at, SEEK_DATA);
        if (data < 0 && errno == ENXIO)
            break;
        off_t hole = data < 0 ? -1 : lseek(from, data, SEEK_HOLE);
        if (hole < 0)
            return FAIL(error, step);
        if (entry_count_data(tree, (uint64_t)(hole - data), error) < 0)
            return -1;
        off_t in = data, out = data;
        while (in < hole) {
            ssize_t moved = copy_file_range(from, &in, to, &out, (size_t)(hole - in), 0);
            if (moved < 0 && (errno == EXDEV || errno == EINVAL || errno == EOPNOTSUPP) &&
                lseek(to, in, SEEK_SET) == in)
                moved = sendfile(to, from, &in, (size_t)(hole - in)); /* another file system */
            if (moved == 0)
                return pyrtc_fail(error, EIO, step, "it became shorter");
            if (moved < 0)
                return FAIL(error, step);
        }
        at = hole;
    }
    return ftruncate(to, size) < 0 ? FAIL(error, step) : 0;
}

static int copy_file_up(struct layer_tree *tree, const struct lower_entry *entry, int parent_fd,
                        const char *name, struct pyrtc_error *error)
{
    static const char step[] = "copy a file up from a lower layer";
    struct stat status;
    owned_fd int from = openat(entry->directory_fd, entry->name,
                               O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (from < 0 || fstat(from, &status) < 0)
        return FAIL(error, step);
    if (!S_ISREG(status.st_mode))
        return pyrtc_fail(error, 0, step, "it is no file any more");
    owned_fd int to =
        openat(parent_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (to < 0 || fchmod(to, 0600) < 0) /* whatever the umask */
        return FAIL(error, step);
    const struct timespec times[2] = {status.st_mtim, status.st_mtim};
    if (copy_data(tree, from, to, status.st_size, error) < 0)
        return -1;
    if (tree_keeps_owners(tree) && fchown(to, status.st_uid, status.st_gid) < 0)
        return FAIL(error, step);
    if (xattr_copy(tree, from, to, NULL, error) < 0)
        return -1;
    if (fchmod(to, status.st_mode & 07777) < 0 || futimens(to, times) < 0)
        return FAIL(error, step);
    return 0;
}

/* Make a copy of a lower layer's file, link or device in this one, with its attributes: a hard
 * link cannot reach into another layer's directory. The name must be free. */
int lower_copy_up(struct layer_tree *tree, const struct lower_entry *entry, struct node *parent,
                  const char *name, struct pyrtc_error *error)
{
    static const char step[] = "copy a file up from a lower layer";
    const struct stat *status = &entry->status;
    const struct timespec times[2] = {status->st_mtim, status->st_mtim};
    int fd = tree_fd(tree, parent, error);

    if (fd < 0)
        return -1;
    if (S_ISDIR(status->st_mode))
        return pyrtc_fail(error, EISDIR, "make a hard link", "%s", "");
    tree_forget_lower_link(tree, parent, name);
    if (S_ISREG(status->st_mode))
        return copy_file_up(tree, entry, fd, name, error);
    if (S_ISLNK(status->st_mode)) {
        owned char *target = NULL;
        if (lower_read_link(entry, &target, error) < 0)
            return -1;
        if (symlinkat(target, fd, name) < 0)
            return FAIL(error, step);
        struct node *node = tree_add(tree, parent, name, NODE_LINK, error);
        if (!node)
            return -1;
        node->target = target;
        target = NULL;
    } else if (mknodat(fd, name, status->st_mode, status->st_rdev) < 0) {
        return FAIL(error, step);
    }
    if (tree_keeps_owners(tree) &&
        fchownat(fd, name, status->st_uid, status->st_gid, AT_SYMLINK_NOFOLLOW) < 0)
        return FAIL(error, step);
    if (!S_ISLNK(status->st_mode) &&
        fchmodat(fd, name, status->st_mode & 07777, AT_SYMLINK_NOFOLLOW) < 0)
        return FAIL(error, step);
    return utimensat(fd, name, times, AT_SYMLINK_NOFOLLOW) < 0 ? FAIL(error, step) : 0;
}

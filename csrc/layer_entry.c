#include "layer_tree.h"

#include "error.h"
#include "tar_stream.h"
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/sysmacros.h>

/* Files up to this size are written by one call. */
enum { ONE_WRITE = 256 << 10 };

int entry_count_data(struct layer_tree *tree, uint64_t size, struct pyrtc_error *error)
{
    if (size > tree->options->max_bytes - tree->result->bytes)
        return pyrtc_fail(error, EFBIG, "unpack a file", "the layer has more than %llu bytes",
                          (unsigned long long)tree->options->max_bytes);
    tree->result->bytes += size;
    return 0;
}

/* Create a file that was not there; what an earlier entry made under the name goes. */
static int create_file(struct layer_tree *tree, struct node *parent, const char *name, mode_t mode,
                       struct pyrtc_error *error)
{
    enum { FLAGS = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC };
    int directory = tree_fd(tree, parent, error);

    if (directory < 0)
        return -1;
    tree_forget_lower_link(tree, parent, name);
    int fd = openat(directory, name, FLAGS, mode);
    if (fd < 0 && errno == EEXIST) {
        bool existed;
        if (tree_clear_name(tree, parent, name, &existed, error) < 0)
            return -1;
        fd = openat(directory, name, FLAGS, mode);
    }
    return fd < 0 ? FAIL(error, "create a file") : fd;
}

/* Move the next bytes of the stream into the file. */
static int write_data(struct tar_stream *stream, int fd, uint64_t size, struct pyrtc_error *error)
{
    while (size) {
        const uint8_t *data;
        ssize_t have = stream_peek(stream, size < ONE_WRITE ? size : 1, &data, error);
        if (have <= 0)
            return have < 0 ? -1 : stream_truncated(error);
        size_t part = (uint64_t)have < size ? (size_t)have : (size_t)size;
        ssize_t written = write(fd, data, part);
        if (written < 0 && errno != EINTR)
            return FAIL(error, "write a file");
        if (written > 0) {
            stream_take(stream, (size_t)written);
            size -= (uint64_t)written;
        }
    }
    return 0;
}

static int write_sparse(struct tar_stream *stream, int fd, const struct tar_map *map,
                        uint64_t real_size, uint64_t *left, struct pyrtc_error *error)
{
    for (size_t i = 0; i < map->count; i++) {
        const struct tar_extent *extent = &map->extents[i];
        if (extent->size == 0)
            continue;
        if (lseek(fd, (off_t)extent->offset, SEEK_SET) < 0)
            return FAIL(error, "write a sparse file");
        if (write_data(stream, fd, extent->size, error) < 0)
            return -1;
        *left -= extent->size;
    }
    return ftruncate(fd, (off_t)real_size) < 0 ? FAIL(error, "write a sparse file") : 0;
}

/* The owner before the attributes and the mode: chown(2) takes capabilities, setuid and setgid
 * away, as write(2) does. The mode after the attributes: an ACL among them changes it, and an
 * ordinary user may set none on a file that he may not write to. Calls that would change nothing
 * are left out: each is a write to the journal. */
static int finish_file(struct layer_tree *tree, int fd, const struct stat *created,
                       const struct tar_entry *entry, const struct tar_extensions *extensions,
                       struct pyrtc_error *error)
{
    const struct xattr_place place = {.fd = fd};
    bool attributes =
        extensions->attribute_count || extensions->acl_access || extensions->acl_default;

    if (tree_keeps_owners(tree) &&
        (created->st_uid != entry->uid || created->st_gid != entry->gid) &&
        fchown(fd, entry->uid, entry->gid) < 0)
        return FAIL(error, "set the owner of a file");
    if (attributes && xattr_apply(tree, extensions, &place, error) < 0)
        return -1;
    if (((created->st_mode & 07777) != entry->mode || attributes) && fchmod(fd, entry->mode) < 0)
        return FAIL(error, "set the mode of a file");
    const struct timespec times[2] = {entry->mtime, entry->mtime};
    return futimens(fd, times) < 0 ? FAIL(error, "set the time of a file") : 0;
}

/* Make a regular file. *left counts down what of the entry's data is still in the stream. */
int entry_make_file(struct layer_tree *tree, struct tar_stream *stream,
                    const struct tar_entry *entry, const struct tar_extensions *extensions,
                    struct tar_map *map, struct node *parent, const char *name, uint64_t *left,
                    struct pyrtc_error *error)
{
    struct stat created;
    bool attributes = extensions->attribute_count > 0;

    if (entry->real_size > tree->options->max_file_size)
        return pyrtc_fail(error, EFBIG, "unpack a file", "it has %llu bytes, the limit is %llu",
                          (unsigned long long)entry->real_size,
                          (unsigned long long)tree->options->max_file_size);
    if (entry_count_data(tree, *left, error) < 0)
        return -1;
    /* No set-id bit before the owner is right. The umask may take bits away; fstat() tells. */
    owned_fd int fd =
        create_file(tree, parent, name, attributes ? 0600 : entry->mode & 0777, error);
    if (fd < 0)
        return -1;
    if (fstat(fd, &created) < 0)
        return FAIL(error, "read the state of a file");
    if (attributes && (created.st_mode & 0600) != 0600 && fchmod(fd, 0600) < 0)
        return FAIL(error, "set the mode of a file");
    if (entry->sparse != TAR_SPARSE_NONE) {
        if (write_sparse(stream, fd, map, entry->real_size, left, error) < 0)
            return -1;
    } else {
        if (write_data(stream, fd, *left, error) < 0)
            return -1;
        *left = 0;
    }
    return finish_file(tree, fd, &created, entry, extensions, error);
}

static int make_special(int directory, const char *name, const struct tar_entry *entry)
{
    static const mode_t types[] = {
        [TAR_CHARACTER] = S_IFCHR, [TAR_BLOCK] = S_IFBLK, [TAR_FIFO] = S_IFIFO};

    if (entry->type == TAR_SYMLINK)
        return symlinkat(entry->link, directory, name);
    return mknodat(directory, name, types[entry->type] | 0600, makedev(entry->major, entry->minor));
}

/* Make a symbolic link, device or fifo. A link's target is data: nothing here follows it. */
int entry_make_special(struct layer_tree *tree, const struct tar_entry *entry,
                       const struct tar_extensions *extensions, struct node *parent,
                       const char *name, struct pyrtc_error *error)
{
    const char *step = entry->type == TAR_SYMLINK ? "make a symbolic link"
                       : entry->type == TAR_FIFO  ? "make a fifo"
                                                  : "make a device";
    const struct timespec times[2] = {entry->mtime, entry->mtime};
    int fd = tree_fd(tree, parent, error);
    struct xattr_place place = {.fd = fd, .name = name};

    if (fd < 0)
        return -1;
    tree_forget_lower_link(tree, parent, name);
    int result = make_special(fd, name, entry);
    if (result < 0 && errno == EEXIST) {
        bool existed;
        if (tree_clear_name(tree, parent, name, &existed, error) < 0)
            return -1;
        result = make_special(fd, name, entry);
    }
    if (result < 0)
        return FAIL(error, step);
    if (entry->type == TAR_SYMLINK) {
        struct node *node = tree_add(tree, parent, name, NODE_LINK, error);
        if (!node)
            return -1;
        node->target = strdup(entry->link);
        if (!node->target)
            return pyrtc_fail(error, ENOMEM, step, "%s", "");
    }
    if (tree_keeps_owners(tree) &&
        fchownat(fd, name, entry->uid, entry->gid, AT_SYMLINK_NOFOLLOW) < 0)
        return FAIL(error, step);
    if (xattr_apply(tree, extensions, &place, error) < 0)
        return -1;
    if (entry->type != TAR_SYMLINK && fchmodat(fd, name, entry->mode, AT_SYMLINK_NOFOLLOW) < 0)
        return FAIL(error, step);
    return utimensat(fd, name, times, AT_SYMLINK_NOFOLLOW) < 0 ? FAIL(error, step) : 0;
}

/* Make a directory, or give one that is there the attributes of its entry, whole: the last entry
 * counts. A symbolic link or file under the name is replaced. */
int entry_make_directory(struct layer_tree *tree, const struct tar_entry *entry,
                         const struct tar_extensions *extensions, struct node *parent,
                         const char *name, struct pyrtc_error *error)
{
    struct node *node = parent ? tree_lookup(tree, parent, name) : tree->root;

    if (!node || node->kind != NODE_DIRECTORY) {
        if (tree_make_directory(tree, parent, name, true, &node, error) < 0)
            return -1;
    } else if (tree_reset_attributes(tree, node, error) < 0) {
        return -1;
    }
    node->implied = false;
    node->attributes.mode = entry->mode;
    node->attributes.uid = entry->uid;
    node->attributes.gid = entry->gid;
    node->attributes.mtime = entry->mtime;
    if (!extensions->attribute_count && !extensions->acl_access && !extensions->acl_default)
        return 0;
    int fd = tree_fd(tree, node, error);
    return fd < 0 ? -1 : xattr_apply_directory(tree, extensions, node, fd, error);
}

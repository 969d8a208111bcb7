#include "tardiff_tree.h"

#include "error.h"
#include "tar_write.h"

#include <endian.h>
#include <errno.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/capability.h>
#include <linux/limits.h>
#include <sys/xattr.h>

/* Of names of files with several names at once; they go as soon as the last of their group was
 * seen. */
enum { MAX_NAME_BYTES = 1 << 30 };

#define PREFIX "SCHILY.xattr."

struct first {
    dev_t device;
    ino_t inode;
    nlink_t left; /* names that are still to come, if all are in this tree */
    char path[];
};

static int compare(const void *left, const void *right)
{
    const struct first *a = left, *b = right;

    if (a->device != b->device)
        return a->device < b->device ? -1 : 1;
    return a->inode < b->inode ? -1 : a->inode > b->inode;
}

static size_t size_of(const struct first *first)
{
    return sizeof(*first) + strlen(first->path) + 1;
}

const char *first_name(struct first_names *names, const struct stat *status, const char *path,
                       int *failed, struct pyrtc_error *error)
{
    struct first wanted = {.device = status->st_dev, .inode = status->st_ino};
    struct first **found = tfind(&wanted, &names->index, compare);
    size_t size = strlen(path) + 1;

    *failed = 0;
    free(names->spent);
    names->spent = NULL;
    if (found) {
        struct first *first = *found;
        if (--first->left == 0) {
            tdelete(first, &names->index, compare);
            names->bytes -= size_of(first);
            names->spent = first;
        }
        return first->path;
    }
    if (names->bytes + sizeof(wanted) + size > MAX_NAME_BYTES) {
        *failed = pyrtc_fail(error, 0, "keep track of hard links", "more than %d bytes of names",
                             MAX_NAME_BYTES);
        return NULL;
    }
    struct first *made = malloc(sizeof(*made) + size);
    if (made) {
        *made = wanted;
        made->left = status->st_nlink - 1;
        memcpy(made->path, path, size);
    }
    if (!made || !tsearch(made, &names->index, compare)) {
        free(made);
        *failed = pyrtc_fail(error, ENOMEM, "keep track of hard links", "%s", "");
        return NULL;
    }
    names->bytes += size_of(made);
    return NULL;
}

/* Emptied from its root, because tdestroy(3) is glibc's only. */
void first_names_free(struct first_names *names)
{
    while (names->index) {
        struct first *first = *(struct first **)names->index;
        tdelete(first, &names->index, compare);
        free(first);
    }
    free(names->spent);
}

int attribute_room_open(struct attribute_room *room, struct pyrtc_error *error)
{
    room->names = malloc(XATTR_LIST_MAX);
    room->value = malloc(XATTR_SIZE_MAX);
    room->sorted = malloc(XATTR_LIST_MAX / 2 * sizeof(*room->sorted));
    if (room->names && room->value && room->sorted)
        return 0;
    return pyrtc_fail(error, ENOMEM, "read extended attributes", "%s", "");
}

void attribute_room_close(struct attribute_room *room)
{
    free(room->names);
    free(room->value);
    free(room->sorted);
}

static bool begins(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

enum policy { LEAVE_OUT, WRITE, IGNORE };

/* Written are capabilities, ACLs and what users attach. Never attributes by which overlayfs
 * steers, in any namespace, and never what is this host's alone: labels of security modules,
 * trusted.*. A key cannot hold '='. */
static enum policy policy(const char *name)
{
    const char *dot = strchr(name, '.');

    if (!dot || begins(dot + 1, "overlay.") || begins(dot + 1, "fuseoverlayfs."))
        return IGNORE;
    if (strchr(name, '='))
        return LEAVE_OUT;
    if (begins(name, "user.") || strcmp(name, "security.capability") == 0 ||
        strcmp(name, "system.posix_acl_access") == 0 ||
        strcmp(name, "system.posix_acl_default") == 0)
        return WRITE;
    return LEAVE_OUT;
}

/* A capability that was set inside a user namespace names the host's id of its root (version 3).
 * An image must not carry that to another host, so it is written as version 2, as Docker does. */
static size_t plain_capability(char *value, size_t size)
{
    struct vfs_ns_cap_data data;

    if (size != sizeof(data))
        return size;
    memcpy(&data, value, sizeof(data));
    uint32_t magic = le32toh(data.magic_etc);
    if ((magic & VFS_CAP_REVISION_MASK) != VFS_CAP_REVISION_3)
        return size;
    data.magic_etc = htole32(VFS_CAP_REVISION_2 | (magic & ~(uint32_t)VFS_CAP_REVISION_MASK));
    memcpy(value, &data, XATTR_CAPS_SZ_2);
    return XATTR_CAPS_SZ_2;
}

static int by_name(const void *left, const void *right)
{
    return strcmp(*(const char *const *)left, *(const char *const *)right);
}

static void source_path(const struct attribute_source *source, char *path, size_t size)
{
    snprintf(path, size, "/proc/self/fd/%d/%s", source->fd, source->name);
}

static ssize_t list(const struct attribute_source *source, char *names)
{
    char path[NAME_MAX + 32];

    if (!source->name)
        return flistxattr(source->fd, names, XATTR_LIST_MAX);
    source_path(source, path, sizeof(path));
    return llistxattr(path, names, XATTR_LIST_MAX);
}

static ssize_t read_value(const struct attribute_source *source, const char *name, char *value)
{
    char path[NAME_MAX + 32];

    if (!source->name)
        return fgetxattr(source->fd, name, value, XATTR_SIZE_MAX);
    source_path(source, path, sizeof(path));
    return lgetxattr(path, name, value, XATTR_SIZE_MAX);
}

int attributes_read(struct attribute_room *room, const struct attribute_source *source,
                    struct tar_text *records, uint64_t *left_out, struct pyrtc_error *error)
{
    ssize_t size = list(source, room->names);
    size_t count = 0;
    char key[sizeof(PREFIX) + XATTR_NAME_MAX];

    records->size = 0;
    if (size == 0 || (size < 0 && errno == ENOTSUP))
        return 0;
    if (size < 0)
        return pyrtc_fail(error, errno, "list extended attributes", "%s", "");
    for (const char *name = room->names; name < room->names + size; name += strlen(name) + 1) {
        enum policy decided = policy(name);
        if (decided == LEAVE_OUT)
            (*left_out)++;
        else if (decided == WRITE)
            room->sorted[count++] = name;
    }
    qsort(room->sorted, count, sizeof(*room->sorted), by_name);
    for (size_t i = 0; i < count; i++) {
        const char *name = room->sorted[i];
        ssize_t length = read_value(source, name, room->value);
        if (length < 0)
            return pyrtc_fail(error, errno, "read an extended attribute", "%.100s", name);
        if (strcmp(name, "security.capability") == 0)
            length = (ssize_t)plain_capability(room->value, (size_t)length);
        snprintf(key, sizeof(key), PREFIX "%s", name);
        if (tar_add_record(records, key, room->value, (size_t)length, error) < 0)
            return -1;
    }
    return 0;
}

int attributes_opaque(int fd, bool rootless, struct pyrtc_error *error)
{
    char value[4];
    const char *name = rootless ? "user.overlay.opaque" : "trusted.overlay.opaque";
    ssize_t size = fgetxattr(fd, name, value, sizeof(value));

    if (size < 0 && errno != ENODATA && errno != ENOTSUP && errno != ERANGE)
        return pyrtc_fail(error, errno, "read whether a directory is opaque", "%s", "");
    return size == 1 && value[0] == 'y';
}

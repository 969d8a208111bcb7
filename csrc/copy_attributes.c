#include "copyup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

enum {
    PATH_SIZE = sizeof("/proc/self/fd/-2147483648/") + NAME_MAX,
};

struct walk_attributes copy_attributes_of(const struct statx *status)
{
    return (struct walk_attributes){
        .mode = status->stx_mode,
        .uid = status->stx_uid,
        .gid = status->stx_gid,
        .times =
            {
                {.tv_sec = status->stx_atime.tv_sec, .tv_nsec = status->stx_atime.tv_nsec},
                {.tv_sec = status->stx_mtime.tv_sec, .tv_nsec = status->stx_mtime.tv_nsec},
            },
    };
}

/* There are no calls for the extended attributes of a name in a directory before Linux 6.13, and
 * what is not a regular file or directory must not be opened to get at them (devices, FIFOs). The
 * path leads through the directory's descriptor, so only its last part is looked up, and that is
 * not followed. */
static void path_of(struct copy_place place, char path[PATH_SIZE])
{
    snprintf(path, PATH_SIZE, "/proc/self/fd/%d/%s", place.fd, place.name);
}

ssize_t copy_list_xattrs(const struct copy_subject *subject, struct copy_place source)
{
    struct copy *copy = walk_context(subject->worker);
    struct copy_scratch *scratch = copy_scratch(subject->worker);
    char path[PATH_SIZE];
    ssize_t size;

    if (atomic_load_explicit(&copy->no_xattrs, memory_order_relaxed))
        return 0;
    if (source.name) {
        path_of(source, path);
        size = llistxattr(path, scratch->list, sizeof(scratch->list));
    } else {
        size = flistxattr(source.fd, scratch->list, sizeof(scratch->list));
    }
    if (size < 0 && errno == ENOTSUP) {
        atomic_store(&copy->no_xattrs, true);
        return 0;
    }
    return size < 0 ? copy_fail(subject, "list the extended attributes") : size;
}

/* What is not copied: overlayfs's own marks, which would hide or redirect files in the new place,
 * and the SELinux label, which says what may be done at a place (a layer is read-only, its copy is
 * not) and comes from the policy there. */
static int left_out(const struct copy *copy, const char *name)
{
    if (copy->into && strncmp(name, "user.", 5) != 0 &&
        (strcmp(name, "security.capability") != 0 ||
         !(copy->into->flags & PYRTC_COPY_CAPABILITIES)))
        return 1;
    static const char *const prefixes[] = {
        "trusted.overlay.",
        "user.overlay.",
        "security.selinux",
    };

    if (copy->flags & PYRTC_COPY_LAYER &&
        (strcmp(name, "trusted.overlay.opaque") == 0 || strcmp(name, "user.overlay.opaque") == 0))
        return 0;
    for (size_t index = 0; index < sizeof(prefixes) / sizeof(*prefixes); index++) {
        if (strncmp(name, prefixes[index], strlen(prefixes[index])) == 0)
            return 1;
    }
    return 0;
}

/* An ordinary user cannot give a file powers (file capabilities) that the user does not have. */
static int may_be_refused(const struct copy *copy, const char *name)
{
    if (copy->into)
        return errno == ENOTSUP || errno == EPERM;
    return copy->flags & PYRTC_COPY_NO_OWNER && errno == EPERM &&
           (strncmp(name, "security.", 9) == 0 || strncmp(name, "trusted.", 8) == 0);
}

static int copy_xattrs(const struct copy_subject *subject, struct copy_place source,
                       struct copy_place target, ssize_t list_size)
{
    const struct copy *copy = walk_context(subject->worker);
    struct copy_scratch *scratch = copy_scratch(subject->worker);
    char from[PATH_SIZE], to[PATH_SIZE];

    if (source.name) {
        path_of(source, from);
        path_of(target, to);
    }
    for (const char *name = scratch->list; name < scratch->list + list_size;
         name += strlen(name) + 1) {
        ssize_t size;
        int result;

        if (left_out(copy, name))
            continue;
        size = source.name ? lgetxattr(from, name, scratch->value, sizeof(scratch->value))
                           : fgetxattr(source.fd, name, scratch->value, sizeof(scratch->value));
        if (size < 0 && errno == ENODATA)
            continue;
        if (size < 0)
            return copy_fail(subject, "read an extended attribute");
        result = source.name ? lsetxattr(to, name, scratch->value, (size_t)size, 0)
                             : fsetxattr(target.fd, name, scratch->value, (size_t)size, 0);
        if (result < 0 && !may_be_refused(copy, name)) {
            char step[64];
            int code = errno;
            snprintf(step, sizeof(step), "set the extended attribute %.32s", name);
            errno = code;
            return copy_fail(subject, step);
        }
    }
    return 0;
}

static const char *name_or_empty(struct copy_place place)
{
    return place.name ? place.name : "";
}

static int set_mode(const struct copy *copy, struct copy_place place, mode_t kind, mode_t mode)
{
    if (copy->into && place.name)
        return copy_chmod_special(place.fd, place.name, kind, mode);
    /* A name is only ever given for what was just made by mknodat() in a directory that is nobody
     * else's. */
    return place.name ? fchmodat(place.fd, place.name, mode, 0) : fchmod(place.fd, mode);
}

/* The order matters. The owner first, because giving a file away clears set-user-id bits and file
 * capabilities. Extended attributes next, while an ordinary owner may still write; an ACL among
 * them changes the mode. The mode after them, the times last, because everything before touches
 * them. What is right already is not set again: a call that changes an inode costs ten times one
 * that reads it. */
int copy_attributes(const struct copy_subject *subject, const struct walk_attributes *attributes,
                    struct copy_place source, struct copy_place target, ssize_t list_size)
{
    const struct copy *copy = walk_context(subject->worker);
    int flags = target.name ? AT_SYMLINK_NOFOLLOW : AT_EMPTY_PATH;
    mode_t mode = attributes->mode & 07777;
    struct stat now;

    if (fstatat(target.fd, name_or_empty(target), &now, flags) < 0)
        return copy_fail(subject, "examine the copy");
    if (copy->into) {
        uid_t uid;
        gid_t gid;

        if (copy_owner(copy, attributes, &uid, &gid, &mode) < 0)
            return copy_fail(subject, "keep the owner, whom the other side has no number for");
        if ((now.st_uid != uid || now.st_gid != gid) &&
            fchownat(target.fd, name_or_empty(target), uid, gid, flags) < 0)
            return copy_fail(subject, "set the owner");
    } else if (now.st_uid != attributes->uid || now.st_gid != attributes->gid) {
        if (!(copy->flags & PYRTC_COPY_NO_OWNER)) {
            if (fchownat(target.fd, name_or_empty(target), attributes->uid, attributes->gid,
                         flags) < 0)
                return copy_fail(subject, "set the owner");
        } else {
            /* With another owner these bits would grant something else than they did. */
            if (now.st_uid != attributes->uid)
                mode &= ~(mode_t)S_ISUID;
            if (now.st_gid != attributes->gid && !S_ISDIR(attributes->mode))
                mode &= ~(mode_t)S_ISGID;
        }
    }
    if (list_size > 0 && copy_xattrs(subject, source, target, list_size) < 0)
        return -1;
    if (!S_ISLNK(attributes->mode) &&
        (list_size > 0 || mode & (S_ISUID | S_ISGID) || (now.st_mode & 07777) != mode) &&
        set_mode(copy, target, attributes->mode, mode) < 0)
        return copy_fail(subject, "set the mode");
    if ((target.name ? utimensat(target.fd, target.name, attributes->times, AT_SYMLINK_NOFOLLOW)
                     : futimens(target.fd, attributes->times)) < 0)
        return copy_fail(subject, "set the times");
    return 0;
}

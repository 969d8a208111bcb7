#include "copyup.h"

#include "util.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/xattr.h>

int copy_fail(const struct copy_subject *subject, const char *step)
{
    return walk_fail(subject->worker, errno, step, subject->dir, subject->name);
}

struct copy_scratch *copy_scratch(struct walk_worker *worker)
{
    return (struct copy_scratch *)worker->scratch;
}

static int make_scratch(const struct copy_subject *subject)
{
    if (!subject->worker->scratch)
        subject->worker->scratch = malloc(sizeof(struct copy_scratch));
    if (subject->worker->scratch)
        return 0;
    errno = ENOMEM;
    return copy_fail(subject, "copy");
}

/* After a name was found taken: whether it is free now. */
static int copy_retry(const struct copy_subject *subject, const struct walk_fds *fds)
{
    const struct copy *copy = walk_context(subject->worker);

    return errno == EEXIST && copy->into &&
           copy_make_way(fds->target, copy_target_name(subject)) == 0;
}

static int copy_symlink(const struct copy_subject *subject, const struct walk_fds *fds)
{
    char value[PATH_MAX];
    ssize_t size = readlinkat(fds->source, subject->name, value, sizeof(value) - 1);

    if (size < 0 && errno == EINVAL) /* no link any more */
        return walk_fail(subject->worker, ESTALE, "copy a file that was replaced", subject->dir,
                         subject->name);
    if (size < 0)
        return copy_fail(subject, "read the symbolic link");
    value[size] = '\0';
    if (symlinkat(value, fds->target, copy_target_name(subject)) == 0)
        return 0;
    if (!copy_retry(subject, fds) || symlinkat(value, fds->target, copy_target_name(subject)) < 0)
        return copy_fail(subject, "make the symbolic link");
    return 0;
}

static int make_special(const struct copy_subject *subject, const struct walk_fds *fds,
                        const struct statx *status)
{
    dev_t device = makedev(status->stx_rdev_major, status->stx_rdev_minor);

    if (S_ISLNK(status->stx_mode))
        return copy_symlink(subject, fds);
    if (mknodat(fds->target, copy_target_name(subject), (status->stx_mode & S_IFMT) | 0600,
                device) == 0)
        return 0;
    if (!copy_retry(subject, fds) || mknodat(fds->target, copy_target_name(subject),
                                             (status->stx_mode & S_IFMT) | 0600, device) < 0)
        return copy_fail(subject, "make the special file");
    return 0;
}

/* Symbolic links, devices, FIFOs and sockets. None is opened: that could block, rewind a tape or
 * start a device. What another mount covers (a bind mount on a device node) is not part of this
 * tree. */
static int copy_special(const struct copy_subject *subject, const struct walk_fds *fds)
{
    const struct copy *copy = walk_context(subject->worker);
    const struct copy_place source = {.fd = fds->source, .name = subject->name};
    const struct copy_place target = {.fd = fds->target, .name = copy_target_name(subject)};
    struct walk_attributes attributes;
    struct statx status;
    ssize_t list_size;

    if (statx(fds->source, subject->name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT,
              STATX_BASIC_STATS | STATX_MNT_ID, &status) < 0)
        return copy_fail(subject, "examine the file");
    if (status.stx_mnt_id != copy->mount && !copy->into)
        return 0;
    /* A whiteout of overlayfs, as a layer has them. It stands for a file that is not there. */
    if (S_ISCHR(status.stx_mode) && status.stx_rdev_major == 0 && status.stx_rdev_minor == 0 &&
        !(copy->flags & PYRTC_COPY_LAYER))
        return 0;
    if (S_ISREG(status.stx_mode) || S_ISDIR(status.stx_mode))
        return walk_fail(subject->worker, ESTALE, "copy a file that was replaced", subject->dir,
                         subject->name);
    if (copy->into && copy_leaves_out(subject, &status))
        return 0;
    int claim = status.stx_nlink > 1 ? copy_links_claim(subject, fds, &status) : LINK_ALONE;
    if (claim == LINK_FIRST) {
        int made = make_special(subject, fds, &status) == 0;

        if (copy_links_settle(subject, &status, made) < 0 || !made)
            return -1;
    } else if (claim != LINK_ALONE) {
        return claim == LINK_MADE ? 0 : -1;
    } else if (make_special(subject, fds, &status) < 0) {
        return -1;
    }
    list_size = copy_list_xattrs(subject, source);
    if (list_size < 0)
        return -1;
    attributes = copy_attributes_of(&status);
    return copy_attributes(subject, &attributes, source, target, list_size);
}

int copy_entry(struct walk_worker *worker, struct walk_dir *dir, const struct walk_fds *fds,
               const char *name, unsigned char type)
{
    const struct copy_subject subject = {.worker = worker, .dir = dir, .name = name};

    if (copy_count(&subject, 1, 0) < 0 || make_scratch(&subject) < 0)
        return -1;
    const struct copy *copy = walk_context(worker);
    int kind = copy->into ? copy_kind(&subject, fds) : type;

    if (kind == DT_REG)
        return copy_file(&subject, fds);
    return kind <= 0 && copy->into ? kind : copy_special(&subject, fds);
}

static int open_source_dir(int parent, const char *name)
{
    int fd = walk_open(parent, name, O_RDONLY | O_DIRECTORY | O_NOATIME);

    return fd < 0 && errno == EPERM ? walk_open(parent, name, O_RDONLY | O_DIRECTORY) : fd;
}

/* The copy of a directory is its maker's alone until everything in it was made. Where a file system
 * is mounted on the source's directory, the place stays, empty. */
static int enter_dir(struct walk_worker *worker, struct walk_dir *dir,
                     const struct walk_fds *parent, struct walk_fds *fds)
{
    const struct copy *copy = walk_context(worker);
    const struct copy_subject subject = {.worker = worker, .dir = dir};
    struct statx status;
    struct walk_identity here;

    fds->source = open_source_dir(parent->source, dir->name);
    if (fds->source < 0 && errno == EXDEV) {
        if (mkdirat(parent->target, dir->name, 0755) < 0)
            return copy_fail(&subject, "make the directory");
        return WALK_LEAVE_OUT;
    }
    if (fds->source < 0)
        return copy_fail(&subject, "open the directory");
    if (statx(fds->source, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &status) < 0)
        return copy_fail(&subject, "examine the directory");
    here = (struct walk_identity){
        .device = makedev(status.stx_dev_major, status.stx_dev_minor),
        .inode = status.stx_ino,
    };
    if (here.device == copy->target_root.device && here.inode == copy->target_root.inode)
        return walk_fail(worker, ELOOP, "copy a tree into itself", dir, NULL);
    dir->attributes = copy_attributes_of(&status);
    if (mkdirat(parent->target, dir->name, 0700) < 0)
        return copy_fail(&subject, "make the directory");
    fds->target =
        openat(parent->target, dir->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fds->target < 0 ? copy_fail(&subject, "open the directory that was made") : WALK_GO_ON;
}

int copy_finish_dir(struct walk_worker *worker, struct walk_dir *dir, const struct walk_fds *fds)
{
    const struct copy *copy = walk_context(worker);
    const struct copy_subject subject = {.worker = worker, .dir = dir};
    const struct copy_place source = {.fd = fds->source};
    ssize_t list_size;

    if (make_scratch(&subject) < 0)
        return -1;
    if (!dir->parent)
        dir->attributes = copy->root;
    list_size = copy_list_xattrs(&subject, source);
    if (list_size < 0)
        return -1;
    return copy_attributes(&subject, &dir->attributes, source,
                           (struct copy_place){.fd = fds->target}, list_size);
}

/* Make the root of the copy private and plain, so that nothing below inherits a group or an ACL
 * from it; it gets the source's attributes at the end like any other directory. */
static int prepare(struct copy *copy, int source, int target, struct pyrtc_error *error)
{
    static const char *const acls[] = {"system.posix_acl_default", "system.posix_acl_access"};
    struct statx status;
    struct stat root;

    if (statx(source, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_MNT_ID, &status) < 0)
        return pyrtc_fail(error, errno, "examine the tree to copy", "%s", "");
    copy->mount = status.stx_mnt_id;
    copy->root = copy_attributes_of(&status);
    if (fstat(target, &root) < 0)
        return pyrtc_fail(error, errno, "examine the directory to copy to", "%s", "");
    copy->target_root = (struct walk_identity){.device = root.st_dev, .inode = root.st_ino};
    for (size_t index = 0; index < sizeof(acls) / sizeof(*acls); index++) {
        if (fremovexattr(target, acls[index]) < 0 && errno != ENODATA && errno != ENOTSUP)
            return pyrtc_fail(error, errno, "prepare the directory to copy to", "%s", "");
    }
    if (fchmod(target, 0700) < 0)
        return pyrtc_fail(error, errno, "prepare the directory to copy to", "%s", "");
    return 0;
}

int pyrtc_copy_tree(int32_t source_fd, int32_t target_fd, uint32_t flags,
                    struct pyrtc_copy_result *result, struct pyrtc_error *error)
{
    static const struct walk_operations operations = {
        .enter = enter_dir,
        .file = copy_entry,
        .finish = copy_finish_dir,
    };
    struct copy copy = {.flags = flags, .uid = geteuid(), .gid = getegid(), .target = target_fd};
    struct walk_worker totals = {0};
    int outcome;

    if (prepare(&copy, source_fd, target_fd, error) < 0)
        return -1;
    copy.links = copy_links_new();
    if (!copy.links)
        return pyrtc_fail(error, ENOMEM, "copy the tree", "%s", "");
    outcome =
        walk_tree(&operations, &copy, source_fd, target_fd, walk_spare_threads(), &totals, error);
    copy_links_free(copy.links);
    *result = (struct pyrtc_copy_result){
        .entries = totals.entries,
        .bytes = totals.bytes,
        .reflinked = totals.reflinked,
    };
    return outcome;
}

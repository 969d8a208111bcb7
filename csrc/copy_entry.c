/*
 * Copying one file or tree to a place where there may be something already, between trees of which
 * either may be changed by somebody hostile meanwhile: files into a container and out of it.
 *
 * Names are looked up one at a time beneath descriptors and never followed; what is found is
 * examined through the descriptor that is then used. What is made belongs to whom the caller says.
 */
#include "copyup.h"

#include "util.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/vfs.h>

#define STEP "copy"

enum { MQUEUE = 0x19800202, BINFMT = 0x42494e4d, CONFIGFS = 0x62656570, FUSECTL = 0x65735543 };

const char *copy_target_name(const struct copy_subject *subject)
{
    const struct copy *copy = walk_context(subject->worker);

    return copy->renamed ? copy->renamed : subject->name;
}

/* Interfaces of the kernel in the form of files: not what somebody who copies a tree means, without
 * end, and some of them act when they are read. */
static int is_interface(int fd)
{
    struct statfs about;

    if (fstatfs(fd, &about) < 0)
        return 0;
    switch ((unsigned long)about.f_type) {
    case PROC_SUPER_MAGIC:
    case SYSFS_MAGIC:
    case CGROUP_SUPER_MAGIC:
    case CGROUP2_SUPER_MAGIC:
    case DEVPTS_SUPER_MAGIC:
    case DEBUGFS_MAGIC:
    case TRACEFS_MAGIC:
    case SECURITYFS_MAGIC:
    case BPF_FS_MAGIC:
    case EFIVARFS_MAGIC:
    case PSTOREFS_MAGIC:
    case SELINUX_MAGIC:
    case MQUEUE:
    case BINFMT:
    case CONFIGFS:
    case FUSECTL:
        return 1;
    default:
        return 0;
    }
}

int pyrtc_kernel_interface(int32_t fd)
{
    return is_interface(fd);
}

int copy_count(const struct copy_subject *subject, uint64_t entries, uint64_t bytes)
{
    struct copy *copy = walk_context(subject->worker);

    if (!copy->into)
        return 0;
    if (atomic_fetch_add(&copy->entries, entries) + entries > copy->into->max_entries)
        return walk_fail(subject->worker, EFBIG, "copy more than the limit of entries",
                         subject->dir, subject->name);
    if (bytes > copy->into->max_bytes ||
        atomic_fetch_add(&copy->bytes, bytes) + bytes > copy->into->max_bytes)
        return walk_fail(subject->worker, EFBIG, "copy more than the limit of bytes", subject->dir,
                         subject->name);
    return 0;
}

int copy_kind(const struct copy_subject *subject, const struct walk_fds *fds)
{
    struct stat status;

    if (fstatat(fds->source, subject->name, &status, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) < 0)
        return errno == ENOENT ? 0 : copy_fail(subject, "examine the file");
    return IFTODT(status.st_mode);
}

int copy_make_way(int target, const char *name)
{
    struct stat status;

    if (fstatat(target, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : -1;
    if (S_ISDIR(status.st_mode)) {
        errno = EISDIR;
        return -1;
    }
    return unlinkat(target, name, 0) < 0 && errno != ENOENT ? -1 : 0;
}

/* A file that is mounted over (/etc/hosts of a container) cannot be replaced, but written. It is
 * examined before it is opened for that: opening a device would be using it. */
static int open_mounted(int target, const char *name)
{
    owned_fd int found = openat(target, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    char path[32];
    struct stat status;

    if (found < 0 || fstat(found, &status) < 0)
        return -1;
    if (!S_ISREG(status.st_mode) || is_interface(found)) {
        errno = EBUSY;
        return -1;
    }
    snprintf(path, sizeof(path), "/proc/self/fd/%d", found);
    return open(path, O_WRONLY | O_TRUNC | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

int copy_create_into(int target, const char *name)
{
    enum { ATTEMPTS = 100 };

    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        int fd = openat(target, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd >= 0 || errno != EEXIST)
            return fd;
        if (copy_make_way(target, name) < 0)
            return errno == EBUSY ? open_mounted(target, name) : -1;
    }
    errno = EEXIST;
    return -1;
}

/* Open what was found first, and only what is a regular file: to open a FIFO or device is to use
 * it. */
int copy_open_examined(int dir, const char *name, struct statx *status)
{
    owned_fd int found = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    const int flags = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
    char path[32];
    int fd;

    if (found < 0 || statx(found, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_MNT_ID, status) < 0)
        return -1;
    if (!S_ISREG(status->stx_mode)) {
        errno = ESTALE;
        return -1;
    }
    snprintf(path, sizeof(path), "/proc/self/fd/%d", found);
    fd = open(path, flags | O_NOATIME);
    return fd < 0 && errno == EPERM ? open(path, flags) : fd;
}

int copy_chmod_special(int dir, const char *name, mode_t kind, mode_t mode)
{
    owned_fd int found = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    char path[32];
    struct stat status;

    if (found < 0 || fstat(found, &status) < 0)
        return -1;
    if ((status.st_mode & S_IFMT) != (kind & S_IFMT)) {
        errno = ESTALE;
        return -1;
    }
    snprintf(path, sizeof(path), "/proc/self/fd/%d", found);
    return chmod(path, mode);
}

static int find(const struct pyrtc_id_range *ranges, uint32_t count, uint32_t id, uint32_t *other)
{
    for (uint32_t i = 0; i < count; i++) {
        if (id >= ranges[i].first && id - ranges[i].first < ranges[i].count) {
            *other = ranges[i].other + (id - ranges[i].first);
            return 1;
        }
    }
    return 0;
}

/* A set-user-id bit says whose powers a program has. It comes along only where the copy belongs to
 * the one who stands for the original's owner. */
int copy_owner(const struct copy *copy, const struct walk_attributes *attributes, uid_t *uid,
               gid_t *gid, mode_t *mode)
{
    const struct pyrtc_copy_options *into = copy->into;
    uint32_t mapped_uid = 0, mapped_gid = 0;
    int has_uid = find(into->uids, into->uid_count, attributes->uid, &mapped_uid);
    int has_gid = find(into->gids, into->gid_count, attributes->gid, &mapped_gid);

    if (into->flags & PYRTC_COPY_OWNERS) {
        if (!has_uid || !has_gid) {
            errno = EOVERFLOW;
            return -1;
        }
        *uid = mapped_uid;
        *gid = mapped_gid;
        return 0;
    }
    *uid = into->uid;
    *gid = into->gid;
    if (!has_uid || mapped_uid != into->uid)
        *mode &= ~(mode_t)S_ISUID;
    if ((!has_gid || mapped_gid != into->gid) && !S_ISDIR(attributes->mode))
        *mode &= ~(mode_t)S_ISGID;
    return 0;
}

int copy_leaves_out(const struct copy_subject *subject, const struct statx *status)
{
    struct copy *copy = walk_context(subject->worker);
    int device = S_ISCHR(status->stx_mode) || S_ISBLK(status->stx_mode);

    if (!S_ISSOCK(status->stx_mode) && !(device && !(copy->into->flags & PYRTC_COPY_DEVICES)))
        return 0;
    atomic_fetch_add(&copy->skipped, 1);
    return 1;
}

/* Open the directory name in target, making it where it is missing. */
static int open_target(int target, const char *name, int *existed)
{
    int fd;

    *existed = mkdirat(target, name, 0700) < 0;
    if (*existed && errno != EEXIST)
        return -1;
    fd = openat(target, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == ELOOP)
        errno = ENOTDIR;
    return fd;
}

static int enter_dir(struct walk_worker *worker, struct walk_dir *dir,
                     const struct walk_fds *parent, struct walk_fds *fds)
{
    struct copy *copy = walk_context(worker);
    const struct copy_subject subject = {.worker = worker, .dir = dir};
    struct statx status;

    if (copy_count(&subject, 1, 0) < 0)
        return -1;
    fds->source = walk_open_across(parent->source, dir->name, O_RDONLY | O_DIRECTORY);
    if (fds->source < 0 && errno == ENOENT)
        return WALK_LEAVE_OUT; /* gone meanwhile */
    if (fds->source < 0 ||
        statx(fds->source, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_MNT_ID, &status) < 0)
        return copy_fail(&subject, "open the directory");
    if (makedev(status.stx_dev_major, status.stx_dev_minor) == copy->target_root.device &&
        status.stx_ino == copy->target_root.inode)
        return walk_fail(worker, ELOOP, "copy a tree into itself", dir, NULL);
    dir->attributes = copy_attributes_of(&status);
    fds->target = open_target(parent->target, dir->name, &dir->existed);
    if (fds->target < 0)
        return errno == ENOTDIR ? walk_fail(worker, ENOTDIR,
                                            "overwrite a non-directory with a directory", dir, NULL)
                                : copy_fail(&subject, "make the directory");
    if (status.stx_mnt_id != copy->mount && is_interface(fds->source)) {
        atomic_fetch_add(&copy->skipped, 1);
        return WALK_LEAVE_OUT;
    }
    return WALK_GO_ON;
}

static int finish_dir(struct walk_worker *worker, struct walk_dir *dir, const struct walk_fds *fds)
{
    const struct copy *copy = walk_context(worker);

    if (!dir->parent && (copy->root_existed || !copy->into->target_name) &&
        !(copy->into->flags & PYRTC_COPY_DIRECTORIES && copy->into->target_name))
        return 0;
    if (dir->parent && dir->existed && !(copy->into->flags & PYRTC_COPY_DIRECTORIES))
        return 0;
    return copy_finish_dir(worker, dir, fds);
}

static const struct walk_operations operations = {
    .enter = enter_dir,
    .file = copy_entry,
    .finish = finish_dir,
    .across = 1,
};

static int copy_directory(struct copy *copy, struct walk_worker *totals, struct pyrtc_error *error)
{
    const struct pyrtc_copy_options *options = copy->into;
    const char *name = options->source_name ? options->source_name : ".";
    owned_fd int source = walk_open_across(options->source_fd, name, O_RDONLY | O_DIRECTORY);
    owned_fd int target = -1;
    struct statx status;
    struct stat root;

    if (source < 0)
        return pyrtc_fail(error, errno, "open the directory", "%s", name);
    if (options->target_name)
        target = open_target(options->target_fd, options->target_name, &copy->root_existed);
    else
        target = openat(options->target_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (target < 0 && errno == ENOTDIR)
        return pyrtc_fail(error, ENOTDIR, "overwrite a non-directory with a directory", "%s",
                          options->target_name);
    if (target < 0)
        return pyrtc_fail(error, errno, "make the directory", "%s",
                          options->target_name ? options->target_name : "");
    if (statx(source, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_MNT_ID, &status) < 0 ||
        fstat(target, &root) < 0)
        return pyrtc_fail(error, errno, "examine the directory", "%s", name);
    copy->mount = status.stx_mnt_id;
    copy->root = copy_attributes_of(&status);
    copy->target = target;
    copy->target_root = (struct walk_identity){.device = root.st_dev, .inode = root.st_ino};
    if (makedev(status.stx_dev_major, status.stx_dev_minor) == root.st_dev &&
        status.stx_ino == root.st_ino)
        return pyrtc_fail(error, ELOOP, "copy a tree into itself", "%s", "");
    copy->entries = 1;
    return walk_tree(&operations, copy, source, target, walk_spare_threads(), totals, error);
}

static int copy_one(struct copy *copy, const struct statx *status, struct walk_worker *totals,
                    struct pyrtc_error *error)
{
    const struct pyrtc_copy_options *options = copy->into;

    if (!options->target_name)
        return pyrtc_fail(error, EINVAL, STEP, "a file needs a name to be copied to");
    copy->mount = status->stx_mnt_id;
    copy->target = options->target_fd;
    copy->renamed = options->target_name;
    return walk_one(&operations, copy, options->source_fd, options->target_fd, options->source_name,
                    S_ISREG(status->stx_mode) ? DT_REG : DT_UNKNOWN, totals, error);
}

int pyrtc_copy_entry(const struct pyrtc_copy_options *options, struct pyrtc_copy_result *result,
                     struct pyrtc_error *error)
{
    struct copy copy = {
        .flags = options->flags,
        .uid = options->uid,
        .gid = options->gid,
        .into = options,
    };
    struct walk_worker totals = {0};
    struct statx status = {0};
    int directory = 1, outcome;

    if (options->source_name) {
        if (statx(options->source_fd, options->source_name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT,
                  STATX_BASIC_STATS | STATX_MNT_ID, &status) < 0)
            return pyrtc_fail(error, errno, "examine the file", "%s", options->source_name);
        directory = S_ISDIR(status.stx_mode);
    }
    copy.links = copy_links_new();
    if (!copy.links)
        return pyrtc_fail(error, ENOMEM, STEP, "%s", "");
    outcome = directory ? copy_directory(&copy, &totals, error)
                        : copy_one(&copy, &status, &totals, error);
    copy_links_free(copy.links);
    *result = (struct pyrtc_copy_result){
        .entries = copy.entries,
        .bytes = copy.bytes,
        .reflinked = totals.reflinked,
        .skipped = copy.skipped,
    };
    return outcome;
}

#include "copyup.h"

#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

enum {
    RANGE_SIZE = 1 << 30, /* one copy_file_range(); the kernel stops below 2 GiB anyway */
};

/* 1: the files share their blocks now; 0: they cannot. Only what says that the file system is to
 * blame is remembered. */
static int reflink(struct copy *copy, int source, int target)
{
    if (atomic_load_explicit(&copy->no_reflink, memory_order_relaxed))
        return 0;
    if (ioctl(target, FICLONE, source) == 0)
        return 1;
    if (errno == EOPNOTSUPP || errno == ENOTTY || errno == EXDEV || errno == ENOSYS)
        atomic_store(&copy->no_reflink, true);
    return 0;
}

static int write_all(int target, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t written = write(target, data, size);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return -1;
        data += written;
        size -= (size_t)written;
    }
    return 0;
}

/* Copy size bytes at the position of both files through memory. Returns how many there were: a file
 * that shrank meanwhile has fewer. */
static int64_t copy_through_memory(const struct copy_subject *subject, int source, int target,
                                   uint64_t size)
{
    struct copy_scratch *scratch = copy_scratch(subject->worker);
    uint64_t left = size;

    while (left > 0) {
        size_t wanted = left < sizeof(scratch->data) ? (size_t)left : sizeof(scratch->data);
        ssize_t got = read(source, scratch->data, wanted);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return copy_fail(subject, "read the file");
        if (got == 0)
            break;
        if (write_all(target, scratch->data, (size_t)got) < 0)
            return copy_fail(subject, "write the file");
        left -= (uint64_t)got;
    }
    return (int64_t)(size - left);
}

/* Copy size bytes at the position of both files. What fits into the buffer is read and written:
 * that is two calls in any case, and cheaper than setting up a copy inside the kernel. */
static int64_t copy_range(const struct copy_subject *subject, int source, int target, uint64_t size)
{
    struct copy *copy = walk_context(subject->worker);
    uint64_t left = size;

    while (left > DATA_SIZE && !atomic_load_explicit(&copy->no_copy_range, memory_order_relaxed)) {
        size_t wanted = left < RANGE_SIZE ? (size_t)left : RANGE_SIZE;
        ssize_t got = copy_file_range(source, NULL, target, NULL, wanted, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && (errno == ENOSPC || errno == EDQUOT || errno == EIO || errno == EFBIG))
            return copy_fail(subject, "copy the file");
        if (got < 0)
            atomic_store(&copy->no_copy_range, true);
        if (got <= 0)
            break; /* 0: the end, or a file system that cannot tell; reading decides */
        left -= (uint64_t)got;
    }
    if (left > 0) {
        int64_t got = copy_through_memory(subject, source, target, left);
        if (got < 0)
            return -1;
        left -= (uint64_t)got;
    }
    return (int64_t)(size - left);
}

/* Copy what is not a hole. */
static int copy_sparse(const struct copy_subject *subject, int source, int target, off_t size)
{
    off_t at = 0;

    while (at < size) {
        off_t data = lseek(source, at, SEEK_DATA);
        off_t hole;
        int64_t got;

        if (data < 0 && errno == ENXIO)
            break;
        if (data < 0)
            return copy_fail(subject, "find the holes of the file");
        if (data >= size)
            break;
        hole = lseek(source, data, SEEK_HOLE);
        if (hole < 0 || lseek(source, data, SEEK_SET) < 0 || lseek(target, data, SEEK_SET) < 0)
            return copy_fail(subject, "find the holes of the file");
        if (hole > size)
            hole = size;
        got = copy_range(subject, source, target, (uint64_t)(hole - data));
        if (got < 0)
            return -1;
        subject->worker->bytes += (uint64_t)got;
        if (got < hole - data)
            return 0;
        at = hole;
    }
    return ftruncate(target, size) < 0 ? copy_fail(subject, "set the size of the file") : 0;
}

/* Files that the kernel makes up say that they are empty. */
static int copy_unsized(const struct copy_subject *subject, int source, int target)
{
    enum { LIMIT = 1 << 26 };
    int64_t got = copy_through_memory(subject, source, target, LIMIT);

    if (got < 0)
        return -1;
    if (got == LIMIT) {
        errno = EFBIG;
        return copy_fail(subject, "copy a file without end");
    }
    subject->worker->bytes += (uint64_t)got;
    return copy_count(subject, 0, (uint64_t)got);
}

static int copy_data(const struct copy_subject *subject, int source, int target,
                     const struct statx *status)
{
    struct copy *copy = walk_context(subject->worker);
    int64_t got;

    if (status->stx_size == 0)
        return copy->into ? copy_unsized(subject, source, target) : 0;
    if (reflink(walk_context(subject->worker), source, target)) {
        subject->worker->reflinked++;
        return 0;
    }
    if (status->stx_blocks * 512 < status->stx_size)
        return copy_sparse(subject, source, target, (off_t)status->stx_size);
    got = copy_range(subject, source, target, status->stx_size);
    if (got < 0)
        return -1;
    subject->worker->bytes += (uint64_t)got;
    return 0;
}

/* Without O_NOATIME the kernel would write an access time into the source for each file that is
 * read; it is granted to the file's owner and to root. O_NONBLOCK and O_NOCTTY make the open
 * harmless should the name have become something else than a regular file. */
static int open_source(int dir, const char *name)
{
    const uint64_t flags = O_RDONLY | O_NONBLOCK | O_NOCTTY;
    int fd = walk_open(dir, name, flags | O_NOATIME);

    return fd < 0 && errno == EPERM ? walk_open(dir, name, flags) : fd;
}

/* Until it has its owner, the copy is open to nobody else. */
static int create(const struct copy_subject *subject, const struct walk_fds *fds,
                  const struct statx *status, int plain)
{
    const struct copy *copy = walk_context(subject->worker);
    if (copy->into)
        return copy_create_into(fds->target, copy_target_name(subject));
    int own = status->stx_uid == copy->uid && status->stx_gid == copy->gid;
    mode_t mode = own && plain ? status->stx_mode & 0777 : 0600;

    return openat(fds->target, subject->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                  mode);
}

int copy_file(const struct copy_subject *subject, const struct walk_fds *fds)
{
    struct walk_attributes attributes;
    struct statx status;
    const struct copy *copy = walk_context(subject->worker);
    owned_fd int source = copy->into ? copy_open_examined(fds->source, subject->name, &status)
                                     : open_source(fds->source, subject->name);
    owned_fd int target = -1;
    ssize_t list_size;

    if (source < 0)
        return errno == EXDEV && !copy->into ? 0 : copy_fail(subject, "open the file");
    if (statx(source, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &status) < 0)
        return copy_fail(subject, "examine the file");
    if (!S_ISREG(status.stx_mode))
        return walk_fail(subject->worker, ESTALE, "copy a file that was replaced", subject->dir,
                         subject->name);
    uint64_t allocated = status.stx_blocks * 512;
    if (copy_count(subject, 0, allocated < status.stx_size ? allocated : status.stx_size) < 0)
        return -1;
    list_size = copy_list_xattrs(subject, (struct copy_place){.fd = source});
    if (list_size < 0)
        return -1;
    int claim = status.stx_nlink > 1 ? copy_links_claim(subject, fds, &status) : LINK_ALONE;
    if (claim == LINK_FIRST) {
        int code;

        target = create(subject, fds, &status, list_size == 0);
        code = errno;
        if (copy_links_settle(subject, &status, target >= 0) < 0)
            return -1;
        errno = code;
    } else if (claim != LINK_ALONE) {
        return claim == LINK_MADE ? 0 : -1;
    } else {
        target = create(subject, fds, &status, list_size == 0);
    }
    if (target < 0)
        return copy_fail(subject, "make the file");
    if (copy_data(subject, source, target, &status) < 0)
        return -1;
    attributes = copy_attributes_of(&status);
    return copy_attributes(subject, &attributes, (struct copy_place){.fd = source},
                           (struct copy_place){.fd = target}, list_size);
}

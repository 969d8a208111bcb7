/*
 * What one entry of a tree becomes in a layer's tar. The tree may be a container's: a descriptor is
 * examined after it was opened, and what is written is exactly as long as its header announced.
 */
#include "tardiff_entry.h"

#include "error.h"
#include "util.h"
#include "walk.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

int tardiff_set_path(struct tardiff *diff, size_t base, const char *name, const char *end,
                     struct pyrtc_error *error)
{
    size_t size = strlen(name), more = strlen(end);

    if (tar_text_reserve(&diff->path, base + size + more, error) < 0)
        return -1;
    memcpy(diff->path.data + base, name, size);
    memcpy(diff->path.data + base + size, end, more + 1);
    diff->path.size = base + size + more;
    return 0;
}

static struct timespec clamped(const struct tardiff *diff, struct timespec time)
{
    int64_t limit = diff->options->latest;

    if (diff->options->clamp && (time.tv_sec > limit || (time.tv_sec == limit && time.tv_nsec > 0)))
        return (struct timespec){.tv_sec = limit};
    return time;
}

int tardiff_write_header(struct tardiff *diff, char type, const struct stat *status,
                         const char *link, const struct attribute_source *source,
                         struct pyrtc_error *error)
{
    bool device = type == '3' || type == '4';
    struct tar_item item = {
        .type = type,
        .path = *diff->path.data ? diff->path.data : "./",
        .link = link,
        .mode = status->st_mode & 07777,
        .uid = diff->options->no_owners ? 0 : status->st_uid,
        .gid = diff->options->no_owners ? 0 : status->st_gid,
        .major = device ? major(status->st_rdev) : 0,
        .minor = device ? minor(status->st_rdev) : 0,
        .size = type == '0' ? (uint64_t)status->st_size : 0,
        .mtime = clamped(diff, status->st_mtim),
    };

    if (diff->result->entries++ >= diff->options->max_entries)
        return pyrtc_fail(error, 0, TARDIFF_STEP, "more than %llu entries",
                          (unsigned long long)diff->options->max_entries);
    if (source) {
        if (attributes_read(&diff->room, source, &diff->attributes,
                            &diff->result->attributes_skipped, error) < 0)
            return -1;
        item.attributes = &diff->attributes;
    }
    return tar_write_item(&diff->sink, &item, &diff->records, error);
}

/* A whiteout is an empty file whose name is all that counts: its own times and owner would only
 * make equal layers differ. */
int tardiff_write_whiteout(struct tardiff *diff, size_t base, const char *prefix, const char *name,
                           struct pyrtc_error *error)
{
    static const struct stat nothing = {.st_mode = S_IFREG | 0600};

    if (tardiff_set_path(diff, base, prefix, name, error) < 0)
        return -1;
    return tardiff_write_header(diff, '0', &nothing, NULL, NULL, error);
}

/* Write the data behind a header, exactly as much as it announces. Holes are written as the zeros
 * they are read as. */
static int write_data(struct tardiff *diff, int fd, uint64_t size, struct pyrtc_error *error)
{
    uint64_t left = size;

    diff->result->bytes += size;
    if (size > diff->options->max_bytes || diff->result->bytes > diff->options->max_bytes)
        return pyrtc_fail(error, 0, TARDIFF_STEP, "more than %llu bytes of data",
                          (unsigned long long)diff->options->max_bytes);
    if (diff->options->headers_only)
        return 0;
    while (left) {
        uint8_t *room;
        size_t part;
        if (sink_room(&diff->sink, &room, &part, error) < 0)
            return -1;
        ssize_t got = read(fd, room, part < left ? part : (size_t)left);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return pyrtc_fail(error, errno, "read a file", "%s", "");
        if (got == 0)
            return pyrtc_fail(error, 0, "read a file", "it became shorter meanwhile");
        sink_took(&diff->sink, (size_t)got);
        left -= (uint64_t)got;
    }
    return sink_zeros(&diff->sink, -size % TAR_BLOCK_SIZE, error);
}

int tardiff_open(int directory, const char *name, uint64_t flags)
{
    int fd = walk_open(directory, name, flags | O_NOATIME);

    return fd < 0 && errno == EPERM ? walk_open(directory, name, flags) : fd;
}

/* Linux 6.13 and later; before, and where a filter knows no such call, it fails. */
static bool has_no_attributes(int directory, const char *name)
{
    enum { LISTXATTRAT = 465 };
    long size = syscall(LISTXATTRAT, directory, name, AT_SYMLINK_NOFOLLOW, NULL, (size_t)0);

    return size == 0;
}

int tardiff_write_file(struct tardiff *diff, int directory, const char *name,
                       const struct stat *found, struct pyrtc_error *error)
{
    /* Most files need not be opened to be described: that is half of what a fingerprint costs. */
    if (diff->options->headers_only && has_no_attributes(directory, name)) {
        if (tardiff_write_header(diff, '0', found, NULL, NULL, error) < 0)
            return -1;
        return write_data(diff, -1, (uint64_t)found->st_size, error);
    }
    /* Whatever took the file's place meanwhile must not be waited for. */
    owned_fd int fd = tardiff_open(directory, name, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    struct stat status;

    if (fd < 0 || fstat(fd, &status) < 0)
        return pyrtc_fail(error, errno, "open a file", "%s", "");
    if (!S_ISREG(status.st_mode))
        return pyrtc_fail(error, 0, "open a file", "it became something else meanwhile");
    if (tardiff_write_header(diff, '0', &status, NULL, &(struct attribute_source){.fd = fd},
                             error) < 0)
        return -1;
    return write_data(diff, fd, (uint64_t)status.st_size, error);
}

int tardiff_write_symlink(struct tardiff *diff, int directory, const char *name,
                          const struct stat *status, struct pyrtc_error *error)
{
    char target[PATH_MAX];
    ssize_t size = readlinkat(directory, name, target, sizeof(target));

    if (size < 0)
        return pyrtc_fail(error, errno, "read a symbolic link", "%s", "");
    if (size == 0 || size == sizeof(target))
        return pyrtc_fail(error, 0, "read a symbolic link", "its target is empty or too long");
    target[size] = 0;
    return tardiff_write_header(diff, '2', status, target, NULL, error);
}
